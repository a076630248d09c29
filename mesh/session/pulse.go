package session

import (
	"sync"
	"sync/atomic"
	"time"
)

// recent is how lately a frame, or any packet of the session, must have come in for a signal to rely on this one way.
const recent = 300 * time.Millisecond

// pulse is what is known about whether the far side of a link is there: what it sends, and how it answers checks.
type pulse struct {
	since    time.Time     // constant: when the link came up
	overdue  chan struct{} // constant; capacity 1: the answer to a check is
	answered chan struct{} // constant; capacity 1: it has come

	// atomic
	checks atomic.Int32 // under way: the link is doubtful
	heard  atomic.Int64 // of the last frame, as nanoseconds after since
	evaded atomic.Int64 // of the last message of the far side that came another way, likewise

	received func() uint64 // constant: how many packets of the far side have come, acknowledgements too

	mu        sync.Mutex // guards the rest
	traffic   traffic
	pongs     map[uint64]chan struct{}
	lastCheck time.Time
	took      time.Duration // from the first ping of the last check to its answer
}

// traffic is what was seen of the far side's packets when this side had something to send: no frame has to come for a far side to be there.
type traffic struct {
	count  uint64
	looked time.Time
	alive  time.Time // a packet has come at this time or later
}

// look takes the count of now, and reports whether a packet has come lately.
func (t *traffic) look(now time.Time, count uint64) bool {
	if count != t.count {
		t.alive = t.looked
	}
	t.count, t.looked = count, now
	return now.Sub(t.alive) < recent
}

func newPulse(since time.Time, received func() uint64) *pulse {
	return &pulse{since: since, received: received, overdue: make(chan struct{}, 1), answered: make(chan struct{}, 1), pongs: make(map[uint64]chan struct{})}
}

// hear notes that a frame came in.
func (p *pulse) hear() { p.heard.Store(int64(time.Since(p.since))) }

// lastHeard is when the last frame came in, or the link came up.
func (p *pulse) lastHeard() time.Time { return p.since.Add(time.Duration(p.heard.Load())) }

// quiet is how long no frame has come in.
func (p *pulse) quiet() time.Duration { return time.Since(p.since) - time.Duration(p.heard.Load()) }

// evade notes that the far side sent something another way: it may have found this one dead.
func (p *pulse) evade() { p.evaded.Store(int64(time.Since(p.since))) }

// doubtful reports whether a check is under way: the link may be dead.
func (p *pulse) doubtful() bool { return p.checks.Load() > 0 }

// sure reports whether what is sent now will most likely arrive.
func (p *pulse) sure() bool {
	stirs := p.stirs() // asked for in any case: it goes by what was there the last time
	return !p.doubtful() && p.heard.Load() >= p.evaded.Load() && (stirs || p.quiet() < recent)
}

// stirs reports whether a packet of the far side has come lately, as far as is known.
func (p *pulse) stirs() bool {
	count := p.received()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.traffic.look(time.Now(), count)
}

// settled notes how long the answer to a check took.
func (p *pulse) settled(took time.Duration) {
	p.mu.Lock()
	p.took = took
	p.mu.Unlock()
	notify(p.answered)
}

// due reports whether the last check that was asked for often is longer ago than pause, or than checkShare times what its answer took, and
// counts this one if so.
func (p *pulse) due(pause time.Duration) bool {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	pause = max(pause, min(checkShare*p.took, maxCheckPause))
	due := now.Sub(p.lastCheck) >= pause
	if due {
		p.lastCheck = now
	}
	return due
}

// expect returns a channel that is closed when the answer to a ping comes in, and what to call when nobody waits for it any more.
func (p *pulse) expect(nonce uint64) (answered <-chan struct{}, forget func()) {
	c := make(chan struct{})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pongs[nonce] = c
	return c, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.pongs, nonce)
	}
}

// pong takes the answer to a ping.
func (p *pulse) pong(nonce uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if answered, ok := p.pongs[nonce]; ok {
		delete(p.pongs, nonce)
		close(answered)
	}
}
