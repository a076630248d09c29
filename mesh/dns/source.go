package dns

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// What one address may ask, and all of them together, in questions a second: a browser that opens a hundred pages asks for less, and what all
// may ask costs some percent of a processor.
const (
	perSource  = 1000
	perAll     = 10_000
	burstShare = 2    // of a second's questions at once: the half
	maxSources = 1024 // remembered; when there are more, all begin anew
)

// sources bounds who asks how much.
type sources struct {
	mu  sync.Mutex
	all *rate.Limiter
	by  map[netip.Addr]*rate.Limiter // guarded by mu
}

func newSources() *sources {
	return &sources{all: rate.NewLimiter(perAll, perAll/burstShare), by: make(map[netip.Addr]*rate.Limiter)}
}

// allow reports whether a question of an address is to be answered.
func (s *sources) allow(from netip.Addr, now time.Time) bool {
	return s.of(from).AllowN(now, 1) && s.all.AllowN(now, 1)
}

func (s *sources) of(from netip.Addr) *rate.Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.by[from]
	if l == nil {
		if len(s.by) >= maxSources {
			clear(s.by)
		}
		l = rate.NewLimiter(perSource, perSource/burstShare)
		s.by[from] = l
	}
	return l
}
