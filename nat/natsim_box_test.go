package nat

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"
)

type natKind int

const (
	public            natKind = iota
	fullCone                  // endpoint-independent mapping and filtering
	addressRestricted         // endpoint-independent mapping, address-dependent filtering
	portRestricted            // endpoint-independent mapping, address- and port-dependent filtering
	sequential                // address- and port-dependent mapping and filtering, ports in a row
	symmetric                 // the same with random ports
)

func (k natKind) String() string {
	return [...]string{"public", "EIM/EIF", "EIM/ADF", "EIM/APDF", "sequential", "symmetric"}[k]
}

type simNAT struct {
	kind    natKind
	addr    netip.Addr
	next    uint16
	out     map[[2]netip.AddrPort]uint16 // (inside, destination or zero) → port
	in      map[uint16]netip.AddrPort    // port → inside
	allowed map[[2]netip.AddrPort]bool   // (outside of us, remote)
}

func (s *sim) nat(kind natKind, n byte) *simNAT {
	box := &simNAT{kind: kind, addr: netip.AddrFrom4([4]byte{203, 0, 113, n})}
	box.reset()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.boxes[box.addr] = box
	return box
}

// reset forgets all mappings, as a router does when it reboots.
func (b *simNAT) reset() {
	b.next += 40000 - b.next%1000 + 1000
	b.out, b.in, b.allowed = map[[2]netip.AddrPort]uint16{}, map[uint16]netip.AddrPort{}, map[[2]netip.AddrPort]bool{}
}

func (b *simNAT) outbound(from, to netip.AddrPort) netip.AddrPort {
	key := [2]netip.AddrPort{from}
	if b.kind >= sequential {
		key[1] = to
	}
	port, ok := b.out[key]
	if !ok {
		port = b.assign()
		b.out[key], b.in[port] = port, from
	}
	src := netip.AddrPortFrom(b.addr, port)
	b.allowed[[2]netip.AddrPort{src, to}] = true
	b.allowed[[2]netip.AddrPort{src, netip.AddrPortFrom(to.Addr(), 0)}] = true
	return src
}

// assign returns the port of a new mapping.
func (b *simNAT) assign() uint16 {
	b.next++
	for b.kind == symmetric {
		b.next = 1024 + uint16(rand.IntN(64000))
		if _, taken := b.in[b.next]; !taken {
			break
		}
	}
	return b.next
}

func (b *simNAT) inbound(from, to netip.AddrPort) (netip.AddrPort, bool) {
	inside, ok := b.in[to.Port()]
	switch b.kind {
	case fullCone:
	case addressRestricted:
		ok = ok && b.allowed[[2]netip.AddrPort{to, netip.AddrPortFrom(from.Addr(), 0)}]
	default:
		ok = ok && b.allowed[[2]netip.AddrPort{to, from}]
	}
	return inside, ok
}

// socket returns the host's socket with that address: a further one, or else the one that the host began with.
func (s *sim) socket(at netip.AddrPort) *simHost {
	if further := s.more[at]; further != nil {
		return further
	}
	return s.hosts[at.Addr()]
}

// Listen opens a further socket on a host.
func (h *simHost) Listen() (net.PacketConn, error) {
	h.sim.mu.Lock()
	defer h.sim.mu.Unlock()
	c := &simHost{sim: h.sim, addr: h.addr, box: h.box, in: make(chan simPacket, 16), done: make(chan struct{})}
	for taken := true; taken; taken = h.sim.more[c.addr] != nil {
		c.addr = netip.AddrPortFrom(h.addr.Addr(), 32768+uint16(rand.IntN(28000)))
	}
	h.sim.more[c.addr] = c
	return &simSocket{simHost: c}, nil
}

// simSocket is a further socket, with deadlines and an end.
type simSocket struct {
	*simHost
	deadline time.Time
}

func (c *simSocket) ReadFrom(p []byte) (int, net.Addr, error) {
	expired := time.NewTimer(time.Until(c.deadline))
	defer expired.Stop()
	select {
	case packet := <-c.in:
		return copy(p, packet.raw), net.UDPAddrFromAddrPort(packet.from), nil
	case <-c.done:
		return 0, nil, net.ErrClosed
	case <-expired.C:
		return 0, nil, os.ErrDeadlineExceeded
	}
}

func (c *simSocket) SetReadDeadline(at time.Time) error {
	c.deadline = at
	return nil
}

func (c *simSocket) Close() error {
	c.once.Do(func() {
		close(c.done)
		c.sim.mu.Lock()
		defer c.sim.mu.Unlock()
		delete(c.sim.more, c.addr)
	})
	return nil
}
