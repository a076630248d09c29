package report

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/mesh/verdict"
	"warren/nat/path"
	"warren/nat/relay"
)

// TestPeers holds what is said of a member, and what a verdict is told of its path.
func TestPeers(t *testing.T) {
	through := because(t, idGate)
	direct := api.Path{Kind: api.PathDirect, Address: atB}
	for _, tt := range []struct {
		name   string
		change func(*Mesh)
		state  string
		path   api.Path
		ms     float64
		reason string
		judged verdict.Path
	}{
		{"direct", nil, api.PeerUp, direct, 12.5, "", verdict.Path{Kind: verdict.DirectPath}},
		{"idle", func(m *Mesh) { m.Traffic[idB] = Traffic{LastHandshake: ago(time.Minute)} }, api.PeerIdle, direct, 12.5, "", verdict.Path{Kind: verdict.DirectPath}},
		{"a check is overdue", func(m *Mesh) {
			way := m.Paths[idB]
			way.Doubted = ago(time.Second)
			m.Paths[idB] = way
		}, api.PeerSilent, direct, 12.5, "it does not answer; last heard 1 second ago", verdict.Path{Kind: verdict.DirectPath}},
		{"others miss it", func(m *Mesh) { m.Vitals = map[identity.NodeID]Vital{idB: {Life: verdict.Dead, Since: now}} },
			api.PeerSilent, direct, 12.5, "other members do not hear it any more; last heard 1 second ago", verdict.Path{Kind: verdict.DirectPath}},
		{"this node misses everybody", func(m *Mesh) {
			m.Sessions, m.Vitals = nil, map[identity.NodeID]Vital{idB: {Life: verdict.Dead, Since: now}}
		},
			api.PeerUp, direct, 12.5, "", verdict.Path{Kind: verdict.DirectPath}},
		{"no handshake yet", func(m *Mesh) { m.Traffic[idB] = Traffic{LastHandshake: time.Unix(0, 0)} },
			api.PeerConnecting, direct, 12.5, "a path is there; the WireGuard handshake is not done yet", verdict.Path{Kind: verdict.DirectPath}},
		{"relayed", relayedTo, api.PeerUp, api.Path{Kind: api.PathRelay, Address: atGate, Via: "gate"}, 30, "relayed: no direct path yet",
			verdict.Path{Kind: verdict.RelayedPath, Via: idGate}},
		{"relayed, another stands by", func(m *Mesh) {
			relayedTo(m)
			way := m.Paths[idB]
			way.Standby = identity.NodeID{9}
			m.Paths[idB] = way
		}, api.PeerUp, api.Path{Kind: api.PathRelay, Address: atGate, Via: "gate", Standby: identity.NodeID{9}.Short()}, 30, "relayed: no direct path yet",
			verdict.Path{Kind: verdict.RelayedPath, Via: idGate}},
		{"relayed, by a stream to the relay", func(m *Mesh) { relayedTo(m); overTCP(m) },
			api.PeerUp, api.Path{Kind: api.PathRelay, Address: atStream, Via: "gate", Transport: "tcp"}, 30, "relayed: no direct path yet",
			verdict.Path{Kind: verdict.RelayedPath, Via: idGate, TCP: true}},
		{"a stream leads to it, and is used", func(m *Mesh) {
			m.Streams.Ends, m.Streams.Used = map[identity.NodeID]netip.AddrPort{idB: atStream}, map[identity.NodeID]bool{idB: true}
			m.Sessions[idB] = Session{Remote: stream, RTT: 7 * time.Millisecond}
		}, api.PeerUp, api.Path{Kind: api.PathDirect, Address: atStream, Transport: "tcp"}, 7, "UDP does not get through", verdict.Path{Kind: verdict.DirectPath, TCP: true}},
		{"a stream leads to it, and is not used", func(m *Mesh) {
			m.Streams.Ends = map[identity.NodeID]netip.AddrPort{idB: atStream}
		}, api.PeerUp, direct, 12.5, "", verdict.Path{Kind: verdict.DirectPath}},
		{"no path yet", func(m *Mesh) {
			without(m)
			way := m.Paths[idB]
			way.Since = now.Add(-time.Second)
			m.Paths[idB] = way
		}, api.PeerConnecting, api.Path{Kind: api.PathNone}, 0, "peer has not answered", verdict.Path{}},
		{"no path yet, and keys", func(m *Mesh) {
			without(m)
			way := m.Paths[idB]
			way.Since = now.Add(-2 * time.Second)
			m.Paths[idB] = way
			m.Traffic[idB] = Traffic{LastHandshake: ago(time.Second)}
		}, api.PeerConnecting, api.Path{Kind: api.PathNone}, 0, "peer has not answered; the WireGuard handshake is done", verdict.Path{}},
		{"no path, and tried", func(m *Mesh) {
			m.Paths[idB] = path.Status{Reason: through, Since: now.Add(-time.Minute), RTT: time.Second}
		}, api.PeerDown, api.Path{Kind: api.PathNone}, 0, "relay through gate is dead", verdict.Path{}},
		{"no path any more, after many attempts at the one before", func(m *Mesh) {
			m.Paths[idB] = path.Status{Reason: through, Since: now.Add(-time.Second), Attempts: 30}
		}, api.PeerConnecting, api.Path{Kind: api.PathNone}, 0, "relay through gate is dead", verdict.Path{}},
		{"not known to nat", func(m *Mesh) { delete(m.Paths, idB) }, api.PeerConnecting, api.Path{Kind: api.PathNone}, 0, "", verdict.Path{}},
		{"its key is another's", func(m *Mesh) { m.NoTunnel = map[identity.NodeID]string{idB: "no tunnel: its WireGuard key is gate's"} },
			api.PeerDown, api.Path{Kind: api.PathNone}, 0, "no tunnel: its WireGuard key is gate's", verdict.Path{}},
		{"left", func(m *Mesh) { m.Records.Members[1].State = roster.Left }, api.PeerLeft, api.Path{Kind: api.PathNone}, 0, "left the mesh", verdict.Path{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := meshOf(tt.change)
			p, judged := m.peer(m.member(idB), NamesOf(m.Records.Members), now)
			if p.State != tt.state || p.Path != tt.path || p.LatencyMS != tt.ms || p.Reason != tt.reason {
				t.Errorf("got %s %+v %v %q, want %s %+v %v %q", p.State, p.Path, p.LatencyMS, p.Reason, tt.state, tt.path, tt.ms, tt.reason)
			}
			if judged != tt.judged {
				t.Errorf("got path %+v to be judged, want %+v", judged, tt.judged)
			}
		})
	}
}

// TestWithoutIPv4 holds that a node does not show an address that it does not have.
func TestWithoutIPv4(t *testing.T) {
	for _, off := range []bool{false, true} {
		m := meshOf(func(m *Mesh) {
			for i := range m.Records.Members {
				m.Records.Members[i].Addr4, m.Records.Members[i].Addr6 = netip.MustParseAddr("100.70.0.7"), netip.MustParseAddr("fd00::7")
			}
			m.NoIPv4 = off
		})
		s := Status(Agent{Mesh: m})
		if got := s.Self.Addresses[0].Is6(); got != off || len(s.Peers[0].Addresses) != 2 {
			t.Errorf("IPv4 off %v: got addresses %v of this node and %v of another", off, s.Self.Addresses, s.Peers[0].Addresses)
		}
	}
}

// because makes a reason as package path does, which names a member: that a relay is dead.
func because(t *testing.T, id identity.NodeID) path.Reason {
	t.Helper()
	reason := path.Reason("relay through \x00" + string(id[:]) + " is dead")
	if want := "relay through " + id.Short() + " is dead"; reason.String() != want {
		t.Fatalf("got reason %q, want %q: package path writes members in another way now", reason, want)
	}
	return reason
}

func TestStaticPeers(t *testing.T) {
	single, net := netip.MustParsePrefix("100.70.0.9/32"), netip.MustParsePrefix("192.168.7.0/24")
	for _, tt := range []struct {
		name   string
		s      Static
		state  string
		kind   string
		reason string
	}{
		{"up", Static{Traffic: Traffic{Endpoint: atB, LastHandshake: ago(time.Second)}}, api.PeerUp, api.PathDirect, ""},
		{"name unknown", Static{Endpoint: "phone.example:51820"}, api.PeerDown, api.PathNone, "its endpoint phone.example:51820 is not known: the name does not resolve"},
		{"has to call", Static{}, api.PeerIdle, api.PathNone, "it has not called, and no endpoint is configured to call it at"},
		{"nothing sent", Static{Traffic: Traffic{Endpoint: atB, LastHandshake: time.Unix(0, 0)}}, api.PeerIdle, api.PathDirect, "nothing was sent to it yet: WireGuard speaks when there is something to say"},
		{"no answer", Static{Traffic: Traffic{Endpoint: atB, TxBytes: 148}}, api.PeerSilent, api.PathDirect,
			"148 bytes were sent to 198.51.100.7:9277, and nothing came back: WireGuard does not answer a wrong key, a firewall drops it, or the endpoint is wrong"},
		{"idle", Static{Traffic: Traffic{Endpoint: atB, LastHandshake: ago(100 * time.Second)}}, api.PeerIdle, api.PathDirect, "last heard 100 seconds ago; whether it is there now is not known"},
	} {
		tt.s.Name, tt.s.AllowedIPs = "phone", []netip.Prefix{single, net}
		p := staticPeer(Agent{Now: now}, tt.s)
		if p.State != tt.state || p.Path.Kind != tt.kind || p.Reason != tt.reason || !p.Static {
			t.Errorf("%s: got %+v, want %s, %s, %q", tt.name, p, tt.state, tt.kind, tt.reason)
		}
		if !slices.Equal(p.Addresses, []netip.Addr{single.Addr()}) || !slices.Equal(p.Routes, []netip.Prefix{net}) {
			t.Errorf("%s: got addresses %v and routes %v, want %v and %v", tt.name, p.Addresses, p.Routes, single.Addr(), net)
		}
	}
}

func TestStatus(t *testing.T) {
	m := meshOf(func(m *Mesh) {
		m.Records.Members = append(m.Records.Members, roster.Member{ID: identity.NodeID{8}, Name: "away", State: roster.Left, AdmittedBy: idB})
		m.Records.Members[0].Tags, m.Records.Members[0].Admin = []string{"lab"}, true
		m.Records.Members[0].Record.Endpoints = []netip.AddrPort{atB}
		m.Mapped = []netip.AddrPort{atB, atStream}
		terms := identity.InviteTerms{Uses: 2, Expires: now.Add(time.Hour)}
		m.Records.Invites = []Invite{
			{ID: identity.KeyID{1}, By: identity.KeyID(idB), Terms: terms, Used: 1}, {ID: identity.KeyID{2}, Terms: terms, Used: 2}, {ID: identity.KeyID{3}, Terms: terms, Revoked: true},
			{ID: identity.KeyID{4}, Terms: identity.InviteTerms{Uses: 1, Expires: ago(time.Second)}},
		}
		m.Records.Revoked = []Revocation{
			{Target: identity.KeyID{7}, Name: "old", Time: ago(time.Hour), By: identity.KeyID(idB), ByName: "b", Reason: "stolen"}, {Target: identity.KeyID{6}, Invite: true},
		}
		m.Relay = Relay{Load: 130, Limit: 1000, Pairs: []relay.Pair{{A: idB, B: identity.NodeID{9}, Joined: true, FromA: relay.Traffic{Packets: 1, Last: now}}},
			Members: []relay.Member{{ID: idB, Channels: 1, Sent: relay.Traffic{Bytes: 5}}}}
		m.Streams.Counts = StreamCounts{Accepted: 1, Joins: 2, Limited: 3, Failed: 4, Refused: 5}
	})
	got := Status(Agent{
		Now: now, Started: ago(time.Hour), Version: "1.2.0", State: api.StateReady, Interface: "warren0", Port: 9277, PublicKey: "KEY=", Mesh: m,
		Static: []Static{{Name: "a phone"}}, Warnings: []string{"z", "b"},
		Dropped: map[string]map[string]uint64{"": {"join: refused": 1}, "socket": {"malformed": 2, "unknown": 0}, "sessions": {"forwarded": 7, "spliced": 8, "queue full": 9}},
	})
	var names []string
	for _, p := range got.Peers {
		names = append(names, p.Name)
	}
	if want := []string{"away", "b", "gate", "a phone"}; !slices.Equal(names, want) {
		t.Errorf("got peers %v, want %v: members by name, then static ones", names, want)
	}
	if got.Peers[0].AdmittedBy != "b" || !got.Peers[2].Anchor || got.Peers[1].PathMTU != 1280 || got.Peers[1].RxBytes != 10 {
		t.Errorf("got peers %+v, want who admitted the first, and counters", got.Peers)
	}
	wantMesh := api.Mesh{Name: "home", ID: m.ID.String(), Members: 3, Records: 5, Syncing: 2}
	if *got.Mesh != wantMesh {
		t.Errorf("got %+v, want %+v", *got.Mesh, wantMesh)
	}
	wantSelf := api.Self{
		ID: idA.String(), Name: "a", Addresses: []netip.Addr{netip.MustParseAddr("100.70.0.1")}, Interface: "warren0", Port: 9277, PublicKey: "KEY=", Admin: true,
		Tags: []string{"lab"}, Anchor: true, Endpoints: []netip.AddrPort{atB, atStream}, Anchors: []string{"gate"},
	}
	if !reflect.DeepEqual(got.Self, wantSelf) {
		t.Errorf("got self %+v, want %+v", got.Self, wantSelf)
	}
	if len(got.Invites) != 1 || got.Invites[0].By != "b" || got.Invites[0].Used != 1 {
		t.Errorf("got invites %+v, want the one that can still be used", got.Invites)
	}
	if len(got.Revoked) != 2 || got.Revoked[0].Kind != "node" || got.Revoked[0].By != "b" || got.Revoked[1].Kind != "invite" {
		t.Errorf("got revocations %+v, want a node and an invite", got.Revoked)
	}
	if r := got.Relay; r == nil || r.Load != 130 || r.LimitBPS != 8000 || r.Pairs[0].A != "b" || r.Pairs[0].B != (identity.NodeID{9}).Short() || *r.Pairs[0].FromA.Last != now || r.Pairs[0].FromB.Last != nil || r.Members[0].Name != "b" {
		t.Errorf("got relay %+v, want what was forwarded, by name", r)
	}
	if want := (api.Streams{Accepted: 1, Joins: 2, Limited: 3, Failed: 4, Refused: 5}); got.Streams == nil || *got.Streams != want {
		t.Errorf("got streams %+v, want %+v", got.Streams, want)
	}
	if want := map[string]uint64{"join: refused": 1, "socket: malformed": 2, "sessions: queue full": 9}; !reflect.DeepEqual(got.Dropped, want) {
		t.Errorf("got dropped %v, want %v", got.Dropped, want)
	}
	if want := []string{"b", "z"}; !slices.Equal(got.Warnings, want) {
		t.Errorf("got warnings %q, want %q", got.Warnings, want)
	}
}

func TestStatusOfStaticPeersOnly(t *testing.T) {
	got := Status(Agent{Now: now, State: api.StateReady, Static: []Static{{Name: "phone"}}})
	if got.Mesh != nil || got.Relay != nil || got.Streams != nil || len(got.Peers) != 1 || len(got.Warnings) != 0 {
		t.Errorf("got %+v, want one peer and no mesh", got)
	}
	if got := Status(Agent{Now: now, Mesh: meshOf(nil)}); got.Relay != nil || got.Streams != nil {
		t.Errorf("got relay %+v and streams %+v where there was nothing, want none", got.Relay, got.Streams)
	}
}

// refusedByFirewall is what the system does to packets for one anchor.
var refusedByFirewall = []verdict.Unsent{{To: netip.MustParseAddrPort("203.0.113.1:9277"), Count: 849, First: now.Add(-time.Minute), Last: now}}

func TestWarnings(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Mesh)
		want   string // the start of the only warning; "" for none
	}{
		{"all is well", nil, ""},
		{"certificate ends", func(m *Mesh) { m.Expires = now.Add(49 * time.Hour) }, "this node's certificate ends in 2 days, on 2026-03-03: invite it anew before then"},
		{"key on two machines", func(m *Mesh) { m.Records.Conflict = "this key lives elsewhere" }, "this key lives elsewhere"},
		{"no session", func(m *Mesh) { m.Sessions = nil }, "no control session is up: "},
		{"no session, but alone", func(m *Mesh) { m.Sessions, m.Records.Members = nil, m.Records.Members[:1] }, ""},
		{"blocked", overTCP, "UDP seems to be blocked on this network (no anchor answers): packets go by TCP streams"},
		{"refused by the firewall here", func(m *Mesh) { overTCP(m); m.Unsent = refusedByFirewall },
			"this machine's firewall refuses UDP to 203.0.113.1:9277 (operation not permitted, 849 times since 11:59:00 UTC): packets go by TCP streams"},
		{"of one anchor", func(m *Mesh) { m.Unsent = refusedByFirewall },
			"this machine's firewall refuses UDP to 203.0.113.1:9277 (operation not permitted, 849 times since 11:59:00 UTC); let UDP out to port 9277"},
		{"a route that discards", func(m *Mesh) {
			m.Unsent = []verdict.Unsent{{To: netip.MustParseAddrPort("192.0.2.255:9277"), By: verdict.ByRouting, Count: 9, Last: now}}
		}, ""},
		{"blocked, and answers again", func(m *Mesh) {
			overTCP(m)
			m.Streams.UDP, m.Streams.Reason, m.Streams.Blocked = verdict.UDPReturning, "an anchor answers by UDP", "an anchor answers by UDP"
		}, "UDP answers again on this network: packets go by TCP streams until it has done so for some seconds"},
		{"answers again, and there was no stream", func(m *Mesh) { m.Streams.UDP, m.Streams.CutOff = verdict.UDPReturning, "refused" }, ""},
		{"cut off", func(m *Mesh) {
			m.Streams.UDP, m.Streams.CutOff, m.Streams.Reason = verdict.UDPBlocked, "refused", "2 anchors asked by UDP"
		},
			"UDP does not get through (2 anchors asked by UDP), and no stream to an anchor comes up: refused"},
		{"a port is taken", func(m *Mesh) { m.Streams.Ports = []StreamPort{{Port: 9277}, {Port: 443, Err: syscall.EADDRINUSE}} },
			"TCP port 443 is not listened on, for members whose networks drop UDP: another program has it"},
		{"refused", func(m *Mesh) {
			m.Refusals = []verdict.Refusal{{By: idGate, Reason: "revoked", Since: now.Add(-time.Minute)}}
		},
			"gate has refused this node since " + now.Add(-time.Minute).UTC().Format("2006-01-02 15:04:05 UTC") + "; it says: revoked"},
	} {
		m := meshOf(tt.change)
		got := m.warnings(NamesOf(m.Records.Members), now)
		if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], tt.want)) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestPortTrouble(t *testing.T) {
	for err, want := range map[error]string{
		syscall.EACCES: "CAP_NET_BIND_SERVICE", syscall.EADDRINUSE: "another program", errors.New("odd"): "odd",
	} {
		if got := portTrouble(err); !strings.Contains(got, want) {
			t.Errorf("%v: got %q, want %q in it", err, got, want)
		}
	}
}
