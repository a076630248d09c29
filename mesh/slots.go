package mesh

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"warren/mesh/identity"
)

// How many syncs others may have with this node at once, and how fast they must go. One holds at most a few dozen bytes for each record of
// this node's own set (see conversation), and three buffers.
const (
	maxServed    = 8
	maxOfOne     = 2 // of one member
	maxForwarded = 2 // of all whose streams were forwarded, whose name is a forwarding member's word
	maxStrangers = 1 // of all that are no members

	// A conversation that moves less than slowRate bytes a second, beyond slowGrace, is over. A thin line carries four times as much.
	slowRate  = 2 << 10
	slowGrace = 20 * time.Second
	// yieldAfter is how long a conversation is left alone; then the slowest gives way to one that finds no room.
	yieldAfter = time.Second
)

// source is whose conversations are counted together: a member's, or one of the two sums below.
type source struct {
	id        identity.NodeID
	forwarded bool // of all members whose streams were forwarded; id is zero
}

// stranger is the source of all that are no members.
var stranger = source{}

// most is how many conversations a source may have.
func (s source) most() int {
	switch {
	case s.forwarded:
		return maxForwarded
	case s == stranger:
		return maxStrangers
	}
	return maxOfOne
}

// slot is the place of one conversation, and how it goes.
type slot struct {
	// constant
	from  source
	began time.Time
	end   func() // ends the conversation, soon; may be called more than once

	moved atomic.Int64 // bytes, both ways
}

// pace returns bytes a second so far.
func (s *slot) pace(now time.Time) float64 {
	return float64(s.moved.Load()) / (now.Sub(s.began) + time.Second).Seconds()
}

// until is when the conversation is over unless more bytes move.
func (s *slot) until() time.Time {
	return s.began.Add(slowGrace + time.Duration(float64(s.moved.Load())/slowRate*float64(time.Second)))
}

// slots are the places of the conversations that others have opened.
type slots struct {
	mu   sync.Mutex
	held map[*slot]bool
}

func newSlots() *slots { return &slots{held: make(map[*slot]bool)} }

// take gives a conversation a place, or returns nil. Where there is none the slowest gives way, of the same source when that has its
// share: it is not waited for.
func (s *slots) take(from source, now time.Time, end func()) *slot {
	one := &slot{from: from, began: now, end: end}
	slow, ok := s.enter(one, now)
	if slow != nil {
		slow.end()
	}
	if !ok {
		return nil
	}
	return one
}

func (s *slots) enter(one *slot, now time.Time) (slow *slot, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var same, all []*slot
	for other := range s.held {
		all = append(all, other)
		if other.from == one.from {
			same = append(same, other)
		}
	}
	switch {
	case len(same) >= one.from.most():
		slow = slowest(same, now)
		// One that goes well is not ended for another of the same source.
		if slow != nil && slow.pace(now) >= slowRate {
			slow = nil
		}
		ok = slow != nil
	case len(all) >= maxServed:
		slow = slowest(all, now)
		ok = slow != nil
	default:
		ok = true
	}
	if ok {
		delete(s.held, slow)
		s.held[one] = true
	}
	return slow, ok
}

// leave gives a place back.
func (s *slots) leave(one *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, one)
}

// slowest returns the slowest of some conversations that have had their time to begin, nil when none has.
func slowest(some []*slot, now time.Time) (slow *slot) {
	for _, one := range some {
		if now.Sub(one.began) >= yieldAfter && (slow == nil || one.pace(now) < slow.pace(now)) {
			slow = one
		}
	}
	return slow
}

// metered counts what moves over a stream.
type metered struct {
	net.Conn
	moved *atomic.Int64
}

func (m metered) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	m.moved.Add(int64(n))
	return n, err
}

func (m metered) Write(p []byte) (int, error) {
	n, err := m.Conn.Write(p)
	m.moved.Add(int64(n))
	return n, err
}
