package sockets

import (
	"golang.zx2c4.com/wireguard/conn"

	"warren/nat/nat64"
)

// Translated is a Bind that reaches IPv4 by a NAT64 where the host has none of its own: addresses are written into the prefix on
// their way out, and read out of it on their way in, so that whoever uses it sees IPv4. While Way knows no prefix it is a Bind.
type Translated struct {
	*Bind
	Way *nat64.Way
}

var _ conn.Bind = Translated{}

// Open implements conn.Bind.
func (t Translated) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	functions, actual, err := t.Bind.Open(port)
	for i, next := range functions {
		functions[i] = func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
			n, err := next(bufs, sizes, eps)
			if t.Way.Prefix().IsValid() {
				t.in(eps[:n])
			}
			return n, err
		}
	}
	return functions, actual, err
}

// in makes the sources of packets what everybody else has.
func (t Translated) in(eps []conn.Endpoint) {
	for _, ep := range eps {
		if e, ok := ep.(*conn.StdNetEndpoint); ok && e.AddrPort.Addr().Is6() {
			e.AddrPort = t.Way.In(e.AddrPort)
		}
	}
}

// Send implements conn.Bind.
func (t Translated) Send(bufs [][]byte, ep conn.Endpoint) error {
	e, ok := ep.(*conn.StdNetEndpoint)
	if !ok || !t.Way.Prefix().IsValid() {
		return t.Bind.Send(bufs, ep)
	}
	if via, ok := t.Way.Out(e.AddrPort); ok {
		return t.Bind.Send(bufs, &conn.StdNetEndpoint{AddrPort: via})
	}
	err := t.Bind.Send(bufs, ep)
	if err != nil && nat64.NoRoute(err) {
		if via, ok := t.Way.Fallback(e.AddrPort); ok {
			return t.Bind.Send(bufs, &conn.StdNetEndpoint{AddrPort: via})
		}
	}
	return err
}
