package path

import (
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
