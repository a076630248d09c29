package tunnel

import (
	"math"
	"runtime/debug"
	"testing"
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
