package nat

import (
	"time"

	"warren/mesh/identity"
)

const (
	// parkTime lets an introduction wait for the record, on its way by gossip, that makes its sender a peer, or for the node to
	// have told of the record.
	parkTime = 5 * time.Second
	// maxParked bounds the senders, all of them members: when many records appear at once, most of these peers may begin before
	// this node does. A message has some kilobytes at most.
	maxParked = 1024
)

// parking holds the last ask or offer of each member that is no peer yet.
type parking struct {
	waiting map[identity.NodeID]parked
	order   []arrival // may name some that wait no more
}

type parked struct {
	message Message
	until   time.Time
}

// arrival is when a member's time is over. All have the same time, so that they end in the order in which they began.
type arrival struct {
	from  identity.NodeID
	until time.Time
}

// put holds a message for the rest of its sender's time; false when too many wait.
func (g *parking) put(now time.Time, from identity.NodeID, m Message) bool {
	early, known := g.waiting[from]
	switch {
	case known:
	case len(g.waiting) >= maxParked:
		return false
	default:
		early.until = now.Add(parkTime)
		g.order = append(g.order, arrival{from, early.until})
	}
	early.message = m
	g.waiting[from] = early
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
	for first := g.wake(); !first.IsZero() && !first.After(now); first = g.wake() {
		id := g.order[0].from
		delete(g.waiting, id)
		over = append(over, id)
	}
	return over
}

// wake is the earliest time at which due returns something, zero for never. It is asked for at each turn of the loop, and looks at
// the first one only.
func (g *parking) wake() time.Time {
	for len(g.order) > 0 {
		first := g.order[0]
		if p, waits := g.waiting[first.from]; waits && p.until.Equal(first.until) {
			return first.until
		}
		g.order = g.order[1:]
	}
	return time.Time{}
}
