package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session/sessiontest"
)

// star starts a world in which node 0 has sessions with all others, but not with the last one.
func star(t *testing.T, n int) *world {
	t.Helper()
	w := newWorld(t, n, sessiontest.Options{Latency: lan})
	for _, node := range w.nodes {
		node.start(nil)
	}
	w.nodes[0].target(w.nodes[1 : n-1]...)
	w.until(2*time.Second, "sessions", func() bool {
		for _, node := range w.nodes[1 : n-1] {
			if !w.nodes[0].up(node) || !node.up(w.nodes[0]) {
				return false
			}
		}
		return true
	})
	return w
}

// hopsOf returns the numbers of the nodes by which a node would reach another one.
func (w *world) hopsOf(a, dst *testNode, source bool, not ...identity.NodeID) (all []int) {
	for l := range a.router.hops(dst.ID, source, not...) {
		all = append(all, w.index(l.id))
	}
	return all
}

// setNear makes the links of node 0 seem as far as their nodes' numbers say, the higher the nearer.
func (w *world) setNear() {
	for _, l := range w.nodes[0].table.current() {
		l.near = time.Duration(100-w.index(l.id)) * time.Millisecond
	}
}

func TestOrderOfNextHops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := star(t, 13)
		defer w.stop()
		a, dst := w.nodes[0], w.nodes[12]
		w.setNear()
		id := func(i int) identity.NodeID { return w.nodes[i].ID }
		for _, c := range []struct {
			name string
			book book
			not  []identity.NodeID
			want []int
		}{
			{name: "nearest first, eight at most", want: []int{11, 10, 9, 8, 7, 6, 5, 4}},
			{name: "anchors before others", book: book{anchors: []identity.NodeID{id(2), id(3)}}, want: []int{3, 2, 11, 10, 9, 8, 7, 6}},
			{
				name: "the destination's own anchors before all, as it lists them",
				book: book{anchors: []identity.NodeID{id(3)}, anchorsOf: map[identity.NodeID][]identity.NodeID{dst.ID: {id(1), id(4), dst.ID, {99}, a.ID}}},
				want: []int{1, 4, 3, 11, 10, 9, 8, 7},
			},
			{
				name: "no strangers, and none of those it came by",
				book: book{strangers: []identity.NodeID{id(11), id(1)}, anchorsOf: map[identity.NodeID][]identity.NodeID{dst.ID: {id(1), id(2)}}},
				not:  []identity.NodeID{id(10)}, want: []int{2, 9, 8, 7, 6, 5, 4, 3},
			},
		} {
			a.know(c.book)
			expectList(t, c.name, w.hopsOf(a, dst, false, c.not...), c.want...)
		}
		a.know(book{anchors: []identity.NodeID{id(5)}, strangers: []identity.NodeID{id(11), id(10)}})
		var preferred []int
		for _, id := range a.Preferred() {
			preferred = append(preferred, w.index(id))
		}
		expectList(t, "preferred", preferred, 5, 9, 8, 7, 6, 4, 3, 2, 1)
		// Those whose sessions are being checked come last.
		a.know(by(dst, w.nodes[1]))
		for _, i := range []int{1, 11} {
			a.table.link(id(i)).pulse.checks.Add(1)
			defer a.table.link(id(i)).pulse.checks.Add(-1)
		}
		expectList(t, "doubtful ones last", w.hopsOf(a, dst, false), 10, 9, 8, 7, 6, 5, 1, 11)
	})
}

// A node that knows nobody as a member still finds a way for what it says itself, and passes nothing on.
func TestLastResort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := star(t, 4)
		defer w.stop()
		a, dst := w.nodes[0], w.nodes[3]
		a.know(book{strangers: []identity.NodeID{w.nodes[1].ID, w.nodes[2].ID}})
		if got := w.hopsOf(a, dst, true); len(got) != 1 {
			t.Errorf("at the source: got %v, want one of the two", got)
		}
		expectList(t, "passing on", w.hopsOf(a, dst, false))
		expectList(t, "preferred", a.Preferred())
	})
}

// A message that came over a new session is answered by it at once: the table is asked, not the reader of events, who may be slow.
func TestAnswerByANewSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, anchor, b := w.nodes[0], w.nodes[1], w.nodes[2]
		answered := make(chan error, 1)
		a.start(nil, func(o *Options) {
			o.Inbound = onMessage{o.Inbound, func(from, _ identity.NodeID, p Proto, _ []byte) { answered <- a.Send(from, p, []byte("answer")) }}
		})
		anchor.start(nil)
		b.start(nil)
		b.target(anchor)
		w.until(time.Second, "session", func() bool { return b.up(anchor) && anchor.up(b) })
		if err := b.Send(a.ID, ProtoSignal, []byte("offer")); err != nil { // waits at the anchor
			t.Fatal(err)
		}
		anchor.target(a) // and goes out with the first packet of the new session
		if err := <-answered; err != nil {
			t.Errorf("answer: got %v, want nil", err)
		}
		time.Sleep(100 * time.Millisecond)
		expectList(t, "at b", b.takeMessages(), fmt.Sprintf("0 %d answer", ProtoSignal))
	})
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		for _, n := range w.nodes {
			n.start(nil)
		}
		type result struct {
			remote netip.AddrPort
			err    error
			after  time.Duration
		}
		start := time.Now()
		got := make(chan result, 1)
		go func() {
			remote, err := a.Await(t.Context(), c.ID)
			got <- result{remote, err, time.Since(start)}
		}()
		time.Sleep(time.Second)
		a.target(b) // another session is none of its business
		w.until(time.Second, "session", func() bool { return a.up(b) })
		time.Sleep(time.Second)
		a.target(b, c)
		r := <-got
		if r.remote != c.addr || r.err != nil || r.after < 2*time.Second || r.after > 2100*time.Millisecond {
			t.Errorf("got %v, %v after %v, want %v within 100 ms of being dialled", r.remote, r.err, r.after, c.addr)
		}
		if remote, err := a.Await(t.Context(), c.ID); remote != c.addr || err != nil {
			t.Errorf("with a session: got %v, %v, want %v at once", remote, err, c.addr)
		}
		start = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := b.Await(ctx, identity.NodeID{9}); !errors.Is(err, ErrNoRoute) || !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("got %v after %v, want ErrNoRoute after 3 s", err, time.Since(start))
		}
	})
}
