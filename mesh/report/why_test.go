package report

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/mesh/roster"
	"warren/mesh/verdict"
	"warren/nat/natkind"
	"warren/nat/path"
)

func inquiryOf(change func(*Mesh), more func(*Inquiry)) Inquiry {
	in := Inquiry{Now: now, Mesh: meshOf(change), Target: idB, Port: 9277}
	if more != nil {
		more(&in)
	}
	return in
}

func failed(pairs ...verdict.Pair) []verdict.Attempt {
	return []verdict.Attempt{{Started: ago(time.Hour), Ended: ago(time.Hour)}, {Started: ago(20 * time.Second), Ended: ago(14 * time.Second), Pairs: pairs}}
}

func TestWhy(t *testing.T) {
	sym := natkind.Self{Mapping: natkind.MappedByAddressAndPort, Filtering: natkind.FilteredByAddressAndPort, PortMapping: natkind.PortMappingAbsent}
	silent := func(in *Inquiry) { in.Evidence.Unanswered, in.Evidence.Begun = 4, ago(time.Minute) }
	srflx := verdict.Pair{Remote: netip.MustParseAddrPort("198.51.100.7:1"), Type: "srflx", Sent: 40}
	for _, tt := range []struct {
		name   string
		change func(*Mesh)
		more   func(*Inquiry)
		want   verdict.Kind
		says   []string
	}{
		{"direct", nil, nil, verdict.Direct, []string{"b is reached directly"}},
		{"direct, without an answer", func(m *Mesh) {
			m.Traffic[idB] = Traffic{LastHandshake: ago(time.Minute), Flow: Flow{Heard: ago(3 * time.Second)}}
		}, func(in *Inquiry) { in.Ping.Asked = true }, verdict.Silent, []string{"b does not answer over its path just now"}},
		{"direct, with one", nil, func(in *Inquiry) { in.Ping = Ping{Asked: true, RTT: time.Millisecond} }, verdict.Direct, nil},
		{"idle for an hour, and healthy", func(m *Mesh) {
			m.Traffic[idB] = Traffic{LastHandshake: ago(time.Hour), Flow: Flow{Sent: now, Heard: now}}
		},
			func(in *Inquiry) { in.Ping = Ping{Asked: true, RTT: time.Millisecond} }, verdict.Direct, []string{"b is reached directly"}},
		{"no keys for long, and packets leave", func(m *Mesh) {
			m.Traffic[idB] = Traffic{LastHandshake: ago(time.Hour), Flow: Flow{Sent: now}}
			proved(m)
		}, func(in *Inquiry) { in.Ping.Asked = true }, verdict.HandshakeUnanswered, nil},
		{"UAPI's zero is no handshake", func(m *Mesh) { m.Traffic[idB] = Traffic{LastHandshake: time.Unix(0, 0)}; proved(m) }, func(in *Inquiry) { in.Ping.Asked = true },
			verdict.HandshakeUnanswered, []string{"has got no answer over it so far"}},
		{"relayed, being tried", relayedTo, nil, verdict.Trying, []string{"through the relay gate, not directly"}},
		{"both map", relayedTo, func(in *Inquiry) { in.Here, in.There.NAT, in.Attempts = sym, sym, failed(srflx) },
			verdict.BothMapByDestination, []string{"the routers of a and b both map", "forward UDP port 9277 there"}},
		{"under one address", func(m *Mesh) { relayedTo(m); m.Mapped = []netip.AddrPort{atB} }, func(in *Inquiry) { in.Attempts = failed(srflx) },
			verdict.SameRouter, []string{"a and b are seen under one address"}},
		{"by a stream", func(m *Mesh) { relayedTo(m); overTCP(m) }, nil, verdict.UDPBlockedHere, []string{"through the relay gate, by a TCP stream", "network of a"}},
		{"off", without, silent, verdict.Off, []string{"has answered nothing for 60 seconds"}},
		{"off, gossip knows", without, func(in *Inquiry) {
			silent(in)
			in.Mesh.Vitals = map[identity.NodeID]Vital{idB: {Life: verdict.Dead, Since: ago(time.Second)}}
		}, verdict.Off, []string{"no other member hears it either"}},
		{"deaf", func(m *Mesh) { without(m); m.Sessions[idB] = Session{Remote: atB} }, silent, verdict.Deaf, nil},
		{"older", func(m *Mesh) {
			without(m)
			m.Sessions[idB], m.Records.Members[1].Record.Version = Session{Remote: atB}, "1.1.0"
		}, silent, verdict.OlderVersion, []string{"runs version 1.1.0, and this node 1.2.0"}},
		{"clock", without, func(in *Inquiry) { silent(in); in.There.Skewed = ago(time.Minute) }, verdict.Clock, []string{"clocks of a and b"}},
		{"clock set right", without, func(in *Inquiry) { silent(in); in.There.Skewed = ago(2 * time.Minute) }, verdict.Off, nil},
		{"refused there", without, func(in *Inquiry) { silent(in); in.Evidence.Refused = true }, verdict.Refused, []string{"b says that it does not know this node"}},
		{"no route", without, func(in *Inquiry) { in.Evidence.NoRoute = "no session" }, verdict.NoWay, []string{"no way to b: no session"}},
		{"alone", func(m *Mesh) { without(m); m.Sessions = nil }, silent, verdict.Isolated, []string{"introduce it to b"}},
		{"refused by all", func(m *Mesh) {
			without(m)
			m.Sessions, m.Refusals = nil, []verdict.Refusal{{By: idGate, Reason: "revoked"}}
		}, silent, verdict.Refused, []string{"other members refuse this node: gate has refused this node since 0001-01-01 00:00:00 UTC; it says: revoked"}},
		{"no path, and no relay", func(m *Mesh) {
			m.Paths[idB] = path.Status{Reason: because(t, idGate)}
		}, func(in *Inquiry) { in.Here, in.There.NAT, in.Attempts = sym, sym, failed(srflx) },
			verdict.BothMapByDestination, []string{"and no relay carries the packets: relay through gate is dead"}},
		{"no path, and a relay that does not answer", without, func(in *Inquiry) {
			in.Here, in.There.NAT, in.Attempts = sym, sym, failed(srflx)
			in.Evidence.Relays = []path.Beside{{Anchor: idGate}}
		}, verdict.BothMapByDestination, []string{"b does not answer through gate"}},
		{"left", func(m *Mesh) { m.Records.Members[1].State = roster.Left }, nil, verdict.HasLeft, []string{"left the mesh by itself"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Why(inquiryOf(tt.change, tt.more))
			text := got.Conclusion + "\n" + got.Cause + "\n" + got.Fix
			if got.Verdict != tt.want.String() {
				t.Errorf("got %s, want %s:\n%s", got.Verdict, tt.want, text)
			}
			for _, part := range tt.says {
				if !strings.Contains(text, part) {
					t.Errorf("got\n%s\nwant %q in it", text, part)
				}
			}
		})
	}
}

// TestWhyShowsTheEvidence holds all that stands beside the verdict.
func TestWhyShowsTheEvidence(t *testing.T) {
	third := identity.NodeID{9}
	here := natkind.Self{Mapping: natkind.MappedIndependent, Filtering: natkind.FilteredNot, PortMapping: natkind.PortMapped, Ports: natkind.PortsKept}
	got := Why(inquiryOf(func(m *Mesh) { relayedTo(m); m.Sessions[idB] = Session{Remote: atB, RTT: 3 * time.Millisecond} }, func(in *Inquiry) {
		in.Here, in.HereAt, in.Mesh.Vitals = here, ago(time.Second), map[identity.NodeID]Vital{idB: {Life: verdict.Alive, Since: ago(time.Hour)}}
		in.There = Told{Heard: ago(time.Minute)}
		in.Ping = Ping{Asked: true, RTT: 3500 * time.Microsecond}
		in.Evidence = path.Evidence{
			Status: path.Status{Path: path.Path{Kind: path.Relayed, Via: idGate}}, Begun: ago(time.Minute), Unanswered: 2, NoRoute: "none", Refused: true, NextTry: now,
			Changes: []path.Change{{At: ago(time.Hour), Path: path.Path{Kind: path.Direct, Addr: atB}}, {At: ago(time.Minute), Reason: because(t, idGate)}, {At: now, Path: path.Path{Kind: path.Relayed, Via: idGate}}},
			Relays:  []path.Beside{{Anchor: third}, {Anchor: idA, Ready: true}, {Anchor: idGate, Ready: true}},
		}
		in.Attempts = failed(verdict.Pair{Remote: atGate, Type: "host"}, verdict.Pair{Remote: atB, Type: "srflx", Sent: 4, Answered: 1})
	}))
	at := func(d time.Duration) *time.Time { t := ago(d); return &t }
	for _, tt := range []struct {
		what      string
		got, want any
	}{
		{"here", got.Here, api.Standing{Name: "a", Known: true, Time: at(time.Second), Mapping: "endpoint-independent", Filtering: "endpoint-independent", PortMapping: "mapped", Ports: "kept", Version: "1.2.0"}},
		{"there", got.There, api.Standing{Name: "b", Mapping: "unknown", Filtering: "unknown", PortMapping: "unknown", Ports: "unknown", Version: "1.2.0"}},
		{"signals", got.Signals, api.Signals{Unanswered: 2, Since: at(time.Minute), NoRoute: "none", Refused: true, LastHeard: at(time.Minute), NextTry: at(0)}},
		{"session", *got.Session, api.Session{Address: atB, LatencyMS: 3}},
		{"ping", [2]any{got.Pinged, got.PingMS}, [2]any{true, 3.5}},
		{"gossip", [2]any{got.Gossip, *got.GossipAt}, [2]any{"alive", ago(time.Hour)}},
		{"changes", got.Changes, []api.Change{
			{Time: now, Path: api.Path{Kind: api.PathRelay, Via: "gate"}},
			{Time: ago(time.Minute), Path: api.Path{Kind: api.PathNone}, Reason: "relay through gate is dead"},
			{Time: ago(time.Hour), Path: api.Path{Kind: api.PathDirect, Address: atB}},
		}},
		{"relays", got.Relays, []api.RelayCheck{{Name: "gate", Ready: true, InUse: true}, {Name: "a", Ready: true}, {Name: third.Short()}}},
		{"attempts", got.Attempts, []api.Attempt{
			{Started: ago(20 * time.Second), Ended: at(14 * time.Second), Result: "1 of 2 addresses answered", Pairs: []api.Pair{
				{Remote: atB, Type: "srflx", Sent: 4, Answered: 1, Result: "answered, not chosen"}, {Remote: atGate, Type: "host", Result: "not tried: the attempt ended before"},
			}},
			{Started: ago(time.Hour), Ended: at(time.Hour), Result: "the peer has told no address"},
		}},
		{"peer", got.Peer.Path, api.Path{Kind: api.PathRelay, Address: atGate, Via: "gate"}},
	} {
		if !reflect.DeepEqual(tt.got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", tt.what, tt.got, tt.want)
		}
	}
	byStream := Why(inquiryOf(func(m *Mesh) { m.Sessions[idB] = Session{Remote: stream, RTT: time.Millisecond} }, nil))
	if want := (api.Session{Transport: api.TransportTCP, LatencyMS: 1}); byStream.Session == nil || *byStream.Session != want {
		t.Errorf("session by a stream: got %+v, want %+v", byStream.Session, want)
	}
	if got := Why(inquiryOf(nil, nil)).Session; got != nil {
		t.Errorf("got session %+v, want none", got)
	}
}

func TestWhyStatic(t *testing.T) {
	a := Agent{Now: now, Port: 9277, PublicKey: "KEY="}
	for _, tt := range []struct {
		s    Static
		want verdict.Kind
		says string
	}{
		{Static{Traffic: Traffic{Endpoint: atB, LastHandshake: ago(time.Second)}}, verdict.Direct, "phone is a static peer, and reached directly"},
		{Static{Endpoint: "x:1"}, verdict.StaticName, "its endpoint x:1 is not known"},
		{Static{}, verdict.StaticSilent, "UDP port 9277, and the public key to KEY="},
		{Static{Traffic: Traffic{Endpoint: atB, LastHandshake: time.Unix(0, 0)}}, verdict.StaticUnused, "nothing was sent to it yet"},
		{Static{Traffic: Traffic{Endpoint: atB, TxBytes: 1}}, verdict.StaticUnanswered, "1 byte were sent to 198.51.100.7:9277"},
		{Static{Traffic: Traffic{Endpoint: atB, TxBytes: 1, RxBytes: 1}}, verdict.StaticHandshake, "preshared"},
	} {
		tt.s.Name = "phone"
		got := WhyStatic(a, tt.s)
		if text := got.Conclusion + got.Cause + got.Fix; got.Verdict != tt.want.String() || !strings.Contains(text, tt.says) || got.Peer.Name != "phone" || !got.Peer.Static {
			t.Errorf("got %s, %q, want %s and %q", got.Verdict, text, tt.want, tt.says)
		}
	}
}

func TestWhyRevoked(t *testing.T) {
	r := Revocation{Target: identity.KeyID{7}, Name: "old", Time: now, By: identity.KeyID{1, 1}, ByName: "the root", Reason: "stolen"}
	got := WhyRevoked(now, r, nil)
	if want := "revoked by the root on 1 March 2026 at 12:00 UTC: stolen"; got.Verdict != "revoked" || got.Cause != want || got.Conclusion != "old is no member any more" || got.Revoked == nil {
		t.Errorf("got %+v, want cause %q", got, want)
	}
	r.Name = ""
	if got, want := WhyRevoked(now, r, nil).Peer.Name, r.Target.Short(); got != want {
		t.Errorf("without a name: got %q, want %q", got, want)
	}
}

// TestUsualPort holds the port that verdicts name for nodes that were not told another one.
func TestUsualPort(t *testing.T) {
	got := verdict.LetOut{Node: idA}.Words(Names{idA: "a"}.Of)
	if want := fmt.Sprintf("let UDP out of the network of a, at least to port %d of the anchors", place.DefaultPort); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
