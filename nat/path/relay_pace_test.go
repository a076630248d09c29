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

// TestPathsOfLongLines asserts that the times of a path follow the longest round trip lately: one quick answer among slow ones has nothing
// called late, and a line that has become quick is watched closely again.
func TestPathsOfLongLines(t *testing.T) {
	t.Parallel()
	p := Path{Kind: Direct}
	for _, ms := range []int{600, 2500, 700, 600} {
		p = p.measured(time.Duration(ms) * time.Millisecond)
	}
	if p.RTT != 600*time.Millisecond || p.checkInterval() < 2500*time.Millisecond || p.grace() < 7*time.Second {
		t.Errorf("shaking: got RTT %v, a check each %v, dead after %v", p.RTT, p.checkInterval(), p.grace())
	}
	for range 40 {
		p = p.measured(10 * time.Millisecond)
	}
	if p.checkInterval() != checkEvery || p.grace() != deadAfter {
		t.Errorf("quick again: got a check each %v, dead after %v, want %v and %v", p.checkInterval(), p.grace(), checkEvery, deadAfter)
	}
	start := time.Unix(1000, 0)
	for _, trip := range []time.Duration{10 * time.Millisecond, 600 * time.Millisecond} {
		p := Path{Kind: Direct}.measured(trip)
		l := life{heard: start}
		sent := Wake{LastTx: start.Add(time.Second)}
		before, after := max(silence, trip+trip/4), max(silence, trip+trip/2)
		if l.silent(sent.LastTx.Add(before-1), sent, p.checkInterval()) {
			t.Errorf("round trip %v: silence of %v counts", trip, before)
		}
		if !l.silent(sent.LastTx.Add(after), sent, p.checkInterval()) {
			t.Errorf("round trip %v: silence of %v does not count", trip, after)
		}
	}
}
