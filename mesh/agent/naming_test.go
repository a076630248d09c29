package agent

import (
	"net/netip"
	"reflect"
	"testing"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/node"
	"warren/mesh/zone"
	"warren/tunnel/osnames"
)

// TestNaming asserts who has a name, whose it is when two want it, and to whom it is told.
func TestNaming(t *testing.T) {
	net4, net6 := netip.MustParsePrefix("100.70.0.0/16"), netip.MustParsePrefix("fd00:70::/48")
	addr := netip.MustParseAddr
	member := func(n byte, name string, state mesh.Member) mesh.Member {
		state.ID, state.Name, state.Addr4, state.Addr6 = identity.NodeID{n}, name, netip.AddrFrom4([4]byte{100, 70, 0, n}), net6.Addr().Next()
		for range n {
			state.Addr6 = state.Addr6.Next()
		}
		return state
	}
	self := member(1, "nas", mesh.Member{})
	view := mesh.NewView(net4, net6, self, member(2, "alice", mesh.Member{}), member(3, "gone", mesh.Member{State: mesh.Left}))
	view.Domain = "home.internal"
	board := &node.Board{Settings: node.Settings{Names: "hosts", Static: []node.StaticPeer{
		{Name: "phone", AllowedIPs: []netip.Prefix{netip.MustParsePrefix("100.70.0.9/32")}},
		{Name: "alice", AllowedIPs: []netip.Prefix{netip.MustParsePrefix("100.70.0.10/32")}}, // a member's
		{Name: "office", AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/32"), netip.MustParsePrefix("10.1.0.0/16")}},
	}}}
	served, told := namesOf(view, self.ID, board)
	z := served.Zone
	for name, want := range map[string][]netip.Addr{
		"nas.home.internal": {self.Addr4, self.Addr6}, "alice.home.internal": {addr("100.70.0.2"), view.Members[1].Addr6}, "phone.home.internal": {addr("100.70.0.9")},
		"gone.home.internal": nil, "office.home.internal": nil,
	} {
		if found := z.Find(name); !reflect.DeepEqual(found.Addrs, want) {
			t.Errorf("%s: got %v, want %v", name, found.Addrs, want)
		}
	}
	if found := z.Find(zone.ReverseName(addr("100.70.0.10"))); found.Kind != zone.Unknown {
		t.Errorf("the address of a static peer that lost its name: got %+v", found)
	}
	if want := []netip.Addr{self.Addr4, self.Addr6}; !reflect.DeepEqual(served.Addrs, want) {
		t.Errorf("served on %v, want %v", served.Addrs, want)
	}
	if want := []netip.Prefix{net4, net6, netip.MustParsePrefix("100.70.0.9/32"), netip.MustParsePrefix("100.70.0.10/32"), netip.MustParsePrefix("10.1.0.1/32")}; !reflect.DeepEqual(served.From, want) {
		t.Errorf("served to %v, want %v", served.From, want)
	}
	if told.Mode != osnames.InHosts || told.Domain != "home.internal" || len(told.Hosts) != 5 ||
		!reflect.DeepEqual(told.Hosts[0].Names, []string{"alice.home.internal", "alice"}) {
		t.Errorf("told %+v", told)
	}

	board.NoIPv4 = true
	served, told = namesOf(view, self.ID, board)
	if found := served.Zone.Find("alice.home.internal"); !reflect.DeepEqual(found.Addrs, []netip.Addr{view.Members[1].Addr6}) || !reflect.DeepEqual(served.Addrs, []netip.Addr{self.Addr6}) || len(told.Hosts) != 2 {
		t.Errorf("without IPv4: got %v, served on %v, told %v", found.Addrs, served.Addrs, told.Hosts)
	}
}
