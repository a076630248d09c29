package mesh

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
)

func TestLimiter(t *testing.T) {
	l := newLimiter(10, 20)
	a, b, now := identity.NodeID{1}, identity.NodeID{2}, time.Unix(1000, 0)
	if !l.take(a, 20, now) || l.take(a, 1, now) {
		t.Error("burst: want 20 at once and no more")
	}
	if !l.take(b, 20, now) {
		t.Error("another sender: got refused, want its own bucket")
	}
	if l.take(a, 6, now.Add(500*time.Millisecond)) || !l.take(a, 5, now.Add(500*time.Millisecond)) {
		t.Error("after half a second: want 5 and no more")
	}
	for i := range maxBuckets + 10 {
		l.take(identity.NodeID{3, byte(i), byte(i >> 8)}, 1, now)
	}
	if len(l.buckets) > maxBuckets {
		t.Errorf("buckets: got %d, want at most %d", len(l.buckets), maxBuckets)
	}
}

func TestRecentForgets(t *testing.T) {
	r, now := newRecent[int](3, time.Minute), time.Unix(1000, 0)
	r.add(1, now)
	if !r.has(1, now.Add(59*time.Second)) {
		t.Error("within the span: got forgotten, want remembered")
	}
	if r.has(1, now.Add(3*time.Minute)) {
		t.Error("after two spans: got remembered, want forgotten")
	}
	for i := range 1000 {
		r.add(i, now.Add(6*time.Minute))
	}
	if got := len(r.new) + len(r.old); got > 6 {
		t.Errorf("size: got %d, want at most 6", got)
	}
}

// Whoever forwards messages in another's name uses up its own share, and nothing of what that one has.
func TestForgedMessagesCostTheirSenderNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		a := w.founder("a")
		if err := a.load(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.stop)
		liar, other := identity.NodeID{9}, a.id
		for what, take := range map[string]func(from, by identity.NodeID) bool{"messages": a.ear.limits.message, "records": a.ear.limits.record} {
			count := func(from, by identity.NodeID) (n int) {
				for take(from, by) {
					if n++; n > 10_000 {
						t.Fatalf("%s: got no limit", what)
					}
				}
				return n
			}
			forged := count(other, liar)
			if own := count(other, other); own == 0 || forged == 0 {
				t.Errorf("%s: got %d of the member's own after %d forged ones, want its whole share", what, own, forged)
			}
			if again := count(identity.NodeID{7}, liar); again != 0 {
				t.Errorf("%s: got %d more by the liar in another name, want none", what, again)
			}
		}
	})
}

// Whoever forwards streams in another's name uses up nothing of what that one has.
func TestForgedStreamsCostTheirSenderNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		a := w.founder("a")
		if err := a.load(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.stop)
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		liar := identity.NodeID{9}
		a.ear.limits.bringer = func(c net.Conn) identity.NodeID {
			if c == near {
				return a.id
			}
			return liar
		}
		forged := 0
		for a.ear.limits.stream(a.id, far) {
			if forged++; forged > 1000 {
				t.Fatal("got no limit on forwarded streams")
			}
		}
		if !a.ear.limits.stream(a.id, near) {
			t.Error("got the member's own stream refused after forged ones, want it served")
		}
		own := 0
		for a.ear.limits.stream(a.id, near) {
			if own++; own > 1000 {
				t.Fatal("got no limit on a member's own streams")
			}
		}
	})
}
