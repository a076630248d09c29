package mesh

import (
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/record"
)

func TestTwentyNodesConverge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10*time.Millisecond)
		peers := w.grow(20)
		took := agree(t, 30*time.Second, peers...)
		t.Logf("20 new nodes agree after %s", took)
		for _, p := range peers {
			if got := activeMembers(p.Mesh); got != 20 {
				t.Errorf("%s: got %d members, want 20", p.name, got)
			}
		}
		time.Sleep(2 * time.Minute)

		w.net.ResetTraffic()
		if err := peers[7].Update(func(own *record.Node) { own.Name = "renamed" }); err != nil {
			t.Fatal(err)
		}
		took = eventually(t, 5*time.Second, "the new name everywhere", func() bool {
			for _, p := range peers {
				if m, _ := p.View().Member(peers[7].id); m.Name != "renamed" {
					return false
				}
			}
			return true
		})
		if took > 100*time.Millisecond {
			t.Errorf("a record among neighbours: got %s, want one latency", took)
		}
		t.Logf("a fresh record reached all after %s, %+v", took, w.net.Traffic())
	})
}
