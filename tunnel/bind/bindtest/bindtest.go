// Package bindtest is the in-memory twin of WireGuard's UDP sockets: a conn.Bind for package bind to wrap in tests,
// on a network that lives in one process and works in virtual time (testing/synctest).
//
// It delivers at once, or after the time that a test sets with Delay; what a test wants to lose, it says with Lose.
// NATs are natlab's part.
//
// All methods may be called concurrently.
package bindtest

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// queueSize is the receive buffer of one socket, in packets; what does not fit is lost.
const queueSize = 4096

// Network joins the sockets of any number of hosts.
type Network struct {
	// guarded by mu
	mu      sync.Mutex
	sockets map[netip.AddrPort]*socket
	lose    func(from, to netip.AddrPort, packet []byte) bool
	delay   time.Duration
	next    uint16
}

// NewNetwork returns a network without hosts.
func NewNetwork() *Network {
	return &Network{sockets: make(map[netip.AddrPort]*socket), next: 40000}
}

// Lose sets what is asked for each packet whether it is to be lost; nil: none is. It must not keep the packet.
func (n *Network) Lose(lose func(from, to netip.AddrPort, packet []byte) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lose = lose
}

// Delay sets how long each packet takes; 0: no time. Packets that are sent at one moment may change places.
func (n *Network) Delay(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = d
}

// Host returns the sockets of the host with these addresses: at most one IPv4 and one IPv6 address.
func (n *Network) Host(addrs ...netip.Addr) conn.Bind {
	return &host{network: n, addrs: addrs}
}

type packet struct {
	bytes []byte
	from  netip.AddrPort
}

// socket is one open address and port.
type socket struct {
	at     netip.AddrPort
	queue  chan packet
	closed chan struct{}
}

// host implements conn.Bind.
type host struct {
	network *Network
	addrs   []netip.Addr

	// guarded by mu
	mu      sync.Mutex
	sockets []*socket
}

// Open binds all addresses of the host to one port.
func (h *host) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sockets != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	sockets, port, err := h.network.open(h.addrs, port)
	if err != nil {
		return nil, 0, err
	}
	h.sockets = sockets
	fns := make([]conn.ReceiveFunc, len(sockets))
	for i, s := range sockets {
		fns[i] = s.receive
	}
	return fns, port, nil
}

func (n *Network) open(addrs []netip.Addr, port uint16) ([]*socket, uint16, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if port == 0 {
		n.next++
		port = n.next
	}
	for _, a := range addrs {
		if n.sockets[netip.AddrPortFrom(a, port)] != nil {
			return nil, 0, fmt.Errorf("open %v port %d: %w", a, port, syscall.EADDRINUSE)
		}
	}
	var sockets []*socket
	for _, a := range addrs {
		s := &socket{
			at:     netip.AddrPortFrom(a, port),
			queue:  make(chan packet, queueSize),
			closed: make(chan struct{}),
		}
		n.sockets[s.at] = s
		sockets = append(sockets, s)
	}
	return sockets, port, nil
}

// Close closes all sockets of the host.
func (h *host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.network.mu.Lock()
	defer h.network.mu.Unlock()
	for _, s := range h.sockets {
		delete(h.network.sockets, s.at)
		close(s.closed)
	}
	h.sockets = nil
	return nil
}

// receive waits for one packet and takes as many as there are.
func (s *socket) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	select {
	case <-s.closed:
		return 0, net.ErrClosed
	case p := <-s.queue:
		n := 0
		for {
			sizes[n] = copy(bufs[n], p.bytes)
			eps[n] = &conn.StdNetEndpoint{AddrPort: p.from}
			if n++; n == len(bufs) {
				return n, nil
			}
			select {
			case p = <-s.queue:
			default:
				return n, nil
			}
		}
	}
}

// Send sends from the address of the destination's family.
func (h *host) Send(bufs [][]byte, ep conn.Endpoint) error {
	std, ok := ep.(*conn.StdNetEndpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	from := h.local(std.Addr().Is4())
	if !from.IsValid() {
		return syscall.EAFNOSUPPORT
	}
	for _, p := range bufs {
		h.network.deliver(from, std.AddrPort, p)
	}
	return nil
}

func (h *host) local(is4 bool) netip.AddrPort {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sockets {
		if s.at.Addr().Is4() == is4 {
			return s.at
		}
	}
	return netip.AddrPort{}
}

func (n *Network) deliver(from, to netip.AddrPort, p []byte) {
	n.mu.Lock()
	s, lose, delay := n.sockets[to], n.lose, n.delay
	n.mu.Unlock()
	if s == nil || lose != nil && lose(from, to, p) {
		return
	}
	kept := packet{append([]byte(nil), p...), from}
	if delay > 0 {
		time.AfterFunc(delay, func() { s.put(kept) })
		return
	}
	s.put(kept)
}

func (s *socket) put(p packet) {
	select {
	case s.queue <- p:
	default:
	}
}

// SetMark does nothing.
func (h *host) SetMark(uint32) error { return nil }

// BatchSize returns what Linux sockets have.
func (h *host) BatchSize() int { return conn.IdealBatchSize }

// ParseEndpoint returns a *conn.StdNetEndpoint.
func (h *host) ParseEndpoint(s string) (conn.Endpoint, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	return &conn.StdNetEndpoint{AddrPort: a}, nil
}
