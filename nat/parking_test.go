package nat

import (
	"testing"
	"time"

	"warren/mesh/identity"
)

func TestWhoIsParkedForHowLong(t *testing.T) {
	p := parking{waiting: make(map[identity.NodeID]parked)}
	start := time.Unix(1000, 0)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	put := func(d time.Duration, n int, attempt uint64, want bool) {
		t.Helper()
		if got := p.put(at(d), simID(n), Message{Kind: KindOffer, Attempt: attempt}); got != want {
			t.Errorf("put of %d after %v: got %v, want %v", n, d, got, want)
		}
	}
	wake := func(want time.Duration) {
		t.Helper()
		if got := p.wake(); !got.Equal(at(want)) {
			t.Errorf("got wake after %v, want %v", got.Sub(start), want)
		}
	}
	if got := p.wake(); !got.IsZero() {
		t.Errorf("empty: got wake %v, want none", got)
	}
	put(0, 1, 1, true)
	put(time.Second, 2, 1, true)
	put(2*time.Second, 1, 2, true) // the latest counts, from the first one on
	wake(parkTime)
	if m, ok := p.take(simID(1)); !ok || m.Attempt != 2 {
		t.Errorf("got attempt %d, %v, want 2", m.Attempt, ok)
	}
	wake(time.Second + parkTime)
	put(3*time.Second, 1, 3, true) // comes again, and has its whole time
	if over := p.due(at(time.Second + parkTime - 1)); len(over) != 0 {
		t.Errorf("got %v due too soon", over)
	}
	if over := p.due(at(time.Second + parkTime)); len(over) != 1 || over[0] != simID(2) {
		t.Errorf("got %v due, want the second", over)
	}
	wake(3*time.Second + parkTime)
	for n := range maxParked - 1 {
		put(4*time.Second, n+10, 1, true)
	}
	put(4*time.Second, 5, 1, false)
	put(4*time.Second, 1, 4, true) // who is there is no more
	if over := p.due(at(time.Minute)); len(over) != maxParked || !p.wake().IsZero() || len(p.waiting) != 0 {
		t.Errorf("got %d due, %d left, want all %d", len(over), len(p.waiting), maxParked)
	}
}
