package path

import (
	"testing"
	"time"
)

// TestRelayPace asserts that a channel which does not answer is asked ever more seldom, and soon at first.
func TestRelayPace(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 0)
	r := &relay{phase: relayChecking, since: start}
	var asked []time.Duration
	for now := start; now.Sub(start) < relayTime; now = now.Add(r.pace(now)) {
		asked = append(asked, now.Sub(start))
	}
	if len(asked) < 8 || len(asked) > 14 || asked[3] > 300*time.Millisecond {
		t.Errorf("got checks after %v, want about a dozen in %v, four of them within 300 ms", asked, relayTime)
	}
	// A line whose round trip is 1.6 s has no more than eight questions on it when the first answer comes.
	early := 0
	for _, at := range asked {
		if at < 1600*time.Millisecond {
			early++
		}
	}
	if early > 8 {
		t.Errorf("got %d checks in 1.6 s, want 8 at most", early)
	}
}
