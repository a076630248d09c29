package session

import (
	"testing"
	"time"
)

// TestSplicesBearSetClocks asserts that a forwarded stream is idle so long after its last byte by the monotonic clock: who sets the other one ends none.
func TestSplicesBearSetClocks(t *testing.T) {
	a := newActivity()
	now := time.Now()
	a.note(now)
	if at := a.idleAt(); at == at.Round(0) || at.Sub(now) != spliceIdle {
		t.Errorf("got %v, %v after the last byte, want %v by the monotonic clock", at, at.Sub(now), spliceIdle)
	}
}
