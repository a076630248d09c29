package place

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"warren/mesh/identity"
)

func TestOwnNameInTokens(t *testing.T) {
	self := identity.NodeID{1, 2, 3, 4, 5, 6, 7, 8, 9}
	local := []netip.AddrPort{netip.MustParseAddrPort("192.168.1.5:9277")}
	for _, test := range []struct {
		endpoints []string
		want      []string
	}{
		{nil, []string{"192.168.1.5:9277"}},
		{[]string{"203.0.113.5:9277"}, []string{"192.168.1.5:9277"}},
		{[]string{"vpn.example.org:9277"}, []string{"vpn.example.org:9277", "192.168.1.5:9277"}},
		{[]string{"[2001:db8::1]:443", "vpn.example.org:443", "other.example.org:1"}, []string{"vpn.example.org:443", "192.168.1.5:9277"}},
		{[]string{"vpn.example.org:https", "vpn.example.org"}, []string{"192.168.1.5:9277"}},
	} {
		var got []string
		for _, a := range TokenAnchors(TokenFacts{Self: self, Endpoints: test.endpoints, Local: local}) {
			got = append(got, a.String())
			if a.ID != [8]byte(self[:8]) {
				t.Errorf("%v: %s is pinned to %x", test.endpoints, a, a.ID)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%v: got %v, want %v", test.endpoints, got, test.want)
		}
	}
}

// The addresses of a name come first, both families among them, each once; a name without any is a failure like others.
func TestNamesAreAskedFirst(t *testing.T) {
	port := func(text string) identity.TokenAnchor {
		return identity.TokenAnchor{Addr: netip.MustParseAddrPort(text)}
	}
	name := identity.TokenAnchor{Name: "vpn.example.org", Addr: netip.AddrPortFrom(netip.Addr{}, 9277), ID: [8]byte{7}}
	a := &asking{asked: []netip.AddrPort{netip.MustParseAddrPort("198.51.100.2:9277")}, next: []identity.TokenAnchor{port("203.0.113.9:1"), port("198.51.100.1:9277")}}
	addrs := []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8::1")}
	if got := a.fresh(named{anchor: name, addrs: addrs}); len(got) != 2 || got[0].Addr.String() != "198.51.100.1:9277" || got[1].Addr.String() != "[2001:db8::1]:9277" || got[0].ID != name.ID {
		t.Errorf("got %v", got)
	}
	if len(a.next) != 1 || a.next[0].Addr.String() != "203.0.113.9:1" {
		t.Errorf("left: got %v", a.next)
	}
	if got := a.fresh(named{anchor: name, err: &net.DNSError{Err: "no such host", IsNotFound: true}}); got != nil || len(a.failures) != 1 {
		t.Errorf("not found: got %v", got)
	}
	if text := a.failures[0].Error(); !strings.Contains(text, "vpn.example.org:9277") || !strings.Contains(text, "not known") {
		t.Errorf("got %q", text)
	}
	a.fresh(named{anchor: name, err: errors.New("timeout")})
	if text := a.failures[1].Error(); !strings.Contains(text, "cannot be looked up") {
		t.Errorf("got %q", text)
	}
}

func TestBothFamiliesOfAName(t *testing.T) {
	var all []netip.Addr
	for _, text := range []string{"2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "2001:db8::5", "198.51.100.1", "198.51.100.2"} {
		all = append(all, netip.MustParseAddr(text))
	}
	got := some(all)
	if want := []netip.Addr{all[0], all[5], all[1], all[6]}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
