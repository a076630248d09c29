package node

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/mesh/session"
	"warren/nat"
	"warren/nat/ranges"
	"warren/nat/streams"
	"warren/tunnel/bind"
)

// Whether UDP is blocked: the evidence that the loop has for the machine of package streams, and doing what that says.

// dialsSeenEvery is how often failed dials are looked for while nothing else says that UDP works.
const dialsSeenEvery = 5 * time.Second

// stream tells the machine one thing and does what it says.
func (m *member) stream(in streams.Input) {
	s := m.streams
	before, _, _ := s.machine.State()
	var out []streams.Output
	out, s.wake = s.machine.Step(time.Now(), in)
	for _, o := range out {
		switch o := o.(type) {
		case streams.Probe:
			m.nat.Probe()
		case streams.OpenStream:
			m.openStream(o.Ref)
		case streams.LeaveStream:
			if d := s.dialled[o.ID]; d != nil && d.serial == o.Serial {
				d.leaving = true
				s.leave = append(s.leave, o.ID)
			}
		case streams.CloseStream:
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
func (m *member) udpChanged(before, now streams.State, reason string) {
	level := m.log.Debug
	if now == streams.Blocked || before == streams.Returning {
		level = m.log.Info
	}
	level("UDP", "state", now.String(), "reason", reason)
	m.publishRoutes()
	m.nat.AnchorsChanged() // others are to be asked
	if now == streams.Blocked && before != streams.Returning {
		m.nat.Check() // what does not answer either makes room for a relay
	}
	if before != streams.Returning || now != streams.Open {
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
	if state, _, _ := s.machine.State(); state == streams.Blocked {
		if look := time.Now().Add(blockedLookEvery); wake.IsZero() || look.Before(wake) {
			wake = look
		}
	}
	if wake.IsZero() {
		s.timer.Stop()
		return
	}
	s.timer.Reset(time.Until(wake))
}

// streamAnchors lists the members to which streams may lead, best first: those whose sessions are kept, as far as the
// Internet can reach them. Where it reaches none, addresses of private networks are as good (private).
func streamAnchors(f facts) (ids []identity.NodeID, private bool) {
	anchors, up := planAnchors(f)
	list := func(counts func(netip.Addr) bool) (ids []identity.NodeID) {
		for _, m := range anchors {
			if slices.ContainsFunc(m.Record.Endpoints, func(a netip.AddrPort) bool { return counts(a.Addr()) }) {
				ids = append(ids, m.ID)
			}
		}
		if up > 0 {
			return ids
		}
		for _, c := range f.contacts {
			// Who is known and names no endpoint accepts no streams.
			known := slices.ContainsFunc(f.members, func(m roster.Member) bool { return m.ID == c.ID })
			if !known && c.ID != f.self && counts(c.Addr.Addr()) && !slices.Contains(ids, c.ID) {
				ids = append(ids, c.ID)
			}
		}
		return ids
	}
	if ids = list(ranges.IsPublic); len(ids) > 0 {
		return ids, false
	}
	return list(netip.Addr.IsGlobalUnicast), true
}

// followAnchors tells the machine who the anchors are and which sessions with them go by UDP, as far as it is new, and
// ends the sessions that are to leave their streams.
func (m *member) followAnchors(f facts) {
	s := m.streams
	if ids, private := streamAnchors(f); !slices.Equal(ids, s.anchors) || private != s.signs.everywhere.Load() {
		s.anchors = ids
		s.signs.everywhere.Store(private)
		m.publishRoutes()
		m.nat.AnchorsChanged()
		m.stream(streams.Anchors{IDs: ids})
	}
	for id := range s.udp {
		if !slices.Contains(s.anchors, id) || !m.byUDP(id) {
			delete(s.udp, id)
			m.stream(streams.SessionDown{ID: id})
		}
	}
	state, since, _ := s.machine.State()
	for _, id := range s.anchors {
		// A session that was there before UDP was doubted proves nothing.
		if !s.udp[id] && m.byUDP(id) && (state == streams.Open || m.up[id].since.After(since)) {
			s.udp[id] = true
			m.stream(streams.SessionUp{ID: id})
		}
	}
	for _, id := range s.leave {
		if bind.IsStream(m.up[id].remote.Addr()) {
			m.sessions.Drop(id, session.CodeUnneeded, "UDP works again")
		}
	}
	s.leave = nil
	m.moveSessions()
	m.planStreamWake()
}

// moveSessions ends the sessions by UDP with the anchors to which a stream leads, so that they are dialled through it: left
// alone they would take long to notice. It comes after the targets have been told the streams.
func (m *member) moveSessions() {
	if state, _, _ := m.streams.machine.State(); state != streams.Blocked {
		return
	}
	for id := range m.streams.targets() {
		if m.byUDP(id) {
			m.sessions.Drop(id, session.CodeUnresponsive, "UDP is blocked")
		}
	}
}

// byUDP reports whether there is a session with a member over the Internet by UDP.
func (m *member) byUDP(id identity.NodeID) bool {
	s, up := m.up[id]
	return up && !bind.IsVirtual(s.remote.Addr()) && m.streams.signs.counts(s.remote.Addr())
}

// leaveNetwork ends the streams whose own address this machine does not have any more. TCP would take long to notice.
func (m *member) leaveNetwork() {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return // TCP will notice
	}
	ours := func(local netip.Addr) bool {
		return slices.ContainsFunc(addrs, func(a net.Addr) bool {
			prefix, ok := a.(*net.IPNet)
			return ok && prefix.IP.Equal(local.AsSlice())
		})
	}
	for _, d := range m.streams.dialled {
		if d.end.local.IsValid() && !ours(d.end.local) {
			m.socket.DetachStream(d.end.virtual)
		}
	}
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
		m.stream(streams.Doubt{})
	}
}

// mayDoubtDials reports whether failed dials are the only evidence.
func (m *member) mayDoubtDials() bool {
	state, _, _ := m.streams.machine.State()
	return state == streams.Open && len(m.streams.anchors) > 0 && len(m.streams.udp) == 0
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
		if status.Attempts > s.attempts[status.ID] && status.Silent {
			m.stream(streams.DialFailed{ID: status.ID})
		}
		s.attempts[status.ID] = status.Attempts
	}
}
