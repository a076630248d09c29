package courier

import (
	"sync"
	"time"

	"warren/mesh/identity"
)

const (
	// ClockBears is how far two clocks may differ without a word: a signal that is forwarded, or sent again, is late by some seconds.
	ClockBears = 30 * time.Second
	// clockLasts is how long what was heard of a peer's clock is believed. It may have been set since.
	clockLasts = time.Hour
)

// peers is what is remembered of the processes and clocks of peers, by their signals: those too that were refused over their time; and of the
// handshakes that this node has begun with them.
type peers struct {
	mu    sync.Mutex
	runs  map[identity.NodeID][8]byte // the instance that introduced itself last
	seen  map[identity.NodeID]clock
	begun map[identity.NodeID]time.Time // since when offers carry handshakes of which nothing was heard
}

// clock is how far a peer's clock was ahead of ours, and when that was, by both of our clocks.
type clock struct {
	ahead time.Duration
	at    time.Time
}

// now is how far it is ahead by now, if it was not set: ours may have been.
func (k clock) now(now time.Time) time.Duration {
	wall, real := now.Round(0).Sub(k.at.Round(0)), now.Sub(k.at) // the latter by the monotonic clock
	return k.ahead - (wall - real)
}

// begunAnew notes which process a peer introduces itself from, and reports whether it was another one before.
func (p *peers) begunAnew(id identity.NodeID, instance [8]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, known := p.runs[id]
	if p.runs == nil {
		p.runs = make(map[identity.NodeID][8]byte)
	}
	p.runs[id] = instance
	return known && before != instance
}

// beginFor is how long WireGuard repeats a handshake once it has begun (section 6.1 of its paper).
const beginFor = 90 * time.Second

// mayBegin reports whether an offer may carry a handshake; heard is when the last introduction of the peer came. A peer that is away costs what WireGuard
// spends on one handshake, and not that again for each offer to it.
func (p *peers) mayBegin(id identity.NodeID, heard, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	since, begun := p.begun[id]
	if begun && heard.Before(since) {
		return now.Sub(since) < beginFor
	}
	if p.begun == nil {
		p.begun = make(map[identity.NodeID]time.Time)
	}
	p.begun[id] = now
	return true
}

// heard notes a peer's clock. It reports whether that is news: the first time that it differs by more than is borne.
func (p *peers) heard(id identity.NodeID, ahead time.Duration, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.seen[id]
	if p.seen == nil {
		p.seen = make(map[identity.NodeID]clock)
	}
	p.seen[id] = clock{ahead, now}
	return ahead.Abs() > ClockBears && before.ahead.Abs() <= ClockBears
}

func (p *peers) forget(id identity.NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.runs, id)
	delete(p.seen, id)
	delete(p.begun, id)
}

// Clocks returns how far the clocks of peers are ahead of this machine's, less than zero for behind, by their introductions of the last hour. It is
// a lower bound by the time that a signal took.
func (c *Courier) Clocks(now time.Time) map[identity.NodeID]time.Duration {
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	out := make(map[identity.NodeID]time.Duration, len(c.peers.seen))
	for id, k := range c.peers.seen {
		if now.Sub(k.at) < clockLasts {
			out[id] = k.now(now)
		}
	}
	return out
}

// clockOf notes the clock of a signal's sender, and logs one that differs.
func (c *Courier) clockOf(id identity.NodeID, ahead time.Duration) {
	if c.peers.heard(id, ahead, time.Now()) {
		c.log.Warn("clocks differ", "id", id.Short(), "reason", Ahead(ahead))
	}
}

// Ahead puts into words how far another clock is ahead of ours.
func Ahead(d time.Duration) string {
	if d < 0 {
		return (-d).Round(time.Second).String() + " behind this machine's"
	}
	return d.Round(time.Second).String() + " ahead of this machine's"
}
