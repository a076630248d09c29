package mesh

import (
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/roster"
)

// fatalWithin waits for the end of a node and returns when it came, or the zero duration.
func fatalWithin(p *peer, most time.Duration) (*FatalError, time.Duration) {
	start := time.Now()
	for time.Since(start) < most {
		synctest.Wait()
		if fatal := fatalOf(p); fatal != nil {
			return fatal, time.Since(start)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil, 0
}

func TestRefusedByAllIsExpelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		peers := w.grow(4)
		agree(t, 10*time.Second, peers...)
		out := peers[3]
		w.net.Partition(out.id)
		time.Sleep(time.Hour)
		if fatal := fatalOf(out); fatal != nil {
			t.Fatalf("alone, but not refused: got %v, want nothing", fatal)
		}
		out.Refused(peers[1].id, "revoked by n0")
		time.Sleep(time.Second)
		out.Refused(peers[2].id, "revoked by n0, too")
		out.Refused(peers[1].id, "again")
		fatal, after := fatalWithin(out, time.Minute)
		if fatal == nil || fatal.Text != "n1 says: revoked by n0" || fatal.Reason != roster.ReasonNone {
			t.Errorf("got %+v, want what n1 said first", fatal)
		}
		if after != 9*time.Second {
			t.Errorf("got it %s after the first refusal, want 10 s", after+time.Second)
		}
	})
}

func TestRefusalIsNotBelieved(t *testing.T) {
	for name, refuse := range map[string]func(t *testing.T, w *world, peers []*peer){
		"while another member takes us in": func(_ *testing.T, w *world, peers []*peer) {
			w.net.Partition(peers[3].id)
			w.net.Link(peers[3].id, peers[2].id)
			peers[3].Refused(peers[1].id, "no member")
		},
		"when one takes us in before ten seconds have passed": func(_ *testing.T, w *world, peers []*peer) {
			w.net.Partition(peers[3].id)
			peers[3].Refused(peers[1].id, "no member")
			time.Sleep(believeRefusals - time.Second)
			w.net.Link(peers[3].id, peers[2].id)
		},
		"when the one that refused takes us in, and goes away": func(_ *testing.T, w *world, peers []*peer) {
			w.net.Partition(peers[3].id)
			peers[3].Refused(peers[1].id, "no member")
			time.Sleep(time.Second)
			w.net.Link(peers[3].id, peers[1].id)
			time.Sleep(time.Second)
			w.net.Cut(peers[3].id, peers[1].id)
		},
		"by a stranger": func(t *testing.T, w *world, peers []*peer) {
			w.net.Partition(peers[3].id)
			peers[3].Refused(identity.NodeID{7}, "no member")
			synctest.Wait()
			if got := peers[3].Dropped()["refusal: not by a member"]; got != 1 {
				t.Errorf("dropped: got %d, want 1", got)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, time.Millisecond)
				peers := w.grow(4)
				agree(t, 10*time.Second, peers...)
				refuse(t, w, peers)
				if fatal, after := fatalWithin(peers[3], time.Hour); fatal != nil {
					t.Errorf("got %v after %s, want nothing", fatal, after)
				}
			})
		})
	}
}

// What a member said while others took us in is believed when those have gone: seen at the next look, and ten seconds later nobody is there.
func TestRefusalIsBelievedOnceAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		peers := w.grow(4)
		agree(t, 10*time.Second, peers...)
		w.net.Partition(peers[3].id)
		w.net.Link(peers[3].id, peers[2].id)
		peers[3].Refused(peers[1].id, "no member")
		time.Sleep(time.Hour)
		w.net.Cut(peers[3].id, peers[2].id)
		fatal, after := fatalWithin(peers[3], time.Hour)
		if fatal == nil || fatal.Text != "n1 says: no member" {
			t.Errorf("got %v, want what n1 said", fatal)
		}
		if after < believeRefusals || after > believeRefusals+tickEvery {
			t.Errorf("got it after %s, want within %s to %s", after, believeRefusals, believeRefusals+tickEvery)
		}
	})
}

// A node that knows nobody, its records being lost, believes whom it dialled.
func TestRefusalOfANodeThatKnowsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		a := w.founder("a").start()
		who := identity.NodeID{7}
		a.Refused(who, "no member")
		fatal, after := fatalWithin(a, time.Hour)
		if fatal == nil || fatal.Text != who.Short()+" says: no member" || after != believeRefusals {
			t.Errorf("got %v after %s, want what it said after 10 s", fatal, after)
		}
	})
}
