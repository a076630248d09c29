package due

import (
	"math/rand/v2"
	"testing"
	"time"
)

type job struct {
	Slot
	name int
}

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestNothingIsEverDueOfNothing(t *testing.T) {
	var q Queue[*job]
	if _, ok := q.Due(begin); ok || !q.Next().IsZero() {
		t.Errorf("got %v, want nothing", q.Next())
	}
	j := &job{}
	q.Set(j, time.Time{}) // is in none
	q.Set(j, begin)
	if got, ok := q.Due(begin.Add(-1)); ok {
		t.Errorf("got %v before its time", got)
	}
	if got, ok := q.Due(begin); !ok || got != j {
		t.Errorf("got %v, %v at its time", got, ok)
	}
	q.Set(j, time.Time{})
	q.Set(j, time.Time{})
	if !q.Next().IsZero() || j.Slot != (Slot{}) {
		t.Errorf("taken out: got %v and %+v, want nothing", q.Next(), j.Slot)
	}
}

// A slow obvious twin keeps the times in a map.
func TestLikeAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var q Queue[*job]
	twin := make(map[*job]time.Time)
	jobs := make([]*job, 50)
	for i := range jobs {
		jobs[i] = &job{name: i}
	}
	for range 20_000 {
		j := jobs[random.IntN(len(jobs))]
		at := begin.Add(time.Duration(random.IntN(40)) * time.Second)
		if random.IntN(3) == 0 {
			at = time.Time{}
		}
		q.Set(j, at)
		if twin[j] = at; at.IsZero() {
			delete(twin, j)
		}
		var first time.Time
		for _, at := range twin {
			if first.IsZero() || at.Before(first) {
				first = at
			}
		}
		if got := q.Next(); !got.Equal(first) || len(q.list) != len(twin) {
			t.Fatalf("got %v of %d, want %v of %d", got, len(q.list), first, len(twin))
		}
		if got, ok := q.Due(begin.Add(20 * time.Second)); ok != (!first.IsZero() && !first.After(begin.Add(20*time.Second))) || ok && !twin[got].Equal(first) {
			t.Fatalf("got %v, %v due, want one of %v", got, ok, first)
		}
	}
}
