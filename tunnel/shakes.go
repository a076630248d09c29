package tunnel

import (
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// shakes says when handshakes were done by the clock that nobody sets. The device notes the time of day: once that is put forwards or back, a
// handshake of just now would seem to be an hour old, or one of an hour ago still to come. So the age is taken when a handshake is first seen
// here, and kept. If the clock was set between the handshake and that, it is wrong by as much, but never in the future.
type shakes struct {
	mu   sync.Mutex
	seen map[wgtypes.Key]shaken
}

type shaken struct {
	nano int64 // as the device has it
	at   time.Time
}

// at is the time of the handshake of which the device has noted this, in nanoseconds since 1970; zero for 0, which is none.
func (s *shakes) at(key wgtypes.Key, nano int64, now time.Time) time.Time {
	if nano == 0 {
		return time.Time{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, known := s.seen[key]; known && k.nano == nano {
		return k.at
	}
	if s.seen == nil {
		s.seen = make(map[wgtypes.Key]shaken)
	}
	at := now.Add(-time.Duration(max(0, now.UnixNano()-nano)))
	s.seen[key] = shaken{nano, at}
	return at
}

// keep forgets the peers that are not among these.
func (s *shakes) keep(keys map[wgtypes.Key]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.seen {
		if !keys[key] {
			delete(s.seen, key)
		}
	}
}

// nanoOf is what the device has noted, from the form in which it is read out.
func nanoOf(t time.Time) int64 {
	if t.IsZero() || t.Unix() == 0 && t.Nanosecond() == 0 {
		return 0
	}
	return t.UnixNano()
}
