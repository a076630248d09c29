package verdict

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/nat/natkind"
)

var (
	judgedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	idA, idB = identity.NodeID{1}, identity.NodeID{2}
	idGate   = identity.NodeID{3}
)

// called names the nodes of these tests.
func called(id identity.NodeID) string {
	return map[identity.NodeID]string{idA: "a", idB: "b", idGate: "gate"}[id]
}

func before(d time.Duration) time.Time { return judgedAt.Add(-d) }

// evidenceOf is a peer named b, judged by a node named a, that has been known for a minute.
func evidenceOf(change func(*Evidence)) Evidence {
	e := Evidence{
		Signs:    Signs{Now: judgedAt, Way: true, Watched: true, Keyed: before(30 * time.Second), Heard: before(time.Second)},
		Sessions: 1, Since: before(time.Minute), Life: Alive,
		Here: Node{ID: idA, Port: 9277, Version: "1.2.0"}, There: Node{ID: idB, Version: "1.2.0"},
	}
	change(&e)
	e.Way = e.Path.Kind != NoPath
	return e
}

// asked has a ping answered, or not, that was sent just now.
func asked(answered bool) func(*Evidence) {
	return func(e *Evidence) {
		e.Path.Kind, e.Ping = DirectPath, Ping{Asked: true, Answered: answered}
		e.Sent, e.Heard, e.Proved = before(50*time.Millisecond), before(time.Hour), before(500*time.Millisecond)
		if answered {
			e.Heard = before(40 * time.Millisecond)
		}
	}
}

func viaRelay(e *Evidence) { e.Path, e.Relay = Path{Kind: RelayedPath, Via: idGate}, idGate }

func tried(e *Evidence, pairs ...Pair) {
	e.Attempts = append(e.Attempts, Attempt{Started: before(20 * time.Second), Ended: before(14 * time.Second), Pairs: pairs})
}

func pair(kind string, sent, answered, heard int) Pair {
	return Pair{Remote: netip.MustParseAddrPort("203.0.113.9:9277"), Type: kind, Sent: sent, Answered: answered, Heard: heard}
}

func kindsOf(m natkind.Mapping, f natkind.Filtering, p natkind.PortMapping) natkind.Self {
	return natkind.Self{Mapping: m, Filtering: f, PortMapping: p}
}

func TestVerdicts(t *testing.T) {
	const (
		sym, eim      = natkind.MappedByAddressAndPort, natkind.MappedIndependent
		strict, loose = natkind.FilteredByAddressAndPort, natkind.FilteredNot
		absent        = natkind.PortMappingAbsent
	)
	silent := func(e *Evidence) {
		e.Path.Kind, e.Keyed, e.Heard = NoPath, time.Time{}, time.Time{}
		e.Signals.Unanswered, e.Signals.Since = 4, before(20*time.Second)
	}
	unanswered := func(e *Evidence) { tried(e, pair("host", 10, 0, 0), pair("srflx", 40, 0, 0)) }
	tests := []struct {
		name   string
		change func(*Evidence)
		kind   Kind
		says   []string // parts of conclusion, cause and fix
	}{
		{"left", func(e *Evidence) { e.Left = true }, HasLeft, []string{"left the mesh by itself", "warren join TOKEN on b"}},
		{"its key is another's", func(e *Evidence) { silent(e); e.NoTunnel = "no tunnel: its WireGuard key is nas's" }, Untied,
			[]string{"b is not reached", "no tunnel: its WireGuard key is nas's", "give b another WireGuard key", "warren revoke b"}},

		{"direct and well", func(e *Evidence) { e.Path.Kind = DirectPath }, Direct, []string{"b is reached directly"}},
		{"direct, idle for an hour", func(e *Evidence) {
			e.Path.Kind, e.Keyed, e.Heard = DirectPath, before(time.Hour), before(time.Hour)
		}, Direct, []string{"b was last reached directly"}},
		{"direct, idle for an hour, and answers", func(e *Evidence) { asked(true)(e); e.Keyed = before(time.Hour) }, Direct, []string{"b is reached directly"}},
		{"answers, though the handshake is not seen yet", func(e *Evidence) { asked(true)(e); e.Keyed = time.Time{} }, Direct, []string{"b is reached directly"}},
		{"answers, though others miss it", func(e *Evidence) { asked(true)(e); e.Life, e.Missed = Dead, before(time.Minute) }, Direct, []string{"b is reached directly"}},
		{"path up just now", func(e *Evidence) {
			e.Path.Kind, e.Keyed, e.Since = DirectPath, time.Time{}, before(time.Second)
		}, Handshaking, []string{"under way"}},
		{"handshake sent, none in", func(e *Evidence) {
			asked(false)(e)
			e.Keyed, e.Heard = time.Time{}, time.Time{}
		}, HandshakeUnanswered, []string{"b does not answer", "either the two ends do not hold the same keys, or something on the way drops WireGuard's packets", "which of the two is not known", "restart the agent on b"}},
		{"good keys, but no answer to a ping", asked(false), Silent, []string{"the path to b answers and its keys are good", "ruleset on a and on b"}},
		{"no answer to a ping, nor to a check", func(e *Evidence) {
			asked(false)(e)
			e.Overdue = true
		}, Silent, []string{"b does not answer; the path to it leads directly", "may have gone this moment"}},
		{"no answer to a ping, and nothing heard for long", func(e *Evidence) {
			asked(false)(e)
			e.Proved, e.Keyed = before(time.Minute), before(time.Hour)
		}, Silent, []string{"b does not answer over its path just now"}},
		{"no answer to a ping, and others miss it", func(e *Evidence) {
			asked(false)(e)
			e.Life, e.Missed, e.Proved, e.Keyed = Dead, before(10*time.Second), before(time.Minute), before(time.Minute)
		}, Off, []string{"b does not answer; the path to it leads directly", "b does not answer: it is switched off", "no other member hears it either"}},
		{"has just stopped answering", func(e *Evidence) {
			silent(e)
			e.Keyed, e.Signals.Since = before(time.Minute), before(time.Second)
		}, Lost, []string{"has just stopped answering"}},
		{"a ping is answered, and the relay over which it was is gone meanwhile", func(e *Evidence) {
			asked(true)(e)
			e.Path, e.Relay = Path{}, idGate
			e.Here.NAT, e.There.NAT = kindsOf(sym, strict, absent), kindsOf(sym, strict, absent)
			tried(e, pair("srflx", 5, 0, 0))
		}, Lost, []string{"b is not reached", "b has just stopped answering"}},
		{"a ping is answered, and all sessions are gone meanwhile", func(e *Evidence) {
			asked(true)(e)
			e.Path, e.Sessions = Path{}, 0
		}, Lost, []string{"b has just stopped answering"}},
		{"an attempt ended after two checks, as the peer began anew", func(e *Evidence) {
			e.Path, e.Keyed = Path{}, time.Time{}
			e.Here.NAT, e.There.NAT = kindsOf(eim, strict, absent), kindsOf(eim, strict, absent)
			tried(e, pair("host", 1, 0, 0), pair("srflx", 1, 0, 0))
		}, Trying, []string{"b is not reached"}},
		{"such a one after one that was whole", func(e *Evidence) {
			viaRelay(e)
			e.Here.NAT, e.There.NAT = kindsOf(eim, strict, absent), kindsOf(eim, strict, absent)
			tried(e, pair("srflx", 2, 0, 0))
			unanswered(e)
		}, Firewall, []string{"none of 50 checks was answered"}},
		{"each attempt ends after two checks", func(e *Evidence) {
			viaRelay(e)
			e.Here.NAT, e.There.NAT = kindsOf(eim, strict, absent), kindsOf(eim, strict, absent)
			for range 3 {
				tried(e, pair("srflx", 2, 0, 0))
			}
		}, Firewall, []string{"none of 2 checks was answered"}},
		{"handshakes fail after a good time", func(e *Evidence) {
			asked(false)(e)
			viaRelay(e)
			e.Keyed, e.Heard = before(10*time.Minute), before(10*time.Minute)
		}, HandshakeUnanswered, []string{"the path to it leads through the relay gate"}},
		{"batches are lost", func(e *Evidence) {
			asked(true)(e)
			e.Bursts = Bursts{Size: 1200, Sent: 16, Singles: 16}
		}, BatchesLost, []string{"of 16 packets of 1200 bytes sent one by one 16 were answered, of as many sent at once 0", "ethtool"}},
		{"a line that loses a third", func(e *Evidence) {
			asked(true)(e)
			e.Bursts = Bursts{Size: 1200, Sent: 16, Singles: 11, Batched: 10}
		}, Direct, nil},
		{"relayed, direct is being tried", func(e *Evidence) { viaRelay(e) }, Trying, []string{"through the relay gate, not directly", "the relay carries the packets meanwhile"}},
		{"relayed, tried again after one that failed", func(e *Evidence) {
			viaRelay(e)
			e.Attempts = []Attempt{{Started: judgedAt}}
			unanswered(e)
			e.Here.NAT, e.There.NAT = kindsOf(sym, strict, absent), kindsOf(sym, strict, absent)
		}, BothMapByDestination, nil},
		{"both symmetric", func(e *Evidence) {
			viaRelay(e)
			unanswered(e)
			e.Here.NAT, e.There.NAT = kindsOf(sym, strict, absent), kindsOf(natkind.MappedDependent, natkind.FilteringUnknown, natkind.PortMappingUnknown)
		}, BothMapByDestination, []string{"routers of a and b both map ports by destination", "turn on UPnP or NAT-PMP on the router of a or of b, or forward UDP port 9277 there"}},
		{"both symmetric, ours refuses, theirs has a carrier's NAT behind", func(e *Evidence) {
			viaRelay(e)
			unanswered(e)
			e.Here.NAT, e.There.NAT = kindsOf(sym, strict, natkind.PortMappingRefused), kindsOf(sym, strict, natkind.PortMappedInside)
		}, BothMapByDestination, []string{"the router of a refuses port mappings: allow them there, or forward UDP port 9277 to it"}},
		{"both symmetric, different ports", func(e *Evidence) {
			viaRelay(e)
			unanswered(e)
			e.There.Port = 9300
			e.Here.NAT, e.There.NAT = kindsOf(sym, strict, absent), kindsOf(sym, strict, natkind.PortMappingOff)
		}, BothMapByDestination, []string{"router of a, or forward UDP port 9277 to it; or b is set to anchor = \"never\"", "port 9300"}},
		{"ours symmetric, theirs strict", func(e *Evidence) {
			viaRelay(e)
			unanswered(e)
			e.Here.NAT, e.There.NAT = kindsOf(sym, strict, absent), kindsOf(eim, strict, absent)
		}, MapsByDestination, []string{"the router of a maps ports by destination (address-and-port-dependent), and the one of b lets in only whom it wrote to"}},
		{"theirs symmetric with random ports, ours strict", func(e *Evidence) {
			viaRelay(e)
			unanswered(e)
			e.Here.NAT, e.There.NAT = kindsOf(eim, strict, absent), kindsOf(sym, strict, absent)
			e.There.NAT.Ports = natkind.PortsRandom
		}, MapsByDestination, []string{"the router of b maps ports by destination (address-and-port-dependent, at random), and the one of a lets in only whom it wrote to"}},
		{"theirs symmetric, ours not known", func(e *Evidence) {
			viaRelay(e)
			unanswered(e)
			e.Here.NAT, e.There.NAT = kindsOf(eim, natkind.FilteringUnknown, absent), kindsOf(sym, strict, absent)
		}, MapsByDestination, []string{"the router of b maps ports", "as far as is known"}},
		{"ours symmetric, theirs lets anybody in, and yet", func(e *Evidence) {
			viaRelay(e)
			unanswered(e)
			e.Here.NAT, e.There.NAT = kindsOf(sym, strict, absent), kindsOf(eim, loose, absent)
		}, Firewall, []string{"none of 50 checks was answered", "a firewall between a and b drops UDP"}},
		{"both simple, and yet", func(e *Evidence) {
			viaRelay(e)
			unanswered(e)
			e.Here.NAT, e.There.NAT = kindsOf(eim, strict, absent), kindsOf(eim, strict, absent)
		}, Firewall, []string{"both NATs would let them"}},
		{"their checks come in, ours are lost", func(e *Evidence) {
			viaRelay(e)
			tried(e, pair("srflx", 40, 0, 12))
			e.Here.NAT, e.There.NAT = kindsOf(natkind.Unmapped, loose, natkind.PortMappingUnneeded), kindsOf(eim, strict, absent)
		}, FirewallThere, []string{"checks of b come in here", "none of the 40 sent there is answered", "most likely"}},
		{"answers, but nothing holds", func(e *Evidence) {
			viaRelay(e)
			tried(e, pair("srflx", 40, 2, 12))
		}, Unstable, []string{"b answered 2 checks"}},
		{"they are a router, and one behind them has their port", func(e *Evidence) {
			viaRelay(e)
			unanswered(e)
			e.There.NAT.PortTaken, e.There.Port = true, 9277
		}, PortTaken, []string{"b is a router, and a machine behind it uses UDP port 9277 too", "give b another port: port = 9278"}},
		{"we are, and both map by destination", func(e *Evidence) {
			viaRelay(e)
			unanswered(e)
			e.Here.NAT, e.There.NAT = kindsOf(sym, strict, absent), kindsOf(sym, strict, absent)
			e.Here.NAT.PortTaken, e.Here.Port = true, 9300
		}, PortTaken, []string{"a is a router", "UDP port 9300", "give a another port"}},
		{"the policy bars, by a relay", func(e *Evidence) {
			viaRelay(e)
			e.Policy = Policy{Bars: true, BarsBack: true}
		}, PolicyBars, []string{"through the relay gate", "policy of the mesh allows nothing between this node and b, in either direction", "warren policy log"}},
		{"the policy bars one way", func(e *Evidence) {
			viaRelay(e)
			e.Policy.Bars = true
		}, PolicyBars, []string{"allows nothing from this node to b", "and what b begins"}},
		{"the policy bars the other way", func(e *Evidence) {
			viaRelay(e)
			unanswered(e)
			e.Policy.BarsBack = true
		}, Unexplained, nil},
		{"nothing is known", func(e *Evidence) {
			viaRelay(e)
			unanswered(e)
		}, Unexplained, []string{"what the router of a does is not known", "warren netcheck"}},
		{"theirs is not known", func(e *Evidence) {
			viaRelay(e)
			unanswered(e)
			e.Here.NAT = kindsOf(eim, strict, absent)
		}, Unexplained, []string{"what the router of b does is not known"}},
		{"no family in common", func(e *Evidence) {
			viaRelay(e)
			tried(e, Pair{Type: "host", Unable: true})
		}, NoCommonFamily, []string{"no address family in common"}},
		{"no address told", func(e *Evidence) {
			viaRelay(e)
			tried(e)
		}, NoCandidates, []string{"told no address"}},
		{"one router that passes nothing between them", func(e *Evidence) {
			viaRelay(e)
			unanswered(e)
			e.Mapped, e.Here.NAT, e.There.NAT = []netip.Addr{netip.MustParseAddr("203.0.113.9")}, kindsOf(eim, strict, absent), kindsOf(eim, strict, absent)
		}, SameRouter, []string{"client isolation"}},
		{"UDP blocked here", func(e *Evidence) {
			viaRelay(e)
			e.Path.TCP, e.Here.NAT.UDPBlocked, e.UDP = true, true, Belief{UDPBlocked, "no answer of 2"}
		}, UDPBlockedHere, []string{"through the relay gate, by a TCP stream", "UDP does not get through on this network (no answer of 2)", "let UDP out of the network of a"}},
		{"to an anchor, by TCP", func(e *Evidence) {
			e.Path, e.UDP = Path{Kind: DirectPath, TCP: true}, Belief{State: UDPBlocked}
		}, UDPBlockedHere, []string{"b is reached by a TCP stream"}},
		{"UDP answers again here", func(e *Evidence) {
			e.Path, e.Here.NAT.UDPBlocked, e.UDP = Path{Kind: DirectPath, TCP: true}, true, Belief{UDPReturning, "an anchor answers by UDP"}
		}, Trying, []string{"UDP answers again on this network"}},
		{"UDP blocked here, and yet directly by it on the LAN", func(e *Evidence) {
			e.Path.Kind, e.Here.NAT.UDPBlocked, e.UDP = DirectPath, true, Belief{State: UDPBlocked}
		}, Direct, nil},
		{"a stream that the other has opened", func(e *Evidence) {
			e.Path, e.There.NAT.UDPBlocked = Path{Kind: DirectPath, TCP: true}, true
		}, UDPBlockedThere, []string{"b says that UDP does not get through on its network", "let UDP out of the network of b"}},
		{"a stream, and neither is blocked", func(e *Evidence) { e.Path = Path{Kind: DirectPath, TCP: true} }, Trying, []string{"UDP is being tried"}},
		{"UDP blocked there", func(e *Evidence) {
			viaRelay(e)
			e.There.NAT.UDPBlocked = true
		}, UDPBlockedThere, []string{"let UDP out of the network of b"}},
		{"the direct path that was found is lost", func(e *Evidence) {
			viaRelay(e)
			tried(e, pair("srflx", 4, 2, 2))
			e.Attempts[0].Nominated = netip.MustParseAddrPort("203.0.113.9:9277")
		}, Unstable, []string{"the direct path to 203.0.113.9:9277, which the last try has found, has stopped answering"}},

		{"off, heard before", func(e *Evidence) {
			silent(e)
			e.Signals.Heard, e.Life = before(3*time.Hour), Dead
		}, Off, []string{"b is not reached", "for 20 seconds: it is switched off or offline", "last heard 3 hours ago", "no other member hears it", "start b"}},
		{"off, never seen", func(e *Evidence) { silent(e); e.Life = LifeUnknown }, Off, []string{"has not been heard since this agent started: it may be switched off", "start b"}},
		{"off, and others have not missed it", silent, Off, []string{"it may be switched off or offline", "gossip has not missed it so far"}},
		{"others have not missed it for minutes", func(e *Evidence) { silent(e); e.Signals.Since = before(2 * time.Minute) }, Off, []string{"it may be switched off"}},
		{"it answers gossip, through others", func(e *Evidence) {
			silent(e)
			e.Signals.Since, e.Beside = before(2*time.Minute), before(5*time.Second)
		}, Deaf, []string{"b is there but answers no introduction"}},
		{"off, its session still seems to be up", func(e *Evidence) {
			silent(e)
			e.Session = true
		}, Off, []string{"it may be switched off", "the control session with it has not ended yet"}},
		{"asked just now", func(e *Evidence) {
			silent(e)
			e.Signals.Since = before(time.Second)
		}, Trying, nil},
		{"asked just now, and known to be dead", func(e *Evidence) {
			silent(e)
			e.Signals.Since, e.Life = before(time.Second), Dead
		}, Off, nil},
		{"there, but deaf", func(e *Evidence) {
			silent(e)
			e.Session, e.Signals.Since = true, before(time.Minute)
		}, Deaf, []string{"warren why a"}},
		{"there, but older", func(e *Evidence) {
			silent(e)
			e.Session, e.Signals.Since, e.There.Version = true, before(time.Minute), "v1.1.9"
		}, OlderVersion, []string{"runs version v1.1.9, and this node 1.2.0", "update warren on b"}},
		{"clock", func(e *Evidence) {
			silent(e)
			e.Signals.Skewed = true
		}, Clock, []string{"clocks of a and b differ", "NTP"}},
		{"refused", func(e *Evidence) {
			silent(e)
			e.Signals.Refused = true
		}, Refused, []string{"b says that it does not know this node"}},
		{"no control session", func(e *Evidence) {
			silent(e)
			e.Sessions = 0
		}, Isolated, []string{"a session with nobody", "warren netcheck"}},
		{"refused by all", func(e *Evidence) {
			silent(e)
			e.Sessions, e.Refusals = 0, []Refusal{{By: idGate, Reason: "revoked"}}
		}, Refused, []string{"gate has refused this node since "}},
		{"no way for introductions", func(e *Evidence) {
			silent(e)
			e.Signals.Unanswered, e.Signals.NoRoute = 0, "no anchor of it answers"
		}, NoWay, []string{"no anchor of it answers"}},
		{"first attempt runs", func(e *Evidence) {
			e.Keyed = time.Time{}
			e.Attempts = []Attempt{{Started: judgedAt}}
		}, Trying, nil},
		{"no path, and no relay", func(e *Evidence) {
			unanswered(e)
			e.Here.NAT, e.There.NAT, e.Relay = kindsOf(sym, strict, absent), kindsOf(sym, strict, absent), idGate
		}, BothMapByDestination, []string{"b is not reached", "and no relay carries the packets: b does not answer through gate"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			check(t, Judge(evidenceOf(tt.change)), tt.kind, tt.says)
		})
	}
}

// check holds the kind of a verdict, and parts of its words.
func check(t *testing.T, v Verdict, kind Kind, says []string) {
	t.Helper()
	words := v.Words(called)
	text := words.Conclusion + "\n" + words.Cause + "\n" + words.Fix
	if v.Kind != kind {
		t.Errorf("got verdict %s, want %s:\n%s", v.Kind, kind, text)
	}
	for _, part := range says {
		if !strings.Contains(text, part) {
			t.Errorf("got\n%s\nwant %q in it", text, part)
		}
	}
	well := v.Kind == Direct
	if words.Conclusion == "" || well != (words.Cause == "") && v.Kind != HasLeft || strings.Contains(text, "1 checks") || strings.Contains(text, "%!") {
		t.Errorf("got\n%s\nwant a conclusion, and a cause unless all is well", text)
	}
}

// TestTypedVerdicts holds some verdicts as values: no program needs to read their words.
func TestTypedVerdicts(t *testing.T) {
	strict := natkind.FilteredByAddressAndPort
	sym, absent := kindsOf(natkind.MappedByAddressAndPort, strict, natkind.PortMappingAbsent), natkind.PortMappingAbsent
	carrier := kindsOf(natkind.MappedByAddress, strict, natkind.PortMappedInside)
	refuses := kindsOf(natkind.MappedByAddress, strict, natkind.PortMappingRefused)
	node := func(id identity.NodeID, port uint16, nat natkind.Self) Node {
		return Node{ID: id, Port: port, NAT: nat, Version: "1.2.0"}
	}
	failed := func(here, there natkind.Self) func(*Evidence) {
		return func(e *Evidence) {
			viaRelay(e)
			tried(e, Pair{Remote: netip.MustParseAddrPort("192.168.1.9:9300"), Type: "host", Sent: 10}, pair("srflx", 40, 0, 0))
			e.Here.NAT, e.There.NAT = here, there
		}
	}
	relayed := How{idB, Path{Kind: RelayedPath, Via: idGate}, Answered}
	for _, tt := range []struct {
		name   string
		change func(*Evidence)
		want   Verdict
	}{
		{"all is well", func(e *Evidence) { e.Path.Kind = DirectPath }, Verdict{Direct, How{idB, Path{Kind: DirectPath}, Answered}, nil, nil}},
		{"the port of the peer is that of its host candidate", failed(sym, sym),
			Verdict{BothMapByDestination, relayed, BothMap{node(idA, 9277, sym), node(idB, 9300, sym)}, OpenAny{node(idA, 9277, sym), node(idB, 9300, sym)}}},
		{"nothing can be done at a carrier's NAT here", failed(carrier, refuses),
			Verdict{BothMapByDestination, relayed, BothMap{node(idA, 9277, carrier), node(idB, 9300, refuses)}, OpenAt{node(idB, 9300, refuses)}}},
		{"nor there", failed(refuses, carrier),
			Verdict{BothMapByDestination, relayed, BothMap{node(idA, 9277, refuses), node(idB, 9300, carrier)}, OpenAt{node(idA, 9277, refuses)}}},
		{"one maps", failed(sym, kindsOf(natkind.MappedIndependent, strict, absent)), Verdict{MapsByDestination, relayed,
			OneMaps{Hard: node(idA, 9277, sym), Guarded: node(idB, 9300, kindsOf(natkind.MappedIndependent, strict, absent))},
			OpenAny{node(idA, 9277, sym), node(idB, 9300, kindsOf(natkind.MappedIndependent, strict, absent))}}},
		{"no relay either", func(e *Evidence) {
			failed(natkind.Self{UDPBlocked: true}, sym)(e)
			e.Path, e.Relay, e.Pathless = Path{}, identity.NodeID{}, Plain("no relay was found")
		}, Verdict{UDPBlockedHere, How{Peer: idB}, Unrelayed{Cause: NoUDPHere{}, Peer: idB, Why: Plain("no relay was found")}, LetOut{idA}}},
		{"off", func(e *Evidence) {
			e.Heard, e.Keyed = before(2*time.Minute), before(2*time.Minute)
			e.Signals, e.Life = Signals{Unanswered: 3, Since: before(time.Minute), Heard: before(time.Hour)}, LifeUnknown
		}, Verdict{Off, How{Peer: idB}, NothingHeard{Peer: idB, Waited: time.Minute, Ago: 2 * time.Minute}, Start{idB}}},
	} {
		if got := Judge(evidenceOf(tt.change)); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestRevoked(t *testing.T) {
	check(t, JudgeRevoked(RevokedNode{Name: "b", By: "root", At: judgedAt, Reason: "stolen"}), Revoked,
		[]string{"b is no member any more", "revoked by root on 1 March 2026 at 12:00 UTC: stolen", "join"})
	check(t, JudgeRevoked(RevokedNode{Name: "b", By: "root", At: judgedAt}), Revoked, []string{"12:00 UTC\n"})
}

// TestWhyThereIsNoRelay holds what is said of it, by what is known.
func TestWhyThereIsNoRelay(t *testing.T) {
	for _, tt := range []struct {
		c    Unrelayed
		want string
	}{
		{Unrelayed{Cause: NoUDPHere{}, Peer: idB, Relay: idGate, Why: Plain("x")}, "b does not answer through gate"},
		{Unrelayed{Cause: NoUDPHere{}, Peer: idB, Why: Plain("waiting")}, "waiting"},
		{Unrelayed{Cause: NoUDPHere{}, Peer: idB, Why: Plain("")}, "no anchor serves both"},
		{Unrelayed{Cause: NoUDPHere{}, Peer: idB}, "no anchor serves both"},
	} {
		want := "UDP does not get through on this network; and no relay carries the packets: " + tt.want
		if got := tt.c.Words(called); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestKindsHaveWords holds that each kind has a word, and one of its own.
func TestKindsHaveWords(t *testing.T) {
	seen := make(map[string]bool)
	for k := range kinds {
		if k.String() == "" || seen[k.String()] {
			t.Errorf("kind %d: got word %q, want one of its own", k, k)
		}
		seen[k.String()] = true
	}
	seen = make(map[string]bool)
	for k := range netKinds {
		if k.String() == "" || seen[k.String()] {
			t.Errorf("kind %d of a network: got word %q, want one of its own", k, k)
		}
		seen[k.String()] = true
	}
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
