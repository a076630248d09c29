package path

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"warren/mesh/identity"
)

func TestDirectAtOnce(t *testing.T) {
	w := newWorld(t, 1)
	w.start(0)
	w.start(1)
	if took := w.until(Direct, time.Second, false); took > 80*time.Millisecond {
		t.Errorf("got a direct path after %s, want 80 ms at most", took)
	}
	if got := fmt.Sprint(w.side[0].sent, w.side[1].sent); got != "map[offer:1] map[ask:1 answer:1]" {
		t.Errorf("got messages %s, want one offer, one answer, one ask", got)
	}
	w.run(time.Second, false)
	if len(w.side[0].opened)+len(w.side[1].opened) > 0 {
		t.Error("got a relay channel for a pair that was direct at once, want none")
	}
	if rtt := w.side[0].m.Status(w.now).RTT; rtt != 2*w.latency {
		t.Errorf("got round trip %s, want %s", rtt, 2*w.latency)
	}
	if r := w.reason(0); r != "" {
		t.Errorf("got reason %q for a direct path, want none", r)
	}
}

// The first address that answers in ICE is the path until ICE has chosen, and stays it when ICE fails after all. Of another attempt, or where there is
// a path, it changes nothing.
func TestFirstAnsweredPair(t *testing.T) {
	other := netip.MustParseAddrPort("192.0.2.77:1")
	for _, ends := range []string{"chooses it", "chooses another", "fails"} {
		w := newWorld(t, 5)
		w.direct, w.punching = true, time.Second
		w.start(0)
		w.start(1)
		w.run(150*time.Millisecond, false)
		s, there := w.side[0], w.side[1].addr
		attempt := s.ice.Attempt
		path := func() Path { return s.m.Status(w.now).Path }
		w.input(0, PairAnswered{Attempt: attempt - 1, Addr: there})
		if path().Kind != None {
			t.Fatalf("an answer in another attempt: got %+v, want no path", path())
		}
		w.input(0, PairAnswered{Attempt: attempt, Addr: there})
		w.input(0, PairAnswered{Attempt: attempt, Addr: other})
		if path().Kind != Direct || path().Addr != there || s.ice == nil {
			t.Fatalf("answered: got %+v, want %v, with ICE still trying", path(), there)
		}
		want := there
		switch ends {
		case "chooses it":
			w.input(0, Nominated{Attempt: attempt, Addr: there})
		case "chooses another":
			want = other
			w.input(0, Nominated{Attempt: attempt, Addr: other})
		case "fails":
			w.input(0, Failed{Attempt: attempt, Text: "no more"})
		}
		if path().Kind != Direct || path().Addr != want || s.ice != nil {
			t.Errorf("ICE %s: got %+v, want %v and the attempt over", ends, path(), want)
		}
	}
}

func TestConvergesUnderLoss(t *testing.T) {
	for seed := range uint64(100) {
		w := newWorld(t, seed)
		w.loss = 0.4
		w.start(0)
		w.run(time.Duration(w.rnd.IntN(2000))*time.Millisecond, false)
		w.start(1)
		w.until(Direct, 60*time.Second, false)
	}
}

func TestConvergesAfterRestarts(t *testing.T) {
	for seed := range uint64(100) {
		w := newWorld(t, seed)
		w.loss = 0.2
		w.start(0)
		w.start(1)
		for range 6 {
			w.run(time.Duration(w.rnd.IntN(3000))*time.Millisecond, true)
			w.start(w.rnd.IntN(2))
		}
		w.until(Direct, 60*time.Second, true)
		w.run(20*time.Second, true)
		if got := w.kinds(); got != [2]PathKind{Direct, Direct} {
			t.Fatalf("seed %d: got %v after settling, want direct twice: %q %q", seed, got, w.reason(0), w.reason(1))
		}
	}
}

func TestRestartIsReportedOnce(t *testing.T) {
	for restarted := range 2 {
		w := newWorld(t, 3)
		w.start(0)
		w.start(1)
		w.until(Direct, time.Second, false)
		w.run(10*time.Second, false)
		w.start(restarted)
		w.run(2*time.Second, false)
		w.until(Direct, time.Second, false)
		got := strings.Join(w.pathEvents(1-restarted), ", ")
		if strings.Count(got, "restarted=true") != 1 {
			t.Errorf("side %d restarted: got events %q, want exactly one with restarted", restarted, got)
		}
	}
}

func TestRelayThenDirect(t *testing.T) {
	w := newWorld(t, 4)
	w.direct = false
	w.start(0)
	w.start(1)
	if took := w.until(Relayed, 2*time.Second, false); took < preferDirect || took > 500*time.Millisecond {
		t.Errorf("got a relayed path after %s, want 300 to 500 ms", took)
	}
	if p := w.side[0].m.route.path; p.Via != anchorID || p.Addr != w.side[0].relay {
		t.Errorf("got path %v, want the relay's address and anchor", p)
	}
	w.run(30*time.Second, true)
	if got := w.kinds(); got != [2]PathKind{Relayed, Relayed} {
		t.Fatalf("got %v, want to stay relayed", got)
	}
	if r := w.reason(0); !strings.HasPrefix(r, "relayed: ICE failed") {
		t.Errorf("got reason %q, want why it is not direct", r)
	}
	w.direct = true
	if took := w.until(Direct, 80*time.Second, true); took > 75*time.Second {
		t.Errorf("got back to direct after %s, want a rung of the ladder", took)
	}
	w.run(relayLinger+time.Second, true)
	if len(w.side[0].opened)+len(w.side[1].opened) > 0 {
		t.Error("got a relay channel left open, want it closed")
	}
}

func TestDeadPathFallsBack(t *testing.T) {
	w := newWorld(t, 5)
	w.start(0)
	w.start(1)
	w.until(Direct, time.Second, true)
	w.run(30*time.Second, true)
	w.direct = false
	if took := w.until(Relayed, 10*time.Second, true); took > 4*time.Second {
		t.Errorf("got the relay %s after the path died, want 4 s at most", took)
	}
	var reasons []string
	for _, e := range w.side[0].events {
		reasons = append(reasons, e.Reason.String())
	}
	if got := strings.Join(reasons, "; "); !strings.Contains(got, "is dead") {
		t.Errorf("got event reasons %q, want one about the dead path", got)
	}
	w.relayed = false
	w.run(5*time.Second, true)
	if got := w.kinds(); got != [2]PathKind{None, None} {
		t.Fatalf("got %v without any way, want none", got)
	}
	w.direct = true
	w.until(Direct, 60*time.Second, true)
}

func TestIdlePathThatDiesIsNoticed(t *testing.T) {
	w := newWorld(t, 6)
	w.start(0)
	w.start(1)
	w.until(Direct, time.Second, false)
	w.run(10*time.Minute, false)
	w.direct, w.relayed = false, false
	w.run(35*time.Second, false)
	if got := w.kinds()[0]; got != None {
		t.Errorf("got %v 35 s after an idle path died, want none", got)
	}
}

func TestIdleBudget(t *testing.T) {
	w := newWorld(t, 7)
	w.start(0)
	w.start(1)
	w.until(Direct, time.Second, false)
	w.run(time.Minute, false)
	before := w.side[0].checks + w.side[1].checks
	w.run(time.Hour, false)
	got := w.side[0].checks + w.side[1].checks - before
	if got > 200 {
		t.Errorf("got %d checks in an idle hour, want at most 200", got)
	}
}

func TestNoRoute(t *testing.T) {
	w := newWorld(t, 8)
	w.signals = false
	w.start(0)
	w.start(1)
	w.run(3*time.Second, false)
	for i := range w.side {
		if got, want := w.reason(i), "no route for introductions: no anchor session"; !strings.HasPrefix(got, want) {
			t.Errorf("side %d: got reason %q, want %q", i, got, want)
		}
	}
	w.signals = true
	w.input(0, Routable{})
	if took := w.until(Direct, time.Second, false); took > 80*time.Millisecond {
		t.Errorf("got direct %s after the route came up, want 80 ms at most", took)
	}
}

func TestPeerIsOff(t *testing.T) {
	w := newWorld(t, 9)
	w.start(0)
	w.run(10*time.Minute, false)
	if got := w.reason(0); !strings.HasPrefix(got, "peer has not answered the offer (") {
		t.Errorf("got reason %q, want that the peer has not answered", got)
	}
	if got := w.side[0].sent[KindOffer]; got > 20 {
		t.Errorf("got %d offers in ten minutes to a peer that is off, want at most 20", got)
	}
	w.start(1)
	if took := w.until(Direct, time.Second, false); took > 100*time.Millisecond {
		t.Errorf("got direct %s after the peer came, want 100 ms at most", took)
	}
}

func TestNetworkChange(t *testing.T) {
	w := newWorld(t, 10)
	w.start(0)
	w.start(1)
	w.until(Direct, time.Second, true)
	w.run(10*time.Second, true)
	for i, s := range w.side {
		s.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)}), 1234)
		w.input(i, NetworkChanged{Local: Local{Candidates: []Candidate{NewCandidate(Host, s.addr, 0)}, Relays: s.m.intro.local.Relays}})
	}
	w.run(200*time.Millisecond, true)
	for i, s := range w.side {
		if got, want := s.m.route.path.Addr, w.side[1-i].addr; got != want {
			t.Errorf("side %d: got path to %s after the change, want %s", i, got, want)
		}
	}
}

// A NAT that forgets its mapping gives the peer a new address, without a word over signalling.
func TestRebinding(t *testing.T) {
	for moved := range 2 {
		w := newWorld(t, 11)
		w.start(0)
		w.start(1)
		w.until(Direct, time.Second, true)
		w.run(10*time.Second, true)
		w.signals, w.relayed = false, false
		w.side[moved].addr = netipPort(w.side[moved].addr, 2222)
		w.run(5*time.Second, true)
		if got, want := w.side[1-moved].m.route.path.Addr, w.side[moved].addr; got != want {
			t.Errorf("side %d moved: got path to %v, want %s: %s", moved, got, want, w.reason(1-moved))
		}
		if got := w.kinds(); got != [2]PathKind{Direct, Direct} {
			t.Errorf("got %v, want direct twice", got)
		}
	}
}

func TestControlLossKeepsPaths(t *testing.T) {
	w := newWorld(t, 12)
	w.start(0)
	w.start(1)
	w.until(Direct, time.Second, true)
	w.signals = false
	w.run(time.Hour, true)
	if got := len(w.side[0].events); got > 4 {
		t.Errorf("got %d events in an hour without signalling, want none after the first", got)
	}
	if got := w.kinds(); got != [2]PathKind{Direct, Direct} {
		t.Errorf("got %v, want direct twice", got)
	}
}

func TestStaleMessagesAreIgnored(t *testing.T) {
	w := newWorld(t, 13)
	w.start(0)
	w.start(1)
	w.until(Direct, time.Second, false)
	m := w.side[1].m
	old := Message{Kind: KindOffer, Attempt: 1, Instance: w.side[0].instance, Ufrag: "abcdefgh", Pwd: strings.Repeat("x", 24)}
	w.start(0)
	w.run(time.Second, false)
	out, _ := m.Step(w.now, Received{old})
	if len(out) != 0 {
		t.Errorf("got %v for an offer of a process that is gone, want nothing", out)
	}
}

// What WireGuard may take for the peer's packets: addresses that the peer has proven, none that it only names.
func TestSourcesAreProven(t *testing.T) {
	w := newWorld(t, 17)
	w.punching = time.Second
	w.start(0)
	w.start(1)
	claimed := netip.MustParseAddrPort("192.0.2.66:9277")
	other := netip.MustParseAddrPort("192.0.2.77:1")
	w.input(1, Local{Candidates: []Candidate{NewCandidate(Host, w.side[1].addr, 0), NewCandidate(Host, claimed, 1)}, Relays: []RelayOffer{{Anchor: anchorID}}})
	sources := func() []netip.AddrPort {
		var list []netip.AddrPort
		for _, a := range w.side[0].events[len(w.side[0].events)-1].Sources {
			if !IsVirtual(a.Addr()) {
				list = append(list, a)
			}
		}
		return list
	}
	want := func(when string, want ...netip.AddrPort) {
		t.Helper()
		if got := sources(); !slices.Equal(got, want) {
			t.Errorf("%s: got sources %v, want %v", when, got, want)
		}
	}
	w.until(Relayed, time.Second, false)
	want("while ICE has found nothing")
	w.input(0, Proven{From: other})
	want("after a check, before any nomination", other)
	w.until(Direct, 2*time.Second, false)
	want("with a path", other)
	w.run(10*time.Second, false)
	w.input(0, PeerChecked{From: claimed})
	want("after a check of the path's time", other, claimed)
	old := w.side[1].addr
	w.run(time.Second, false)
	w.signals, w.side[1].addr = false, other
	w.input(0, PeerChecked{From: other})
	w.run(5*time.Second, false)
	want("after a move", old, claimed)
	for i := range 100 {
		w.input(0, Proven{From: netip.AddrPortFrom(old.Addr(), uint16(i+1))})
	}
	if got := len(sources()); got > maxProven {
		t.Errorf("got %d sources, want at most %d", got, maxProven)
	}
	w.run(provenFor+time.Minute, false)
	w.input(0, Proven{From: claimed})
	want("a long time later", claimed)
}

// A new introduction while a path works: the path stays, and the two agree anew.
func TestIntroduceAgain(t *testing.T) {
	for side := range 2 {
		w := newWorld(t, 16)
		w.start(0)
		w.start(1)
		w.until(Direct, time.Second, true)
		w.input(side, Introduce{})
		w.run(time.Second, true)
		if got := w.side[0].m.Status(w.now).Attempts; got != 1 {
			t.Errorf("side %d: got %d attempts right after the first, want no more", side, got)
		}
		w.run(time.Minute, true)
		before := [2]exchange{w.side[0].m.core.agreed, w.side[1].m.core.agreed}
		events := len(w.side[0].events)
		for range 20 {
			w.input(side, Introduce{})
			w.run(10*time.Millisecond, true)
		}
		w.run(time.Second, true)
		for i, s := range w.side {
			if got := s.m.Status(w.now).Attempts; got != 2 || s.m.core.agreed == before[i] {
				t.Errorf("side %d of %d: got %d attempts, want a second one with other credentials", i, side, got)
			}
		}
		for _, e := range w.side[0].events[events:] {
			if e.Path.Kind != Direct {
				t.Errorf("got path %v meanwhile, want it to stay", e.Path)
			}
		}
		w.signals = false
		w.run(time.Minute, true)
		w.input(side, Introduce{})
		w.run(time.Hour, true)
		if got := w.kinds(); got != [2]PathKind{Direct, Direct} {
			t.Errorf("got %v without an answer, want the path to stay", got)
		}
	}
}

// The peer refuses a second key for one attempt, whichever process or machine of ours made the number: each offers
// under a greater one.
func TestAttemptNumbersOutliveTheProcess(t *testing.T) {
	for name, again := range map[string]func(*world){
		"restarted":                  func(w *world) { w.start(0) },
		"removed and added again":    func(w *world) { w.begin(0) },
		"and the clock was set back": func(w *world) { w.skew[0] = -time.Hour; w.begin(0) },
	} {
		w := newWorld(t, 15)
		w.start(0)
		w.start(1)
		w.until(Direct, time.Second, false)
		first := w.side[0].m.intro.sig.number
		w.run(time.Second, false)
		again(w)
		w.run(10*time.Second, true)
		w.until(Direct, time.Second, true)
		if got := w.side[0].m.intro.sig.number; got <= first {
			t.Errorf("%s: got attempt number %d, want one above %d", name, got, first)
		}
	}
}

func TestRefusal(t *testing.T) {
	w := newWorld(t, 14)
	w.start(0)
	w.run(time.Second, false)
	w.input(0, Received{Message{Kind: KindRefuse, Instance: [8]byte{5}}})
	if got := w.reason(0); !strings.Contains(got, "refuses") {
		t.Errorf("got reason %q, want the refusal", got)
	}
	w.start(1)
	w.until(Direct, 10*time.Second, false)
}

// FuzzStep feeds a machine arbitrary inputs: it must not panic, nor ask for wakes without end.
func FuzzStep(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, true)
	f.Add([]byte{0, 40, 1, 6, 2, 2, 8, 0, 9, 5, 9, 6, 10, 1, 10, 2, 12, 200, 12, 200, 11, 6, 12, 250, 10, 5, 12, 80}, false)
	f.Add([]byte{2, 12, 12, 8, 1, 9, 1, 12, 200, 12, 5, 6}, false)
	f.Fuzz(func(t *testing.T, script []byte, controlling bool) {
		w := newWorld(t, 1)
		i := 1
		if controlling {
			i = 0
		}
		w.start(i)
		now := w.now
		m := w.side[i].m
		for k := 0; k+1 < len(script) && k < 400; k += 2 {
			arg := script[k+1]
			now = now.Add(time.Duration(arg) * 7 * time.Millisecond)
			out, wake := m.Step(now, fuzzInput(script[k], arg, now, m.intro.sig.number))
			for _, o := range out {
				if send, ok := o.(Send); ok {
					if _, err := send.Message.Encode(); err != nil {
						t.Fatalf("sends what cannot be encoded: %v", err)
					}
				}
			}
			for range 20 {
				if wake.IsZero() || wake.After(now) {
					break
				}
				_, wake = m.Step(now, Wake{})
			}
			if !wake.IsZero() && !wake.After(now) {
				t.Fatalf("wants to be woken at %s for ever: %s", wake, m.Status(now).Reason)
			}
		}
	})
}

// fuzzInput is mostly about the newest attempt or those beside it.
func fuzzInput(kind, arg byte, now time.Time, newest uint64) Input {
	number := max(1, newest+uint64(arg%3)) - 1
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, arg % 4}), 1)
	anchor := []identity.NodeID{anchorID, spareID, {7, 7}, {6, 6}, {5, 5}}[arg%5]
	virtual := channel(0, anchor)
	switch kind % 15 {
	case 0:
		return Local{Candidates: []Candidate{NewCandidate(Host, addr, 0)}, Relays: []RelayOffer{{Anchor: anchorID, Load: arg}, {Anchor: anchor}}}
	case 1, 2, 3:
		return Received{Message{
			Kind: Kind(1 + arg%5), Attempt: max(1, number), Instance: [8]byte{1 + arg%2}, Ufrag: "abcdefgh",
			Pwd: strings.Repeat("y", 24), Candidates: []string{NewCandidate(Host, addr, 0).String()},
			Relays: []RelayOffer{{Anchor: anchorID}}, Relay: anchorID, Spare: anchor,
		}}
	case 4:
		return Routable{}
	case 5:
		return Unroutable{Kind: KindOffer, Text: "none"}
	case 6:
		return NetworkChanged{}
	case 7:
		return Nominated{Attempt: number, Addr: addr}
	case 8:
		return Failed{Attempt: number, Text: "x"}
	case 9:
		if arg%4 == 0 {
			return RelayOpened{Anchor: anchor, Text: "refused"}
		}
		return RelayOpened{Anchor: anchor, Addr: virtual}
	case 10:
		return CheckAnswered{ID: uint64(arg % 8)}
	case 11:
		if arg%2 == 0 {
			return PeerChecked{From: virtual}
		}
		return PeerChecked{From: addr}
	}
	if kind%15 == 13 {
		return Introduce{}
	}
	if kind%15 == 14 {
		return Proven{From: addr}
	}
	return Wake{LastTx: now, LastRx: now.Add(-time.Duration(arg) * 20 * time.Millisecond)}
}
