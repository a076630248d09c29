package stream

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"warren/nat/nat64"
	"warren/tunnel/osnet/osnettest"
)

// swallowing is the connection of a path that carries nothing above so many bytes, and says nothing.
type swallowing struct {
	net.Conn
	most int
}

func (c swallowing) Write(p []byte) (int, error) {
	if len(p) > c.most {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// split sends what it is given in small segments.
type split struct{ net.Conn }

func (c split) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		var m int
		m, err = c.Conn.Write(p[:min(len(p), smallSegment)])
		n, p = n+m, p[m:]
	}
	return n, err
}

// TCP comes up, and no segment of the usual size arrives: in one direction, or the other, which is the same from here.
func TestSmallSegmentsAfterAStall(t *testing.T) {
	for name, most := range map[string]struct{ out, in int }{"out": {100, 1 << 20}, "in": {1 << 20, 100}, "neither": {1 << 20, 1 << 20}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				c := w.client(w.member)
				plain := w.from("198.51.100.7")
				var dials []bool
				c.dial = func(ctx context.Context, address string, small bool) (net.Conn, error) {
					dials = append(dials, small)
					conn, err := plain(ctx, address)
					if err != nil || small {
						return split{conn}, err
					}
					if most.in < smallSegment { // the answers are lost
						return silentConn{conn}, nil
					}
					return swallowing{conn, most.out}, nil
				}
				began := time.Now()
				conn, err := c.Dial(t.Context(), w.anchor.ID, []netip.AddrPort{anchorAddr})
				if err != nil {
					t.Fatalf("dial: %v", err)
				}
				defer conn.Close()
				stalled := most.out < smallSegment || most.in < smallSegment
				if want := map[bool]int{false: 1, true: 2}[stalled]; len(dials) != want || dials[len(dials)-1] != stalled {
					t.Errorf("got dials %v, want %d", dials, want)
				}
				if took := time.Since(began); stalled != (took >= stallTime) || took > 2*stallTime {
					t.Errorf("took %s", took)
				}
				conn.Close()
			})
		})
	}
}

// silentConn never brings anything.
type silentConn struct{ net.Conn }

func (c silentConn) Read(p []byte) (int, error) {
	for {
		if _, err := c.Conn.Read(p); err != nil {
			return 0, err
		}
	}
}

// dialTCP is how a host with IPv4 dials.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	return dialer{}.dial(ctx, address, false)
}

// A host without IPv4 reaches an anchor's IPv4 address by a NAT64; the stream's far end is the address that everybody knows.
func TestDialByNAT64InNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	osnettest.Own(t, "64:ff9b::c633:6407")
	l, err := net.Listen("tcp", "[64:ff9b::c633:6407]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	way := new(nat64.Way)
	at := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), uint16(l.Addr().(*net.TCPAddr).Port))
	if _, err := (dialer{way}).dial(t.Context(), at.String(), false); !nat64.NoRoute(err) {
		t.Errorf("without: got %v, want no route", err)
	}
	p, _ := nat64.NewPrefix(netip.MustParsePrefix("64:ff9b::/96"))
	way.Set(p)
	for _, small := range []bool{false, true} {
		c, err := (dialer{way}).dial(t.Context(), at.String(), small)
		if err != nil {
			t.Errorf("small %v: %v", small, err)
			continue
		}
		if got := c.RemoteAddr().String(); got != at.String() {
			t.Errorf("small %v: got the far end %s, want %s", small, got, at)
		}
		tune(c)
		c.Close()
	}
}
