// Package natprobetest is an Internet in memory, for tests in virtual time of what asks members for this host's addresses and has
// them send to it: public hosts of both families, and one NAT or firewall with a host behind it.
//
// Kinds of NATs differ only in what is in the keys of two maps. Packets are lost only where Options say so.
//
// All methods may be called concurrently. It has no goroutines but timers that deliver packets.
package natprobetest

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"warren/nat/natkind"
)

// The host behind the NAT, and the NAT's address. Behind a firewall that does not translate (natkind.Unmapped), the host has the
// outside address itself.
var (
	Inside  = netip.MustParseAddr("192.168.1.10")
	Outside = netip.MustParseAddr("203.0.113.99")
)

// Latency is how long each packet takes.
const Latency = 10 * time.Millisecond

// queue bounds the packets that wait to be read from a socket.
const queue = 64

// Options are what the NAT and the network do; they are changed with Set.
type Options struct {
	Mapping   natkind.Mapping
	Filtering natkind.Filtering
	Hairpin   bool // it sends what goes to its own outside addresses back in
	Deaf      bool // nothing that is sent arrives anywhere
	Lossy     bool // the first packet of each transaction and direction is lost
}

// Internet is the network.
type Internet struct {
	mu      sync.Mutex
	o       Options
	sockets map[netip.AddrPort]*Socket
	next    uint16                               // the port last given out
	out     map[[2]netip.AddrPort]netip.AddrPort // (inside, what of the destination counts) → outside
	in      map[netip.AddrPort]netip.AddrPort    // outside → inside
	open    map[[2]netip.AddrPort]bool           // (outside, what of the source counts)
	forward map[netip.AddrPort]bool              // outside: open to all
	lost    map[string]bool                      // what has been lost once
}

// New returns a network without sockets.
func New(o Options) *Internet {
	return &Internet{
		o: o, next: 40000, sockets: make(map[netip.AddrPort]*Socket), out: make(map[[2]netip.AddrPort]netip.AddrPort), in: make(map[netip.AddrPort]netip.AddrPort),
		open: make(map[[2]netip.AddrPort]bool), forward: make(map[netip.AddrPort]bool), lost: make(map[string]bool),
	}
}

// Set changes the options. Mappings that there are stay.
func (i *Internet) Set(change func(*Options)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(&i.o)
}

// Home is the address of the host behind the NAT, as that host knows it.
func (i *Internet) Home() netip.Addr {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.o.Mapping == natkind.Unmapped {
		return Outside
	}
	return Inside
}

// Forward has the NAT send what comes to its port to the host, from whomever, as a port mapping does.
func (i *Internet) Forward(port uint16) {
	i.mu.Lock()
	defer i.mu.Unlock()
	outside := netip.AddrPortFrom(Outside, port)
	i.forward[outside], i.in[outside] = true, netip.AddrPortFrom(Inside, port)
	if i.o.Mapping == natkind.Unmapped {
		i.in[outside] = outside
	}
}

// counts keeps of an address what a NAT of this kind looks at.
func counts(kind int, addr netip.AddrPort) netip.AddrPort {
	switch kind {
	case 1:
		return netip.AddrPort{}
	case 2:
		return netip.AddrPortFrom(addr.Addr(), 0)
	}
	return addr
}

// outbound returns where a packet of the host behind the NAT appears to come from.
func (i *Internet) outbound(from, to netip.AddrPort) netip.AddrPort {
	kind := map[natkind.Mapping]int{natkind.MappedIndependent: 1, natkind.MappedByAddress: 2, natkind.MappedByAddressAndPort: 3}[i.o.Mapping]
	if i.o.Mapping == natkind.Unmapped {
		i.out[[2]netip.AddrPort{from}] = from
		kind = 1
	}
	k := [2]netip.AddrPort{from, counts(kind, to)}
	if !i.out[k].IsValid() {
		i.next++
		i.out[k] = netip.AddrPortFrom(Outside, i.next)
	}
	i.in[i.out[k]] = from
	i.open[[2]netip.AddrPort{i.out[k], i.source(to)}] = true
	return i.out[k]
}

func (i *Internet) source(addr netip.AddrPort) netip.AddrPort {
	return counts(map[natkind.Filtering]int{natkind.FilteredNot: 1, natkind.FilteredByAddress: 2, natkind.FilteredByAddressAndPort: 3}[i.o.Filtering], addr)
}

func (i *Internet) behind(addr netip.Addr) bool {
	return addr == Inside || i.o.Mapping == natkind.Unmapped && addr == Outside
}

// inbound returns where a packet to the NAT's address goes.
func (i *Internet) inbound(from, to netip.AddrPort) (netip.AddrPort, bool) {
	mapped, known := i.in[to]
	switch {
	case known && (i.forward[to] || i.open[[2]netip.AddrPort{to, i.source(from)}]):
		return mapped, true
	case known:
		return netip.AddrPort{}, false
	}
	return to, i.o.Mapping == natkind.Unmapped && i.o.Filtering == natkind.FilteredNot
}

func (i *Internet) send(from, to netip.AddrPort, raw []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.o.Deaf {
		return
	}
	if which := string(raw[:min(20, len(raw))]) + to.String(); i.o.Lossy && !i.lost[which] {
		i.lost[which] = true
		return
	}
	if i.behind(from.Addr()) {
		from = i.outbound(from, to)
		if to.Addr() == Outside && !i.o.Hairpin {
			return
		}
	}
	if to.Addr() == Outside {
		var ok bool
		if to, ok = i.inbound(from, to); !ok {
			return
		}
	} else if to.Addr() == Inside {
		return // nobody outside has a route to it
	}
	if s := i.sockets[to]; s != nil {
		p := packet{slices.Clone(raw), from}
		time.AfterFunc(Latency, func() {
			select {
			case s.queue <- p:
			default:
			}
		})
	}
}

type packet struct {
	raw  []byte
	from netip.AddrPort
}

// Socket is a UDP socket of one host: a net.PacketConn. Deadlines do nothing.
type Socket struct {
	internet *Internet
	addr     netip.AddrPort
	queue    chan packet
	closed   chan struct{}
	once     sync.Once
}

// Socket opens a socket; port 0 stands for a free one.
func (i *Internet) Socket(addr netip.Addr, port uint16) *Socket {
	i.mu.Lock()
	defer i.mu.Unlock()
	if port == 0 {
		i.next++
		port = i.next
	}
	s := &Socket{internet: i, addr: netip.AddrPortFrom(addr, port), queue: make(chan packet, queue), closed: make(chan struct{})}
	i.sockets[s.addr] = s
	return s
}

// Addr is the socket's own address.
func (s *Socket) Addr() netip.AddrPort { return s.addr }

// Waiting returns how many packets wait to be read.
func (s *Socket) Waiting() int { return len(s.queue) }

// ReadFrom waits for a packet, or until the socket is closed.
func (s *Socket) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case x := <-s.queue:
		return copy(p, x.raw), net.UDPAddrFromAddrPort(x.from), nil
	case <-s.closed:
		return 0, nil, net.ErrClosed
	}
}

// WriteTo sends. A host has a route to addresses of its own family only.
func (s *Socket) WriteTo(p []byte, to net.Addr) (int, error) {
	addr := to.(*net.UDPAddr).AddrPort()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	if addr.Addr().Is4() != s.addr.Addr().Is4() {
		return 0, &net.OpError{Op: "write", Net: "udp", Err: syscall.ENETUNREACH}
	}
	s.internet.send(s.addr, addr, p)
	return len(p), nil
}

// Close ends the socket: its port is free again.
func (s *Socket) Close() error {
	s.once.Do(func() {
		close(s.closed)
		s.internet.mu.Lock()
		defer s.internet.mu.Unlock()
		if s.internet.sockets[s.addr] == s {
			delete(s.internet.sockets, s.addr)
		}
	})
	return nil
}

// LocalAddr is the socket's own address.
func (s *Socket) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(s.addr) }

// SetDeadline does nothing.
func (s *Socket) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (s *Socket) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (s *Socket) SetWriteDeadline(time.Time) error { return nil }
