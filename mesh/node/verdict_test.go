package node

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natkind"
)

var judgedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func before(d time.Duration) *time.Time {
	at := judgedAt.Add(-d)
	return &at
}

// evidenceOf is a peer named b, judged by a node named a, that has been known for a minute.
func evidenceOf(change func(*evidence)) *evidence {
	e := &evidence{self: "a", port: 9277, peerPort: 9277, key: "KEY=", sessions: 1}
	e.Time = judgedAt
	e.Peer = api.Peer{ID: "bbbb", Name: "b", State: api.PeerUp, Since: before(time.Minute), LastHandshake: before(30 * time.Second), Path: api.Path{Kind: api.PathNone}}
	e.Gossip = "alive"
	e.Here.Version, e.Peer.Version = "1.2.0", "1.2.0"
	change(e)
	return e
}

func viaRelay(e *evidence) {
	e.Peer.Path = api.Path{Kind: api.PathRelay, Via: "gate"}
	e.Relays = []api.RelayCheck{{Name: "gate", Ready: true, InUse: true}}
}

func tried(e *evidence, pairs ...api.Pair) {
	e.Attempts = append(e.Attempts, api.Attempt{Started: *before(20 * time.Second), Ended: before(14 * time.Second), Pairs: pairs})
}

func pair(kind string, sent, answered, heard int) api.Pair {
	return api.Pair{Remote: netip.MustParseAddrPort("203.0.113.9:9277"), Type: kind, Sent: sent, Answered: answered, Heard: heard}
}

func kinds(m natkind.Mapping, f natkind.Filtering, p natkind.PortMapping) natkind.Self {
	return natkind.Self{Mapping: m, Filtering: f, PortMapping: p}
}

func TestVerdicts(t *testing.T) {
	const (
		sym, eim      = natkind.MappedByAddressAndPort, natkind.MappedIndependent
		strict, loose = natkind.FilteredByAddressAndPort, natkind.FilteredNot
		absent        = natkind.PortMappingAbsent
	)
	silent := func(e *evidence) {
		e.Peer.Path.Kind, e.Peer.LastHandshake = api.PathNone, nil
		e.Signals.Unanswered, e.Signals.Since = 4, before(20*time.Second)
	}
	unanswered := func(e *evidence) { tried(e, pair("host", 10, 0, 0), pair("srflx", 40, 0, 0)) }
	tests := []struct {
		name   string
		change func(*evidence)
		word   string
		says   []string // parts of conclusion, cause and fix
	}{
		{"revoked", func(e *evidence) {
			e.Revoked = &api.Revoked{By: "root", Time: judgedAt, Reason: "stolen"}
		}, "revoked", []string{"b is no member any more", "revoked by root on 1 March 2026 at 12:00 UTC: stolen", "join"}},
		{"left", func(e *evidence) { e.Peer.State = api.PeerLeft }, "left", []string{"left the mesh by itself", "warren join TOKEN on b"}},

		{"direct and well", func(e *evidence) { e.Peer.Path.Kind = api.PathDirect }, "direct", []string{"b is reached directly"}},
		{"direct, idle for an hour", func(e *evidence) {
			e.Peer.Path.Kind, e.Peer.LastHandshake = api.PathDirect, before(time.Hour)
		}, "direct", nil},
		{"path up just now", func(e *evidence) {
			e.Peer.Path.Kind, e.Peer.LastHandshake, e.Peer.Since = api.PathDirect, nil, before(time.Second)
		}, "handshake", []string{"under way"}},
		{"handshake sent, none in", func(e *evidence) {
			e.Peer.Path.Kind, e.Peer.LastHandshake = api.PathDirect, nil
		}, "handshake-unanswered", []string{"do not hold the same keys", "restart the agent on b"}},
		{"direct, but it does not answer a ping", func(e *evidence) {
			e.Peer.Path.Kind, e.Pinged = api.PathDirect, true
		}, "silent", []string{"b has not answered a ping just now"}},
		{"direct, but it does not answer a ping, and is said to be dead", func(e *evidence) {
			e.Peer.Path.Kind, e.Pinged, e.Gossip = api.PathDirect, true, "dead"
		}, "off", []string{"b does not answer: it is switched off", "no other member hears it either"}},
		{"has just stopped answering", func(e *evidence) {
			silent(e)
			e.Peer.LastHandshake, e.Signals.Since = before(time.Minute), before(time.Second)
		}, "lost", []string{"has just stopped answering"}},
		{"handshakes fail after a good time", func(e *evidence) {
			viaRelay(e)
			e.Peer.LastHandshake, e.sending = before(10*time.Minute), true
		}, "handshake-unanswered", nil},

		{"relayed, direct is being tried", func(e *evidence) { viaRelay(e) }, "trying", []string{"through the relay gate, not directly", "the relay carries the packets meanwhile"}},
		{"relayed, tried again after one that failed", func(e *evidence) {
			viaRelay(e)
			e.Attempts = []api.Attempt{{Started: judgedAt}}
			unanswered(e)
			e.here, e.there = kinds(sym, strict, absent), kinds(sym, strict, absent)
		}, "both-map-by-destination", nil},
		{"both symmetric", func(e *evidence) {
			viaRelay(e)
			unanswered(e)
			e.here, e.there = kinds(sym, strict, absent), kinds(natkind.MappedDependent, natkind.FilteringUnknown, natkind.PortMappingUnknown)
		}, "both-map-by-destination", []string{"routers of a and b both map ports by destination", "turn on UPnP or NAT-PMP on the router of a or of b, or forward UDP port 9277 there"}},
		{"both symmetric, ours refuses, theirs has a carrier's NAT behind", func(e *evidence) {
			viaRelay(e)
			unanswered(e)
			e.here, e.there = kinds(sym, strict, natkind.PortMappingRefused), kinds(sym, strict, natkind.PortMappedInside)
		}, "both-map-by-destination", []string{"the router of a refuses port mappings: allow them there, or forward UDP port 9277 to it"}},
		{"both symmetric, different ports", func(e *evidence) {
			viaRelay(e)
			unanswered(e)
			e.peerPort = 9300
			e.here, e.there = kinds(sym, strict, absent), kinds(sym, strict, natkind.PortMappingOff)
		}, "both-map-by-destination", []string{"router of a, or forward UDP port 9277 to it; or b is set to anchor = \"never\"", "port 9300"}},
		{"ours symmetric, theirs strict", func(e *evidence) {
			viaRelay(e)
			unanswered(e)
			e.here, e.there = kinds(sym, strict, absent), kinds(eim, strict, absent)
		}, "maps-by-destination", []string{"the router of a maps ports by destination (address-and-port-dependent), and the one of b lets in only whom it wrote to"}},
		{"theirs symmetric with random ports, ours strict", func(e *evidence) {
			viaRelay(e)
			unanswered(e)
			e.here, e.there = kinds(eim, strict, absent), kinds(sym, strict, absent)
			e.there.Ports = natkind.PortsRandom
		}, "maps-by-destination", []string{"the router of b maps ports by destination (address-and-port-dependent, at random), and the one of a lets in only whom it wrote to"}},
		{"theirs symmetric, ours not known", func(e *evidence) {
			viaRelay(e)
			unanswered(e)
			e.here, e.there = kinds(eim, natkind.FilteringUnknown, absent), kinds(sym, strict, absent)
		}, "maps-by-destination", []string{"the router of b maps ports", "as far as is known"}},
		{"ours symmetric, theirs lets anybody in, and yet", func(e *evidence) {
			viaRelay(e)
			unanswered(e)
			e.here, e.there = kinds(sym, strict, absent), kinds(eim, loose, absent)
		}, "firewall", []string{"none of 50 checks was answered", "a firewall between a and b drops UDP"}},
		{"both simple, and yet", func(e *evidence) {
			viaRelay(e)
			unanswered(e)
			e.here, e.there = kinds(eim, strict, absent), kinds(eim, strict, absent)
		}, "firewall", []string{"both NATs would let them"}},
		{"their checks come in, ours are lost", func(e *evidence) {
			viaRelay(e)
			tried(e, pair("srflx", 40, 0, 12))
			e.here, e.there = kinds(natkind.Unmapped, loose, natkind.PortMappingUnneeded), kinds(eim, strict, absent)
		}, "firewall-there", []string{"checks of b come in here", "none of the 40 sent there is answered"}},
		{"answers, but nothing holds", func(e *evidence) {
			viaRelay(e)
			tried(e, pair("srflx", 40, 2, 12))
		}, "unstable", []string{"b answered 2 checks"}},
		{"nothing is known", func(e *evidence) {
			viaRelay(e)
			unanswered(e)
		}, "unexplained", []string{"what the router of a does is not known", "warren netcheck"}},
		{"theirs is not known", func(e *evidence) {
			viaRelay(e)
			unanswered(e)
			e.here = kinds(eim, strict, absent)
		}, "unexplained", []string{"what the router of b does is not known"}},
		{"no family in common", func(e *evidence) {
			viaRelay(e)
			tried(e, api.Pair{Type: "host", Result: pairUnable})
		}, "no-common-family", []string{"no address family in common"}},
		{"no address told", func(e *evidence) {
			viaRelay(e)
			tried(e)
		}, "no-candidates", []string{"told no address"}},
		{"one router that passes nothing between them", func(e *evidence) {
			viaRelay(e)
			unanswered(e)
			e.sameNAT, e.here, e.there = true, kinds(eim, strict, absent), kinds(eim, strict, absent)
		}, "same-router", []string{"client isolation"}},
		{"UDP blocked here", func(e *evidence) {
			viaRelay(e)
			e.Peer.Path.Transport, e.here.UDPBlocked = api.TransportTCP, true
		}, "udp-blocked-here", []string{"through the relay gate, by TCP", "let UDP out of the network of a"}},
		{"to an anchor, by TCP", func(e *evidence) {
			e.Peer.Path = api.Path{Kind: api.PathDirect, Transport: api.TransportTCP}
		}, "udp-blocked-here", []string{"b is reached by TCP"}},
		{"UDP blocked there", func(e *evidence) {
			viaRelay(e)
			e.there.UDPBlocked = true
		}, "udp-blocked-there", []string{"let UDP out of the network of b"}},

		{"off, heard before", func(e *evidence) {
			silent(e)
			e.Signals.LastHeard, e.Gossip = before(3*time.Hour), "dead"
		}, "off", []string{"b is not reached", "for 20 seconds: it is switched off or offline", "last heard 3 hours ago", "no other member hears it", "start b"}},
		{"off, never seen", silent, "off", []string{"has not been heard since this agent started", "start b"}},
		{"off, its session still seems to be up", func(e *evidence) {
			silent(e)
			e.Session = &api.Session{}
		}, "off", nil},
		{"asked just now", func(e *evidence) {
			silent(e)
			e.Signals.Since = before(time.Second)
		}, "trying", nil},
		{"asked just now, and known to be dead", func(e *evidence) {
			silent(e)
			e.Signals.Since, e.Gossip = before(time.Second), "dead"
		}, "off", nil},
		{"there, but deaf", func(e *evidence) {
			silent(e)
			e.Session, e.Signals.Since = &api.Session{}, before(time.Minute)
		}, "deaf", []string{"warren why a"}},
		{"there, but older", func(e *evidence) {
			silent(e)
			e.Session, e.Signals.Since, e.Peer.Version = &api.Session{}, before(time.Minute), "v1.1.9"
		}, "older-version", []string{"runs version v1.1.9, and this node 1.2.0", "update warren on b"}},
		{"clock", func(e *evidence) {
			silent(e)
			e.skewed = true
		}, "clock", []string{"clocks of a and b differ", "NTP"}},
		{"refused", func(e *evidence) {
			silent(e)
			e.Signals.Refused = true
		}, "refused", []string{"b does not know this node yet"}},
		{"no control session", func(e *evidence) {
			silent(e)
			e.sessions = 0
		}, "isolated", []string{"a session with nobody", "warren netcheck"}},
		{"refused by all", func(e *evidence) {
			silent(e)
			e.sessions, e.refusals = 0, "gate refuses a control session: revoked"
		}, "refused", []string{"gate refuses"}},
		{"no way for introductions", func(e *evidence) {
			silent(e)
			e.Signals.Unanswered, e.Signals.NoRoute = 0, "no anchor of it answers"
		}, "no-route", []string{"no anchor of it answers"}},
		{"first attempt runs", func(e *evidence) {
			e.Peer.LastHandshake = nil
			e.Attempts = []api.Attempt{{Started: judgedAt}}
		}, "trying", nil},
		{"no path, and no relay", func(e *evidence) {
			unanswered(e)
			e.here, e.there, e.Relays = kinds(sym, strict, absent), kinds(sym, strict, absent), []api.RelayCheck{{Name: "gate"}}
		}, "both-map-by-destination", []string{"b is not reached", "and no relay carries the packets: b does not answer through gate"}},

		{"static, up", func(e *evidence) {
			e.Peer.Static, e.Peer.Path = true, api.Path{Kind: api.PathDirect, Address: netip.MustParseAddrPort("198.51.100.1:51820")}
		}, "direct", []string{"static peer, and reached directly"}},
		{"static, name unknown", func(e *evidence) {
			e.Peer.Static, e.Peer.LastHandshake, e.endpoint = true, nil, "phone.example:51820"
		}, "static-name", []string{"phone.example:51820 is not known"}},
		{"static, has to call", func(e *evidence) { e.Peer.Static, e.Peer.LastHandshake = true, nil }, "static-silent", []string{"UDP port 9277, and the public key to KEY="}},
		{"static, unused", func(e *evidence) { staticAt(e, 0, 0) }, "static-unused", []string{"persistent_keepalive"}},
		{"static, unanswered", func(e *evidence) { staticAt(e, 444, 0) }, "static-unanswered", []string{"444 bytes were sent to 198.51.100.1:51820", "has to be KEY=", "UDP port 51820"}},
		{"static, half a handshake", func(e *evidence) { staticAt(e, 444, 92) }, "static-handshake", []string{"preshared"}},
		{"static, idle", func(e *evidence) {
			staticAt(e, 444, 92)
			e.Peer.LastHandshake = before(time.Hour)
		}, "static-idle", []string{"60 minutes"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := evidenceOf(tt.change).judge()
			text := v.conclusion + "\n" + v.cause + "\n" + v.fix
			if v.word != tt.word {
				t.Errorf("got verdict %q, want %q:\n%s", v.word, tt.word, text)
			}
			for _, part := range tt.says {
				if !strings.Contains(text, part) {
					t.Errorf("got\n%s\nwant %q in it", text, part)
				}
			}
			well := v.word == "direct"
			if v.conclusion == "" || well != (v.cause == "") && v.word != "left" || strings.Contains(text, "1 checks") || strings.Contains(text, "%!") {
				t.Errorf("got\n%s\nwant a conclusion, and a cause unless all is well", text)
			}
		})
	}
}

func staticAt(e *evidence, tx, rx uint64) {
	e.Peer.Static, e.Peer.LastHandshake, e.Peer.TxBytes, e.Peer.RxBytes = true, nil, tx, rx
	e.Peer.Path = api.Path{Kind: api.PathDirect, Address: netip.MustParseAddrPort("198.51.100.1:51820")}
}

func TestOlder(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"1.2.0", "1.3.0", true}, {"v1.9.0", "1.10.0", true}, {"1.3.0", "1.2.0", false}, {"1.2.0", "1.2.0", false},
		{"1.2.0-rc1", "1.2.0", false}, {"unknown", "1.2.0", false}, {"1.2.0", "", false}, {"0.9", "1", true},
	} {
		if got := older(tt.a, tt.b); got != tt.want {
			t.Errorf("older(%q, %q): got %v", tt.a, tt.b, got)
		}
	}
}

func TestNear(t *testing.T) {
	names := []string{"gate", "gamma", "laptop", "laptop-2", "nas", "b"}
	for text, want := range map[string]string{
		"gate": "gate", "gaet": "gate", "Laptop": "laptop laptop-2", "lap": "laptop laptop-2", "nass": "nas", "printer": "", "c": "b", "gat": "gate",
	} {
		if got := strings.Join(near(text, names), " "); got != want {
			t.Errorf("near %q: got %q, want %q", text, got, want)
		}
	}
}

func TestInNames(t *testing.T) {
	names := map[string]string{"rpwx3w57sf": "gate"}
	for text, want := range map[string]string{
		"":                                 "",
		"relay through rpwx3w57sf is dead": "relay through gate is dead",
		"relay through rpwx3w57sf: the peer did not answer": "relay through gate: the peer did not answer",
		"candidates of abcdefghij, rpwx3w57sfx":             "candidates of abcdefghij, rpwx3w57sfx",
	} {
		if got := inNames(text, names); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestPairResults(t *testing.T) {
	for _, tt := range []struct {
		p                    api.Pair
		unable, won, running bool
		want                 string
	}{
		{api.Pair{}, true, false, false, pairUnable},
		{pair("host", 3, 1, 0), false, true, false, "answered, chosen"},
		{pair("host", 3, 1, 0), false, false, false, "answered, not chosen"},
		{pair("prflx", 3, 0, 2), false, false, false, "its checks came in; no answer to 3"},
		{pair("prflx", 0, 0, 2), false, false, false, "its checks came in, none was sent back"},
		{pair("host", 0, 0, 0), false, false, true, "not tried yet"},
		{pair("host", 0, 0, 0), false, false, false, "not tried: the attempt ended before"},
		{pair("host", 1, 0, 0), false, false, false, "no answer to 1 check"},
	} {
		if got := pairResult(tt.p, tt.unable, tt.won, tt.running); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestTold(t *testing.T) {
	raw := encodeTry([12]byte{7}, netip.MustParseAddrPort("192.0.2.1:9277"))
	if raw[0] != tryVersion || len(raw) != 19 {
		t.Errorf("got %x, want an ask of version 2", raw)
	}
	for _, raw := range [][]byte{nil, {3}, make([]byte, 15), append([]byte{3}, make([]byte, 15)...)} {
		if got, err := decodeTold(raw); err == nil {
			t.Errorf("%x: got %+v, want it refused", raw, got)
		}
	}
}

func FuzzTold(f *testing.F) {
	f.Add(append([]byte{3}, make([]byte, 14)...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if told, err := decodeTold(raw); err == nil && string(encodeTold(told)) != string(raw) {
			t.Errorf("%x: got %+v, which is encoded in another way", raw, told)
		}
	})
}
