package courier

import (
	"slices"
	"sync"
	"time"

	"warren/mesh/identity"
)

/* Signals that come before the record of their sender
 *
 * What two that meet for the first time say to each other goes by one member, and so do their records; but those are verified and taken in
 * first, and a signal overtakes them by some milliseconds. Dropped, it would be repeated 0.4 s later. So it is kept for a moment, unopened.
 */

const (
	earlyFor = 2 * time.Second
	maxEarly = 32 // in all; of one session an eighth
)

// early are the signals whose sender is no member as far as is known.
type early struct {
	mu      sync.Mutex
	waiting []overtaker // the oldest first
	lapsed  uint64      // so many were of no member in time, or had to go
}

// overtaker is one of them.
type overtaker struct {
	from, by identity.NodeID
	sealed   []byte
	until    time.Time
}

// put keeps a signal. It reports false when there is no room for it: of one session the newest count, and nobody takes the place of others.
func (e *early) put(now time.Time, from, by identity.NodeID, sealed []byte) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sweep(now)
	brought, first := 0, -1
	for i, o := range e.waiting {
		if o.by != by {
			continue
		}
		if brought++; first < 0 {
			first = i
		}
	}
	switch {
	case brought >= maxEarly/8:
		e.waiting = slices.Delete(e.waiting, first, first+1)
		e.lapsed++
	case len(e.waiting) >= maxEarly:
		return false
	}
	e.waiting = append(e.waiting, overtaker{from, by, sealed, now.Add(earlyFor)})
	return true
}

// sweep forgets what is too old. The caller holds mu.
func (e *early) sweep(now time.Time) {
	before := len(e.waiting)
	e.waiting = slices.DeleteFunc(e.waiting, func(o overtaker) bool { return !now.Before(o.until) })
	e.lapsed += uint64(before - len(e.waiting))
}

// dropped is how many were never opened.
func (e *early) dropped(now time.Time) uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sweep(now)
	return e.lapsed
}

// take returns what one has sent, oldest first.
func (e *early) take(now time.Time, from identity.NodeID) (all []overtaker) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sweep(now)
	e.waiting = slices.DeleteFunc(e.waiting, func(o overtaker) bool {
		if o.from == from {
			all = append(all, o)
		}
		return o.from == from
	})
	return all
}

// Met tells that a node is a member now, or known as one for the first time: what came of it before its record is opened. Members has to know it
// before.
func (c *Courier) Met(id identity.NodeID) {
	for _, o := range c.early.take(time.Now(), id) {
		c.Take(o.from, o.by, o.sealed)
	}
}
