package streams

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// Whoever races the addresses of an anchor has several streams for a moment, which the anchor takes in any order. The one that is left is
// known, whichever of them ends first.
func TestLoserOfARaceAcceptedLast(t *testing.T) {
	inWorld(t, true, nil, func(w *world) {
		winner := w.accept(7)
		loser := w.accept(7)
		w.Detach(loser)
		w.until(second)
		if got := w.Snapshot().Ends[anchor(7)].Virtual; got != winner {
			t.Errorf("the loser ended: got the end %v, want %v, which is up", got, winner)
		}
		w.Detach(winner)
		w.until(2 * second)
		if got := w.Snapshot().Ends; len(got) != 0 {
			t.Errorf("both ended: got %v", got)
		}
	})
}

// Of several streams of a member, that by which its session goes is the one to use.
func TestStreamOfTheSession(t *testing.T) {
	inWorld(t, true, nil, func(w *world) {
		first, second := w.accept(7), w.accept(7)
		for _, at := range []netip.AddrPort{first, second, first} {
			w.session(7, at)
			w.until(w.since() + 20*ms)
			if got := w.Snapshot().Ends[anchor(7)].Virtual; got != at {
				t.Errorf("session by %v: got the end %v", at, got)
			}
		}
		w.session(7, public(7)) // by UDP: none of them is better known than another
		w.until(w.since() + 20*ms)
		if got := w.Snapshot().Ends[anchor(7)].Virtual; got != second {
			t.Errorf("session by UDP: got the end %v, want the newest, %v", got, second)
		}
	})
}

// In whatever order streams of members come and go, a member has an end if and only if one of its streams is up, and that end is up.
func TestEndsAreThoseThatAreUp(t *testing.T) {
	inWorld(t, true, nil, func(w *world) {
		random := rand.New(rand.NewPCG(1, 2))
		up := make(map[byte][]netip.AddrPort)
		for step := range 600 {
			n := byte(7 + random.IntN(3))
			if list := up[n]; len(list) > 0 && random.IntN(2) == 0 {
				i := random.IntN(len(list))
				w.Detach(list[i])
				up[n] = slices.Delete(list, i, i+1)
			} else if len(list) < 4 {
				up[n] = append(list, w.accept(n))
			}
			w.until(w.since() + ms)
			ends := w.Snapshot().Ends
			for n := byte(7); n < 10; n++ {
				if end, has := ends[anchor(n)]; has != (len(up[n]) > 0) || has && !slices.Contains(up[n], end.Virtual) {
					t.Fatalf("step %d: member %d: got %v, %v, want one of %v", step, n, end.Virtual, has, up[n])
				}
			}
		}
	})
}
