//go:build linux

package natlab

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestKindsBehaveAsNamed measures every kind by the method of RFC 5780.
func TestKindsBehaveAsNamed(t *testing.T) {
	const ei, ad, apd = EndpointIndependent, AddressDependent, AddressPortDependent
	l := ForTest(t)
	stun, err := ServeSTUN(l.Host("stun", nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stun.Close() }) // after the parallel parts
	open, guarded := &Behaviour{ei, ei, false}, &Behaviour{ei, apd, false}
	tests := []struct {
		kind   Kind
		v4, v6 *Behaviour // nil: the host has no such address
	}{
		{Public, open, open},
		{EIMEIF, &Behaviour{ei, ei, true}, nil},
		{EIMAPDF, &Behaviour{ei, apd, true}, nil},
		{EIMADF, &Behaviour{ei, ad, true}, nil},
		{Symmetric, &Behaviour{apd, apd, true}, nil},
		{Sequential, &Behaviour{apd, apd, true}, nil},
		{SequentialByTwo, &Behaviour{apd, apd, true}, nil},
		{DoubleNAT, &Behaviour{ei, apd, true}, nil},
		{SymmetricCarrier, &Behaviour{apd, apd, true}, nil},
		{IPv6Only, nil, guarded},
		{DualStack, &Behaviour{ei, apd, true}, guarded},
		{UDPBlocked, &Behaviour{Blocked, Blocked, false}, nil},
	}
	if len(tests) != len(Kinds()) {
		t.Errorf("got %d kinds measured, want all %d", len(tests), len(Kinds()))
	}
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"}
	for i, tt := range tests {
		h := l.Host(names[i], l.Router("router-"+names[i], tt.kind))
		t.Run(tt.kind.String(), func(t *testing.T) {
			t.Parallel() // most of a measurement is waiting for what does not come
			for v6, want := range map[bool]*Behaviour{false: tt.v4, true: tt.v6} {
				got, err := Measure(h, stun, v6)
				if (err == nil) != (want != nil) {
					t.Errorf("IPv6 %v: got %v, %v, want %v", v6, got, err, want)
				}
				if want != nil && got != *want {
					t.Errorf("IPv6 %v: got %v (translated %v), want %v (translated %v)", v6, got, got.Translated, want, want.Translated)
				}
			}
		})
	}
	t.Run("the Internet", func(t *testing.T) {
		got, err := Measure(l.Host("plain", nil), stun, false)
		if err != nil || got != *open {
			t.Errorf("got %v, %v, want %v", got, err, open)
		}
	})
}

// socket is a UDP socket in a host.
type socket struct {
	t *testing.T
	c interface {
		WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
		ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error)
		SetReadDeadline(time.Time) error
	}
}

func listen(t *testing.T, h *Host, port uint16) socket {
	t.Helper()
	c, err := h.ListenUDP(netip.AddrPortFrom(h.Addr4(), port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return socket{t, c}
}

func (s socket) send(to netip.AddrPort) {
	s.t.Helper()
	if _, err := s.c.WriteToUDPAddrPort([]byte("hello"), to); err != nil {
		s.t.Fatal(err)
	}
}

// receive returns where the next packet came from, which has to come; false when none did.
func (s socket) receive() (netip.AddrPort, bool) { return s.within(10 * time.Second) }

// hear is receive for a packet that must not come: most of it is waiting.
func (s socket) hear() (netip.AddrPort, bool) { return s.within(250 * time.Millisecond) }

func (s socket) within(d time.Duration) (netip.AddrPort, bool) {
	s.c.SetReadDeadline(time.Now().Add(d))
	_, from, err := s.c.ReadFromUDPAddrPort(make([]byte, 100))
	return netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err == nil
}

// mapped returns how the public socket p sees s.
func (s socket) mapped(p socket, at netip.AddrPort) netip.AddrPort {
	s.t.Helper()
	s.send(at)
	from, ok := p.receive()
	if !ok {
		s.t.Fatal("a packet from the home did not reach the public host")
	}
	return from
}

func TestHolePunching(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	public := l.Host("public", nil)
	p, at := listen(t, public, 1000), netip.AddrPortFrom(public.Addr4(), 1000)
	a := listen(t, l.Host("a", l.Router("home-a", EIMAPDF)), 9277)
	b := listen(t, l.Host("b", l.Router("home-b", EIMAPDF)), 9277)
	s := listen(t, l.Host("s", l.Router("home-s", Symmetric)), 9277)
	mappedA, mappedB, mappedS := a.mapped(p, at), b.mapped(p, at), s.mapped(p, at)

	a.send(mappedB) // b's router drops it, and must not let it spoil b's mapping
	if _, ok := b.hear(); ok {
		t.Error("a port-restricted NAT let a stranger in")
	}
	b.send(mappedA)
	if from, ok := a.receive(); !ok || from != mappedB {
		t.Errorf("punching: got %v, %v, want %v", from, ok, mappedB)
	}
	a.send(mappedB)
	if from, ok := b.receive(); !ok || from != mappedA {
		t.Errorf("the other direction: got %v, %v, want %v", from, ok, mappedA)
	}

	a.send(mappedS)
	s.send(mappedA)
	if from, ok := a.hear(); ok {
		t.Errorf("a symmetric NAT was punched from %v", from)
	}
}

// TestSequentialPorts has several sockets of a home speak to several
// destinations: the ports outside follow each other in the order of the flows.
func TestSequentialPorts(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	public := l.Host("public", nil)
	var servers []socket
	for port := range uint16(3) {
		servers = append(servers, listen(t, public, 1000+port))
	}
	for step, kind := range map[uint16]Kind{1: Sequential, 2: SequentialByTwo} {
		home := l.Router(fmt.Sprintf("home-%d", step), kind)
		a, b := listen(t, l.Host(fmt.Sprintf("a%d", step), home), 9277), listen(t, l.Host(fmt.Sprintf("b%d", step), home), 9277)
		var last uint16
		for i, server := range servers {
			at := netip.AddrPortFrom(public.Addr4(), 1000+uint16(i))
			for _, s := range []socket{a, b} {
				got := s.mapped(server, at).Port()
				if last != 0 && got != last+step {
					t.Errorf("%s: got port %d after %d, want %d more", kind, got, last, step)
				}
				if again := s.mapped(server, at).Port(); again != got {
					t.Errorf("%s: got port %d for the next packet of a flow, want %d", kind, again, got)
				}
				last = got
			}
		}
	}
}

// TestFullConeOfTwoHosts has two hosts with the same inside port behind one
// full cone: each keeps one mapping, and strangers reach the right one.
func TestFullConeOfTwoHosts(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	home := l.Router("home", EIMEIF)
	public, stranger := l.Host("public", nil), l.Host("stranger", nil)
	p, at := listen(t, public, 1000), netip.AddrPortFrom(public.Addr4(), 1000)
	q, atQ := listen(t, stranger, 1000), netip.AddrPortFrom(stranger.Addr4(), 1000)
	a, b := listen(t, l.Host("a", home), 9277), listen(t, l.Host("b", home), 9277)

	seen := map[netip.AddrPort]bool{}
	for i, s := range []socket{a, b} {
		m := s.mapped(p, at)
		seen[m] = true
		q.send(m)
		if from, ok := s.receive(); !ok || from != atQ {
			t.Errorf("host %d: a stranger's packet: got %v, %v, want %v", i, from, ok, atQ)
		}
		s.send(atQ)
		if from, ok := q.receive(); !ok || from != m {
			t.Errorf("host %d: answer: got %v, %v, want %v", i, from, ok, m)
		}
	}
	if len(seen) != 2 {
		t.Errorf("got mappings %v, want two", seen)
	}
}

func TestSameLANIsReachedDirectly(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	home := l.Router("home", DualStack)
	a, b := l.Host("a", home), l.Host("b", home)
	reach(t, a, b.Addr4())
	reach(t, a, b.Addr6())
	l.Cut(home)
	reach(t, b, a.Addr4())
}

func TestTwoHomesMayHaveTheSameLAN(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	lan := netip.MustParsePrefix("192.168.1.0/24")
	public := l.Host("public", nil)
	a := l.Host("a", l.AddRouter(RouterOptions{Name: "home-a", Kind: EIMAPDF, LAN: lan}))
	b := l.Host("b", l.AddRouter(RouterOptions{Name: "home-b", Kind: EIMAPDF, LAN: lan}))
	if a.Addr4() != b.Addr4() {
		t.Errorf("got %v and %v, want the same address", a.Addr4(), b.Addr4())
	}
	reach(t, a, public.Addr4())
	reach(t, b, public.Addr4())
}

func TestFamilies(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	public, six := l.Host("public", nil), l.Host("six", l.Router("home-6", IPv6Only))
	if six.Addr4().IsValid() {
		t.Errorf("an IPv6-only host has %v", six.Addr4())
	}
	reach(t, six, public.Addr6())
	if ping(public, six.Addr6()) {
		t.Error("the firewall lets a stranger's ping in")
	}
	if four := l.AddHost(HostOptions{Name: "four", Only: Only4}); four.Addr6().IsValid() {
		t.Errorf("an IPv4-only host has %v", four.Addr6())
	}
	routed := l.Host("routed", l.Router("office", Public))
	reach(t, public, routed.Addr4())
	reach(t, public, routed.Addr6())
}
