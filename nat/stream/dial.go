package stream

import (
	"context"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"warren/nat/nat64"
)

// smallSegment is what every path carries, in both directions: 576 bytes of IPv4 (RFC 879, section 3), and of IPv6 less than half of
// what has to pass.
const smallSegment = 536

// dialer makes TCP connections.
type dialer struct{ way *nat64.Way }

// dial connects to host:port. With small both sides send segments of 536 bytes at most.
func (d dialer) dial(ctx context.Context, address string, small bool) (net.Conn, error) {
	var nd net.Dialer
	if small {
		nd.Control = smallSegments
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil { // a name: of a proxy
		return nd.DialContext(ctx, "tcp", address)
	}
	if via, ok := d.way.Out(at); ok {
		return byWay(ctx, &nd, via, at)
	}
	conn, err := nd.DialContext(ctx, "tcp", address)
	if err != nil && nat64.NoRoute(err) {
		if via, ok := d.way.Fallback(at); ok {
			return byWay(ctx, &nd, via, at)
		}
	}
	return conn, err
}

// byNAT64 is a connection whose far end is told as everybody else has it.
type byNAT64 struct {
	net.Conn
	far netip.AddrPort
}

func (c byNAT64) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.far) }

// byWay connects to an address at which a NAT64 stands for another one.
func byWay(ctx context.Context, nd *net.Dialer, via, far netip.AddrPort) (net.Conn, error) {
	conn, err := nd.DialContext(ctx, "tcp", via.String())
	if err != nil {
		return nil, err
	}
	tune(conn)
	return byNAT64{conn, far}, nil
}

// smallSegments is a net.Dialer's Control. What is set before the handshake holds for both directions: the other side is told.
func smallSegments(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, smallSegment) // where it is not to be had, as without
	})
}
