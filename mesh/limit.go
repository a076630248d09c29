package mesh

import (
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"warren/mesh/identity"
	"warren/mesh/session"
)

// limits are the rates at which one sender is heard. All who are no members share one rate: whoever holds an old invite can make
// as many IDs as it likes.
//
// Streams that did not come straight from their sender share one rate too, for the member that forwards them can name any
// sender. Messages do not say how they came, so a member that forges senders can use up another's share of messages and
// records here. What is lost by that are hints and copies: digests show it, and a sync over the session with that other,
// whose rate nobody else can use up, brings it.
type limits struct {
	// constant, or guarded by themselves
	public    *published
	isDirect  func(net.Conn) bool // does a stream come straight from its sender
	messages  *limiter            // messages for memberlist
	records   *limiter            // records and notices in messages, of their sender or inside of memberlist's: each is up to three signatures
	proofs    *limiter            // of why this node is out
	streams   *limiter
	forwarded *limiter // streams, all senders together
}

func newLimits(p *published) *limits {
	return &limits{
		public: p, isDirect: session.IsDirect,
		messages: newLimiter(500, 1000), records: newLimiter(50, 500), proofs: newLimiter(0.5, 8), streams: newLimiter(2, 60), forwarded: newLimiter(20, 300),
	}
}

// message, record and stream take one token of a sender, and report whether there was one.
func (l *limits) message(from identity.NodeID) bool { return l.heard(l.messages, from) }

func (l *limits) record(from identity.NodeID) bool { return l.heard(l.records, from) }

func (l *limits) proof(from identity.NodeID) bool { return l.heard(l.proofs, from) }

// stream takes it of the sender only if that is proven.
func (l *limits) stream(from identity.NodeID, conn net.Conn) bool {
	if l.isDirect(conn) {
		return l.heard(l.streams, from)
	}
	return l.forwarded.take(identity.NodeID{}, 1, time.Now())
}

func (l *limits) heard(by *limiter, from identity.NodeID) bool {
	if !l.public.isMember(from) {
		from = identity.NodeID{}
	}
	return by.take(from, 1, time.Now())
}

// limiter is a token bucket for each sender. Forwarded messages name their sender only as truly as the forwarding
// member does (see limits), so the number of buckets is bounded: beyond it all start anew.
type limiter struct {
	rate  rate.Limit // tokens per second
	burst int

	mu      sync.Mutex
	buckets map[identity.NodeID]*rate.Limiter
}

// maxBuckets is above the number of members of any mesh this is built for.
const maxBuckets = 16 << 10

func newLimiter(perSecond rate.Limit, burst int) *limiter {
	return &limiter{rate: perSecond, burst: burst, buckets: make(map[identity.NodeID]*rate.Limiter)}
}

// take reports whether the sender may have n more at now, and counts them if so.
func (l *limiter) take(from identity.NodeID, n int, now time.Time) bool {
	return l.of(from).AllowN(now, n)
}

func (l *limiter) of(from identity.NodeID) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[from]
	if b == nil {
		if len(l.buckets) >= maxBuckets {
			clear(l.buckets)
		}
		b = rate.NewLimiter(l.rate, l.burst)
		l.buckets[from] = b
	}
	return b
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
