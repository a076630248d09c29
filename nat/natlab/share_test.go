//go:build linux

package natlab

import (
	"context"
	"strings"
	"testing"
	"time"
)

// TestShare has a loop run with a fifth of a core: it gets that and no more, and what ran before is left alone.
func TestShare(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	h := l.Host("a", nil)
	if how := l.Share(0.2); !strings.Contains(how, "20 %") {
		t.Skip(how)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	cmd := h.Command(ctx, "sh", "-c", "while :; do :; done")
	start := time.Now()
	cmd.Run() // it is killed, on a busy machine later
	lasted := time.Since(start)
	if used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(); used > lasted/5+300*time.Millisecond {
		t.Errorf("a loop used %v in %v, want a fifth at most", used, lasted)
	}
}
