package session

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/nat/due/duetest"
)

/* Schedules
 *
 * Two nodes with the tables and the mailboxes of this package, over connections that are made and end as chance has it: dials of both
 * at once, beside what there is, halves that come up in another order than they were dialled, closes that are late or lost, checks that
 * are answered or not, a network that is down, processes that start anew, a user who reads the events when he finds the time. Then
 * the network is whole, and within healBound both nodes have one session, the same, that works, and their users know of it.
 *
 *	WARREN_SCHEDULES=100000 go test -run Schedules ./mesh/session
 */

// healBound is within which two have a session: a half whose far side is gone ends when nothing is heard (idleTimeout), the next dial
// is on the last rung of the ladder, and of two that were dialled at the same time one goes after its grace.
const healBound = idleTimeout + maxBackOff*5/4 + longDial + helloPatience + checkTimeout + 2*duplicateGrace

// connection is one of QUIC: a half at each node. A half that is nil has not come up, or has ended.
type connection struct {
	by     int // who has dialled
	halves [2]*link
	closed [2]bool // that half is not to come up any more, or has ended
	hurt   [2]time.Time
}

// process is a node.
type process struct {
	id      identity.NodeID
	number  instance
	table   *table
	mail    *mailbox
	wants   bool // the other one is among its targets
	dialing bool
	ladder  backOff
	// known is what the user has heard: the far side's address, while there is a session.
	known map[identity.NodeID]netip.AddrPort
}

type schedule struct {
	rnd      *rand.Rand
	now      time.Time
	queue    duetest.Queue
	nodes    [2]*process
	conns    []*connection
	ports    uint16
	up       bool // packets pass
	loss     float64
	coverage map[reachedState]int
	failed   string
}

// reachedState is what a table was with the other node when something happened, for coverage.
type reachedState struct {
	current, spare     bool
	currentOurs        bool
	currentAlive       bool
	spareAlive         bool
	otherProcess       bool // the current link is with a process that is no more
	smaller            bool
	wants, otherWants  bool
	told, passes, busy bool
	event              string
}

func (s *schedule) note(i int, event string) {
	n, other := s.nodes[i], s.nodes[1-i]
	was := reachedState{
		smaller: i == 0, wants: n.wants, otherWants: other.wants, told: len(n.known) > 0, passes: s.up, busy: len(n.mail.order) > 0, event: event,
	}
	if p := n.table.peers[other.id]; p != nil {
		was.current, was.currentOurs, was.otherProcess = true, p.current.dialled, p.current.instance != other.number
		was.currentAlive = s.works(s.of(i, p.current))
		if was.spare = p.spare != nil; was.spare {
			was.spareAlive = s.works(s.of(i, p.spare))
		}
	}
	s.coverage[was]++
}

func (s *schedule) after(d time.Duration, do func()) {
	s.queue.Put(s.now.Add(d), do)
}

func (s *schedule) trip() time.Duration { return time.Duration(5+s.rnd.IntN(150)) * time.Millisecond }

// passes reports whether a message that is repeated some times arrives.
func (s *schedule) passes() bool { return s.up && (s.loss == 0 || s.rnd.Float64() >= s.loss) }

// of returns the connection of a half.
func (s *schedule) of(i int, l *link) *connection {
	for _, c := range s.conns {
		if c.halves[i] == l {
			return c
		}
	}
	return nil
}

func (s *schedule) works(c *connection) bool {
	return c != nil && c.halves[0] != nil && c.halves[1] != nil
}

// begin makes a node's process anew. What it had is gone, and nobody is told.
func (s *schedule) begin(i int) {
	n := s.nodes[i]
	s.rnd = rand.New(rand.NewPCG(s.rnd.Uint64(), 3))
	for j := range n.number {
		n.number[j] = byte(s.rnd.Uint32())
	}
	l := &lane{}
	l.known.Store(new(map[netip.AddrPort]bool))
	n.mail = newMailbox()
	n.table = newTable(n.id, n.mail, l)
	n.known, n.dialing, n.ladder = map[identity.NodeID]netip.AddrPort{}, false, backOff{}
	for _, c := range s.conns {
		c.halves[i], c.closed[i] = nil, true
	}
	s.keep(i)
}

// keep is a target's goroutine: it dials while there is no session.
func (s *schedule) keep(i int) {
	n, other := s.nodes[i], s.nodes[1-i]
	if n.dialing || !n.wants || n.table.link(other.id) != nil {
		return
	}
	s.dial(i, func(came bool) {
		if !came {
			number := n.number
			n.ladder.next()
			s.after(n.ladder.last*3/4+time.Duration(s.rnd.Int64N(int64(n.ladder.last/2))), func() {
				if n.number == number {
					s.keep(i)
				}
			})
		} else {
			n.ladder.reset()
		}
	})
}

// dial makes a connection: the far half comes up with the hello, the own one with its answer.
func (s *schedule) dial(i int, done func(came bool)) {
	n, far := s.nodes[i], s.nodes[1-i]
	n.dialing = true
	c, number, theirs := &connection{by: i}, n.number, far.number
	if len(s.conns) > 12 {
		s.conns = slices.DeleteFunc(slices.Clone(s.conns), func(c *connection) bool { return c.closed[0] && c.closed[1] })
	}
	s.conns = append(s.conns, c)
	s.note(i, "dial")
	ended := func(came bool) {
		if n.number == number {
			n.dialing = false
			done(came)
		}
	}
	s.after(3*s.trip(), func() {
		if !s.passes() || far.number != theirs || n.number != number {
			c.closed = [2]bool{true, true}
			s.after(shortDial, func() { ended(false) })
			return
		}
		s.adopt(1-i, c, number)
		s.after(s.trip(), func() {
			if !s.passes() || c.closed[i] || n.number != number || far.number != theirs {
				s.end(i, c, nil) // no answer to the hello
				s.after(helloPatience, func() { ended(false) })
				return
			}
			ended(true)
			s.adopt(i, c, theirs)
			s.keep(i)
		})
	})
}

// adopt enters a half into the table of its node, and does what the table says.
func (s *schedule) adopt(i int, c *connection, far instance) {
	n := s.nodes[i]
	if c.closed[i] {
		return
	}
	s.note(i, "adopt")
	s.ports++
	l := &link{id: s.nodes[1-i].id, instance: far, dialled: c.by == i, since: s.now, remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), s.ports)}
	c.halves[i] = l
	superfluous, settle := n.table.add(l)
	for _, old := range superfluous {
		s.end(i, s.of(i, old.link), old.link)
	}
	if settle != nil {
		s.check(i, settle, func() { s.settle(i, settle) })
	}
}

// check pings by a half: then is called when it is answered, else the half ends.
func (s *schedule) check(i int, l *link, then func()) {
	c, n := s.of(i, l), s.nodes[i]
	if c == nil {
		return
	}
	number := n.number
	answered := s.works(c) && s.passes()
	took := 2 * s.trip()
	if !answered {
		took = checkTimeout
	}
	s.after(took, func() {
		switch {
		case n.number != number || c.halves[i] != l:
		case answered:
			s.note(i, "answered")
			if then != nil {
				then()
			}
		default:
			s.note(i, "unanswered")
			s.end(i, c, l)
		}
	})
}

// settle is keeper.settle.
func (s *schedule) settle(i int, l *link) {
	n := s.nodes[i]
	other, number := n.table.keep(l), n.number
	if other == nil {
		return
	}
	s.note(i, "settle")
	s.after(duplicateGrace, func() {
		if n.number == number && s.of(i, l) != nil { // else the other one serves on
			s.end(i, s.of(i, other), other)
		}
	})
}

// end ends a half, and tells the far one, which hears it or finds it out when nothing comes.
func (s *schedule) end(i int, c *connection, l *link) {
	if c == nil || c.closed[i] || l != nil && c.halves[i] != l {
		return
	}
	s.ended(i, c)
	late := s.trip()
	if !s.passes() {
		late = idleTimeout
	}
	s.after(late, func() { s.ended(1-i, c) })
}

// ended is keeper.ended.
func (s *schedule) ended(i int, c *connection) {
	if c.closed[i] {
		return
	}
	s.note(i, "end")
	l, n := c.halves[i], s.nodes[i]
	c.halves[i], c.closed[i] = nil, true
	if l == nil {
		return
	}
	if left := n.table.remove(l, nil); left != nil {
		s.check(i, left, nil)
	}
	s.keep(i)
}

// watch is what time brings: halves that hear nothing end.
func (s *schedule) watch() {
	for _, c := range s.conns {
		for i := range s.nodes {
			switch {
			case c.halves[i] == nil:
			case s.works(c) && s.up:
				c.hurt[i] = time.Time{}
			case c.hurt[i].IsZero():
				c.hurt[i] = s.now
			case s.now.Sub(c.hurt[i]) >= idleTimeout:
				s.ended(i, c)
			}
		}
	}
	for i := range s.nodes {
		s.keep(i)
	}
	s.after(time.Second, s.watch)
}

// read has the user of a node hear some of what there is to hear.
func (s *schedule) read(i, most int) {
	n := s.nodes[i]
	for ; most > 0; most-- {
		e, more := n.mail.take()
		if !more {
			return
		}
		_, had := n.known[e.ID]
		switch e.Kind {
		case Up:
			n.known[e.ID] = e.Remote
		case Moved:
			if !had {
				s.fail("node %d is told that a session has moved of which it was not told", i)
			}
			n.known[e.ID] = e.Remote
		case Down:
			delete(n.known, e.ID)
		case Refused:
		}
	}
}

func (s *schedule) fail(format string, args ...any) {
	if s.failed == "" {
		s.failed = s.now.Format("04:05.000 ") + fmt.Sprintf(format, args...)
	}
}

func (s *schedule) pass(d time.Duration) {
	end := s.now.Add(d)
	for at, ok := s.queue.Next(); ok && !at.After(end) && s.failed == ""; at, ok = s.queue.Next() {
		_, do := s.queue.Pop()
		s.now = at
		do()
	}
	s.now = end
}

func (s *schedule) disturb() {
	r := s.rnd
	i := r.IntN(2)
	n := s.nodes[i]
	current := n.table.link(s.nodes[1-i].id)
	switch r.IntN(10) {
	case 0:
		s.up = !s.up
	case 1:
		s.loss = r.Float64() * 0.7
	case 2, 3: // both dial at once, or beside what there is
		for i, n := range s.nodes {
			if !n.dialing {
				s.dial(i, func(bool) {})
			}
		}
	case 4:
		if !n.dialing {
			s.dial(i, func(bool) {})
		}
	case 5:
		s.begin(i)
	case 6:
		if current != nil {
			s.check(i, current, nil)
		}
	case 7: // it is not wanted any more, or is revoked
		if current != nil {
			s.end(i, s.of(i, current), current)
		}
	case 8:
		n.wants = !n.wants
		s.keep(i)
	case 9:
		s.read(i, r.IntN(4))
	}
}

// right reports whether both have the same session, alone, and their users know of it.
func (s *schedule) right() bool {
	var conns [2]*connection
	for i, n := range s.nodes {
		other := s.nodes[1-i]
		p := n.table.peers[other.id]
		if p == nil || p.spare != nil || n.known[other.id] != p.current.remote {
			return false
		}
		conns[i] = s.of(i, p.current)
	}
	return conns[0] == conns[1] && s.works(conns[0])
}

// described says what the nodes have.
func (s *schedule) described() (text string) {
	for i, n := range s.nodes {
		text += fmt.Sprintf("node %d (wants %t, dials %t): ", i, n.wants, n.dialing)
		if p := n.table.peers[s.nodes[1-i].id]; p != nil {
			for _, l := range []*link{p.current, p.spare} {
				if l == nil {
					continue
				}
				c := s.of(i, l)
				text += fmt.Sprintf("%v dialled %t, of the process there %t, whole %t, %s old; ", l.remote, l.dialled, l.instance == s.nodes[1-i].number, s.works(c), s.now.Sub(l.since))
			}
		}
		text += fmt.Sprintf("its user knows %v; ", n.known)
	}
	return text
}

func (s *schedule) play() (trouble string, took time.Duration) {
	for i, n := range s.nodes {
		n.wants = s.rnd.IntN(2) == 0
		s.begin(i)
	}
	s.after(time.Second, s.watch)
	for range 4 + s.rnd.IntN(16) {
		wait := time.Duration(s.rnd.IntN(600)) * time.Millisecond
		if s.rnd.IntN(8) == 0 {
			wait *= 60
		}
		s.pass(wait)
		s.disturb()
		s.read(s.rnd.IntN(2), s.rnd.IntN(3))
	}
	s.up, s.loss = true, 0
	if !s.nodes[0].wants && !s.nodes[1].wants {
		s.nodes[s.rnd.IntN(2)].wants = true
	}
	took = s.untilRight()
	// Whoever was dialling may have made another one, of which a close was lost before. When all that is over, nothing changes any more.
	s.pass(longDial + helloPatience + 2*duplicateGrace)
	s.untilRight()
	s.pass(idleTimeout)
	s.read(0, 9)
	s.read(1, 9)
	if !s.right() {
		s.fail("there was one session, and is not later; %s", s.described())
	}
	return s.failed, took
}

// untilRight lets time pass until all is right.
func (s *schedule) untilRight() (took time.Duration) {
	begin := s.now
	for s.failed == "" && !s.right() {
		if s.now.Sub(begin) > healBound {
			s.fail("%s after the network was whole; %s", healBound, s.described())
		}
		s.pass(100 * time.Millisecond)
		s.read(0, 9)
		s.read(1, 9)
	}
	return s.now.Sub(begin)
}

// TestSchedules asserts that from every state that two tables come to, the nodes have one session and know of it within healBound once
// the network is whole.
func TestSchedules(t *testing.T) {
	n, until := duetest.Schedules(2000)
	coverage, kinds := make(map[reachedState]int), make(map[string]int)
	var took []time.Duration
	failed := 0
	for seed := range n {
		if time.Now().After(until) {
			break
		}
		s := &schedule{rnd: rand.New(rand.NewPCG(seed, 3)), now: time.Unix(1e9, 0), up: true, coverage: coverage}
		for i := range s.nodes {
			s.nodes[i] = &process{id: identity.NodeID{byte(i + 1)}}
		}
		trouble, d := s.play()
		took = append(took, d)
		if trouble != "" {
			t.Errorf("seed %d: %s", seed, trouble)
			if failed++; failed == 10 {
				break
			}
		}
	}
	for s, count := range coverage {
		kinds[s.event] += count
	}
	slices.Sort(took)
	t.Logf("%d schedules, %d pairs of a state and an event: %v; whole again to one session: median %s, 99 %% %s, worst %s of %s",
		len(took), len(coverage), kinds, took[len(took)/2], took[len(took)*99/100], took[len(took)-1], healBound)
}
