//go:build linux

package e2e

import (
	"testing"
	"time"

	"warren/nat/natlab"
)

// TestSlowLine has a member meet the others over a slow line, 128 kbit/s and 200 ms each way: it comes up, stays up, and leaves the
// line to those who use it. The benchmark Slow measures for longer, and over worse lines.
func TestSlowLine(t *testing.T) {
	t.Parallel()
	line := natlab.Line{Delay: 200 * time.Millisecond, Rate: 128_000}
	s := bedWith(t, buildPlain, 3*time.Minute).slowHome(line, 3) // the race detector has its own cost, and so have its timers
	begin := time.Now()
	meeting := s.cost(func() {
		s.must(s.slow.Launch("--log-level", "debug"))
		s.eventually("all are up", s.together)
	})
	s.step("all are up after %.1f s; that was %.0f bytes up and %.0f down", time.Since(begin).Seconds(), meeting.up, meeting.down)
	// What the meeting has set going comes to rest: three seconds in which a tenth of the line is enough.
	const span = 3 * time.Second
	s.eventually("agents leave nine tenths of the line to others", func() bool {
		quiet := s.cost(func() { time.Sleep(span) })
		return max(quiet.up, quiet.down)/span.Seconds() <= float64(line.Rate)/8/10
	})
	s.step("quiet after %.1f s", time.Since(begin).Seconds())
	if !s.together() {
		t.Errorf("they are not together any more: %s", Describe(s.status(s.slow)))
	}
	to := s.status(s.others[0]).Self.Addresses[0]
	s.must(s.slow.Host.Do(func() error { _, err := firstEchoEvery(to, 30*time.Second, time.Second); return err }))
}
