// Package sockets has WireGuard's UDP sockets for hosts that speak IPv4 and IPv6 at once. It wraps conn.StdNetBind, which
// keeps the addresses to send to in a pool and forgets to lengthen one that was last used for IPv4: of
// the next IPv6 address it then copies the first four bytes only, and the packet goes to those four bytes and twelve of
// some earlier destination (github.com/WireGuard/wireguard-go/pull/135). With peers of both families that is
// every other packet.
//
// Here each family is sent by a StdNetBind of its own over the same two sockets, so that a pooled address never changes its
// length. All else (batches, GSO and GRO, sticky sources) is theirs. When TestStillNeededInNamespace fails, that part can go.
//
// The package also decides what may be fragmented on the way (see Exact), has no broadcast leave, and sends a batch of which one
// packet is too large packet by packet, where StdNetBind drops the rest of it.
//
// All methods may be called concurrently, as those of the wrapped bind.
package sockets

import (
	"errors"
	"net"
	"reflect"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// Bind implements conn.Bind; its endpoints are *conn.StdNetEndpoint.
type Bind struct {
	// atomic
	open  atomic.Pointer[pair]
	exact atomic.Bool // see agree
}

// pair is two binds with the same sockets.
type pair struct {
	four *conn.StdNetBind // opens and closes the sockets, receives from both, sends IPv4
	six  *conn.StdNetBind // sends IPv6
	raw  [2]*net.UDPConn  // the sockets themselves, IPv4 and IPv6; nil: not open, or no such family
}

var _ conn.Bind = (*Bind)(nil)

// New returns a bind that is not open.
func New() *Bind {
	b := &Bind{}
	b.open.Store(newPair())
	return b
}

func newPair() *pair {
	four := conn.NewStdNetBind().(*conn.StdNetBind)
	return &pair{four: four, six: four}
}

// Open implements conn.Bind. Each opening has new binds, since only a bind that has not sent yet can be copied: its
// pools are empty, its mutex is free, and nobody else knows it.
func (b *Bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	now := b.open.Load()
	if now.six != now.four {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	p := newPair()
	functions, actual, err := p.four.Open(port)
	if err != nil {
		return nil, 0, err
	}
	p.six = new(conn.StdNetBind)
	reflect.ValueOf(p.six).Elem().Set(reflect.ValueOf(p.four).Elem())
	for i, field := range []string{"ipv4", "ipv6"} {
		// StdNetBind does not give its sockets away, and has no hook before they are bound.
		p.raw[i] = (*net.UDPConn)(reflect.ValueOf(p.four).Elem().FieldByName(field).UnsafePointer())
	}
	p.each(refuseBroadcast)
	b.open.Store(p)
	b.agree()
	return functions, actual, nil
}

// Exact says whether packets have to arrive as they are sent or not at all, as probes of the path MTU have to; otherwise they
// may be fragmented on the way, which is how it begins. Notices of routers that a packet was too large (ICMP) are believed for
// IPv6 only, and only while it is off: there nobody but the sender can fragment. Where the system does not know the option nothing
// happens.
func (b *Bind) Exact(on bool) {
	b.exact.Store(on)
	b.agree()
}

// agree has the sockets do as exact says. Whoever changes either calls it afterwards, and looks once more when it is done: of several
// at once the last one to set the option finds what holds now.
func (b *Bind) agree() {
	for {
		p, on := b.open.Load(), b.exact.Load()
		p.setExact(on)
		if b.open.Load() == p && b.exact.Load() == on {
			return
		}
	}
}

// setExact sets the option of both sockets.
func (p *pair) setExact(on bool) {
	p.each(func(fd int, six bool) { setExact(fd, six, on) })
}

// each hands out the descriptors of the sockets that are open.
func (p *pair) each(do func(fd int, six bool)) {
	for i, c := range p.raw {
		if c == nil {
			continue
		}
		if raw, err := c.SyscallConn(); err == nil { // else it was closed meanwhile
			_ = raw.Control(func(fd uintptr) { do(int(fd), i == 1) })
		}
	}
}

// refuseBroadcast has the system refuse to send to the broadcast address of a network (EACCES), which package net lets every
// socket do: a peer may name one as its own, and cannot be told from others by the address.
func refuseBroadcast(fd int, six bool) {
	if !six {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 0)
	}
}

// Close implements conn.Bind.
func (b *Bind) Close() error { return b.open.Swap(newPair()).four.Close() }

// Send implements conn.Bind.
func (b *Bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	p := b.open.Load()
	sender := p.four
	if ep.DstIP().Is6() {
		sender = p.six
	}
	err := sender.Send(bufs, ep)
	if err != nil && len(bufs) > 1 && errors.Is(err, syscall.EMSGSIZE) {
		return singly(sender, bufs, ep)
	}
	return err
}

// singly sends a batch again that was refused because of the size of a packet, each packet by itself: the system cannot
// fragment what GSO has joined. Some may leave twice, which WireGuard and QUIC bear.
func singly(sender *conn.StdNetBind, bufs [][]byte, ep conn.Endpoint) (first error) {
	for i := range bufs {
		if err := sender.Send(bufs[i:i+1], ep); first == nil {
			first = err
		}
	}
	return first
}

// SetMark implements conn.Bind.
func (b *Bind) SetMark(mark uint32) error { return b.open.Load().four.SetMark(mark) }

// ParseEndpoint implements conn.Bind.
func (b *Bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	return b.open.Load().four.ParseEndpoint(s)
}

// BatchSize implements conn.Bind.
func (b *Bind) BatchSize() int { return b.open.Load().four.BatchSize() }
