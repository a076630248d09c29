package portmaptest

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// datagrams is the host's end of UDP to the router. What is sent is handled before Write returns.
type datagrams struct {
	// Constant.
	peer   *net.UDPAddr
	handle func(b []byte, to netip.AddrPort)
	in     chan []byte // drops newest
	failed chan error  // as ICMP makes reads fail, once each
	closed chan struct{}

	mu       sync.Mutex
	deadline time.Time
	once     sync.Once
}

func newDatagrams(peer *net.UDPAddr) *datagrams {
	return &datagrams{peer: peer, in: make(chan []byte, 16), failed: make(chan error, 1), closed: make(chan struct{})}
}

func (c *datagrams) deliver(b []byte) {
	select {
	case c.in <- b:
	default:
	}
}

func (c *datagrams) fail(err error) {
	select {
	case c.failed <- err:
	default:
	}
}

// Write sends to the router.
func (c *datagrams) Write(b []byte) (int, error) { return c.WriteTo(b, c.peer) }

// WriteTo sends to the router or to a group.
func (c *datagrams) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-c.closed:
		return 0, errClosed
	default:
	}
	c.handle(slices.Clone(b), to.(*net.UDPAddr).AddrPort())
	return len(b), nil
}

// Read receives from the router.
func (c *datagrams) Read(b []byte) (int, error) {
	n, _, err := c.ReadFrom(b)
	return n, err
}

// ReadFrom receives from the router.
func (c *datagrams) ReadFrom(b []byte) (int, net.Addr, error) {
	c.mu.Lock()
	var over <-chan time.Time
	if !c.deadline.IsZero() {
		timer := time.NewTimer(time.Until(c.deadline))
		defer timer.Stop()
		over = timer.C
	}
	c.mu.Unlock()
	select {
	case got := <-c.in:
		return copy(b, got), c.peer, nil
	case err := <-c.failed:
		return 0, nil, err
	case <-c.closed:
		return 0, nil, errClosed
	case <-over:
		return 0, nil, os.ErrDeadlineExceeded
	}
}

// Close makes reads and writes fail.
func (c *datagrams) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// LocalAddr is unknown.
func (c *datagrams) LocalAddr() net.Addr { return &net.UDPAddr{} }

// RemoteAddr is the router's server.
func (c *datagrams) RemoteAddr() net.Addr { return c.peer }

// SetDeadline holds for the reads that begin after it.
func (c *datagrams) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return nil
}

// SetReadDeadline is SetDeadline.
func (c *datagrams) SetReadDeadline(t time.Time) error { return c.SetDeadline(t) }

// SetWriteDeadline does nothing: writes do not wait.
func (c *datagrams) SetWriteDeadline(time.Time) error { return nil }
