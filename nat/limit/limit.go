// Package limit bounds what many sources can make a node do: each of them, and all of them together.
//
// The buckets are golang.org/x/time/rate's. What counts as one source, and what happens to what is over the limit, is left
// to its users.
//
// Sources may be used concurrently.
package limit

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rate is how many events a second are allowed in the long run, and how many at once after a rest.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Limiter returns a limiter of that rate which has rested.
func (r Rate) Limiter() *rate.Limiter { return rate.NewLimiter(rate.Limit(r.PerSecond), r.Burst) }

// rest is how long a limiter takes to be as new.
func (r Rate) rest() time.Duration {
	return time.Duration(float64(r.Burst) / r.PerSecond * float64(time.Second))
}

const (
	// maxSources bounds the memory that strangers can take, who make up as many sources as they like.
	maxSources = 256
	sweepEvery = time.Second
)

// Sources limits events by their source, which is deterministic. While it is full of busy sources a new one is bound by the
// rate of all only.
type Sources[K comparable] struct {
	// Constant after NewSources.
	rate Rate
	all  *rate.Limiter

	// Guarded by mu, under which nothing is called.
	mu    sync.Mutex
	each  map[K]*source
	swept time.Time // when those at rest were last forgotten
}

type source struct {
	limiter *rate.Limiter // constant
	last    time.Time     // guarded by the mutex of Sources
}

// NewSources returns one with these rates for all sources together and for each one.
func NewSources[K comparable](all, each Rate) *Sources[K] {
	return &Sources[K]{rate: each, all: all.Limiter(), each: make(map[K]*source)}
}

// Allow reports whether one more event of a source is allowed at now. What one source has too much is not taken from the share
// of the others.
func (s *Sources[K]) Allow(now time.Time, from K) bool {
	if own := s.of(now, from); own != nil && !own.AllowN(now, 1) {
		return false
	}
	return s.all.AllowN(now, 1)
}

// of returns a source's limiter, nil when there is no room for one.
func (s *Sources[K]) of(now time.Time, from K) *rate.Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.each[from]
	if own == nil && len(s.each) >= maxSources && now.Sub(s.swept) >= sweepEvery {
		s.swept = now
		rest := s.rate.rest()
		for k, old := range s.each {
			if now.Sub(old.last) >= rest {
				delete(s.each, k)
			}
		}
	}
	if own == nil {
		if len(s.each) >= maxSources {
			return nil
		}
		own = &source{limiter: s.rate.Limiter()}
		s.each[from] = own
	}
	own.last = now
	return own.limiter
}

// Host is what one host on the Internet is taken to own: an IPv4 address, or an IPv6 /64. It is zero for what is no address.
func Host(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap()
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.WithZone("").Prefix(bits)
	return prefix
}
