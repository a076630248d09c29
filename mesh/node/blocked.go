package node

import (
	"slices"
	"strings"
	"time"

	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/mesh/session"
	"warren/nat"
	"warren/nat/fallback"
	"warren/tunnel/bind"
)

// Whether UDP is blocked: the evidence that the loop has for fallback's machine, and doing what that says.

// dialsSeenEvery is how often failed dials are looked for while nothing else says that UDP works.
const dialsSeenEvery = 5 * time.Second

// stream tells the machine one thing and does what it says.
func (m *member) stream(in fallback.Input) {
	s := m.streams
	before, _, _ := s.machine.State()
	var out []fallback.Output
	out, s.wake = s.machine.Step(time.Now(), in)
	for _, o := range out {
		switch o := o.(type) {
		case fallback.Probe:
			m.nat.Probe()
		case fallback.OpenStream:
			m.openStream(o.Ref)
		case fallback.LeaveStream:
			if d := s.dialled[o.ID]; d != nil && d.serial == o.Serial {
				d.leaving = true
				s.leave = append(s.leave, o.ID)
			}
		case fallback.CloseStream:
			if d := s.dialled[o.ID]; d != nil && d.serial == o.Serial {
				delete(s.dialled, o.ID)
				d.cancel()
				m.streamLost(o.ID, d.end)
			}
		}
	}
	m.planStreamWake()
	if state, _, reason := s.machine.State(); state != before {
		m.udpChanged(before, state, reason)
	}
}

// udpChanged is told that the machine believes something else of UDP now.
func (m *member) udpChanged(before, now fallback.State, reason string) {
	level := m.log.Debug
	if now == fallback.Blocked || before == fallback.Returning {
		level = m.log.Info
	}
	level("UDP", "state", now.String(), "reason", reason)
	m.publishRoutes()
	m.nat.AnchorsChanged() // others are to be asked
	if before != fallback.Returning || now != fallback.Open {
		return
	}
	for id, p := range m.peers {
		if p.path.Kind != nat.Direct {
			m.nat.Introduce(id)
		}
	}
}

// planStreamWake sets the timer to when the machine, or seeDials, is next to be stepped.
func (m *member) planStreamWake() {
	s := m.streams
	wake := s.wake
	if poll := s.seen.Add(dialsSeenEvery); m.mayDoubtDials() && (wake.IsZero() || poll.Before(wake)) {
		wake = poll
	}
	if wake.IsZero() {
		s.timer.Stop()
		return
	}
	s.timer.Reset(time.Until(wake))
}

// streamAnchors lists the members to which streams may lead, best first: those whose sessions are kept, as far as the
// Internet can reach them.
func streamAnchors(f facts) (ids []identity.NodeID) {
	anchors, up := planAnchors(f)
	for _, m := range anchors {
		if len(publicOf(m.Record.Endpoints)) > 0 {
			ids = append(ids, m.ID)
		}
	}
	if up > 0 {
		return ids
	}
	for _, c := range f.contacts {
		gone := slices.ContainsFunc(f.members, func(m roster.Member) bool { return m.ID == c.ID && m.State != roster.Active })
		if !gone && c.ID != f.self && isPublic(c.Addr.Addr()) && !slices.Contains(ids, c.ID) {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// followAnchors tells the machine who the anchors are and which sessions with them go by UDP, as far as it is new, and
// ends the sessions that are to leave their streams.
func (m *member) followAnchors(f facts) {
	s := m.streams
	if ids := streamAnchors(f); !slices.Equal(ids, s.anchors) {
		s.anchors = ids
		m.publishRoutes()
		m.nat.AnchorsChanged()
		m.stream(fallback.Anchors{IDs: ids})
	}
	for id := range s.udp {
		if !slices.Contains(s.anchors, id) || !m.byUDP(id) {
			delete(s.udp, id)
			m.stream(fallback.SessionDown{ID: id})
		}
	}
	for _, id := range s.anchors {
		if !s.udp[id] && m.byUDP(id) {
			s.udp[id] = true
			m.stream(fallback.SessionUp{ID: id})
		}
	}
	for _, id := range s.leave {
		if bind.IsStream(m.up[id].remote.Addr()) {
			m.sessions.Drop(id, session.CodeUnneeded, "UDP works again")
		}
	}
	s.leave = nil
	m.planStreamWake()
}

// byUDP reports whether there is a session with a member over the Internet by UDP.
func (m *member) byUDP(id identity.NodeID) bool {
	s, up := m.up[id]
	return up && !bind.IsVirtual(s.remote.Addr()) && isPublic(s.remote.Addr())
}

// streamSessionDown is told that a session ended. Silence is evidence against the way that it went.
func (m *member) streamSessionDown(e sessionEvent) {
	if e.ByPeer || e.Code != session.CodeLost && e.Code != session.CodeUnresponsive {
		return
	}
	remote := m.up[e.ID].remote
	switch {
	case bind.IsStream(remote.Addr()):
		m.socket.DetachStream(remote)
	case m.streams.udp[e.ID]:
		m.stream(fallback.Doubt{})
	}
}

// mayDoubtDials reports whether failed dials are the only evidence.
func (m *member) mayDoubtDials() bool {
	state, _, _ := m.streams.machine.State()
	return state == fallback.Open && len(m.streams.anchors) > 0 && len(m.streams.udp) == 0
}

// seeDials tells the machine of rounds of dialling anchors that ended without an answer.
func (m *member) seeDials(now time.Time) {
	s := m.streams
	if !m.mayDoubtDials() {
		clear(s.attempts)
		return
	}
	if now.Sub(s.seen) < dialsSeenEvery {
		return
	}
	s.seen = now
	for _, status := range m.sessions.Snapshot() {
		if !slices.Contains(s.anchors, status.ID) {
			continue
		}
		silent := strings.Contains(status.LastError, "deadline exceeded") || strings.Contains(status.LastError, "timeout")
		if status.Attempts > s.attempts[status.ID] && silent {
			m.stream(fallback.DialFailed{ID: status.ID})
		}
		s.attempts[status.ID] = status.Attempts
	}
}
