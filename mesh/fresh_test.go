package mesh

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// Two members that have never met, each by an invite that the other one does not know, come up at an anchor: each has the other after the two ways
// that its record takes, whichever comes first and however much later the other one comes, and not after the round trips of a sync.
func TestNewcomersSeeEachOther(t *testing.T) {
	const way = 50 * time.Millisecond
	for _, apart := range []time.Duration{0, time.Millisecond, way + time.Millisecond, 2 * way, freshFor / 2} {
		t.Run(fmt.Sprint(apart), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, way)
				f := w.founder("f").start()
				if err := f.Announce(Own{Endpoints: endpoints("203.0.113.1:9277")}); err != nil {
					t.Fatal(err)
				}
				var both []*peer
				for _, name := range []string{"x", "y"} {
					seed, _ := f.invite(1)
					both = append(both, w.mustJoin(name, f, seed).start())
				}
				x, y := both[0], both[1]
				time.Sleep(time.Minute) // their first records at the founder are old by now
				for _, p := range both {
					p.stop()
					p.openStore()
					if err := p.load(); err != nil {
						t.Fatal(err)
					}
					p.start()
				}
				if _, known := x.View().Member(y.id); known {
					t.Fatal("x knows y before it has met anybody")
				}
				w.net.Link(x.id, f.id)
				time.Sleep(apart)
				begin := time.Now()
				w.net.Link(y.id, f.id)
				eventually(t, time.Minute, "x to know y", func() bool { m, ok := x.View().Member(y.id); return ok && m.State == Active })
				if took := time.Since(begin); took > 2*way+20*time.Millisecond {
					t.Errorf("x knows y after %v, want two ways of %v", took, way)
				}
				eventually(t, time.Minute, "y to know the present process of x", func() bool {
					m, ok := y.View().Member(x.id)
					return ok && m.Record.Instance == x.Own().Instance
				})
				if took := time.Since(begin); took > 2*way+20*time.Millisecond {
					t.Errorf("y knows x after %v, want two ways of %v at most", took, way)
				}
			})
		})
	}
}

// Of those that have come only the latest are kept, for a moment, each with its last record and once what that rests on; nobody is shown itself.
func TestArrivals(t *testing.T) {
	var a arrivals
	now := time.Unix(1_800_000_000, 0)
	basis := func(text string) func() [][]byte { return func() [][]byte { return [][]byte{[]byte(text)} } }
	note := func(id, instance byte, text string) int {
		return len(a.note(now, &record.Node{ID: identity.NodeID{id}, Instance: [8]byte{instance}}, []byte(text), basis("of "+text)))
	}
	if first, again := note(1, 1, "a"), note(1, 1, "b"); first != 1 || again != 0 {
		t.Errorf("got what it rests on %d and %d times, want it with the first record", first, again)
	}
	if got := a.others(now, identity.NodeID{2}); len(got) != 1 || fmt.Sprintf("%s %s", got[0].basis, got[0].record) != "[of a] b" {
		t.Errorf("got %v, want what it rests on and its last record", got)
	}
	if got := a.others(now, identity.NodeID{1}); len(got) > 0 {
		t.Errorf("got %v for itself, want nothing", got)
	}
	if note(1, 2, "c") != 1 {
		t.Error("got nothing for another process, want what its record rests on")
	}
	for id := range byte(10) {
		note(10+id, 1, "x")
	}
	if got := len(a.others(now, identity.NodeID{2})); got != maxFresh {
		t.Errorf("got %d members, want %d", got, maxFresh)
	}
	if got := a.others(now.Add(freshFor), identity.NodeID{2}); len(got) > 0 {
		t.Errorf("got %d that are old, want none", len(got))
	}
}

// Whoever came by the same invite has its certificate, and is shown the record of the other alone.
func TestNoBasisForThoseWhoHaveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		f := w.founder("f").start()
		if err := f.Announce(Own{Endpoints: endpoints("203.0.113.1:9277")}); err != nil {
			t.Fatal(err)
		}
		seed, _ := f.invite(2)
		other, _ := f.invite(1)
		x, y, z := w.mustJoin("x", f, seed), w.mustJoin("y", f, seed).start(), w.mustJoin("z", f, other).start()
		w.net.Link(f.id, y.id)
		w.net.Link(f.id, z.id)
		time.Sleep(time.Minute)
		basis := f.writer.book.basisOfNode(x.id)
		if len(basis) != 1 {
			t.Fatalf("x rests on %d certificates that are records, want its invite's", len(basis))
		}
		for _, c := range []struct {
			to   *peer
			want int
		}{{y, 0}, {z, 1}} {
			w.net.ResetTraffic()
			f.spread.sendBasis(c.to.id, basis)
			if got := w.net.Traffic().Messages; got != c.want {
				t.Errorf("got %d certificates for %s, want %d", got, c.to.name, c.want)
			}
		}
	})
}
