package mesh

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
)

// What is on a machine's disk says how its place has ended: that it was put out and by whom, that it has left, or that it is a member still.
func TestEndingOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 20*time.Millisecond)
		peers := w.grow(4)
		agree(t, 30*time.Second, peers...)
		ending := func(p *peer) Ending {
			t.Helper()
			items, err := p.store.Load()
			if err != nil {
				t.Fatal(err)
			}
			return EndingOf(p.chain, items)
		}
		if e := ending(peers[2]); e.Left || e.Out != nil {
			t.Errorf("a member: got %+v, want that it is one", e)
		}
		if err := peers[1].Leave(context.Background()); err != nil {
			t.Fatal(err)
		}
		if e := ending(peers[1]); !e.Left || e.Out != nil {
			t.Errorf("one that left: got %+v, want that", e)
		}
		if _, err := peers[0].Revoke(identity.KeyID(peers[2].id), "stolen", false); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, "the revoked one to hear of it", func() bool { return ending(peers[2]).Out != nil })
		if e := ending(peers[2]); !e.Doubted || !strings.Contains(e.Out.Text, "stolen") {
			t.Errorf("one that an admin put out: got %+v, %v, want the reason, and that it is the word of an admin", e, e.Out)
		}
		// A store that knows nothing says nothing.
		if e := EndingOf(peers[2].chain, nil); e.Left || e.Out != nil {
			t.Errorf("without records: got %+v, want nothing", e)
		}
	})
}
