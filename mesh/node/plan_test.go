package node

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/mesh/session"
	"warren/nat"
	"warren/nat/standing"
)

func testFacts(members ...mesh.Member) facts {
	view := testView(members...)
	return facts{
		self: id(1), view: &view, standing: &standing.Snapshot{}, names: map[string]netip.AddrPort{},
		peers: map[identity.NodeID]peerFacts{}, sessions: map[identity.NodeID]sessionFacts{},
	}
}

// Where the only channel to a peer would be, a session has to be too.
func TestPlanDialsTheRelaysThatAreNeeded(t *testing.T) {
	members := []mesh.Member{testMember(1)}
	for n := byte(2); n < 8; n++ {
		members = append(members, testMember(n, "192.0.2."+string('0'+rune(n))+":9277"))
	}
	f := testFacts(members...)
	for n := byte(2); n < 8; n++ {
		f.sessions[id(n)] = sessionFacts{rtt: time.Duration(n) * time.Millisecond}
	}
	f.relays = []identity.NodeID{id(7), id(99)}
	if got, want := targetIDs(plan(f).targets), []byte{2, 3, 4, 7}; !slices.Equal(got, want) {
		t.Errorf("got sessions to %v, want the three nearest and the relay: %v", got, want)
	}
}

// A member may name any address as its own: none of this host, of the overlay, or of the socket's streams is dialled.
func TestPlanDialsNoAddressThatIsNone(t *testing.T) {
	good := netip.MustParseAddrPort("203.0.113.2:9277")
	m := testMember(2, "127.0.0.1:80", "[::1]:80", "100.70.0.1:22", "[fd00::1]:22", "[100::200:0:0:1]:9", "0.0.0.0:1", "224.0.0.1:1", good.String())
	m.Record.Streams = append([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:443")}, m.Record.Endpoints...)
	f := testFacts(testMember(1), m)
	f.relays = []identity.NodeID{id(2)}
	got := plan(f)
	if want := []session.Target{{ID: id(2), Addrs: []netip.AddrPort{good}}}; !reflect.DeepEqual(got.targets, want) {
		t.Errorf("got targets %v, want %v", got.targets, want)
	}
	if want := []netip.AddrPort{good}; len(got.streams.Anchors) != 1 || !slices.Equal(got.streams.Anchors[0].UDP, want) || !slices.Equal(got.streams.Anchors[0].TCP, want) {
		t.Errorf("got anchors of streams %+v, want %v alone", got.streams.Anchors, want)
	}
	if len(got.standing.Servers) != 1 || got.standing.Servers[0].Addr != good {
		t.Errorf("got servers %v, want %v alone", got.standing.Servers, good)
	}
	f.view.Members[1].Record.Endpoints = m.Record.Endpoints[:7]
	if got := plan(f).streams.Anchors; len(got) != 0 {
		t.Errorf("got anchors of streams %+v, want none", got)
	}
}

// A session that came up stays for a while, whatever it was for.
func TestPlanKeepsYoungSessions(t *testing.T) {
	now, met := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), netip.MustParseAddrPort("203.0.113.7:9277")
	f := testFacts(testMember(1), testMember(2, "192.0.2.2:9277"), testMember(7))
	f.sessions[id(2)] = sessionFacts{since: now.Add(-time.Hour)}
	f.contacts = []place.Contact{{ID: id(7), Addr: met}}
	for age, want := range map[time.Duration][]byte{10 * time.Second: {2, 7}, time.Minute: {2}} {
		f.now, f.sessions[id(7)] = now, sessionFacts{remote: met, since: now.Add(-age)}
		if got := targetIDs(plan(f).targets); !slices.Equal(got, want) {
			t.Errorf("%v after its beginning: got targets %v, want %v", age, got, want)
		}
	}
	f.sessions[id(7)] = sessionFacts{remote: netip.MustParseAddrPort("[100::300:0:0:1]:9"), since: now}
	if got := targetIDs(plan(f).targets); !slices.Equal(got, []byte{2}) {
		t.Errorf("by a stream: got targets %v, want none but the anchor", got)
	}
}

func targetIDs(targets []session.Target) (out []byte) {
	for _, t := range targets {
		out = append(out, t.ID[0])
	}
	return out
}

func TestPlanGivesEachMemberItsAddressesAndRoutesTheOverlay(t *testing.T) {
	left := testMember(4)
	left.State = mesh.Left
	f := testFacts(testMember(1), testMember(2), testMember(3), left)
	got := plan(f)
	if want := []identity.NodeID{id(2), id(3)}; !slices.Equal(got.reach, want) {
		t.Errorf("got peers to reach %v, want %v: neither self nor who left", got.reach, want)
	}
	if len(got.tunnel) != 2 || !slices.Equal(got.tunnel[0].AllowedIPs, []netip.Prefix{netip.MustParsePrefix("100.70.0.2/32"), netip.MustParsePrefix("fd00::2/128")}) {
		t.Errorf("got tunnel peers %v, want the two with their two addresses each", got.tunnel)
	}
	if want := []netip.Prefix{f.view.Prefix4, f.view.Prefix6}; !slices.Equal(got.link.Routes, want) {
		t.Errorf("got routes %v, want %v: what members have lies inside", got.link.Routes, want)
	}
	if want := []netip.Prefix{netip.MustParsePrefix("100.70.0.1/32"), netip.MustParsePrefix("fd00::1/128")}; !slices.Equal(got.link.Addrs, want) {
		t.Errorf("got addresses %v, want %v", got.link.Addrs, want)
	}
	if again := plan(f); !reflect.DeepEqual(got, again) {
		t.Errorf("the same facts gave another plan: %v and %v", got, again)
	}
}

func TestStaticPeersNeedNoMesh(t *testing.T) {
	phone := netip.MustParseAddrPort("192.0.2.1:51820")
	f := facts{view: &mesh.View{}, standing: &standing.Snapshot{}, names: map[string]netip.AddrPort{"phone.example:51820": phone}}
	f.settings.Static = []StaticPeer{{Name: "phone", PublicKey: wgtypes.Key{77}, Endpoint: "phone.example:51820", AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.2/32")}, Keepalive: 25 * time.Second}}
	f.settings.Interface.Addresses = []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24")}
	got := plan(f)
	if len(got.tunnel) != 1 || got.tunnel[0].Endpoint != phone || len(got.reach) != 0 || len(got.targets) != 0 {
		t.Errorf("got %+v, want the static peer alone", got)
	}
	if !slices.Equal(got.link.Routes, []netip.Prefix{netip.MustParsePrefix("10.9.0.2/32")}) {
		t.Errorf("got routes %v, want the peer's", got.link.Routes)
	}
}

func TestTargets(t *testing.T) {
	anchors := []mesh.Member{testMember(1)}
	for n := byte(2); n < 8; n++ {
		anchors = append(anchors, testMember(n, "203.0.113.1:9277"))
	}
	up := func(f *facts, ids ...byte) {
		for _, n := range ids {
			f.sessions[id(n)] = sessionFacts{rtt: time.Duration(10-n) * time.Millisecond}
		}
	}
	direct := func(f *facts, ids ...byte) {
		for _, n := range ids {
			f.peers[id(n)] = peerFacts{path: nat.Event{Path: nat.Path{Kind: nat.Direct, Addr: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), uint16(n))}}}
		}
	}
	t.Run("with too few answers all anchors are dialled", func(t *testing.T) {
		f := testFacts(anchors...)
		up(&f, 2, 3)
		if got := targetIDs(plan(f).targets); !slices.Equal(got, []byte{2, 3, 4, 5, 6, 7}) {
			t.Errorf("got %v", got)
		}
	})
	t.Run("with enough the nearest are kept", func(t *testing.T) {
		f := testFacts(anchors...)
		up(&f, 2, 3, 4, 5)
		if got := targetIDs(plan(f).targets); !slices.Equal(got, []byte{3, 4, 5}) {
			t.Errorf("got %v, want 3, 4 and 5: the smallest round-trip times", got)
		}
	})
	t.Run("an anchor keeps to all anchors", func(t *testing.T) {
		f := testFacts(append(anchors[1:], testMember(1, "203.0.113.9:9277"))...)
		up(&f, 2, 3, 4, 5)
		if got := targetIDs(plan(f).targets); len(got) != 6 {
			t.Errorf("got %v, want all six others", got)
		}
	})
	t.Run("contacts are dialled while no anchor answers", func(t *testing.T) {
		left := testMember(3)
		left.State = mesh.Left
		f := testFacts(testMember(1), testMember(2), left)
		for n := byte(2); n <= 4; n++ {
			f.contacts = append(f.contacts, place.Contact{ID: id(n), Addr: netip.AddrPortFrom(netip.MustParseAddr("192.168.1.2"), uint16(n))})
		}
		if got := targetIDs(plan(f).targets); !slices.Equal(got, []byte{2, 4}) {
			t.Errorf("got %v, want 2 and the unknown 4, not 3, which has left", got)
		}
		view := testView(append(slices.Clone(f.view.Members), testMember(5, "203.0.113.1:9277"))...)
		f.view = &view
		f.sessions[id(5)] = sessionFacts{}
		if got := targetIDs(plan(f).targets); !slices.Equal(got, []byte{5}) {
			t.Errorf("got %v while an anchor answers, want it alone", got)
		}
	})
	t.Run("direct neighbours are dialled by the smaller ID", func(t *testing.T) {
		f := testFacts(testMember(0), testMember(1), testMember(2))
		direct(&f, 0, 2)
		if got := targetIDs(plan(f).targets); !slices.Equal(got, []byte{2}) {
			t.Errorf("got %v, want 2", got)
		}
	})
	t.Run("in a large mesh with anchors only the ring's neighbours", func(t *testing.T) {
		members := []mesh.Member{testMember(1)}
		for n := byte(2); n < 40; n++ {
			members = append(members, testMember(n))
		}
		members = append(members, testMember(40, "203.0.113.1:9277"))
		f := testFacts(members...)
		for n := byte(2); n < 40; n++ {
			direct(&f, n)
		}
		up(&f, 40)
		if got := targetIDs(plan(f).targets); !slices.Equal(got, []byte{2, 3, 4, 38, 39, 40}) {
			t.Errorf("got %v, want three on each side of the ring and the anchor", got)
		}
		f.sessions = nil
		if got := targetIDs(plan(f).targets); len(got) != 39 {
			t.Errorf("got %d targets without an anchor, want all 38 direct peers and the anchor", len(got))
		}
	})
}
