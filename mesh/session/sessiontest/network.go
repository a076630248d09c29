// Package sessiontest is a network in memory: packet connections with addresses, latency, loss, filters as of NATs, and
// cables that can be pulled. It carries real packets of QUIC, in real or in virtual time (testing/synctest).
//
// It knows one kind of NAT only, the usual one: endpoint-independent mapping with address- and port-dependent filtering
// (RFC 4787), as seen from outside. Other kinds, fragmentation and bandwidth are left to nat/natlab.
//
// All methods may be called concurrently. It has no goroutines of its own; packets under way are timers.
package sessiontest

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	queueSize = 4096
	// filterTime is how long a NAT lets packets in after one went out (RFC 4787, REQ-5: at least two minutes).
	filterTime = 2 * time.Minute
)

// Options describes the way between any two connections. The zero value is a network without delay or loss.
type Options struct {
	Latency time.Duration // one way
	Jitter  time.Duration // added at random; packets may overtake each other
	Loss    float64       // probability that a packet is lost
	Seed    uint64        // of the two above
}

// Network connects packet connections.
type Network struct {
	mu      sync.Mutex // guards all
	options Options
	random  *rand.Rand
	conns   map[netip.AddrPort]*PacketConn
	cut     map[[2]netip.Addr]bool
	sent    int
	sentTo  map[netip.Addr]int // of these, to each host
}

// New returns an empty network.
func New(o Options) *Network {
	return &Network{
		options: o,
		random:  rand.New(rand.NewPCG(o.Seed, 1)),
		conns:   make(map[netip.AddrPort]*PacketConn),
		cut:     make(map[[2]netip.Addr]bool),
		sentTo:  make(map[netip.Addr]int),
	}
}

// Listen returns a connection that everybody can reach at addr. It replaces an earlier one with this address.
func (n *Network) Listen(addr netip.AddrPort) *PacketConn { return n.listen(addr, false) }

// ListenNAT returns a connection behind a NAT: to others it appears at addr, and packets come in only from addresses and
// ports to which it has sent in the last two minutes.
func (n *Network) ListenNAT(addr netip.AddrPort) *PacketConn { return n.listen(addr, true) }

func (n *Network) listen(addr netip.AddrPort, nat bool) *PacketConn {
	c := &PacketConn{net: n, nat: nat, addr: addr, spoken: make(map[netip.AddrPort]time.Time)}
	c.arrived = sync.NewCond(&c.mu)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[addr] = c
	return c
}

// Cut lets no packet pass between two hosts any more, or again when cut is false.
func (n *Network) Cut(a, b netip.Addr, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]netip.Addr{a, b}], n.cut[[2]netip.Addr{b, a}] = cut, cut
}

// Sent returns how many packets have been sent so far.
func (n *Network) Sent() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent
}

// SentTo returns how many packets have been sent to a host so far, whether anybody is there or not.
func (n *Network) SentTo(host netip.Addr) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sentTo[host]
}

// carry brings a packet from one address to another, or loses it.
func (n *Network) carry(from, to netip.AddrPort, p []byte) {
	n.mu.Lock()
	n.sent++
	n.sentTo[to.Addr()]++
	lost := n.cut[[2]netip.Addr{from.Addr(), to.Addr()}] || n.options.Loss > 0 && n.random.Float64() < n.options.Loss
	delay := n.options.Latency
	if n.options.Jitter > 0 {
		delay += time.Duration(n.random.Int64N(int64(n.options.Jitter)))
	}
	n.mu.Unlock()
	if lost {
		return
	}
	n.mu.Lock()
	c := n.conns[to]
	n.mu.Unlock()
	if c == nil {
		return
	}
	due := time.Now().Add(delay)
	c.mu.Lock()
	// Sorted by time and, without jitter, in the order of sending: timers of one moment fire in any order.
	at := len(c.flying)
	for at > 0 && c.flying[at-1].due.After(due) {
		at--
	}
	c.flying = slices.Insert(c.flying, at, packet{from, to, append([]byte(nil), p...), due})
	c.mu.Unlock()
	if delay == 0 {
		c.arrive()
	} else {
		time.AfterFunc(delay, c.arrive)
	}
}

type packet struct {
	from netip.AddrPort
	to   netip.AddrPort
	data []byte
	due  time.Time
}

// PacketConn is one host's connection; it implements net.PacketConn with *net.UDPAddr addresses.
type PacketConn struct {
	net *Network // constant
	nat bool     // constant

	mu       sync.Mutex // guards the rest; never held together with the network's
	arrived  *sync.Cond
	addr     netip.AddrPort
	spoken   map[netip.AddrPort]time.Time
	flying   []packet // under way
	queue    []packet // arrived
	deadline time.Time
	timer    *time.Timer
	down     bool
	closed   bool
}

// Move gives the connection another address, as when a NAT forgets its mapping or a laptop changes networks. What the old
// NAT let in, the new one does not.
func (c *PacketConn) Move(addr netip.AddrPort) {
	c.net.mu.Lock()
	for a, other := range c.net.conns {
		if other == c {
			delete(c.net.conns, a)
		}
	}
	c.net.conns[addr] = c
	c.net.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addr = addr
	clear(c.spoken)
}

// SetDown pulls the cable, or puts it in again: while it is out, writes fail and nothing arrives.
func (c *PacketConn) SetDown(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
}

// arrive lets the next packet under way arrive, if the connection is still where it was sent to.
func (c *PacketConn) arrive() {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.flying[0]
	c.flying = c.flying[1:]
	switch {
	case c.addr != p.to, c.closed, c.down, len(c.queue) >= queueSize:
	case c.nat && time.Since(c.spoken[p.from]) > filterTime:
	default:
		c.queue = append(c.queue, p)
		c.arrived.Broadcast()
	}
}

// ReadFrom implements net.PacketConn.
func (c *PacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, nil, net.ErrClosed
		case !c.deadline.IsZero() && !c.deadline.After(time.Now()):
			return 0, nil, os.ErrDeadlineExceeded
		case len(c.queue) > 0:
			p := c.queue[0]
			c.queue = c.queue[1:]
			return copy(b, p.data), net.UDPAddrFromAddrPort(p.from), nil
		}
		c.arrived.Wait()
	}
}

// WriteTo implements net.PacketConn.
func (c *PacketConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, &net.AddrError{Err: "not a UDP address", Addr: addr.String()}
	}
	to := netip.AddrPortFrom(udp.AddrPort().Addr().Unmap(), udp.AddrPort().Port())
	c.mu.Lock()
	from := c.addr
	switch {
	case c.closed:
		c.mu.Unlock()
		return 0, net.ErrClosed
	case c.down:
		c.mu.Unlock()
		return 0, &net.OpError{Op: "write", Net: "udp", Err: syscall.ENETUNREACH}
	}
	if c.nat {
		c.spoken[to] = time.Now()
	}
	c.mu.Unlock()
	c.net.carry(from, to, b)
	return len(b), nil
}

// Close implements net.PacketConn.
func (c *PacketConn) Close() error {
	c.net.mu.Lock()
	for a, other := range c.net.conns {
		if other == c {
			delete(c.net.conns, a)
		}
	}
	c.net.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.arrived.Broadcast()
	return nil
}

// LocalAddr implements net.PacketConn.
func (c *PacketConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.Addr()) }

// Addr returns the address at which others see the connection.
func (c *PacketConn) Addr() netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.addr
}

// SetDeadline implements net.PacketConn; writes never wait.
func (c *PacketConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetWriteDeadline implements net.PacketConn; writes never wait.
func (c *PacketConn) SetWriteDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.PacketConn.
func (c *PacketConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if wait := time.Until(t); !t.IsZero() && wait > 0 {
		c.timer = time.AfterFunc(wait, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.arrived.Broadcast()
		})
	}
	c.arrived.Broadcast()
	return nil
}
