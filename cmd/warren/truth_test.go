package main

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/report"
	"warren/mesh/roster"
	"warren/mesh/verdict"
	"warren/nat/natkind"
	"warren/nat/natprobe"
	"warren/nat/path"
	"warren/nat/reach"
)

// contradictions are pairs of lines of which no report may have both, whatever it was made of.
var contradictions = [][2]string{
	// Whether it answers.
	{`b is reached`, `does not answer|has answered nothing|has not been heard|is not reached|gets no answer|got no answer`},
	{`ping answered`, `does not answer|has answered nothing|has not been heard|is not reached|hold the same keys|switched off|handshake is under way`},
	{`b was last reached`, `switched off|does not answer|has not been heard`},
	{`handshake (over it )?(gets|has got) no answer`, `handshake \d+s ago|handshake 1m`},
	{`has not been heard since`, `last heard|(^| )handshake \d`},
	{`switched off or offline, or its agent does not run`, `last heard 0s ago|last heard 1s ago`},
	{`it is switched off`, `session open|gossip has not missed|ping answered`},
	{`no other member hears it`, `gossip has not missed|session with nobody`},
	{`session with nobody`, `session open|gossip (misses|has)`},
	{`invalid`, `b`},
	// By which way.
	{`path none`, `b is reached|b was last reached|the path to it leads|packets go by|carries the packets meanwhile|standing by|up to \d+ bytes pass|the path answers`},
	{`b is not reached`, `path (direct|relay|by|\d)`},
	{`(is|last) reached directly`, `packets go by (the|a) TCP stream|carries the packets meanwhile|no relay carries`},
	{`through the relay gate`, `path (direct|none)`},
	{`no relay carries the packets`, `standing by|through the relay`},
	// UDP.
	{`UDP does not get through on this network`, `UDP answers again|VERSION a [^A-Z]*UDP`},
	{`UDP answers again`, `let UDP out`},
	// What attempts have shown.
	{`told no address that can be used`, `as anchors see it|its own address|where it called from`},
	{`no address family in common`, `answered, (not )?chosen|no answer to|its checks came in`},
	{`of \d+ checks? was answered and none came in`, `answered, (not )?chosen|its checks came in`},
	{`none of the \d+ sent there is answered`, `answered, (not )?chosen`},
	{`no pair of addresses held`, `answered, chosen`},
	{`none of \d+ checks was answered`, `answered, (not )?chosen`},
	// What the sizes have shown.
	{`batches of them do not`, `does not answer|is not reached|is reached by a TCP stream`},
}

// compiled are the patterns of such pairs.
func compiled(pairs [][2]string) (out [][2]*regexp.Regexp) {
	for _, pair := range pairs {
		out = append(out, [2]*regexp.Regexp{regexp.MustCompile(pair[0]), regexp.MustCompile(pair[1])})
	}
	return out
}

// contradiction is what a text says that does not go together; "" for nothing.
func contradiction(pairs [][2]*regexp.Regexp, text string) string {
	flat := strings.Join(strings.Fields(text), " ")
	for _, pair := range pairs {
		if a := pair[0].FindString(flat); a != "" {
			if b := pair[1].FindString(flat); b != "" {
				return a + " | " + b
			}
		}
	}
	return ""
}

// dice make what an agent might know, and much that it never would.
type dice struct {
	*rand.Rand
	now time.Time
}

func (d dice) yes() bool { return d.IntN(2) == 0 }

// moment is some time before now, or never.
func (d dice) moment() time.Time {
	spans := []time.Duration{0, 100 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second, 50 * time.Second, 170 * time.Second, 10 * time.Minute, time.Hour}
	if i := d.IntN(len(spans) + 1); i < len(spans) {
		return d.now.Add(-spans[i])
	}
	return time.Time{}
}

func (d dice) self() natkind.Self {
	return natkind.Self{
		Mapping: natkind.Mapping(d.IntN(6)), Filtering: natkind.Filtering(d.IntN(5)), PortMapping: natkind.PortMapping(d.IntN(7)), Ports: natkind.Ports(d.IntN(3)), UDPBlocked: d.IntN(4) == 0, PortTaken: d.IntN(8) == 0,
	}
}

func (d dice) attempt() verdict.Attempt {
	a := verdict.Attempt{Started: d.now.Add(-20 * time.Second)}
	if d.yes() {
		a.Ended = d.now.Add(-14 * time.Second)
	}
	for i := range d.IntN(4) {
		p := verdict.Pair{Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}), 9277), Type: []string{"host", "srflx", "prflx"}[d.IntN(3)], Sent: d.IntN(3) * 20}
		if p.Sent > 0 && d.yes() {
			p.Answered = d.IntN(3)
		}
		if d.IntN(3) == 0 {
			p.Heard = d.IntN(3)
		}
		if p.Sent+p.Answered+p.Heard == 0 && d.yes() {
			p.Unable = true
		}
		if p.Answered > 0 && d.yes() {
			a.Nominated = p.Remote
		}
		a.Pairs = append(a.Pairs, p)
	}
	return a
}

// The nodes of these reports: a asks about b, and gate is an anchor.
var truthA, truthB, truthGate = identity.NodeID{1}, identity.NodeID{2}, identity.NodeID{3}

func (d dice) mesh() *report.Mesh {
	member := func(id identity.NodeID, name string) roster.Member {
		return roster.Member{ID: id, Name: name, Addr4: netip.AddrFrom4([4]byte{100, 70, 0, id[0]}), Record: record.Node{Version: []string{"1.2.0", "1.1.0", ""}[d.IntN(3)]}}
	}
	addr, virtual := netip.MustParseAddrPort("198.51.100.7:9277"), netip.MustParseAddrPort("[100::200:0:0:1]:9")
	m := &report.Mesh{
		Self: truthA, Name: "home", Expires: d.now.Add(1000 * time.Hour),
		Records: report.Records{Members: []roster.Member{member(truthA, "a"), member(truthB, "b"), member(truthGate, "gate")}},
		Traffic: map[identity.NodeID]report.Traffic{truthB: {LastHandshake: d.moment(), PathMTU: d.IntN(2) * 1280, Flow: report.Flow{Sent: d.moment(), Heard: d.moment()}}},
		Vitals:  map[identity.NodeID]report.Vital{truthB: {Life: verdict.Life(d.IntN(3)), Since: d.moment(), Answered: d.moment(), Told: d.moment()}},
	}
	m.Paths = map[identity.NodeID]path.Status{truthB: {
		Path: []path.Path{{}, {Kind: path.Direct, Addr: addr}, {Kind: path.Relayed, Via: truthGate}}[d.IntN(3)], Since: d.moment(), RTT: time.Duration(d.IntN(2)) * time.Millisecond,
		Reason: "waiting", Attempts: d.Uint64N(5), Proved: d.moment(), Doubted: d.moment(),
	}}
	m.Sessions = make(map[identity.NodeID]report.Session)
	for _, id := range []identity.NodeID{truthB, truthGate} {
		if d.yes() {
			m.Sessions[id] = report.Session{Remote: []netip.AddrPort{addr, virtual}[d.IntN(2)], RTT: time.Millisecond, Heard: d.moment()}
		}
	}
	m.Streams = report.Streams{UDP: verdict.UDPState(d.IntN(4)), Reason: "as was found"}
	m.Streams.State = []string{"open", "in doubt", "blocked", "answering again"}[m.Streams.UDP]
	if m.Streams.UDP >= verdict.UDPBlocked && d.yes() {
		m.Streams.Blocked = m.Streams.Reason
	}
	if d.IntN(4) == 0 {
		m.Streams.Ends, m.Streams.Used = map[identity.NodeID]netip.AddrPort{truthB: addr}, map[identity.NodeID]bool{truthB: true}
	}
	if d.IntN(6) == 0 {
		m.Refusals = []verdict.Refusal{{By: truthGate, Reason: "revoked", Since: d.now}}
	}
	if d.IntN(6) == 0 {
		m.Unsent = []verdict.Unsent{{To: []netip.AddrPort{addr, netip.MustParseAddrPort("203.0.113.1:9277")}[d.IntN(2)], Count: 9, First: d.now.Add(-time.Minute), Last: d.now}}
	}
	if d.IntN(4) == 0 {
		m.Mapped = []netip.AddrPort{netip.MustParseAddrPort("203.0.113.1:9277")}
	}
	return m
}

func (d dice) inquiry() report.Inquiry {
	in := report.Inquiry{Now: d.now, Mesh: d.mesh(), Target: truthB, Port: 9277, Here: d.self(), There: report.Told{NAT: d.self(), At: d.moment(), Heard: d.moment()}}
	if d.IntN(8) == 0 {
		in.There.Skewed = d.moment()
	}
	if in.Mesh.Path(truthB).Kind != verdict.NoPath && d.IntN(4) > 0 {
		in.Ping = report.Ping{Asked: true}
		if d.yes() {
			in.Ping.RTT = time.Millisecond
			in.Bursts = verdict.Bursts{Size: 1200, Sent: 16, Singles: d.IntN(17), Batched: d.IntN(17)}
			if d.IntN(6) == 0 {
				six, four := netip.MustParseAddr("fd00::2"), netip.AddrFrom4([4]byte{100, 70, 0, 2})
				in.Ping.Passages = []verdict.Passage{{To: six, Answered: true}, {To: four, Fault: verdict.Fault(d.IntN(7)), Interface: "wg7", Detail: "blackhole"}}
			}
		}
	}
	if d.IntN(16) == 0 {
		in.Policy = verdict.Policy{Bars: true, BarsBack: d.yes()}
	}
	in.Evidence = path.Evidence{Status: in.Mesh.Paths[truthB], Refused: d.IntN(8) == 0}
	if d.yes() {
		in.Evidence.Unanswered, in.Evidence.Begun = d.IntN(9), d.moment()
	}
	if d.IntN(8) == 0 {
		in.Evidence.NoRoute = "no session"
	}
	for range d.IntN(3) {
		in.Evidence.Relays = append(in.Evidence.Relays, path.Beside{Anchor: truthGate, Ready: d.yes()})
	}
	for range d.IntN(3) {
		in.Attempts = append(in.Attempts, d.attempt())
	}
	return in
}

// TestNoContradictions puts questions about evidence made at random. No report may say one thing in a line and another in the next, nor may
// the status say what why denies.
func TestNoContradictions(t *testing.T) {
	d := dice{rand.New(rand.NewPCG(7, 9)), exampleTime}
	seen, pairs := make(map[string]int), compiled(contradictions)
	for range 6000 {
		in := d.inquiry()
		why := report.Why(in)
		var out strings.Builder
		printWhy(&out, endless, why)
		seen[why.Verdict]++
		if found := contradiction(pairs, out.String()); found != "" {
			t.Fatalf("%s: got both %q in\n%s", why.Verdict, found, out.String())
		}
		if why.Cause == "" && why.Verdict != "direct" && why.Verdict != "left" {
			t.Fatalf("%s without a cause:\n%s", why.Verdict, out.String())
		}
		agree(t, report.Status(report.Agent{Now: in.Now, Mesh: in.Mesh}), why, out.String())
	}
	for kind := range 64 {
		switch verdict := verdict.Kind(kind); verdict.String() {
		case "static-name":
			return
		case "left", "revoked", "no-tunnel": // of no evidence
		default:
			if seen[verdict.String()] == 0 {
				t.Errorf("no evidence has led to %s: the dice are to make some", verdict)
			}
		}
	}
}

// agree asserts that the status of a moment says no other thing than why of the same moment.
func agree(t *testing.T, s api.Status, why api.Why, text string) {
	t.Helper()
	for _, p := range s.Peers {
		if p.Name != "b" {
			continue
		}
		mute := strings.Contains(why.Conclusion, "b does not answer; the path") || why.Verdict == "off"
		switch {
		case p.State != why.Peer.State:
			t.Fatalf("status says %s, why %s", p.State, why.Peer.State)
		case p.State == api.PeerUp && mute, p.State == api.PeerUp && strings.Contains(why.Conclusion, "not reached"):
			t.Fatalf("status says up, why:\n%s", text)
		case p.State == api.PeerSilent && why.Verdict == "direct" && why.PingMS == 0:
			t.Fatalf("status says silent, why:\n%s", text)
		case (p.State == api.PeerDown) && strings.Contains(why.Conclusion, "is reached"):
			t.Fatalf("status says down, why:\n%s", text)
		}
	}
}

// netContradictions are those of netcheck.
var netContradictions = [][2]string{
	{`IPv[46] works`, `none over the Internet|neither by UDP|UDP is blocked|drops UDP|captive portal likely`},
	{`none over the Internet`, `streams not needed`},
	{`no anchor answers, neither by UDP nor by TCP`, `anchors answer by|[0-9]ms open|streams in use`},
	{`no address on any network`, `IPv[46] (works|blocked)`},
	{`captive portal likely`, `no sign`},
	{`not known; there is no other anchor`, `IPv[46] (works|blocked)`},
	{`streams in use`, `if that lasts|streams not needed`},
	{`with every peer that can send UDP; strangers reach`, `batches`},
}

func TestNetcheckHasNoContradictions(t *testing.T) {
	d := dice{rand.New(rand.NewPCG(3, 5)), exampleTime}
	family := func(v4 bool) report.Measurement {
		var m report.Measurement
		if d.IntN(8) == 0 {
			m.Err = errors.New("no socket")
		}
		for range d.IntN(3) {
			a := natprobe.Answer{Server: natprobe.Server{ID: truthGate}}
			if d.yes() {
				a.Mapped, a.RTT = netip.MustParseAddrPort("203.0.113.1:9277"), time.Millisecond
			}
			m.Report.Answers = append(m.Report.Answers, a)
		}
		m.Report.Mapping, m.Report.Filtering = natkind.Mapping(d.IntN(6)), natkind.Filtering(d.IntN(5))
		return m
	}
	pairs := compiled(netContradictions)
	for range 2000 {
		n := report.Network{Started: d.now, Name: "a", Port: 9277, IPv4: family(true), IPv6: family(false)}
		for _, addr := range []string{"192.168.1.7", "2001:db8::7"} {
			if d.yes() {
				n.Hosts = append(n.Hosts, netip.MustParseAddr(addr))
			}
		}
		if d.IntN(3) == 0 {
			n.Reach = []reach.Candidate{{Addr: netip.MustParseAddrPort("203.0.113.1:9277"), State: []reach.State{reach.Reachable, reach.Unreachable}[d.IntN(2)]}}
		}
		n.Streams = d.mesh().Streams
		n.Streams.Since = d.moment()
		if d.yes() {
			n.Anchors = []report.Anchor{{ID: truthGate, Name: "gate", Address: netip.MustParseAddrPort("203.0.113.5:9277"), Session: d.yes(), Look: verdict.Look{TCP: verdict.TCP(d.IntN(5)), Detail: "x"}}}
		}
		if d.IntN(4) == 0 {
			n.Page = "leads elsewhere"
		}
		var out strings.Builder
		printNetcheck(&out, endless, report.Netcheck(n))
		if found := contradiction(pairs, out.String()); found != "" {
			t.Fatalf("got both %q in\n%s", found, out.String())
		}
	}
}
