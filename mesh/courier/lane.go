package courier

import (
	"context"

	"warren/mesh/identity"
	"warren/mesh/signal"
	"warren/nat/path"
)

// The two ways of a message.
const (
	in   = iota // from a session
	out         // from nat
	ways        // how many there are
)

// Bounds of what waits, each way. When a peer's share is used up its oldest message goes, for of introductions the newest
// counts: an offer replaces the one before. When the whole is used up the new message goes, whosever it is.
const (
	// queuedPerPeer is more than both sides say in one attempt: ask, offer or answer with its repeats, and the candidates.
	queuedPerPeer = 16
	// queued bounds the whole, for anybody can be named as the sender of what comes in: 12 MiB of signals.
	queued = 1024
)

// job is one message on its way.
type job struct {
	message path.Message // out
	sealed  []byte       // in, as it came; nil: opened
	opened  *opened      // in, taken over from the lane that it came in on; nil: not yet opened
}

// opened is a message whose sender is proven.
type opened struct {
	message path.Message
	psk     *signal.PSK // of an answer
}

// lane is what is to be done for one peer. One goroutine at most serves it. It exists while something waits or is under way.
type lane struct {
	id identity.NodeID // constant

	// Guarded by Courier.mu.
	jobs      [ways][]job
	next      int  // the way whose turn it is
	forgotten bool // the peer was forgotten while a message of it was under way
}

// put adds a job to the lane of a peer.
func (c *Courier) put(id identity.NodeID, way int, j job) {
	c.mu.Lock()
	l := c.lanes[id]
	full := true
	switch {
	case l != nil && len(l.jobs[way]) >= queuedPerPeer:
		l.jobs[way][0] = job{}
		l.jobs[way] = append(l.jobs[way][1:], j)
	case c.waiting[way] >= queued:
	default:
		full = false
		if l == nil {
			l = &lane{id: id}
			c.lanes[id] = l
			c.ready = append(c.ready, l)
		}
		l.jobs[way] = append(l.jobs[way], j)
		c.waiting[way]++
	}
	c.mu.Unlock()
	if full {
		c.count(queueFull)
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// takeReady returns the lanes that nobody serves; the caller has them served.
func (c *Courier) takeReady() []*lane {
	c.mu.Lock()
	defer c.mu.Unlock()
	ready := c.ready
	c.ready = nil
	return ready
}

// clear drops what waits in a lane; what is under way is seen to by forgetAgain. The caller holds mu.
func (c *Courier) clear(l *lane) {
	for way := range l.jobs {
		c.waiting[way] -= len(l.jobs[way])
		l.jobs[way] = nil
	}
	l.forgotten = true
}

// take returns the next job of a lane, the two ways by turns, so that neither can hold up the other; false ends the lane.
func (c *Courier) take(l *lane) (job, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	way := l.next
	if len(l.jobs[way]) == 0 {
		way = 1 - way
	}
	if len(l.jobs[way]) == 0 {
		delete(c.lanes, l.id)
		return job{}, false
	}
	j := l.jobs[way][0]
	l.jobs[way][0] = job{}
	l.jobs[way] = l.jobs[way][1:]
	l.next = 1 - way
	c.waiting[way]--
	return j, true
}

// serve does what waits in a lane, until there is nothing more or ctx ends.
func (c *Courier) serve(ctx context.Context, l *lane, nat NAT) {
	for ctx.Err() == nil {
		c.forgetAgain(l)
		j, ok := c.take(l)
		switch {
		case !ok:
			return
		case j.sealed != nil:
			c.receive(ctx, l.id, j.sealed, nat)
		case j.opened != nil:
			c.act(l.id, *j.opened, nat)
		default:
			c.transmit(ctx, l.id, j.message)
		}
	}
}

// forgetAgain drops what a message that was under way has left behind of a peer that was forgotten meanwhile.
func (c *Courier) forgetAgain(l *lane) {
	c.mu.Lock()
	again := l.forgotten
	if again {
		l.forgotten = false
		delete(c.told, l.id)
	}
	c.mu.Unlock()
	if again {
		c.sealer.Forget(l.id)
	}
}

// enter waits until fewer lanes than there are slots compute. It returns false when ctx ends before; else leave is to be called.
func (c *Courier) enter(ctx context.Context) bool {
	select {
	case c.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *Courier) leave() { <-c.slots }
