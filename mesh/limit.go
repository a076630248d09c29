package mesh

import (
	"sync"
	"time"

	"warren/mesh/identity"
)

// limiter is a token bucket for each sender. Forwarded messages name their sender only as truly as the forwarding
// member does (see limits), so the number of buckets is bounded: beyond it all start anew.
type limiter struct {
	rate  float64 // tokens per second
	burst float64

	mu      sync.Mutex
	buckets map[identity.NodeID]bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

// maxBuckets is above the number of members of any mesh this is built for.
const maxBuckets = 16 << 10

func newLimiter(rate, burst float64) *limiter {
	return &limiter{rate: rate, burst: burst, buckets: make(map[identity.NodeID]bucket)}
}

// take reports whether the sender may have n more at now, and counts them if so.
func (l *limiter) take(from identity.NodeID, n int, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.buckets[from]
	if !ok {
		if len(l.buckets) >= maxBuckets {
			clear(l.buckets)
		}
		b = bucket{tokens: l.burst, at: now}
	}
	if passed := now.Sub(b.at).Seconds(); passed > 0 {
		b.tokens, b.at = min(l.burst, b.tokens+passed*l.rate), now
	}
	allowed := b.tokens >= float64(n)
	if allowed {
		b.tokens -= float64(n)
	}
	l.buckets[from] = b
	return allowed
}

// recent remembers keys for between one and two spans of time, and at most 2·limit of them: enough to drop what was
// just handled, without a list that somebody could make grow.
type recent[K comparable] struct {
	limit    int
	span     time.Duration
	turned   time.Time
	new, old map[K]struct{}
}

func newRecent[K comparable](limit int, span time.Duration) *recent[K] {
	return &recent[K]{limit: limit, span: span, new: make(map[K]struct{}), old: make(map[K]struct{})}
}

func (r *recent[K]) turn(now time.Time) {
	if len(r.new) < r.limit && now.Sub(r.turned) < r.span {
		return
	}
	r.old, r.new = r.new, make(map[K]struct{})
	if now.Sub(r.turned) >= 2*r.span {
		clear(r.old)
	}
	r.turned = now
}

func (r *recent[K]) add(key K, now time.Time) {
	r.turn(now)
	r.new[key] = struct{}{}
}

func (r *recent[K]) has(key K, now time.Time) bool {
	r.turn(now)
	_, inNew := r.new[key]
	_, inOld := r.old[key]
	return inNew || inOld
}
