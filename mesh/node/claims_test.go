package node

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/nat"
	"warren/tunnel"
	"warren/tunnel/osnet"
)

func prefixes(list string) (out []netip.Prefix) {
	for _, text := range strings.Fields(list) {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// withKey is a member that names a key.
func withKey(m mesh.Member, key byte) mesh.Member {
	m.Record.WireGuardKey = [32]byte{key}
	return m
}

// withRoutes is a member whose routes count.
func withRoutes(m mesh.Member, routes string) mesh.Member {
	m.Routes = prefixes(routes)
	return m
}

func phone(key byte, allowed string) StaticPeer {
	return StaticPeer{Name: "phone", PublicKey: wgtypes.Key{key}, AllowedIPs: prefixes(allowed), Share: true}
}

// shown are the peers of a plan, in one line.
func shown(d desired) string {
	var out []string
	for _, p := range d.tunnel {
		who := "static"
		if !p.ID.IsZero() {
			who = fmt.Sprint(p.ID[0])
		}
		out = append(out, fmt.Sprintf("%s key %d %v", who, p.PublicKey[0], p.AllowedIPs))
	}
	return strings.Join(out, ", ")
}

func texts(list []Conflict) (out []string) {
	for _, c := range list {
		out = append(out, c.Text)
	}
	return out
}

// Whoever names the key of another gets no tunnel, and the other loses nothing.
func TestAKeyHasOneTunnel(t *testing.T) {
	left := withKey(testMember(3), 4)
	left.State = mesh.Left
	flagged := withKey(testMember(3), 4)
	flagged.KeyTakenBy = id(4)
	self := testMember(1)
	self.KeyTakenBy = id(4)
	for _, tt := range []struct {
		name    string
		members []mesh.Member
		held    map[wgtypes.Key]identity.NodeID
		static  []StaticPeer
		tied    []byte
		want    []string
	}{
		{"nobody", []mesh.Member{testMember(3), testMember(4)}, nil, []StaticPeer{phone(77, "100.70.200.9/32")}, []byte{3, 4}, nil},
		{"another member's, later", []mesh.Member{testMember(3), withKey(testMember(4), 3)}, nil, nil, []byte{3}, []string{"node-4 has no tunnel here: its WireGuard key is node-3's"}},
		{"another member's, earlier, nobody is up", []mesh.Member{withKey(testMember(3), 4), testMember(4)}, nil, nil, []byte{3}, []string{"node-4 has no tunnel here: its WireGuard key is node-3's"}},
		{"another member's, earlier, the other is up", []mesh.Member{withKey(testMember(3), 4), testMember(4)}, map[wgtypes.Key]identity.NodeID{{3}: id(3), {4}: id(4)}, nil,
			[]byte{4}, []string{"node-3 has no tunnel here: its WireGuard key is node-4's"}},
		{"of one that was up and has another key now", []mesh.Member{withKey(testMember(3), 4), withKey(testMember(4), 5)}, map[wgtypes.Key]identity.NodeID{{4}: id(4)}, nil, []byte{3, 4}, nil},
		{"of one that was up and has left", []mesh.Member{left, testMember(4)}, map[wgtypes.Key]identity.NodeID{{4}: id(3)}, nil, []byte{4}, nil},
		{"three of one key", []mesh.Member{testMember(3), withKey(testMember(4), 3), withKey(testMember(5), 3)}, nil, nil, []byte{3},
			[]string{"node-4 has no tunnel here: its WireGuard key is node-3's", "node-5 has no tunnel here: its WireGuard key is node-3's"}},
		{"the records say so", []mesh.Member{flagged, testMember(4)}, map[wgtypes.Key]identity.NodeID{{4}: id(3)}, nil, []byte{4}, []string{"node-3 has no tunnel here: its WireGuard key is node-4's"}},
		{"this node's", []mesh.Member{withKey(testMember(3), 1), testMember(4)}, nil, nil, []byte{4}, []string{"node-3 has no tunnel here: its WireGuard key is this node's own"}},
		{"a static peer's", []mesh.Member{withKey(testMember(3), 77), testMember(4)}, map[wgtypes.Key]identity.NodeID{{77}: id(3)}, []StaticPeer{phone(77, "100.70.200.9/32")},
			[]byte{4}, []string{"node-3 has no tunnel here: its WireGuard key is that of static peer phone of this machine"}},
		{"a static peer has this node's", []mesh.Member{testMember(3)}, nil, []StaticPeer{phone(1, "100.70.200.9/32")}, []byte{3}, []string{"static peer phone is left out: its public_key is this node's own"}},
		{"this node has another's", []mesh.Member{self, testMember(4)}, nil, nil, []byte{4},
			[]string{"no member has a tunnel with this node: its WireGuard key is node-4's as well; give it another one (private_key_file in the config file, else join anew)"}},
	} {
		members := tt.members
		if members[0].ID != id(1) {
			members = append([]mesh.Member{testMember(1)}, members...)
		}
		f := testFacts(members...)
		f.here = hereFacts{key: wgtypes.Key{1}, held: tt.held}
		f.settings.Static = tt.static
		got := plan(f)
		var tied []byte
		for i, p := range got.tunnel {
			if p.ID.IsZero() {
				if len(tied) > 0 || i >= len(tt.static) {
					t.Errorf("%s: got peers %s, want static ones first", tt.name, shown(got))
				}
				continue
			}
			tied = append(tied, p.ID[0])
			if _, ok := got.ways[p.ID]; !ok || got.held[p.PublicKey] != p.ID {
				t.Errorf("%s: got a peer %d without a way, or that does not hold its key", tt.name, p.ID[0])
			}
		}
		var reach []byte
		for _, peer := range got.reach {
			reach = append(reach, peer[0])
		}
		if !slices.Equal(tied, tt.tied) || !slices.Equal(reach, tt.tied) || len(got.ways) != len(tt.tied) || !slices.Equal(texts(got.conflicts), tt.want) {
			t.Errorf("%s: got peers %v, to reach %v, %d ways, conflicts %q; want %v and %q", tt.name, tied, reach, len(got.ways), texts(got.conflicts), tt.tied, tt.want)
		}
		for _, c := range got.conflicts {
			if _, up := got.ways[c.ID]; up && c.NoTunnel != "" || !c.ID.IsZero() && !strings.HasPrefix(c.NoTunnel, "no tunnel: ") {
				t.Errorf("%s: got %+v, want it to be about one without a tunnel", tt.name, c)
			}
		}
	}
}

// No member draws away what this machine has by itself, whatever the records say counts.
func TestMembersCannotHaveWhatThisMachineHas(t *testing.T) {
	const own = "100.70.0.2/32 fd00::2/128"
	for _, tt := range []struct {
		name    string
		static  string // allowed IPs
		address string // of the interface, further ones
		member  mesh.Member
		want    string // its allowed IPs
		said    string
	}{
		{"free", "100.70.200.9/32", "", withRoutes(testMember(2), "100.70.201.0/28 fd00::7:0/112"), own + " 100.70.201.0/28 fd00::7:0/112", ""},
		{"equal", "100.70.200.9/32", "", withRoutes(testMember(2), "100.70.200.9/32"), own, "node-2 goes without 100.70.200.9/32 (static peer phone has 100.70.200.9/32) here"},
		{"within", "100.70.200.0/28", "", withRoutes(testMember(2), "100.70.200.9/32"), own, "node-2 goes without 100.70.200.9/32 (static peer phone has 100.70.200.0/28) here"},
		{"around", "100.70.200.9/32", "", withRoutes(testMember(2), "100.70.200.0/24 100.70.201.1/32"), own + " 100.70.201.1/32", "node-2 goes without 100.70.200.0/24 (static peer phone has 100.70.200.9/32) here"},
		{"several, of both families", "100.70.200.0/28 fd00::9/128", "", withRoutes(testMember(2), "100.70.200.1/32 100.70.200.2/32 fd00::/64"), own,
			"node-2 goes without 100.70.200.1/32 (static peer phone has 100.70.200.0/28), 100.70.200.2/32 (static peer phone has 100.70.200.0/28), fd00::/64 (static peer phone has fd00::9/128) here"},
		{"its address", "100.70.0.0/30", "", testMember(2), "fd00::2/128", "node-2 goes without 100.70.0.2/32 (static peer phone has 100.70.0.0/30) here"},
		{"what lies around the mesh", "100.64.0.0/10 fd00::/48", "", withRoutes(testMember(2), "100.70.200.9/32"), own + " 100.70.200.9/32", ""},
		{"an address of the interface", "10.0.0.0/24", "100.70.5.5/16", withRoutes(testMember(2), "100.70.5.5/32 100.70.5.6/32"), own + " 100.70.5.6/32", "node-2 goes without 100.70.5.5/32 (this machine has 100.70.5.5/32) here"},
		{"this node's address", "10.0.0.0/24", "", withRoutes(testMember(2), "100.70.0.0/29 fd00::1/128"), own, "node-2 goes without 100.70.0.0/29 (this machine has 100.70.0.1/32), fd00::1/128 (this machine has fd00::1/128) here"},
		{"an address on the underlay", "10.0.0.0/24", "", withRoutes(testMember(2), "100.70.9.9/32"), own, "node-2 goes without 100.70.9.9/32 (this machine has 100.70.9.9/32) here"},
	} {
		f := testFacts(testMember(1), tt.member)
		f.standing.Hosts = []netip.Addr{netip.MustParseAddr("100.70.9.9")}
		f.settings.Static = []StaticPeer{phone(77, tt.static)}
		f.settings.Interface.Addresses = prefixes(tt.address)
		got := plan(f)
		if len(got.tunnel) != 2 || !slices.Equal(got.tunnel[0].AllowedIPs, prefixes(tt.static)) || !slices.Equal(got.tunnel[1].AllowedIPs, prefixes(tt.want)) {
			t.Errorf("%s: got %s, want %s", tt.name, shown(got), tt.want)
		}
		if said := strings.Join(texts(got.conflicts), "|"); said != tt.said {
			t.Errorf("%s: got said %q, want %q", tt.name, said, tt.said)
		}
		for _, c := range got.conflicts {
			if c.ID != id(2) || c.NoTunnel != "" {
				t.Errorf("%s: got %+v, want it to be about a member that has a tunnel", tt.name, c)
			}
		}
	}

	// Should two members have one prefix all the same, the first keeps it.
	got := plan(testFacts(testMember(1), withRoutes(testMember(2), "100.70.200.9/32"), withRoutes(testMember(3), "100.70.200.9/32")))
	if want := "2 key 2 [100.70.0.2/32 fd00::2/128 100.70.200.9/32], 3 key 3 [100.70.0.3/32 fd00::3/128]"; shown(got) != want || len(got.conflicts) != 1 {
		t.Errorf("got %s, %q, want %s", shown(got), texts(got.conflicts), want)
	}
}

// Routes are what the records let count, and never what a member says of itself.
func TestOnlyRoutesThatCount(t *testing.T) {
	m := withRoutes(testMember(2), "100.70.200.7/32")
	m.Record.Routes = prefixes("100.70.0.3/32 0.0.0.0/0 192.168.1.0/24 100.70.200.7/32 100.70.200.8/32")
	if got, want := shown(plan(testFacts(testMember(1), m))), "2 key 2 [100.70.0.2/32 fd00::2/128 100.70.200.7/32]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A node offers of its static peers what has the form of a route; whether another has it is for the records to say.
func TestSharedRoutes(t *testing.T) {
	f := testFacts(testMember(1), testMember(3))
	f.settings.Static = []StaticPeer{
		phone(77, "100.70.200.9/32 fd00::9/128 192.168.1.0/24 100.70.0.0/16 100.70.0.0/24 0.0.0.0/0 100.70.0.3/32"),
		{Name: "private", PublicKey: wgtypes.Key{78}, AllowedIPs: prefixes("100.70.200.10/32")},
	}
	if got, want := plan(f).own.Routes, prefixes("100.70.0.0/24 100.70.0.3/32 100.70.200.9/32 fd00::9/128"); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestIPv4IsLeftOutWhereItWouldCollide(t *testing.T) {
	yes, no := true, false
	route := func(prefix, on string) []osnet.Route {
		return []osnet.Route{{Prefix: netip.MustParsePrefix(prefix), Interface: on}}
	}
	said := func(prefix, on string) string {
		return "the mesh's IPv4 network 100.70.0.0/16 overlaps " + prefix + " on " + on + ": the mesh goes by IPv6 alone on this machine for as long as that lasts"
	}
	for _, tt := range []struct {
		name      string
		elsewhere []osnet.Route
		kept      bool // node.json says no
		setting   *bool
		off       bool
		said      string
		claims    string // address that the own record claims
	}{
		{"nothing there", nil, false, nil, false, "", "100.70.0.1"},
		{"other networks", append(route("192.168.1.0/24", "eth0"), route("fd00::/48", "eth0")...), false, nil, false, "", "100.70.0.1"},
		{"the same network", route("100.70.0.0/16", "eth0"), false, nil, true, said("100.70.0.0/16", "eth0"), "100.70.0.1"},
		{"a network around", route("100.64.0.0/10", "wwan0"), false, nil, true, said("100.64.0.0/10", "wwan0"), "100.70.0.1"},
		{"a network inside", route("100.70.8.0/24", "eth0"), false, nil, true, said("100.70.8.0/24", "eth0"), "100.70.0.1"},
		{"halves of a default route", append(route("0.0.0.0/1", "tun0"), route("64.0.0.0/2", "tun0")...), false, nil, false, "", "100.70.0.1"},
		{"one address of another VPN", route("100.70.9.9/32", "tailscale0"), false, nil, false, "", "100.70.0.1"},
		{"this node's address", route("100.70.0.1/32", "tailscale0"), false, nil, true, said("100.70.0.1/32", "tailscale0"), "100.70.0.1"},
		{"not wanted at join", nil, true, nil, true, "", ""},
		{"not wanted at join, and collides", route("100.70.0.0/16", "eth0"), true, nil, true, "", ""},
		{"not wanted at join, wanted now", nil, true, &yes, false, "", "100.70.0.1"},
		{"wanted, and collides", route("100.70.0.0/16", "eth0"), false, &yes, true, said("100.70.0.0/16", "eth0"), "100.70.0.1"},
		{"not wanted", nil, false, &no, true, "", ""},
	} {
		f := testFacts(testMember(1), withRoutes(testMember(2), "100.70.200.7/32 fd00::7:0/112"))
		f.here = hereFacts{elsewhere: tt.elsewhere, noIPv4: tt.kept}
		f.settings.IPv4 = tt.setting
		got := plan(f)
		addrs, routes, allowed := prefixes("100.70.0.1/32 fd00::1/128"), prefixes("100.70.0.0/16 fd00::/48"), prefixes("100.70.0.2/32 fd00::2/128 100.70.200.7/32 fd00::7:0/112")
		if tt.off {
			addrs, routes, allowed = addrs[1:], routes[1:], prefixes("fd00::2/128 fd00::7:0/112")
		}
		if !slices.Equal(got.link.Addrs, addrs) || !slices.Equal(got.link.Routes, routes) || !slices.Equal(got.tunnel[0].AllowedIPs, allowed) || len(got.echo) != len(addrs) || got.noIPv4 != tt.off {
			t.Errorf("%s: got addresses %v, routes %v, peers %s, %d echoes, want IPv4 to be off: %v", tt.name, got.link.Addrs, got.link.Routes, shown(got), len(got.echo), tt.off)
		}
		if text := strings.Join(texts(got.conflicts), "|"); text != tt.said {
			t.Errorf("%s: got said %q, want %q", tt.name, text, tt.said)
		}
		if claim := got.own.Addr4; claim.IsValid() != (tt.claims != "") || claim.IsValid() && claim.String() != tt.claims {
			t.Errorf("%s: got the claim %v, want %q: it does not change with the network", tt.name, claim, tt.claims)
		}
		if got.local.Overlay[0].Addr().Is4() == tt.off {
			t.Errorf("%s: got the overlay %v for nat, want addresses of a network that collides to be offered", tt.name, got.local.Overlay)
		}
	}
}

// counted counts lines of a log.
type counted struct {
	lines map[string]int
}

// watched makes a hub's warnings count.
func watched() (*slog.Logger, *counted) {
	c := &counted{lines: make(map[string]int)}
	return slog.New(slog.NewTextHandler(c, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "part" {
			return slog.Attr{}
		}
		return a
	}})), c
}

func (c *counted) Write(p []byte) (int, error) {
	c.lines[strings.TrimSpace(string(p))]++
	return len(p), nil
}

// A member that takes the key of another that is up costs that one nothing, is told once, and goes without a trace.
func TestAThiefOfAKeyComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := met(t)
		thief := withKey(testMember(0), 2) // before the victim in every order
		// A retry would tell the tunnel again: nothing has failed.
		for range 2 {
			a.learn(thief, testMember(1), testMember(2))
			time.Sleep(10 * retryAfter)
			synctest.Wait()
		}
		lines(t, "a thief", a.take())
		board := a.hub.Board()
		if want := []string{"node-0 has no tunnel here: its WireGuard key is node-2's"}; !slices.Equal(board.Warnings, want) || board.NoTunnel[id(0)] != "no tunnel: its WireGuard key is node-2's" || len(board.NoTunnel) != 1 {
			t.Errorf("got warnings %q and without tunnel %v, want %q", board.Warnings, board.NoTunnel, want)
		}
		a.paths <- nat.Event{Peer: id(0), Path: nat.Path{Kind: nat.Direct, Addr: netip.MustParseAddrPort("203.0.113.66:6666")}}
		a.learn(testMember(1), testMember(2))
		lines(t, "it is put out", a.take())
		if board := a.hub.Board(); len(board.Warnings)+len(board.NoTunnel) != 0 {
			t.Errorf("got warnings %q and without tunnel %v, want none", board.Warnings, board.NoTunnel)
		}
	})
}

// A member that is up and takes the key of a static peer, or whose key a static peer is given, loses its tunnel and nothing else.
func TestAStaticPeerComesBeforeAMember(t *testing.T) {
	const static, member = "static 102 [100.70.200.2/32] 203.0.113.102:51820", "2 key 2 [100.70.0.2/32 fd00::2/128]"
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork()
		a, b := newTwins(t, net, 1, testMember(1), testMember(2)), newTwins(t, net, 2, testMember(1), testMember(2))
		var log *counted
		a.logger, log = watched()
		peer := StaticPeer{Name: "phone", PublicKey: wgtypes.Key{102}, AllowedIPs: prefixes("100.70.200.2/32"), Endpoint: "203.0.113.102:51820"}
		a.setting = Settings{Static: []StaticPeer{peer}}
		a.run(t)
		b.run(t)
		a.connect(2, "192.0.2.2:9277")
		time.Sleep(time.Second)
		synctest.Wait()
		a.take()

		a.learn(testMember(1), withKey(testMember(2), 102))
		time.Sleep(10 * retryAfter)
		synctest.Wait()
		lines(t, "a member takes its key", a.take(), "0s peers "+static, "0s reach []")
		reason := "node-2 has no tunnel here: its WireGuard key is that of static peer phone of this machine"
		if got := a.hub.Board().Warnings; !slices.Equal(got, []string{reason}) {
			t.Errorf("got warnings %q, want %q", got, reason)
		}
		a.tunnels <- tunnel.Event{Kind: tunnel.Roamed, ID: id(2)} // what was still on its way
		a.paths <- nat.Event{Peer: id(2), Path: nat.Path{Kind: nat.Direct, Addr: netip.MustParseAddrPort("192.0.2.2:1")}}
		synctest.Wait()
		lines(t, "news of before", a.take(), "0s check [2]")

		a.learn(testMember(1), testMember(2))
		time.Sleep(time.Second)
		synctest.Wait()
		lines(t, "its own key again", a.take(), "0s peers "+static+", "+member, "0s reach [2]")

		peer.PublicKey = wgtypes.Key{2}
		a.setting.Static = []StaticPeer{peer}
		if _, err := a.hub.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * retryAfter)
		synctest.Wait()
		lines(t, "a reload gives a static peer the member's key", a.take(), "0s peers static 2 [100.70.200.2/32] 203.0.113.102:51820", "0s reach []")
		a.setting.Static = nil
		if _, err := a.hub.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		lines(t, "a reload takes it away", a.take(), "0s peers "+member, "0s reach [2]")
		for text, want := range map[string]int{
			`level=WARN msg=conflict reason="` + reason + `"`: 2, `level=INFO msg="conflict over" reason="` + reason + `"`: 2, `level=INFO msg="settings reloaded"`: 2,
		} {
			if log.lines[text] != want {
				t.Errorf("got %d lines %s, want %d", log.lines[text], text, want)
			}
		}
		for text := range log.lines {
			if strings.Contains(text, "not everything in place") || strings.Contains(text, "member gone") {
				t.Errorf("got the line %s", text)
			}
		}
	})
}

// What collides comes and goes with the network, and is looked for once a minute.
func TestIPv4GoesAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := met(t)
		lan := []osnet.Route{{Prefix: netip.MustParsePrefix("100.70.0.0/16"), Interface: "wlan0"}}
		a.set(func(w *twins) { w.routes, w.stands.Network = lan, 2 }, a.standing)
		lines(t, "a network that collides", a.take(),
			"0s link [fd00::1/128] routes [fd00::/48]",
			"0s peers 2 key 2 [fd00::2/128]",
			"0s local network 2 anchors []",
			"0s redial",
		)
		if got := a.hub.Board(); len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "100.70.0.0/16 on wlan0") || !got.NoIPv4 {
			t.Errorf("got warnings %q, want it said", got.Warnings)
		}
		a.mu.Lock()
		a.routes = nil
		a.mu.Unlock()
		time.Sleep(tickEvery)
		synctest.Wait()
		var got []string
		for _, line := range a.take() {
			_, what, _ := strings.Cut(line, " ")
			got = append(got, what)
		}
		lines(t, "it is gone", got, "link [100.70.0.1/32 fd00::1/128] routes [100.70.0.0/16 fd00::/48]", "peers 2 key 2 [100.70.0.2/32 fd00::2/128]")
		if got := a.hub.Board(); got.Warnings != nil || got.NoIPv4 {
			t.Errorf("got warnings %q, want none", got.Warnings)
		}
	})
}
