package tunnel

import (
	"context"
	"math"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
)

func TestMemoryLimit(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "")
	now := func() int64 { return debug.SetMemoryLimit(-1) }
	defer debug.SetMemoryLimit(now())
	debug.SetMemoryLimit(math.MaxInt64)
	newMemory(false).limit(1)
	if now() != math.MaxInt64 {
		t.Errorf("not wanted: got %d, want no limit", now())
	}
	m := newMemory(true)
	m.limit(0)
	empty := now()
	m.limit(5000)
	if full := now(); empty != baseMemory || full-empty != 5000*peerMemory {
		t.Errorf("got %d and, with 5000 peers, %d", empty, full)
	}
	m.lift()
	if now() != math.MaxInt64 {
		t.Errorf("lifted: got %d, want no limit", now())
	}
	t.Setenv("GOMEMLIMIT", "1GiB")
	newMemory(true).limit(0)
	if now() != math.MaxInt64 {
		t.Errorf("set by the operator: got %d, want it left", now())
	}
}

// TestCollectWhenManyHaveGone asserts when the collector is run.
func TestCollectWhenManyHaveGone(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "")
	synctest.Test(t, func(t *testing.T) {
		m, runs := newMemory(true), 0
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go m.run(ctx, func() { runs++ })
		expect := func(what string, want int) {
			t.Helper()
			time.Sleep(collectAfter)
			synctest.Wait()
			if runs != want {
				t.Errorf("%s: got %d rounds, want %d", what, runs, want)
			}
		}
		m.removed(manyPeers - 1)
		expect("few", 0)
		m.removed(1)
		expect("one more", 1)
		for range 14 {
			m.removed(150)
		}
		expect("swaps in a row", 2)
		expect("nothing more", 2)
	})
}
