// Package echo answers pings on a node's overlay addresses and sends them: what comes back has passed the tunnel both ways.
//
// Who may be asked, and what an answer means, is left to the caller. The socket is bound to the overlay addresses alone, so
// that only what WireGuard has let in is answered.
//
// All functions and methods may be called concurrently; Run is called once.
package echo

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Port is where every node answers, on its overlay addresses only.
const Port = 9278

// An address that the interface does not have yet is tried again after retryFirst, and each time after twice as long, up to retryLast.
const (
	retryFirst = 50 * time.Millisecond
	retryLast  = 5 * time.Second
)

// A ping is 24 bytes and so is its answer: the magic, a zero or one byte, three zero bytes, and 12 bytes that the
// sender chose and gets back. A question may be longer, to see whether packets of a size get through (see Burst).
var magic = []byte("warren-p")

const (
	size     = 24
	question = 0
	answer   = 1
)

// ErrNoAnswer is wrapped by the error of Ask when none came.
var ErrNoAnswer = errors.New("no answer")

// Responder answers pings.
type Responder struct {
	// constant after New
	changed chan struct{} // of capacity 1

	mu    sync.Mutex // guards the rest
	addrs []netip.Addr
}

// New returns a responder without addresses.
func New() *Responder { return &Responder{changed: make(chan struct{}, 1)} }

// Set says on which addresses to answer. They need not be there yet.
func (r *Responder) Set(addrs []netip.Addr) {
	r.mu.Lock()
	r.addrs = addrs
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *Responder) wanted() []netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addrs
}

// Run answers until ctx ends, also when addresses come late, go, or change.
func (r *Responder) Run(ctx context.Context) error {
	pause := retryFirst
	retry := time.NewTimer(pause)
	defer retry.Stop()
	listening := make(map[netip.Addr]net.PacketConn)
	gone := make(chan netip.Addr)
	defer func() {
		for _, c := range listening {
			c.Close()
		}
		for range listening {
			<-gone
		}
	}()
	for {
		for _, addr := range r.wanted() {
			if listening[addr] != nil {
				continue
			}
			c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, Port)))
			if err != nil {
				continue // the interface does not have the address yet
			}
			listening[addr] = c
			go func() { reply(c); gone <- addr }() // ends with the socket, which Run closes
		}
		select {
		case <-ctx.Done():
			return nil
		case addr := <-gone:
			listening[addr].Close()
			delete(listening, addr)
		case <-r.changed:
			pause = retryFirst
		case <-retry.C:
			pause = min(2*pause, retryLast)
		}
		retry.Reset(pause)
	}
}

// reply sends pings back until the socket fails.
func reply(c net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if n >= size && bytes.HasPrefix(buf, magic) && buf[len(magic)] == question {
			buf[len(magic)] = answer
			c.WriteTo(buf[:size], from)
		}
	}
}

// Ask sends one ping through the tunnel to a node's overlay address and returns the round-trip time. The first one may wait for
// the handshake; it is not repeated. The error wraps ErrNoAnswer when none came within timeout.
func Ask(ctx context.Context, to netip.Addr, timeout time.Duration) (time.Duration, error) {
	return askAt(ctx, netip.AddrPortFrom(to, Port), timeout)
}

func askAt(ctx context.Context, to netip.AddrPort, timeout time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "udp", to.String())
	if err != nil {
		return 0, fmt.Errorf("ping %s: %w", to.Addr(), err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Now()) })
	defer stop()
	ask := make([]byte, size)
	copy(ask, magic)
	rand.Read(ask[12:])
	sent := time.Now()
	if _, err := c.Write(ask); err != nil {
		return 0, fmt.Errorf("ping %s: %w", to.Addr(), err)
	}
	buf := make([]byte, 64)
	for {
		n, err := c.Read(buf)
		if ctx.Err() != nil {
			return 0, fmt.Errorf("ping %s: %w", to.Addr(), ErrNoAnswer)
		}
		if err != nil { // a port unreachable ends the read, not the wait
			return 0, fmt.Errorf("ping %s: %w", to.Addr(), err)
		}
		if n == size && buf[len(magic)] == answer && bytes.Equal(buf[12:n], ask[12:]) {
			return time.Since(sent), nil
		}
	}
}
