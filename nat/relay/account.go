package relay

import (
	"cmp"
	"net"
	"slices"
	"time"

	"warren/mesh/identity"
)

// Pair is a relayed path between two members, or a half of one that waits for the other, for status.
type Pair struct {
	A, B   identity.NodeID
	Joined bool
	FromA  Traffic // since the two were joined last
	FromB  Traffic
}

// Member is what a relay has forwarded for one member since it started.
type Member struct {
	ID       identity.NodeID
	Channels int
	Sent     Traffic
}

// ledger is what the loop last published: all but the traffic of now, which the counters know.
type ledger struct {
	halves  []half
	members []Member // Sent is by channels that are no more
}

// half is one member's half of a pair, and the other's if it is there.
type half struct {
	from, peer     identity.NodeID
	joined         bool
	counter, other Counter // either may be nil
	listed         bool    // the pair is listed by the half of the smaller ID
}

func trafficOf(c Counter) Traffic {
	if c == nil {
		return Traffic{}
	}
	return c.Traffic()
}

// Snapshot lists the pairs that have at least one half open, and the members for whom anything was forwarded, in the
// order of their IDs.
func (s *Server) Snapshot() (pairs []Pair, members []Member) {
	l := s.published.Load()
	sent := make(map[identity.NodeID]Traffic)
	for _, h := range l.halves {
		sent[h.from] = sent[h.from].plus(trafficOf(h.counter))
		if h.listed {
			pairs = append(pairs, Pair{A: h.from, B: h.peer, Joined: h.joined, FromA: trafficOf(h.counter), FromB: trafficOf(h.other)})
		}
	}
	for _, m := range l.members {
		if m.Sent = m.Sent.plus(sent[m.ID]); m.Channels > 0 || m.Sent.Packets+m.Sent.Dropped > 0 {
			members = append(members, m)
		}
	}
	slices.SortFunc(pairs, func(a, b Pair) int { return cmp.Or(a.A.Compare(b.A), a.B.Compare(b.B)) })
	slices.SortFunc(members, func(a, b Member) int { return a.ID.Compare(b.ID) })
	return pairs, members
}

// Load returns this relay's load as it was last told; that of one that does not relay is 0.
func (s *Server) Load() uint8 {
	if !s.terms.Load().Enabled {
		return 0
	}
	return s.told.Load().load
}

// measure takes one sample and tells it if it is notable; false when there is nothing more to measure.
func (s *Server) measure(now time.Time) (busy bool) {
	load := s.gauge.sample(now, s.table.traffic(), s.terms.Load().Limit, s.options.Socket.Fill())
	s.announce(load)
	return s.table.joined() || load > 0
}

// full is the load of a relay that takes nobody.
const full = 255

// announce tells members the load, if it is another one than they know: that of one that does not relay is full, which is told once.
func (s *Server) announce(load uint8) {
	if !s.terms.Load().Enabled {
		load = full
	}
	before := s.told.Load()
	if d := int(load) - int(before.load); d >= loadStep || -d >= loadStep || load == 0 && d != 0 {
		s.told.Store(&told{load: load, other: make(chan struct{})})
		close(before.other)
	}
}

// tell keeps a member informed of the load until its stream ends.
func (s *Server) tell(from identity.NodeID, c net.Conn) {
	if status := s.watcher(from); status != granted {
		writeReply(c, status, 0)
		return
	}
	defer s.do(func() { s.table.unwatch(from) })
	c.SetReadDeadline(time.Time{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Read(make([]byte, 1)) // nothing more is said: this ends with the stream
	}()
	defer func() { c.Close(); <-ended }()
	c.SetWriteDeadline(time.Now().Add(requestTimeout))
	if writeReply(c, granted, 0) != nil {
		return
	}
	for {
		now := s.told.Load()
		c.SetWriteDeadline(time.Now().Add(requestTimeout))
		if _, err := c.Write([]byte{now.load}); err != nil {
			return
		}
		select {
		case <-now.other:
		case <-ended:
			return
		}
	}
}

// watcher has the loop count one more stream on which a member, if it is one, is told the load.
func (s *Server) watcher(from identity.NodeID) (st status) {
	if !s.options.Members.Member(from) {
		return refusedNotMember
	}
	if !s.do(func() { st = s.table.watch(from) }) {
		return refusedOff
	}
	return st
}
