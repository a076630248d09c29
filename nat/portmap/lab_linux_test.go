package portmap

import (
	"bytes"
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"warren/nat/natlab"
)

// labNetwork is the system's network as a host of the lab has it.
type labNetwork struct{ h *natlab.Host }

func (n labNetwork) Source(gateway netip.Addr) (addr netip.Addr, err error) {
	err = n.h.Do(func() error {
		var err error
		addr, err = systemNetwork{}.Source(gateway)
		return err
	})
	return addr, err
}

func (n labNetwork) Dial(ctx context.Context, network string, local netip.Addr, to netip.AddrPort) (c net.Conn, err error) {
	err = n.h.Do(func() error {
		var err error
		c, err = systemNetwork{}.Dial(ctx, network, local, to)
		return err
	})
	return c, err
}

func (n labNetwork) ListenPacket(local netip.Addr) (c net.PacketConn, err error) {
	err = n.h.Do(func() error {
		var err error
		c, err = systemNetwork{}.ListenPacket(local)
		return err
	})
	return c, err
}

func (n labNetwork) Gateways() (all []netip.Addr) {
	_ = n.h.Do(func() error { all = gateways(); return nil })
	return all
}

func labForTest(t *testing.T) *natlab.Lab {
	t.Helper()
	if err := natlab.CheckMapping(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return natlab.ForTest(t)
}

// running is a Mapper that runs in a host of the lab.
type running struct {
	*Mapper
	t    *testing.T
	stop context.CancelFunc
	done chan error
}

func runIn(t *testing.T, h *natlab.Host, protocol string, port uint16) *running {
	t.Helper()
	m := New(Options{Network: labNetwork{h}})
	m.Set(Wanted{Port: port, TCP: true})
	m.only = protocol
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{m, t, cancel, make(chan error, 1)}
	go func() { r.done <- m.Run(ctx) }()
	t.Cleanup(cancel)
	return r
}

// await waits until ok is true of the mappings.
func (r *running) await(what string, ok func([]Mapping) bool) []Mapping {
	r.t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		if got := r.Mappings(); ok(got) {
			return got
		}
		select {
		case <-r.Events():
		case <-deadline:
			r.t.Fatalf("%s: got %+v after 15 s; status %+v", what, r.Mappings(), r.Snapshot())
		}
	}
}

// awaitTCP waits until the TCP port is mapped to that address.
func (r *running) awaitTCP(want netip.AddrPort) {
	r.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		got := r.TCPMappings()
		if len(got) == 1 && got[0].External == want {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("TCP: got %+v after 15 s, want %v", got, want)
		}
	}
}

// connects reports whether a stranger's connection arrives at the host.
func connects(t *testing.T, h, stranger *natlab.Host, to netip.AddrPort) bool {
	t.Helper()
	var l net.Listener
	if err := h.Do(func() (err error) { l, err = net.Listen("tcp", ":9277"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var c net.Conn
	if stranger.Do(func() (err error) { c, err = net.DialTimeout("tcp", to.String(), time.Second); return err }) != nil {
		return false
	}
	c.Close()
	return true
}

// end ends Run, which has to be soon.
func (r *running) end() {
	r.t.Helper()
	began := time.Now()
	r.stop()
	select {
	case err := <-r.done:
		if err != nil {
			r.t.Errorf("got %v from Run, want nil", err)
		}
	case <-time.After(removal + 30*time.Second): // on a busy machine
		r.t.Fatalf("Run has not ended after %v, want %v at most", time.Since(began), removal)
	}
}

// eventually polls for what has to come: on a busy machine a packet or a connection takes longer than what reaches and connects wait.
func eventually(ok func() bool) bool {
	for deadline := time.Now().Add(15 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// reaches reports whether a packet of a stranger arrives. Each has its own text: what was late for an earlier call is not this one's.
func reaches(t *testing.T, stranger *natlab.Host, to netip.AddrPort, inside *net.UDPConn) bool {
	t.Helper()
	from := netip.IPv4Unspecified()
	if to.Addr().Is6() {
		from = netip.IPv6Unspecified()
	}
	c, err := stranger.ListenUDP(netip.AddrPortFrom(from, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	text, buf := []byte(rand.Text()), make([]byte, 100)
	// The address may have been tried before, and its neighbours may not be known yet.
	for range 3 {
		if _, err := c.WriteToUDPAddrPort(text, to); err != nil {
			t.Fatal(err)
		}
		_ = inside.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		for {
			n, _, err := inside.ReadFromUDPAddrPort(buf)
			if err != nil {
				break
			}
			if bytes.Equal(buf[:n], text) {
				return true
			}
		}
	}
	return false
}

// TestLabMiniupnpd maps a port of a real router by every protocol.
func TestLabMiniupnpd(t *testing.T) {
	l := labForTest(t)
	stranger := l.Host("stranger", nil)
	both := natlab.MappingProtocols{UPnP: true, PCP: true}
	tests := []struct {
		name     string
		kind     natlab.Kind
		offer    natlab.MappingProtocols
		protocol string // the only one that is used; "": all
		v6       bool
	}{
		{"pcp", natlab.EIMAPDF, both, PCP, false},
		{"natpmp", natlab.EIMAPDF, both, NATPMP, false},
		{"upnp", natlab.Symmetric, both, UPnP, false},
		{"all", natlab.Symmetric, both, "", false},
		{"upnponly", natlab.EIMAPDF, natlab.MappingProtocols{UPnP: true}, "", false},
		{"pcp6", natlab.IPv6Only, both, PCP, true},
		{"upnp6", natlab.IPv6Only, both, UPnP, true},
	}
	for _, tt := range tests {
		router := l.Router("r-"+tt.name, tt.kind)
		router.OfferMapping(tt.offer)
		h := l.Host(tt.name, router)
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			any := netip.IPv4Unspecified()
			if tt.v6 {
				any = netip.IPv6Unspecified()
			}
			inside, err := h.ListenUDP(netip.AddrPortFrom(any, 9277))
			if err != nil {
				t.Fatal(err)
			}
			defer inside.Close()
			r := runIn(t, h, tt.protocol, 9277)
			got := r.await("mapping", func(m []Mapping) bool { return len(m) == 1 })[0]
			if tt.protocol != "" && got.Protocol != tt.protocol {
				t.Errorf("got mapping by %s, want %s", got.Protocol, tt.protocol)
			}
			want := netip.AddrPortFrom(router.Mapped(), 9277)
			if tt.v6 {
				want = netip.AddrPortFrom(h.Addr6(), 9277)
			}
			if got.External != want || !got.Public() {
				t.Errorf("got external %v (public %v), want %v", got.External, got.Public(), want)
			}
			if !eventually(func() bool { return reaches(t, stranger, got.External, inside) }) {
				t.Errorf("a stranger's packet to %v did not arrive", got.External)
			}
			r.awaitTCP(want)
			if !eventually(func() bool { return connects(t, h, stranger, want) }) {
				t.Errorf("a stranger does not connect to %v by TCP", want)
			}
			t.Logf("%+v", r.Snapshot())
			r.end()
			if connects(t, h, stranger, want) {
				t.Errorf("a stranger connects to %v by TCP after the end", want)
			}
			if reaches(t, stranger, got.External, inside) {
				t.Errorf("a stranger's packet to %v arrived after the end", got.External)
			}
		})
	}
}

// TestLabDoubleNAT asks a router whose own address is the carrier's: whatever it answers, it is said why that is no use.
func TestLabDoubleNAT(t *testing.T) {
	l := labForTest(t)
	home := l.Router("home", natlab.DoubleNAT)
	home.OfferMapping(natlab.MappingProtocols{UPnP: true, PCP: true})
	h := l.Host("host", home)
	for _, protocol := range []string{PCP, NATPMP, UPnP} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			r := runIn(t, h, protocol, 9277)
			var got RouterStatus
			for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
				if s := r.Snapshot(); len(s.Routers) == 1 && (s.Routers[0].Protocols[0].State == Refused || s.Routers[0].Mapping != nil) {
					got = s.Routers[0]
					break
				}
			}
			if len(got.Protocols) == 0 || got.Mapping != nil && got.Mapping.Public() {
				t.Fatalf("got %+v, want a refusal, or a mapping that is not public", r.Snapshot())
			}
			if words := got.Remark + got.Protocols[0].Reason; !strings.Contains(words, "behind another NAT") {
				t.Errorf("got %q, want it to tell of another NAT", words)
			}
			t.Logf("%+v", got)
			r.end()
		})
	}
}

// TestLabRouterRestarts has the router come back with another address and nothing in its tables.
func TestLabRouterRestarts(t *testing.T) {
	l := labForTest(t)
	stranger, home := l.Host("stranger", nil), l.Router("home", natlab.EIMAPDF)
	both := natlab.MappingProtocols{UPnP: true, PCP: true}
	daemon := home.OfferMapping(both)
	h := l.Host("host", home)
	inside, err := h.ListenUDP(netip.AddrPortFrom(netip.IPv4Unspecified(), 9277))
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	r := runIn(t, h, "", 9277)
	at := r.await("mapping", func(m []Mapping) bool { return len(m) == 1 })[0].External
	if err := daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	home.Rebind()
	if reaches(t, stranger, at, inside) {
		t.Error("a router that has forgotten everything let a stranger in")
	}
	home.OfferMapping(both)
	r.Changed()
	if !eventually(func() bool { return reaches(t, stranger, at, inside) }) {
		t.Fatalf("nothing arrives at %v; status %+v", at, r.Snapshot())
	}
	r.end()
}
