package report

import (
	"testing"
	"time"
)

// TestTimesAreShownByTheClockAsItIs shows what this process has seen ten seconds ago as that, whoever has set the clock since, and leaves what others
// have written down as it is.
func TestTimesAreShownByTheClockAsItIs(t *testing.T) {
	now := time.Now()
	at := now.Add(-10 * time.Second)
	if got := seen(at, now); got == nil || now.Round(0).Sub(*got) != 10*time.Second || *got != got.Round(0) {
		t.Errorf("got %v at %v, want 10 s before, by the clock alone", got, now)
	}
	if seen(time.Time{}, now) != nil || seen(time.Unix(0, 0), now) != nil || !shown(time.Time{}, now).IsZero() {
		t.Error("got a time for one that never was")
	}
	written := time.Date(2020, 1, 2, 3, 4, 5, 6, time.UTC)
	if got := shown(written, now); !got.Equal(written) {
		t.Errorf("got %v, want %v as it was written", got, written)
	}
}
