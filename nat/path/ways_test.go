package path

import (
	"strings"
	"testing"
	"time"
)

// A peer that is another process now ends the attempt with the one before, whatever it says first: no machine is left without a next try.
func TestAnotherProcessLeavesAPlan(t *testing.T) {
	for i, role := range []string{"controlling", "controlled"} {
		for _, kind := range []Kind{KindAsk, KindOffer, KindAnswer, KindCandidates, KindRefuse} {
			w := newWorld(t, 7)
			w.direct, w.relayed = false, false
			w.start(0)
			w.start(1)
			w.run(500*time.Millisecond, false)
			m := w.side[i].m
			if !m.intro.try.on {
				t.Fatalf("%s: got no attempt, want one under way", role)
			}
			// So many attempts that the next one is not begun at once.
			for range demandBurst {
				m.intro.remote.demand(w.now)
			}
			w.input(i, Received{Message{Kind: kind, Instance: [8]byte{9}, Attempt: m.intro.try.number, Ufrag: "abcdefgh", Pwd: "0123456789abcdef01234567"}})
			if m.intro.idle() && m.intro.retry.at.IsZero() {
				t.Errorf("%s, kind %d: got nothing under way and no next try", role, kind)
			}
		}
	}
}

// That there was no anchor to relay is over as soon as there is one: the words are, and so is the wait for the next rung.
func TestFirstAnchorIsNews(t *testing.T) {
	w := newSchedule(t, 9, map[reachedState]int{})
	w.direct = false
	for i, side := range w.side {
		side.away[anchorID], side.away[spareID] = true, true
		w.enlist(i)
	}
	alone := w.local
	w.run(2*time.Minute, false)
	for i, s := range w.side {
		for s.m.intro.try.on || s.m.intro.sig.waiting {
			w.run(100*time.Millisecond, false)
		}
		if got := w.reason(i); !strings.Contains(got, "no anchor in common") {
			t.Fatalf("side %d without an anchor: got %q, want that there is none in common", i, got)
		}
		l := alone(i)
		l.Relays = []RelayOffer{{Anchor: w.side[1-i].id}} // the peer itself is no help
		w.input(i, l)
		if got := w.reason(i); !strings.Contains(got, "no anchor in common") {
			t.Errorf("side %d: the peer is its own anchor: got %q", i, got)
		}
	}
	begin := w.now
	for i, side := range w.side {
		side.away[anchorID] = false
		w.input(i, w.local(i))
		if got := w.reason(i); strings.Contains(got, "no anchor in common") {
			t.Errorf("side %d with an anchor: got %q", i, got)
		}
	}
	w.until(Relayed, 30*time.Second, false)
	if took := w.now.Sub(begin); took > time.Second {
		t.Errorf("got a relay after %s, want it at once", took)
	}
}

// An attempt that failed before a path was there is not why there is none now.
func TestWhyThePathHasEnded(t *testing.T) {
	w := newWorld(t, 10)
	w.direct = false
	w.start(0)
	w.start(1)
	w.until(Relayed, 5*time.Second, true)
	w.run(20*time.Second, true)
	for i := range w.side {
		if got := w.reason(i); !strings.Contains(got, "ICE failed") {
			t.Fatalf("side %d relayed: got %q, want why not direct", i, got)
		}
	}
	w.relayed, w.signals = false, false
	w.run(1500*time.Millisecond, true)
	for i, s := range w.side {
		if s.m.route.path.Kind != None {
			t.Fatalf("side %d: got a path, want none", i)
		}
		s.m.intro.end()
		if got := w.reason(i); !strings.Contains(got, "is dead") || strings.Contains(got, "ICE failed") {
			t.Errorf("side %d: got %q, want that the relay is dead", i, got)
		}
	}
}
