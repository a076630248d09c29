package session

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/rings"
	"warren/mesh/session/sessiontest"
)

// inRings gives each node its targets as the plan does: its neighbours, both ends of a pair.
func (w *world) inRings() (pairs int) {
	var ids []identity.NodeID
	for _, n := range w.nodes {
		ids = append(ids, n.ID)
	}
	r := rings.New(ids)
	for _, n := range w.nodes {
		var others []*testNode
		for _, id := range r.Neighbours(n.ID) {
			others = append(others, w.nodes[w.index(id)])
		}
		pairs += len(others)
		n.know(book{anchors: ids})
		n.target(others...)
	}
	return pairs / 2
}

// However many anchors start at once, each has few sessions, for each of these one handshake is made, and it is the smaller ID that does.
func TestManyAnchorsStartAtOnce(t *testing.T) {
	for _, n := range []int{20, 40} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, n, sessiontest.Options{Latency: 20 * time.Millisecond})
			for _, node := range w.nodes {
				node.start(nil)
			}
			defer w.stop()
			pairs := w.inRings()
			up := func() (sessions int) {
				for _, node := range w.nodes {
					sessions += len(node.table.current())
				}
				return sessions
			}
			took := w.until(5*time.Second, "all sessions are up", func() bool { return up() == 2*pairs })
			time.Sleep(3 * time.Second)
			most, twice, wrong := 0, 0, 0
			for _, node := range w.nodes {
				links := node.table.links(identity.NodeID{})
				most = max(most, len(links))
				for _, l := range links {
					if l.dialled != (node.ID.Compare(l.id) < 0) {
						wrong++
					}
				}
				for _, e := range node.takeEvents() {
					if e.Kind != Up {
						twice++
					}
				}
			}
			// Each node may dial one target out of its turn, when it has no session yet.
			each := float64(w.net.Sent()) / float64(pairs)
			t.Logf("%d anchors: %d sessions after %v, at most %d of one, %.1f packets each, %d dialled out of turn, %d changes", n, pairs, took, most, each, wrong, twice)
			if most > 2*rings.Count || twice > n || wrong > 2*n || each > 30 {
				t.Errorf("got %d sessions of one node, %d changes, %d out of turn, %.1f packets each", most, twice, wrong, each)
			}
		})
	}
}

// Of a chain of targets that stand behind each other the first that answers is the only one that is dialled; what stands behind one that
// does not answer is, a second for each place.
func TestReservesAreDialledInTurn(t *testing.T) {
	for _, tt := range []struct {
		name string
		dead int
		want []int
		by   time.Duration
	}{
		{"the first answers", 0, []int{1}, time.Second},
		{"the third does", 2, []int{3}, 4 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 5, sessiontest.Options{Latency: 10 * time.Millisecond})
				w.nodes[0].start(nil)
				for _, n := range w.nodes[1+tt.dead:] {
					n.start(nil)
				}
				defer w.stop()
				var targets []Target
				for i, n := range w.nodes[1:] {
					one := Target{ID: n.ID, Addrs: addrs(n)}
					if i > 0 {
						one.Behind = w.nodes[i].ID
					}
					targets = append(targets, one)
				}
				w.nodes[0].SetTargets(targets)
				w.until(tt.by, "a session", func() bool { return w.nodes[0].up(w.nodes[tt.want[0]]) })
				time.Sleep(30 * time.Second)
				var got []int
				for i, n := range w.nodes {
					if i > 0 && w.nodes[0].up(n) {
						got = append(got, i)
					}
				}
				expectList(t, "sessions", got, tt.want...)
			})
		})
	}
}

// A session that answers late is not dialled anew more than a few times, and the dial ends with the answer.
func TestLateAnswersAreNotDialledBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, sessiontest.Options{Latency: 450 * time.Millisecond})
		for _, n := range w.nodes {
			n.start(nil)
		}
		defer w.stop()
		w.nodes[0].target(w.nodes[1])
		w.until(20*time.Second, "a session", func() bool { return w.nodes[0].up(w.nodes[1]) && w.nodes[1].up(w.nodes[0]) })
		first := w.nodes[0].table.link(w.nodes[1].ID)
		before := w.net.Sent()
		for range 60 {
			w.nodes[0].Doubt()
			time.Sleep(time.Second)
		}
		packets := w.net.Sent() - before
		t.Logf("%d packets in a minute of doubt", packets)
		if w.nodes[0].table.link(w.nodes[1].ID) != first {
			t.Error("the session was replaced, want it kept")
		}
		if packets > 200 {
			t.Errorf("got %d packets, want 200 at most", packets)
		}
		if slices.ContainsFunc(w.nodes[0].takeEvents(), func(e Event) bool { return e.Kind == Down }) {
			t.Error("the session went down")
		}
	})
}

func addrs(n *testNode) []netip.AddrPort { return []netip.AddrPort{n.addr} }
