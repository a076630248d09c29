// Package sockets has WireGuard's UDP sockets for hosts that speak IPv4 and IPv6 at once. It wraps conn.StdNetBind, which
// keeps the addresses to send to in a pool and forgets to lengthen one that was last used for IPv4: of
// the next IPv6 address it then copies the first four bytes only, and the packet goes to those four bytes and twelve of
// some earlier destination (github.com/WireGuard/wireguard-go/pull/135). With peers of both families that is
// every other packet.
//
// Here each family is sent by a StdNetBind of its own over the same two sockets, so that a pooled address never changes its
// length. All else (batches, GSO and GRO, sticky sources) is theirs. When TestStillNeededInNamespace fails, this package can go.
//
// All methods may be called concurrently, as those of the wrapped bind.
package sockets

import (
	"reflect"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/conn"
)

// Bind implements conn.Bind; its endpoints are *conn.StdNetEndpoint.
type Bind struct {
	open atomic.Pointer[pair]
}

// pair is two binds with the same sockets.
type pair struct {
	four *conn.StdNetBind // opens and closes the sockets, receives from both, sends IPv4
	six  *conn.StdNetBind // sends IPv6
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
	b.open.Store(p)
	return functions, actual, nil
}

// Close implements conn.Bind.
func (b *Bind) Close() error { return b.open.Swap(newPair()).four.Close() }

// Send implements conn.Bind.
func (b *Bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	p := b.open.Load()
	if ep.DstIP().Is6() {
		return p.six.Send(bufs, ep)
	}
	return p.four.Send(bufs, ep)
}

// SetMark implements conn.Bind.
func (b *Bind) SetMark(mark uint32) error { return b.open.Load().four.SetMark(mark) }

// ParseEndpoint implements conn.Bind.
func (b *Bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	return b.open.Load().four.ParseEndpoint(s)
}

// BatchSize implements conn.Bind.
func (b *Bind) BatchSize() int { return b.open.Load().four.BatchSize() }
