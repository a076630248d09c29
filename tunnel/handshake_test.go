package tunnel

import (
	"slices"
	"testing"
	"time"
)

// TestAwaitedHandshake asserts when a handshake that is looked for is started again, on either side.
func TestAwaitedHandshake(t *testing.T) {
	began := time.Unix(1000, 0)
	backOff := []time.Duration{
		700 * time.Millisecond, 1400 * time.Millisecond, 2800 * time.Millisecond, 5600 * time.Millisecond, 10500 * time.Millisecond, 15400 * time.Millisecond,
	}
	for _, c := range []struct {
		name        string
		controlling bool
		done        time.Duration // of a handshake, from the beginning; 0: none ever is
		want        []time.Duration
	}{
		{"no answer comes", true, 0, backOff},
		{"the second is answered", true, time.Second, []time.Duration{700 * time.Millisecond}},
		{"the one before this path does not count", true, -time.Second, backOff},
		{"the peer's is never confirmed", false, 0, []time.Duration{6 * time.Second, 12 * time.Second, 18 * time.Second, 24 * time.Second}},
		{"the peer's is confirmed", false, 3 * time.Second, nil},
		{"the peer's was confirmed before the path was known", false, -time.Second, nil},
		{"the one before the peer's is long ago", false, -time.Minute, []time.Duration{6 * time.Second, 12 * time.Second, 18 * time.Second, 24 * time.Second}},
		{"our own is answered", false, 7 * time.Second, []time.Duration{6 * time.Second}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := awaited{since: began, controlling: c.controlling}
			var got []time.Duration
			confirmed := 0
			for after := time.Duration(0); after < time.Minute; after += 100 * time.Millisecond {
				var done time.Time
				if c.done != 0 && after >= c.done {
					done = began.Add(c.done)
				}
				start, confirm := a.look(began.Add(after), done)
				if start {
					got = append(got, after)
				}
				if confirm {
					confirmed++
				}
			}
			want := 0
			if c.controlling && c.done > 0 {
				want = confirmTries // whoever answered it may not have heard the first packet
			}
			if confirmed != want {
				t.Errorf("confirmed: got %d times, want %d", confirmed, want)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("started again: got after %v, want %v", got, c.want)
			}
			if !a.since.IsZero() || !a.next.IsZero() {
				t.Errorf("after the last try: got a wait since %v with a look at %v, want none", a.since, a.next)
			}
		})
	}
}

// TestHandshakeOverLongLines: only the newest handshake's answer counts, so that one has to be left alone for a round trip, however long
// that is; and not much later than there was need to.
func TestHandshakeOverLongLines(t *testing.T) {
	t.Parallel()
	for _, trip := range []time.Duration{100 * time.Millisecond, 650 * time.Millisecond, time.Second, 1600 * time.Millisecond, 2600 * time.Millisecond, 4500 * time.Millisecond} {
		begun, answered := time.Duration(0), time.Duration(0)
		for n := 0; answered == 0 && n <= handshakeTries; n++ {
			if next := retryAfter(n); begun+trip <= next {
				answered = begun + trip
			} else {
				begun = next
			}
		}
		if answered == 0 || answered > 3*trip {
			t.Errorf("round trip %v: answered after %v, want it within three of them", trip, answered)
		}
	}
}
