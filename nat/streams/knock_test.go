package streams

import (
	"testing"
	"time"

	"warren/mesh/identity"
)

// distrusting returns a machine that takes UDP to be blocked although STUN is answered.
func distrusting(t *testing.T) *network {
	n := newNetwork(true, 1)
	n.dials = false
	n.step(Anchors{[]identity.NodeID{anchor(1)}})
	n.run(time.Second)
	for range distrustAfter {
		n.step(DialFailed{anchor(1)})
		n.run(time.Second)
	}
	if state, _, _ := n.m.State(); state != Blocked || !n.m.sessions.distrust {
		t.Fatalf("got %v, want blocked, with no trust in STUN", state)
	}
	return n
}

// A knock of which nothing is heard does not keep the next one back, and what comes of an older one means nothing.
func TestKnockThatIsNotHeardOf(t *testing.T) {
	n := distrusting(t)
	knocks := func() (serials []uint64) {
		for range 400 {
			n.now = n.now.Add(time.Second)
			out, _ := n.m.Step(n.now, Answered{})
			for _, o := range out {
				if k, ok := o.(Knock); ok {
					serials = append(serials, k.Serial)
				}
			}
		}
		return serials
	}
	got := knocks()
	if len(got) < 5 {
		t.Fatalf("got %d knocks in 400 s of which nothing is heard, want one a minute at least", len(got))
	}
	n.m.Step(n.now, Knocked{Serial: got[0], Open: true})
	if state, _, _ := n.m.State(); state != Blocked {
		t.Errorf("an older knock: got %v, want it to mean nothing", state)
	}
	n.m.Step(n.now, Knocked{Serial: got[len(got)-1], Open: true})
	if state, _, _ := n.m.State(); state != Returning {
		t.Errorf("the last knock: got %v, want UDP to answer again", state)
	}
}

// Of what came of two knocks, the later one counts, in whatever order it is told.
func TestInboxKeepsTheLastKnock(t *testing.T) {
	b := newInbox()
	b.knock(Knocked{Serial: 3, Open: true})
	b.knock(Knocked{Serial: 2})
	if got := b.take().knocked; got == nil || got.Serial != 3 {
		t.Errorf("got %+v, want that of serial 3", got)
	}
}
