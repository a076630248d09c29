package path

import (
	"slices"
	"strings"
	"testing"
	"time"

	"warren/mesh/identity"
)

// newRelayedWorld is one of two sides that reach each other through two anchors only.
func newRelayedWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := newWorld(t, seed)
	w.direct = false
	for i := range w.side {
		w.start(i)
		w.input(i, w.local(i, 0, 0))
	}
	w.until(Relayed, 2*time.Second, true)
	w.run(3*time.Second, true)
	for i, s := range w.side {
		status := s.m.Status(w.now)
		if status.Path.Via != anchorID || status.Standby != spareID {
			t.Fatalf("side %d: got a path through %v and %v ready, want %v and %v", i, status.Path.Via, status.Standby, anchorID, spareID)
		}
	}
	return w
}

// local is a side's knowledge with the loads that the anchors tell.
func (w *world) local(i int, first, spare uint8) Local {
	return Local{
		Candidates: []Candidate{NewCandidate(Host, w.side[i].addr, 0)},
		Relays:     []RelayOffer{{Anchor: anchorID, RTTms: 10, Load: first}, {Anchor: spareID, RTTms: 30, Load: spare}},
	}
}

func (w *world) via(i int) identity.NodeID { return w.side[i].m.route.path.Via }

// moved runs until both sides use the anchor, and returns how long it took.
func (w *world) moved(anchor identity.NodeID, limit time.Duration, traffic bool) time.Duration {
	w.t.Helper()
	begin := w.now
	for w.via(0) != anchor || w.via(1) != anchor {
		if w.now.Sub(begin) >= limit {
			w.t.Fatalf("got paths through %v and %v after %s, want %v: %q %q", w.via(0), w.via(1), limit, anchor, w.reason(0), w.reason(1))
		}
		w.run(5*time.Millisecond, traffic)
	}
	return w.now.Sub(begin)
}

func TestRelayThatDiesIsReplacedByTheSpare(t *testing.T) {
	for seed := range uint64(20) {
		w := newRelayedWorld(t, seed)
		w.run(time.Duration(w.rnd.IntN(60_000))*time.Millisecond, true)
		events := len(w.side[0].events)
		w.dead = anchorID
		if took := w.moved(spareID, 5*time.Second, true); took > 2500*time.Millisecond {
			t.Errorf("seed %d: moved to the spare relay after %s, want 2.5 s at most", seed, took)
		}
		for _, e := range w.side[0].events[events:] {
			if e.Path.Kind != Relayed {
				t.Errorf("seed %d: got a moment without a path (%s), want none", seed, e.Reason)
			}
		}
		w.run(time.Minute, true)
		if w.via(0) != spareID || w.via(1) != spareID {
			t.Errorf("seed %d: got paths through %v and %v later, want %v", seed, w.via(0), w.via(1), spareID)
		}
		w.dead = identity.NodeID{}
		w.run(5*time.Minute, true)
		for i, s := range w.side {
			if got := s.m.Status(w.now); got.Path.Via != spareID || got.Standby != anchorID {
				t.Errorf("seed %d, side %d: got path through %v, %v ready, want the one that came back ready", seed, i, got.Path.Via, got.Standby)
			}
		}
	}
}

// An anchor that is no member any more is left at once, though it goes on forwarding, and is not taken again.
func TestRelayThatIsNoMember(t *testing.T) {
	for _, c := range []struct {
		name         string
		gone, via    identity.NodeID
		spareIsGone  bool
		wantReplaced bool
	}{
		{name: "in use", gone: anchorID, via: spareID, wantReplaced: true}, {name: "held ready", gone: spareID, via: anchorID},
		{name: "both", gone: anchorID, spareIsGone: true},
	} {
		w := newRelayedWorld(t, 7)
		w.run(10*time.Second, true)
		events := len(w.side[0].events)
		for i := range w.side {
			known := w.local(i, 0, 0)
			known.Relays = slices.DeleteFunc(known.Relays, func(o RelayOffer) bool { return o.Anchor == c.gone || c.spareIsGone })
			w.input(i, known)
			if c.spareIsGone {
				w.input(i, RelayGone{Anchor: spareID})
			}
			w.input(i, RelayGone{Anchor: c.gone})
			if got := w.via(i); got != c.via {
				t.Errorf("%s, side %d: got a path through %v at once, want %v: %q", c.name, i, got, c.via, w.reason(i))
			}
			if r := w.side[i].m.route.relays.by(c.gone); r != nil {
				t.Errorf("%s, side %d: got a channel there still: %+v", c.name, i, r)
			}
		}
		w.run(time.Minute, true)
		for i := range w.side {
			if got := w.via(i); got != c.via {
				t.Errorf("%s, side %d: got a path through %v a minute later, want %v: %q", c.name, i, got, c.via, w.reason(i))
			}
		}
		for _, e := range w.side[0].events[events:] {
			if c.wantReplaced && e.Path.Kind != Relayed {
				t.Errorf("%s: got a moment without a path (%s), want none", c.name, e.Reason)
			}
		}
	}
}

// The spare one has nothing to do, and costs next to nothing.
func TestSpareRelayIdles(t *testing.T) {
	w := newRelayedWorld(t, 1)
	w.run(30*time.Minute, false) // the ladder's first tries
	before := [2]int{w.side[0].checks, w.side[1].checks}
	w.run(time.Hour, false)
	// Two relays checked by the controlling side, the path every 22 s and the spare every 25 s at most; six tries for a direct path, of two new checks.
	if got := w.side[0].checks - before[0] + w.side[1].checks - before[1]; got > 3600/22+3600/25+60 {
		t.Errorf("got %d checks in an idle hour, want about two in 25 s", got)
	}
	for i, s := range w.side {
		if got := s.m.Status(w.now).Standby; got != spareID {
			t.Errorf("side %d: got %v ready after an hour, want %v", i, got, spareID)
		}
	}
}

func TestSpareRelayThatDiesIsNoticed(t *testing.T) {
	w := newRelayedWorld(t, 2)
	w.run(time.Minute, true)
	w.dead = spareID
	w.run(2*time.Minute, true)
	for i, s := range w.side {
		if got := s.m.Status(w.now); got.Path.Via != anchorID || !got.Standby.IsZero() {
			t.Errorf("side %d: got path through %v with %v ready, want %v with none", i, got.Path.Via, got.Standby, anchorID)
		}
	}
}

// Both anchors are out of reach, as when this host's network is away: neither is to blame.
func TestOutageOfAllRelays(t *testing.T) {
	w := newRelayedWorld(t, 3)
	w.relayed = false
	w.run(20*time.Second, true)
	if got := w.kinds(); got != [2]PathKind{None, None} {
		t.Fatalf("got %v without any relay, want none", got)
	}
	w.relayed = true
	w.until(Relayed, 15*time.Second, true)
	w.run(5*time.Second, true)
	for i, s := range w.side {
		if got := s.m.Status(w.now).Standby; got.IsZero() {
			t.Errorf("side %d: got no relay ready after the outage: %+v", i, s.m.route.relays)
		}
	}
}

// A relay that worked a while ago takes over, and does not work any more: its own round trip says when to give it up.
func TestRelayThatWorkedOnceIsGivenUpSoon(t *testing.T) {
	w := newRelayedWorld(t, 5)
	w.relayed = false
	m := w.side[0].m
	m.route.relays.close(m.route.relays.by(anchorID))
	m.route.set(w.now, Path{}, "test")
	m.route.useRelay(w.now)
	w.input(0, Wake{})
	if got := w.via(0); got != spareID {
		t.Fatalf("got a path through %v, want %v", got, spareID)
	}
	w.run(1500*time.Millisecond, false)
	if got := w.kinds()[0]; got != None {
		t.Errorf("got a %v path after 1.5 s without an answer, want none", got)
	}
}

func TestFullRelayIsLeftWithoutLoss(t *testing.T) {
	for seed := range uint64(10) {
		w := newRelayedWorld(t, 20+seed)
		w.run(time.Minute, true)
		events := [2]int{len(w.side[0].events), len(w.side[1].events)}
		for i := range w.side {
			w.input(i, w.local(i, 250, 10))
		}
		w.moved(spareID, easeWithin+3*time.Second, true)
		for i, s := range w.side {
			for _, e := range s.events[events[i]:] {
				if e.Path.Kind != Relayed || !slices.Contains(append(e.Sources, e.Path.Addr), channel(i, anchorID)) {
					t.Errorf("seed %d, side %d: got %+v, want a path all the time and both relays' packets taken", seed, i, e)
				}
			}
		}
		w.input(0, w.local(0, 10, 250))
		w.run(easeEvery/2, true)
		for i := range w.side {
			if w.via(i) != spareID {
				t.Errorf("seed %d, side %d: went back at once", seed, i)
			}
		}
	}
}

func TestRelayThatCannotBeOpened(t *testing.T) {
	w := newRelayedWorld(t, 4)
	m := w.side[0].m
	m.route.relays.closeAll()
	m.route.set(w.now, Path{}, "test")
	m.intro.try.started, m.route.trying.started = w.now, w.now
	m.route.planRelay(w.now, choice{anchorID, spareID})
	w.now = w.now.Add(relayDelay)
	m.Step(w.now, Wake{})
	m.Step(w.now, RelayOpened{Anchor: anchorID, Text: "refused"})
	out, _ := m.Step(w.now, Wake{})
	if !slices.Contains(out, Output(OpenRelay{Anchor: spareID})) {
		t.Errorf("got %v after the first relay refused, want the spare one opened at once", out)
	}
	if got := m.View().relaying(); !strings.Contains(got.String(), "opening a relay") {
		t.Errorf("got %q, want what is under way", got)
	}
}

func TestChooseRelays(t *testing.T) {
	id := func(n byte) identity.NodeID { return identity.NodeID{n} }
	cfg := &Config{Self: id(1), Peer: id(2)}
	offer := func(n byte, rtt uint32, load ...uint8) RelayOffer {
		return RelayOffer{Anchor: id(n), RTTms: rtt, Load: append(load, 0)[0]}
	}
	type list = []RelayOffer
	for _, tt := range []struct {
		name         string
		ours, theirs list
		use          relayUse
		want         choice
	}{
		{"the shortest way in all", list{offer(7, 1), offer(8, 5)}, list{offer(7, 20), offer(8, 5)}, relayUse{}, choice{id(8), id(7)}},
		{"the one in use stays", list{offer(7, 1), offer(8, 5)}, list{offer(7, 20), offer(8, 5)}, relayUse{inUse: id(7)}, choice{id(7), id(8)}},
		{"unless another is nearer by far", list{offer(7, 90), offer(8, 5)}, list{offer(7, 20), offer(8, 5)}, relayUse{inUse: id(7)}, choice{id(8), id(7)}},
		{"or it is full", list{offer(7, 1, 250), offer(8, 50, 100)}, list{offer(7, 1), offer(8, 50)}, relayUse{inUse: id(7)}, choice{id(8), id(7)}},
		{"as the peer knows", list{offer(7, 1), offer(8, 50, 100)}, list{offer(7, 1, 250), offer(8, 50)}, relayUse{inUse: id(7)}, choice{id(8), id(7)}},
		{"and the others are not", list{offer(7, 1, 250), offer(8, 5, 240)}, list{offer(7, 1), offer(8, 5)}, relayUse{inUse: id(7)}, choice{id(7), id(8)}},
		{"a full one is for nobody new", list{offer(7, 1, 224), offer(8, 500)}, list{offer(7, 1), offer(8, 500)}, relayUse{}, choice{id(8), id(7)}},
		{"a busy one is worth less", list{offer(7, 1, 200), offer(8, 40)}, list{offer(7, 1), offer(8, 40)}, relayUse{}, choice{id(8), id(7)}},
		{"the spare one stays", list{offer(7, 1), offer(8, 5), offer(9, 4)}, list{offer(7, 1), offer(8, 5), offer(9, 4)}, relayUse{inUse: id(7), spare: id(8)}, choice{id(7), id(8)}},
		{"one that failed comes last", list{offer(7, 1), offer(8, 5)}, list{offer(7, 1), offer(8, 5)}, relayUse{avoided: []identity.NodeID{id(7)}}, choice{id(8), identity.NodeID{}}},
		{"one that failed is better than none", list{offer(7, 1)}, list{offer(7, 1)}, relayUse{avoided: []identity.NodeID{id(7)}}, choice{id(7), identity.NodeID{}}},
		{"what the peer leaves out is not kept", list{offer(7, 1), offer(8, 5)}, list{offer(8, 5)}, relayUse{inUse: id(7)}, choice{id(8), id(7)}},
		{"none in common: nearest to the peer", list{offer(7, 1)}, list{offer(8, 9), offer(9, 3)}, relayUse{}, choice{id(9), id(8)}},
		{"neither end relays for itself", list{offer(2, 1), offer(7, 9)}, list{offer(1, 1), offer(7, 9)}, relayUse{}, choice{first: id(7)}},
		{"an offer without any: our nearest", list{offer(2, 1), offer(7, 3), offer(8, 9)}, nil, relayUse{}, choice{id(7), id(8)}},
		{"nobody knows one", nil, nil, relayUse{}, choice{}},
	} {
		if got := (Local{Relays: tt.ours}).chooseRelays(cfg, tt.use, false, tt.theirs); got != tt.want {
			t.Errorf("%s: got %d and %d, want %d and %d", tt.name, got.first[0], got.spare[0], tt.want.first[0], tt.want.spare[0])
		}
	}
}

// Where UDP is blocked, or an anchor is none to strangers, what one side has no session with is the last choice.
func TestChooseRelaysThatBothCanHave(t *testing.T) {
	id := func(n byte) identity.NodeID { return identity.NodeID{n} }
	type list = []RelayOffer
	dialable := map[identity.NodeID]bool{id(6): true, id(7): true, id(8): true} // 9 is a neighbour
	for _, tt := range []struct {
		name   string
		ours   Local
		only   bool
		theirs list
		want   choice
	}{
		{"an anchor before a neighbour", Local{Relays: list{{Anchor: id(9), Private: true}, {Anchor: id(7), RTTms: 30}}}, false, list{{Anchor: id(9)}, {Anchor: id(7)}}, choice{id(7), id(9)}},
		{"unless it is far", Local{Relays: list{{Anchor: id(9), Private: true}, {Anchor: id(7), RTTms: 80}}}, false, list{{Anchor: id(9)}, {Anchor: id(7)}}, choice{id(9), id(7)}},
		{"no UDP there: what it offers, although it failed here", Local{Relays: list{{Anchor: id(7)}, {Anchor: id(6)}}}, true, list{{Anchor: id(6)}}, choice{first: id(6)}},
		{"no UDP here: ours, although the peer left it out", Local{Relays: list{{Anchor: id(7)}}, NoUDP: true}, false, list{{Anchor: id(8)}}, choice{first: id(7)}},
		{"no UDP there: what it offers", Local{Relays: list{{Anchor: id(7)}}}, true, list{{Anchor: id(8)}}, choice{first: id(8)}},
		{"a neighbour of the peer's, which we cannot dial", Local{Relays: list{{Anchor: id(7)}}}, false, list{{Anchor: id(9)}}, choice{first: id(7)}},
		{"a neighbour of ours, which the peer cannot dial", Local{Relays: list{{Anchor: id(9), Private: true}}}, false, list{{Anchor: id(8)}}, choice{first: id(8)}},
		{"a neighbour of both", Local{Relays: list{{Anchor: id(9), Private: true}, {Anchor: id(7)}}}, true, list{{Anchor: id(9)}}, choice{first: id(9)}},
		{"nothing better", Local{}, false, list{{Anchor: id(9)}}, choice{first: id(9)}},
		{"none that the other has, without UDP here", Local{NoUDP: true}, false, list{{Anchor: id(9)}}, choice{}},
		{"nor there", Local{Relays: list{{Anchor: id(7)}}}, true, nil, choice{}},
	} {
		cfg := &Config{Self: id(1), Peer: id(2)}
		tt.ours.Dialable = dialable
		if got := tt.ours.chooseRelays(cfg, relayUse{avoided: []identity.NodeID{id(6)}}, tt.only, tt.theirs); got != tt.want {
			t.Errorf("%s: got %d and %d, want %d and %d", tt.name, got.first[0], got.spare[0], tt.want.first[0], tt.want.spare[0])
		}
	}
}

// The sessions with the anchors agreed on end before there is a path, as when UDP is found to be blocked: another introduction
// names those that are left, at once.
func TestRelaysThatVanishAreReplaced(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t, 70+seed)
		w.direct = false
		w.dead = anchorID
		w.start(0)
		w.start(1)
		w.run(300*time.Millisecond, false)
		for i := range w.side {
			w.input(i, Local{Candidates: []Candidate{NewCandidate(Host, w.side[i].addr, 0)}, Relays: []RelayOffer{{Anchor: spareID, RTTms: 30}}, NoUDP: i == int(seed%2)})
		}
		if took := w.until(Relayed, time.Second, false); took > 500*time.Millisecond {
			t.Errorf("seed %d: got a path after %s, want 0.5 s at most", seed, took)
		}
		if w.via(0) != spareID || w.via(1) != spareID {
			t.Errorf("seed %d: got paths through %v and %v, want %v", seed, w.via(0), w.via(1), spareID)
		}
	}
}

// With a side that has no UDP nobody waits for a direct path.
func TestRelayAtOnceWithoutUDP(t *testing.T) {
	w := newWorld(t, 90)
	w.direct = false
	w.noUDP[1] = true
	w.start(0)
	w.start(1)
	if took := w.until(Relayed, time.Second, false); took > 100*time.Millisecond {
		t.Errorf("got a relayed path after %s, want 0.1 s at most", took)
	}
}

// A side goes to a network without UDP, and finds that out after 0.2 s: both leave the direct path as soon as a relay works,
// whichever of them offers, with and without traffic.
func TestDirectPathIsLeftWithoutUDP(t *testing.T) {
	for seed := range uint64(40) {
		mover, traffic := int(seed%2), seed%4 < 2
		w := newWorld(t, 100+seed)
		w.start(0)
		w.start(1)
		w.until(Direct, time.Second, true)
		w.run(30*time.Second, traffic)
		w.direct = false
		here := Local{Candidates: []Candidate{NewCandidate(Host, w.side[mover].addr, 0)}, Relays: []RelayOffer{{Anchor: anchorID, RTTms: 10}}}
		w.input(mover, NetworkChanged{Local: here})
		w.run(200*time.Millisecond, traffic)
		w.noUDP[mover], here.NoUDP = true, true
		w.input(mover, here)
		w.input(mover, Routable{})
		if took := w.until(Relayed, 2*time.Second, traffic); took > 400*time.Millisecond {
			t.Errorf("seed %d: relayed after another %s, want 0.4 s at most", seed, took)
		}
	}
}

// An anchor that was restarted has forgotten the channels that were held ready there. They are opened anew, when the session
// with it shows that, or at the latest when an introduction needs them.
func TestChannelsThatTheAnchorForgot(t *testing.T) {
	for seed := range uint64(10) {
		for _, told := range []bool{true, false} {
			w := newRelayedWorld(t, 150+seed)
			w.run(time.Minute, true)
			for i, s := range w.side {
				delete(s.opened, spareID)
				if told {
					l := w.local(i, 0, 0)
					l.Relays[1].Since = w.now
					w.input(i, l)
				}
			}
			if told {
				w.run(200*time.Millisecond, true)
				w.dead = anchorID
				if took := w.moved(spareID, 5*time.Second, true); took > 1500*time.Millisecond {
					t.Errorf("seed %d: moved to the relay that was restarted after %s, want 1.5 s at most", seed, took)
				}
				continue
			}
			w.dead = anchorID
			only := w.local(1, 0, 0)
			only.Relays = only.Relays[1:]
			w.start(1)
			w.input(1, only)
			w.until(Relayed, 1500*time.Millisecond, true)
			w.moved(spareID, 2500*time.Millisecond, true)
		}
	}
}

// Both relays agreed on die while ICE still runs, and others could be had: they are agreed on at once, not when it ends.
func TestRelaysThatDieInAnAttempt(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t, 170+seed)
		w.direct = false
		w.refused = map[identity.NodeID]bool{anchorID: true}
		w.start(0)
		w.start(1)
		w.run(100*time.Millisecond, false)
		for i := range w.side {
			w.input(i, w.local(i, 0, 0))
		}
		if took := w.until(Relayed, 2*time.Second, false); took > time.Second {
			t.Errorf("seed %d: got a path after %s, want 1 s at most", seed, took)
		}
		if w.via(0) != spareID || w.via(1) != spareID {
			t.Errorf("seed %d: got paths through %v and %v, want %v", seed, w.via(0), w.via(1), spareID)
		}
	}
}

// An anchor that comes up, for the first time or again, is soon the spare one.
func TestSpareRelayIsSought(t *testing.T) {
	for seed := range uint64(10) {
		w := newWorld(t, 40+seed)
		w.direct = false
		w.start(0)
		w.start(1)
		w.until(Relayed, 2*time.Second, true)
		w.run(20*time.Second, true)
		ready := func(what string, want identity.NodeID, limit time.Duration) {
			t.Helper()
			begin := w.now
			for w.side[0].m.Status(w.now).Standby != want || w.side[1].m.Status(w.now).Standby != want {
				if w.now.Sub(begin) > limit {
					t.Fatalf("seed %d: %s: got no relay ready after %s: %+v", seed, what, limit, w.side[0].m.route.relays)
				}
				w.run(10*time.Millisecond, true)
			}
		}
		for i := range w.side {
			l := w.local(i, 0, 0)
			l.Relays[1].Since = w.now
			w.input(i, l)
		}
		ready("an anchor has come up", spareID, 2*time.Second)

		w.dead = anchorID
		w.moved(spareID, 5*time.Second, true)
		w.run(10*time.Second, true)
		w.dead = identity.NodeID{}
		for i := range w.side {
			l := w.local(i, 0, 0)
			l.Relays[0].Since = w.now
			w.input(i, l)
		}
		ready("the one that failed is back", anchorID, 4*time.Second)
	}
}

// A relay that passes checks on and nothing else is left as soon as WireGuard would have heard of the peer: for the spare, and for
// one that is agreed on if there is none.
func TestHollowRelayIsLeft(t *testing.T) {
	for seed := range uint64(20) {
		w := newRelayedWorld(t, seed)
		w.run(time.Minute, true)
		w.hollow = anchorID
		took := w.moved(spareID, 30*time.Second, true)
		if took < hollowFor || took > hollowFor+3*time.Second {
			t.Errorf("seed %d: the hollow relay was left after %s, want %s and 3 s at most", seed, took, hollowFor)
		}
		w.run(10*time.Minute, true)
		if w.via(0) != spareID || w.via(1) != spareID {
			t.Errorf("seed %d: got paths through %v and %v later, want %v", seed, w.via(0), w.via(1), spareID)
		}
	}
}

// When nothing comes in by any relay it is not the relays' fault: the pair goes to and fro less and less.
func TestMutePeerWearsNoRelayOut(t *testing.T) {
	w := newRelayedWorld(t, 7)
	w.run(time.Minute, true)
	offers, changes := w.side[0].sent[KindOffer], 0
	via := w.via(0)
	w.mute = true
	for range 60 * 60 {
		w.run(time.Second, true)
		if now := w.via(0); now != via {
			changes, via = changes+1, now
		}
	}
	if changes == 0 || changes > 14 {
		t.Errorf("got %d changes of the relay in an hour, want some, and 14 at most", changes)
	}
	if got := w.side[0].sent[KindOffer] - offers; got > 80 {
		t.Errorf("got %d offers in an hour, want 80 at most", got)
	}
}

// One that only sends, and is answered by WireGuard's empty packets, is no sign of a hollow relay.
func TestOneWayTrafficIsNotHollow(t *testing.T) {
	var l life
	at := time.Unix(1000, 0)
	rx := at
	for now := at; now.Before(at.Add(5 * time.Minute)); now = now.Add(200 * time.Millisecond) {
		if now.Sub(rx) >= 10*time.Second {
			rx = now
		}
		if l.hollow(Wake{LastTx: now, LastRx: rx}) {
			t.Fatalf("got a hollow path after %s, want none", now.Sub(at))
		}
	}
	// Two packets with a pause between are not all the time.
	l = life{}
	for _, s := range []int{0, 20, 40} {
		if l.hollow(Wake{LastTx: at.Add(time.Duration(s) * time.Second), LastRx: at.Add(-time.Second)}) {
			t.Errorf("got a hollow path by one packet each 20 s, want none")
		}
	}
}
