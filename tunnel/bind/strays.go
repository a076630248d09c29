package bind

import (
	"net/netip"
	"sync"
	"time"
)

const (
	strayInterval = time.Second // as long as the device goes on sending there, somebody should know
	strayBuffer   = 64
	straysKnown   = 512
)

// strays tells where the device sends to without an endpoint of ours. The queue drops what does not fit; it comes up
// again while it lasts.
type strays struct {
	// constant after New
	out chan netip.AddrPort

	// guarded by mu
	mu    sync.Mutex
	noted map[netip.AddrPort]time.Time
}

func newStrays() *strays {
	return &strays{out: make(chan netip.AddrPort, strayBuffer), noted: make(map[netip.AddrPort]time.Time)}
}

func (s *strays) note(a netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if last, ok := s.noted[a]; ok && now.Sub(last) < strayInterval {
		return
	}
	if len(s.noted) >= straysKnown {
		clear(s.noted)
	}
	select {
	case s.out <- a:
		s.noted[a] = now
	default:
	}
}
