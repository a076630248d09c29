package tunnel

import (
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// TestHandshakesBearSetClocks asserts that the age of a handshake does not change when the clock is set, forwards or back, and that none is still to
// come.
func TestHandshakesBearSetClocks(t *testing.T) {
	start := time.Now()
	for _, by := range []time.Duration{time.Hour, -time.Hour, 0} {
		var s shakes
		key := wgtypes.Key{1}
		done := start.Add(-10 * time.Second)
		if at := s.at(key, done.UnixNano(), start); !at.Equal(done) || start.Sub(at) != 10*time.Second {
			t.Errorf("got %v ago, want 10 s", start.Sub(at))
		}
		set := start.Round(0).Add(by) // what the clock shows after it was set
		if at := s.at(key, done.UnixNano(), set); start.Sub(at) != 10*time.Second {
			t.Errorf("the clock set by %v: got the same handshake %v ago, want 10 s", by, start.Sub(at))
		}
		if at := s.at(key, set.Add(-time.Second).UnixNano(), set); set.Sub(at) != time.Second {
			t.Errorf("the clock set by %v: got the next one %v ago, want 1 s", by, set.Sub(at))
		}
		if at := s.at(key, set.Add(time.Hour).UnixNano(), set); at.After(set) {
			t.Errorf("a handshake done before the clock was put back: got one still to come, at %v", at)
		}
		s.keep(nil)
		if len(s.seen) != 0 {
			t.Errorf("got %d that are kept, want none", len(s.seen))
		}
	}
	if at := (&shakes{}).at(wgtypes.Key{}, nanoOf(time.Time{}), start); !at.IsZero() || nanoOf(time.Unix(0, 0)) != 0 {
		t.Errorf("got %v for none, want zero", at)
	}
}
