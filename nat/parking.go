package nat

import (
	"time"

	"warren/mesh/identity"
)

const (
	// parkTime lets an introduction wait for the record, on its way by gossip, that makes its sender a peer.
	parkTime  = 5 * time.Second
	maxParked = 64
)

// parking holds the last ask or offer of each member that is no peer yet.
type parking struct {
	waiting map[identity.NodeID]parked
}

type parked struct {
	message Message
	until   time.Time
}

// put holds a message for the rest of its sender's time; false when too many wait.
func (g *parking) put(now time.Time, from identity.NodeID, m Message) bool {
	until := now.Add(parkTime)
	if early, known := g.waiting[from]; known {
		until = early.until
	} else if len(g.waiting) >= maxParked {
		return false
	}
	g.waiting[from] = parked{message: m, until: until}
	return true
}

// take returns what waits of a member that is a peer now.
func (g *parking) take(from identity.NodeID) (m Message, ok bool) {
	p, ok := g.waiting[from]
	delete(g.waiting, from)
	return p.message, ok
}

// due returns the members whose time is over, and forgets them.
func (g *parking) due(now time.Time) (over []identity.NodeID) {
	for id, p := range g.waiting {
		if !p.until.After(now) {
			delete(g.waiting, id)
			over = append(over, id)
		}
	}
	return over
}

// wake is the earliest time at which due returns something, zero for never.
func (g *parking) wake() (first time.Time) {
	for _, p := range g.waiting {
		if first.IsZero() || p.until.Before(first) {
			first = p.until
		}
	}
	return first
}
