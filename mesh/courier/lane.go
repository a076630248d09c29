package courier

import (
	"slices"

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
	number  uint64       // greater than that of those that were put before
	message path.Message // out
	sealed  []byte       // in, as it came; nil: opened
	opened  *opened      // in, taken over from the lane that it came in on; nil: not yet opened
}

// opened is a message whose sender is proven.
type opened struct {
	message path.Message
	psk     *signal.PSK // of an answer
}

// The classes of jobs, the first one first. What an introduction that has begun waits for goes before what begins one: while it waits
// the peer repeats itself, which has to be opened too, and tries paths in vain. So a burst costs each peer what a single one costs.
const (
	under  = iota // an offer or an answer to be opened, an answer to be sealed
	begins        // an offer to be sealed
	light         // all else
	classes
	none = classes // nothing
)

// fairShare has each so many-th turn go to the last class first: whoever floods this node with offers does not hold up all else.
const fairShare = 4

// class tells what a job is. What is sealed is known by the key that it carries, or may carry.
func (j job) class() int {
	switch {
	case j.sealed != nil && len(j.sealed) < signal.MinWithKey:
		return light
	case j.sealed != nil, j.opened != nil, j.message.Kind == path.KindAnswer:
		return under
	case j.message.Kind == path.KindOffer:
		return begins
	}
	return light
}

// lane is what is to be done for one peer. One goroutine at most serves it. It exists while something waits or is under way.
type lane struct {
	id identity.NodeID // constant

	// Guarded by Courier.mu.
	jobs      [ways][]job
	next      int    // the way whose turn it is
	gaveWay   bool   // it has let the other one go first
	served    bool   // a job is under way
	class     int    // in which the lane stands to be served; none: it does not
	ticket    uint64 // of its place there
	forgotten bool   // the peer was forgotten while a message of it was under way
}

// place is a lane's in the row of a class. It is void when the lane has another ticket.
type place struct {
	lane   *lane
	ticket uint64
}

// replaces reports whether a message makes one that still waits to be sealed superfluous: nat repeats what gets no answer, and
// asks for the offer that it answers now. To seal both, and have the peer open both, would make a burst of introductions slower the
// longer it takes.
func replaces(next, waiting path.Message) bool {
	switch next.Kind {
	case path.KindAsk, path.KindRefuse:
		return waiting.Kind == next.Kind
	case path.KindOffer:
		return waiting.Kind == path.KindOffer && waiting.Attempt <= next.Attempt
	case path.KindAnswer:
		return waiting.Kind == path.KindAsk || waiting.Kind == path.KindAnswer && waiting.Attempt <= next.Attempt
	default: // candidates add to each other
		return false
	}
}

// replace puts a message in the place of the one that it makes superfluous, if there is one. The caller holds mu.
func (l *lane) replace(m path.Message) bool {
	for i, waiting := range l.jobs[out] {
		if replaces(m, waiting.message) {
			l.jobs[out][i].message = m
			return true
		}
	}
	return false
}

// settle drops what an offer or answer of a peer, which was put as job number, makes superfluous: what the peer had said before and was
// overtaken, for an ask would begin anew what this one goes on with, and the repetition of the offer that it answers.
func (c *Courier) settle(id identity.NodeID, number uint64, m path.Message) {
	if m.Kind != path.KindOffer && m.Kind != path.KindAnswer {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lanes[id]
	if l == nil {
		return
	}
	before := len(l.jobs[in])
	l.jobs[in] = slices.DeleteFunc(l.jobs[in], func(j job) bool { return j.number < number && j.class() == light })
	c.waiting[in] -= before - len(l.jobs[in])
	before = len(l.jobs[out])
	l.jobs[out] = slices.DeleteFunc(l.jobs[out], func(j job) bool {
		return m.Kind == path.KindAnswer && j.message.Kind == path.KindOffer && j.message.Attempt <= m.Attempt
	})
	c.waiting[out] -= before - len(l.jobs[out])
}

// put adds a job to the lane of a peer.
func (c *Courier) put(id identity.NodeID, way int, j job) {
	c.mu.Lock()
	c.numbers++
	j.number = c.numbers
	l := c.lanes[id]
	full := true
	switch {
	case l != nil && way == out && l.replace(j.message):
		full = false
	case l != nil && len(l.jobs[way]) >= queuedPerPeer:
		l.jobs[way][0] = job{}
		l.jobs[way] = append(l.jobs[way][1:], j)
	case c.waiting[way] >= queued:
	default:
		full = false
		if l == nil {
			l = &lane{id: id, class: none}
			c.lanes[id] = l
		}
		l.jobs[way] = append(l.jobs[way], j)
		c.waiting[way]++
	}
	if l != nil {
		c.enter(l)
	}
	c.mu.Unlock()
	if full {
		c.count(queueFull)
	}
	c.stir()
}

// stir has Run look whether there is something to do.
func (c *Courier) stir() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// enter has a lane stand in the row of its best job, unless it is served. The caller holds mu.
func (c *Courier) enter(l *lane) {
	class := none
	for way := range l.jobs {
		if i := l.first(way); i >= 0 {
			class = min(class, l.jobs[way][i].class())
		}
	}
	if l.served || class >= l.class {
		return
	}
	c.numbers++
	l.class, l.ticket = class, c.numbers
	c.rows[class] = append(c.rows[class], place{l, l.ticket})
}

// pick returns the job that is to be done next, if one more may be computed now.
func (c *Courier) pick() (*lane, job, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.computing >= c.slots {
		return nil, job{}, false
	}
	c.turns++
	for i := range classes {
		if c.turns%fairShare == 0 {
			i = classes - 1 - i
		}
		for len(c.rows[i]) > 0 {
			first := c.rows[i][0]
			c.rows[i] = c.rows[i][1:]
			l := first.lane
			if l.ticket != first.ticket || l.class == none {
				continue
			}
			l.class = none
			j, ok := c.take(l)
			if !ok {
				continue
			}
			l.served = true
			c.computing++
			return l, j, true
		}
	}
	return nil, job{}, false
}

// clear drops what waits in a lane; what is under way is seen to by forgetAgain. The caller holds mu.
func (c *Courier) clear(l *lane) {
	for way := range l.jobs {
		c.waiting[way] -= len(l.jobs[way])
		l.jobs[way] = nil
	}
	l.forgotten = l.served
}

// take returns the next job of a lane, the two ways by turns, so that neither can hold up the other; false ends the lane. A turn goes
// to the other way, but not twice in a row, if that has a job of a better class. The caller holds mu.
func (c *Courier) take(l *lane) (job, bool) {
	way := l.next
	here, there := l.first(way), l.first(1-way)
	switch {
	case here < 0 && there < 0:
		delete(c.lanes, l.id)
		return job{}, false
	case here < 0, there >= 0 && !l.gaveWay && l.jobs[1-way][there].class() < l.jobs[way][here].class():
		l.gaveWay = here >= 0
		way, here = 1-way, there
	default:
		l.gaveWay = false
		l.next = 1 - way
	}
	j := l.jobs[way][here]
	l.jobs[way] = slices.Delete(l.jobs[way], here, here+1)
	c.waiting[way]--
	return j, true
}

// first is where the next job this way stands: the first one of the best class; -1: there is none.
func (l *lane) first(way int) int {
	best := -1
	for i, j := range l.jobs[way] {
		if best < 0 || j.class() < l.jobs[way][best].class() {
			best = i
		}
	}
	return best
}

// serve does one job of a lane, which has a slot until it is computed.
func (c *Courier) serve(l *lane, j job, nat NAT) {
	switch {
	case j.sealed != nil:
		c.receive(l.id, j, nat)
	case j.opened != nil:
		c.leave()
		c.act(l.id, *j.opened, nat)
	default:
		c.transmit(l.id, j.message)
	}
	c.forgetAgain(l)
	c.mu.Lock()
	l.served = false
	if c.enter(l); l.class == none {
		delete(c.lanes, l.id)
	}
	c.mu.Unlock()
	c.stir()
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

// leave gives up the slot of a job.
func (c *Courier) leave() {
	c.mu.Lock()
	c.computing--
	c.mu.Unlock()
	c.stir()
}
