package bind

import (
	"testing"
	"time"
)

// TestMomentsBearSetClocks asserts that what the bind says of times has the reading of the monotonic clock: compared with now, it is as long ago as it
// is, whoever has set the clock meanwhile.
func TestMomentsBearSetClocks(t *testing.T) {
	before := time.Now()
	at := timeOf(nanos())
	if at == at.Round(0) {
		t.Errorf("got %v without a reading of the monotonic clock", at)
	}
	if passed := at.Sub(before); passed < -time.Microsecond || passed > time.Minute {
		t.Errorf("got a moment %v after the time before it", passed)
	}
	if got := timeOf(0); !got.IsZero() {
		t.Errorf("got %v for never, want zero", got)
	}
	set := before.Round(0).Add(-time.Hour) // as a clock that was put back reads
	if got := nanosOf(before) - nanosOf(set); got < int64(time.Hour)-1e9 {
		t.Errorf("got %v between the two", time.Duration(got))
	}

	b, _, _ := scripted(t)
	defer b.Close()
	e := b.NewEndpoint([32]byte{1})
	e.SetPath(addr("192.0.2.1:1"))
	transmit(t, b, e, message(4))
	if last := e.Activity().LastTx; last.IsZero() || last == last.Round(0) {
		t.Errorf("got %v as the time of the last packet, want it with a reading of the monotonic clock", last)
	}
}
