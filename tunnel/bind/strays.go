package bind

import (
	"net/netip"
	"sync"
	"time"
)

const (
	strayInterval = time.Second // as long as the device goes on sending there, somebody should know
	strayBuffer   = 64
	callBuffer    = 64
	straysKnown   = 512
)

// strays tells where the device sends to without an endpoint of ours. The queue drops what does not fit; it comes up
// again while it lasts.
type strays struct {
	// constant after New
	out   chan netip.AddrPort
	calls chan netip.AddrPort // where it begins handshakes

	// guarded by mu
	mu    sync.Mutex
	noted map[netip.AddrPort]time.Time
}

func newStrays() *strays {
	return &strays{out: make(chan netip.AddrPort, strayBuffer), calls: make(chan netip.AddrPort, callBuffer), noted: make(map[netip.AddrPort]time.Time)}
}

// call tells of a handshake, if there is room.
func (s *strays) call(a netip.AddrPort) {
	select {
	case s.calls <- a:
	default:
	}
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
