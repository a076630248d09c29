package node

import (
	"net/netip"
	"slices"
	"testing"

	"warren/mesh/identity"
)

// A node claims the address that it has, else the first of its own that no member, nor a member's route, has.
func TestAddressToClaim(t *testing.T) {
	probe := func(n int) netip.Addr { return identity.Addr4(netip.MustParsePrefix("100.70.0.0/16"), id(1), n) }
	host := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, 32) }
	f := testFacts(testMember(1), testMember(2), testMember(3))
	self := &f.view.Members[0]
	given := self.Addr4
	if got := ownAddr4(*self, f); got != given {
		t.Errorf("got %v, want what is given, %v", got, given)
	}
	self.Addr4 = netip.Addr{}
	if got := ownAddr4(*self, f); got != probe(0) {
		t.Errorf("with none: got %v, want the first, %v", got, probe(0))
	}
	f.view.Members[1].Addr4 = probe(0)
	f.view.Members[2].Routes = []netip.Prefix{host(probe(1)), host(probe(2))}
	if got := ownAddr4(*self, f); got != probe(3) {
		t.Errorf("beside others: got %v, want %v", got, probe(3))
	}
	self.Routes = []netip.Prefix{host(probe(3))}
	if got := ownAddr4(*self, f); got != probe(3) {
		t.Errorf("beside an own route: got %v, want %v", got, probe(3))
	}
	for n := range identity.MaxProbes {
		f.view.Members[2].Routes = append(f.view.Members[2].Routes, host(probe(n)))
	}
	if got := ownAddr4(*self, f); got.IsValid() {
		t.Errorf("with all taken: got %v, want none", got)
	}
}

// What is shared is offered as far as it has the form of a route, whoever has it by now.
func TestRoutesToOffer(t *testing.T) {
	f := testFacts(testMember(1), testMember(2))
	f.settings.Static = []StaticPeer{
		{Name: "phone", Share: true, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("100.70.9.7/32"), netip.MustParsePrefix("10.1.1.1/32"), netip.MustParsePrefix("100.70.0.0/17")}},
		{Name: "tablet", AllowedIPs: []netip.Prefix{netip.MustParsePrefix("100.70.9.8/32")}},
		{Name: "printer", Share: true, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("100.70.0.2/32"), netip.MustParsePrefix("fd00::9:0/112"), netip.MustParsePrefix("100.70.9.7/32")}},
	}
	want := []netip.Prefix{netip.MustParsePrefix("100.70.0.2/32"), netip.MustParsePrefix("100.70.9.7/32"), netip.MustParsePrefix("fd00::9:0/112")}
	if got := sharedRoutes(f); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
