package relay

import (
	"cmp"
	"context"
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

// account returns that of a member. The caller holds mu.
func (s *Server) account(id identity.NodeID) *account {
	a := s.accounts[id]
	if a == nil {
		a = new(account)
		s.accounts[id] = a
	}
	return a
}

// retire keeps the counts of a direction that was just removed. The caller holds mu.
func (s *Server) retire(from identity.NodeID, ch *channel) {
	if ch.load != nil {
		a := s.account(from)
		a.ended = a.ended.plus(ch.load())
		ch.load = nil
	}
}

func (c *channel) traffic() Traffic {
	if c == nil || c.load == nil {
		return Traffic{}
	}
	return c.load()
}

// Snapshot lists the pairs that have at least one half open, and the members for whom anything was forwarded, in the
// order of their IDs.
func (s *Server) Snapshot() (pairs []Pair, members []Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for from, peers := range s.channels {
		for peer, ch := range peers {
			other := s.channels[peer][from]
			if other != nil && from.Compare(peer) > 0 {
				continue // listed from the other side
			}
			pairs = append(pairs, Pair{A: from, B: peer, Joined: ch.joined, FromA: ch.traffic(), FromB: other.traffic()})
		}
	}
	for id := range s.accounts {
		if m := s.member(id); m.Channels > 0 || m.Sent.Packets+m.Sent.Dropped > 0 {
			members = append(members, m)
		}
	}
	slices.SortFunc(pairs, func(a, b Pair) int { return cmp.Or(a.A.Compare(b.A), a.B.Compare(b.B)) })
	slices.SortFunc(members, func(a, b Member) int { return a.ID.Compare(b.ID) })
	return pairs, members
}

// member sums up what was forwarded for one. The caller holds mu.
func (s *Server) member(id identity.NodeID) Member {
	m := Member{ID: id, Channels: len(s.channels[id]), Sent: s.accounts[id].ended}
	for _, ch := range s.channels[id] {
		m.Sent = m.Sent.plus(ch.traffic())
	}
	return m
}

// Load returns this relay's load as it was last told.
func (s *Server) Load() uint8 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.load
}

// Run measures the load while anything is joined, and otherwise sleeps. It returns when ctx ends.
func (s *Server) Run(ctx context.Context) error {
	var g gauge
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.stir:
		}
		tick := time.NewTicker(loadEvery)
		for busy := true; busy; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return ctx.Err()
			case <-tick.C:
				busy = s.measure(&g, time.Now())
			}
		}
		tick.Stop()
	}
}

// measure takes one sample and tells it if it is notable; false when there is nothing more to measure.
func (s *Server) measure(g *gauge, now time.Time) (busy bool) {
	limit, fill := s.options.Limit(), s.options.Fill()
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum Traffic
	for id := range s.accounts {
		sum = sum.plus(s.member(id).Sent)
	}
	for _, peers := range s.channels {
		for _, ch := range peers {
			busy = busy || ch.joined
		}
	}
	load := g.sample(now, sum, limit, fill)
	if d := int(load) - int(s.load); d >= loadStep || -d >= loadStep || load == 0 && d != 0 {
		s.load = load
		close(s.retold)
		s.retold = make(chan struct{})
	}
	return busy || load > 0
}

// tell keeps a member informed of the load until its stream ends.
func (s *Server) tell(from identity.NodeID, c net.Conn) {
	if status := s.watch(from); status != granted {
		writeReply(c, status, 0)
		return
	}
	defer s.unwatch(from)
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
		s.mu.Lock()
		load, retold := s.load, s.retold
		s.mu.Unlock()
		c.SetWriteDeadline(time.Now().Add(requestTimeout))
		if _, err := c.Write([]byte{load}); err != nil {
			return
		}
		select {
		case <-retold:
		case <-ended:
			return
		}
	}
}

func (s *Server) watch(from identity.NodeID) status {
	switch {
	case !s.options.Enabled():
		return refusedOff
	case !s.options.Member(from):
		return refusedNotMember
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.account(from)
	if !a.ask(time.Now()) || a.watches >= maxLoadStreams {
		return refusedBusy
	}
	a.watches++
	return granted
}

func (s *Server) unwatch(from identity.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[from]; a != nil && a.watches > 0 {
		a.watches--
	}
}
