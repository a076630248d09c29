package courier

import (
	"net/netip"
	"slices"
	"sync"

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
// counts: an offer replaces the one before. What comes in is on the account of the session that brought it, since a member that
// forwards can name anybody as the sender: of a peer's lane each session fills its own share, and of the whole it loses its own first.
const (
	// queuedPerPeer is more than both sides say in one attempt: ask, offer or answer with its repeats, and the candidates. Of what
	// comes in, it bounds what one session brings.
	queuedPerPeer = 16
	// queuedBrought bounds what one session brings, for all peers together. An anchor brings a burst of them.
	queuedBrought = 512
	// queued bounds the whole: 12 MiB of signals. When it is used up, who has brought most loses the oldest of it.
	queued = 1024
)

// job is one message on its way.
type job struct {
	number  uint64          // greater than that of those that were put before
	message path.Message    // out
	sealed  []byte          // in, as it came; nil: opened
	opened  *opened         // in, taken over from the lane that it came in on; nil: not yet opened
	by      identity.NodeID // in: whose session brought it
	round   uint64          // in: of the lane's; in each round every session that brings something has one turn
	// straight is where it came from, when no session has brought it.
	straight netip.AddrPort
}

// opened is a message whose sender is proven.
type opened struct {
	message   path.Message
	psk       *signal.PSK // of an answer
	handshake []byte      // of an answer: the response; nil: none
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

// queue is all that waits, and how much of it is being done.
type queue struct {
	slots int           // constant: how many jobs are computed at once
	wake  chan struct{} // constant; capacity 1: there may be something to do

	mu        sync.Mutex // guards the rest
	lanes     map[identity.NodeID]*lane
	rows      [classes][]place // those that wait to be served
	numbers   uint64           // given out, to jobs and places
	turns     uint64
	computing int // jobs
	waiting   [ways]int
	brought   map[identity.NodeID]int // of waiting[in], by whose session brought it
}

func newQueue(slots int) *queue {
	return &queue{slots: slots, wake: make(chan struct{}, 1), lanes: make(map[identity.NodeID]*lane), brought: make(map[identity.NodeID]int)}
}

// lane is what is to be done for one peer. One goroutine at most serves it. It exists while something waits or is under way.
type lane struct {
	id identity.NodeID // constant

	// Guarded by queue.mu.
	jobs      [ways][]job // in: by rounds
	round     uint64      // of the message that was taken last
	next      int         // the way whose turn it is
	gaveWay   bool        // it has let the other one go first
	served    bool        // a job is under way
	class     int         // in which the lane stands to be served; none: it does not
	ticket    uint64      // of its place there
	forgotten bool        // the peer was forgotten while a message of it was under way
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
		return (waiting.Kind == path.KindOffer || waiting.Kind == path.KindRemind) && waiting.Attempt <= next.Attempt
	case path.KindRemind:
		return waiting.Kind == path.KindRemind && waiting.Attempt <= next.Attempt
	case path.KindAnswer:
		return waiting.Kind == path.KindAsk || waiting.Kind == path.KindAnswer && waiting.Attempt <= next.Attempt
	default: // candidates add to each other
		return false
	}
}

// replace puts a message in the place of the one that it makes superfluous, if there is one. The caller holds mu.
func (l *lane) replace(m path.Message) bool {
	for i, waiting := range l.jobs[out] {
		if m.Kind == path.KindRemind && waiting.message.Kind == path.KindOffer && waiting.message.Attempt >= m.Attempt {
			return true // of what has not left yet nobody has to be reminded
		}
		if waiting.message.Straight == m.Straight && replaces(m, waiting.message) {
			l.jobs[out][i].message = m
			return true
		}
	}
	return false
}

// settle drops what an offer or answer of a peer, which was put as job number, makes superfluous: what the peer had said before and was
// overtaken, for an ask would begin anew what this one goes on with, and the repetition of the offer that it answers.
func (q *queue) settle(id identity.NodeID, number uint64, m path.Message) {
	if m.Kind != path.KindOffer && m.Kind != path.KindAnswer {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lanes[id]
	if l == nil {
		return
	}
	l.jobs[in] = slices.DeleteFunc(l.jobs[in], func(j job) bool {
		overtaken := j.number < number && j.class() == light
		if overtaken {
			q.gone(j)
		}
		return overtaken
	})
	before := len(l.jobs[out])
	l.jobs[out] = slices.DeleteFunc(l.jobs[out], func(j job) bool {
		return m.Kind == path.KindAnswer && replaces(path.Message{Kind: path.KindOffer, Attempt: m.Attempt}, j.message)
	})
	q.waiting[out] -= before - len(l.jobs[out])
}

// put adds a job to the lane of a peer, and reports whether one had to go.
func (q *queue) put(id identity.NodeID, way int, j job) (full bool) {
	q.mu.Lock()
	q.numbers++
	j.number = q.numbers
	l := q.lanes[id]
	if l == nil {
		l = &lane{id: id, class: none}
		q.lanes[id] = l
	}
	if way == out {
		full = q.putOut(l, j)
	} else {
		full = q.putIn(l, j)
	}
	if q.enter(l); l.class == none && !l.served {
		delete(q.lanes, id)
	}
	q.mu.Unlock()
	q.stir()
	return full
}

// putOut adds a job that nat gave, and reports whether one had to go. The caller holds mu.
func (q *queue) putOut(l *lane, j job) (full bool) {
	switch {
	case l.replace(j.message):
		return false
	case len(l.jobs[out]) >= queuedPerPeer:
		l.jobs[out][0] = job{}
		l.jobs[out] = append(l.jobs[out][1:], j)
		return true
	case q.waiting[out] >= queued:
		return true
	}
	l.jobs[out] = append(l.jobs[out], j)
	q.waiting[out]++
	return false
}

// putIn adds a job that a session brought, and reports whether one had to go. The caller holds mu.
func (q *queue) putIn(l *lane, j job) (full bool) {
	waits, first := 0, -1 // of the same session, in this lane
	for i, other := range l.jobs[in] {
		if other.by != j.by {
			continue
		}
		if waits++; first < 0 {
			first = i
		}
	}
	switch {
	case waits >= queuedPerPeer:
		q.remove(l, first)
		waits, full = waits-1, true
	case j.opened != nil: // its nonce is spent: the same message would be refused as a replay
	case q.brought[j.by] >= queuedBrought:
		return true
	case q.waiting[in] >= queued:
		if !q.makeRoom(j.by) {
			return true
		}
		full = true
	}
	j.round = l.round + uint64(waits) + 1
	at := len(l.jobs[in])
	for at > 0 && l.jobs[in][at-1].round > j.round {
		at--
	}
	l.jobs[in] = slices.Insert(l.jobs[in], at, j)
	q.waiting[in]++
	q.brought[j.by]++
	return full
}

// makeRoom drops the oldest message of the session that has brought most, if that has brought more than the one for which there is to
// be room. The caller holds mu.
func (q *queue) makeRoom(whom identity.NodeID) bool {
	var most identity.NodeID
	n := q.brought[whom] + 1
	for by, brought := range q.brought {
		if brought > n {
			most, n = by, brought
		}
	}
	if most.IsZero() {
		return false
	}
	var from *lane
	oldest := 0
	for _, l := range q.lanes {
		for i, j := range l.jobs[in] {
			if j.by == most && (from == nil || j.number < from.jobs[in][oldest].number) {
				from, oldest = l, i
			}
		}
	}
	q.remove(from, oldest)
	return true
}

// remove takes a message that came in out of a lane, which may be left empty: whoever serves it next finds that. The caller holds mu.
func (q *queue) remove(l *lane, i int) {
	q.gone(l.jobs[in][i])
	l.jobs[in] = slices.Delete(l.jobs[in], i, i+1)
}

// gone counts a message that came in as one that waits no more. The caller holds mu.
func (q *queue) gone(j job) {
	q.waiting[in]--
	if q.brought[j.by]--; q.brought[j.by] == 0 {
		delete(q.brought, j.by)
	}
}

// stir has Run look whether there is something to do.
func (q *queue) stir() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// enter has a lane stand in the row of its best job, unless it is served. The caller holds mu.
func (q *queue) enter(l *lane) {
	class := none
	for way := range l.jobs {
		if i := l.first(way); i >= 0 {
			class = min(class, l.jobs[way][i].class())
		}
	}
	if l.served || class >= l.class {
		return
	}
	q.numbers++
	l.class, l.ticket = class, q.numbers
	q.rows[class] = append(q.rows[class], place{l, l.ticket})
}

// pick returns the job that is to be done next, if one more may be computed now.
func (q *queue) pick() (*lane, job, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.computing >= q.slots {
		return nil, job{}, false
	}
	q.turns++
	for i := range classes {
		if q.turns%fairShare == 0 {
			i = classes - 1 - i
		}
		for len(q.rows[i]) > 0 {
			first := q.rows[i][0]
			q.rows[i] = q.rows[i][1:]
			l := first.lane
			if l.ticket != first.ticket || l.class == none {
				continue
			}
			l.class = none
			j, ok := q.take(l)
			if !ok {
				continue
			}
			l.served = true
			q.computing++
			return l, j, true
		}
	}
	return nil, job{}, false
}

// forget drops what waits for a peer; what is under way is seen to when it is done.
func (q *queue) forget(id identity.NodeID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lanes[id]
	if l == nil {
		return
	}
	for _, j := range l.jobs[in] {
		q.gone(j)
	}
	q.waiting[out] -= len(l.jobs[out])
	l.jobs = [ways][]job{}
	l.forgotten = l.served
}

// take returns the next job of a lane, the two ways by turns, so that neither can hold up the other; false ends the lane. A turn goes
// to the other way, but not twice in a row, if that has a job of a better class. The caller holds mu.
func (q *queue) take(l *lane) (job, bool) {
	way := l.next
	here, there := l.first(way), l.first(1-way)
	switch {
	case here < 0 && there < 0:
		delete(q.lanes, l.id)
		return job{}, false
	case here < 0, there >= 0 && !l.gaveWay && l.jobs[1-way][there].class() < l.jobs[way][here].class():
		l.gaveWay = here >= 0
		way, here = 1-way, there
	default:
		l.gaveWay = false
		l.next = 1 - way
	}
	j := l.jobs[way][here]
	if way == in {
		l.round = max(l.round, j.round)
		q.remove(l, here)
		return j, true
	}
	l.jobs[out] = slices.Delete(l.jobs[out], here, here+1)
	q.waiting[out]--
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

// leave gives up the slot of a job.
func (q *queue) leave() {
	q.mu.Lock()
	q.computing--
	q.mu.Unlock()
	q.stir()
}

// rejoin takes the slot back that a job has left: it goes on before others begin, and so does not wait for one to be free.
func (q *queue) rejoin() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.computing++
}

// done puts a lane whose job is done back into its row, if it has more to do.
func (q *queue) done(l *lane) {
	q.mu.Lock()
	l.served = false
	if q.enter(l); l.class == none {
		delete(q.lanes, l.id)
	}
	q.mu.Unlock()
	q.stir()
}

// forgotten reports, once, whether the peer of a lane was forgotten while a message of it was under way.
func (q *queue) forgotten(l *lane) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	again := l.forgotten
	l.forgotten = false
	return again
}
