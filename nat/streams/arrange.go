package streams

import (
	"time"

	"warren/mesh/identity"
)

// The streams that the machine has opened and closed, to have as many as it wants.

// close ends a stream, which may be opened again at any time.
func (m *Machine) close(id identity.NodeID, s *slot) {
	m.emit(CloseStream{Ref{id, s.serial}})
	*s = slot{serial: s.serial}
}

func (m *Machine) streamEnded(now time.Time, ref Ref) {
	s := m.streams[ref.ID]
	if s == nil || s.serial != ref.Serial || s.phase == streamDown {
		return
	}
	if s.phase != streamOpening && now.Sub(s.since) >= steady {
		*s = slot{serial: s.serial, at: now}
		return
	}
	s.failures++
	wait := reopenMost
	if s.failures < 8 {
		wait = min(reopenFirst<<(s.failures-1), reopenMost)
	}
	s.phase, s.since, s.at = streamDown, now, now.Add(m.jittered(wait))
}

// arrange opens and closes streams until there are as many as wanted.
func (m *Machine) arrange(now time.Time) {
	up, opening := 0, 0
	for _, id := range m.anchors {
		switch s := m.streams[id]; {
		case s.phase == streamLeaving && !now.Before(s.at):
			m.close(id, s)
		case s.phase == streamUp && up == wantedStreams:
			m.close(id, s) // several were tried at once
		case s.phase == streamUp:
			up++
		case s.phase == streamOpening:
			opening++
		}
	}
	streaming := m.streaming(now)
	switch {
	case up > 0 || !streaming:
		m.lonely = time.Time{}
	case m.lonely.IsZero():
		m.lonely = now
	}
	if !streaming {
		return
	}
	for _, id := range m.anchors {
		s := m.streams[id]
		if s.phase != streamDown || now.Before(m.openAt(now, s)) {
			continue
		}
		if opening >= m.mayOpen(now, up) {
			return
		}
		m.serial++
		s.phase, s.since, s.serial = streamOpening, now, m.serial
		opening++
		m.emit(OpenStream{Ref{id, s.serial}})
	}
}

// openAt is when a stream that is down may be opened.
func (m *Machine) openAt(now time.Time, s *slot) time.Time {
	if m.lonely.IsZero() || s.at.IsZero() {
		return s.at
	}
	return earlier(s.at, s.since.Add(lonelyFirst+now.Sub(m.lonely)/lonelyShare))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// streaming reports whether streams are wanted.
func (m *Machine) streaming(now time.Time) bool {
	switch m.state {
	case Blocked, Returning:
		return true
	case Trying:
		return now.Sub(m.since) >= headStart && !m.spares(now)
	}
	return false
}

// mayOpen returns how many streams may be in the opening. The first anchors of the list may be gone, so more are tried
// the longer none is up.
func (m *Machine) mayOpen(now time.Time, up int) int {
	if up > 0 {
		return wantedStreams - up
	}
	return min(wantedStreams+int(now.Sub(m.since)/moreEvery), mostOpening)
}

// wake returns when something is due.
func (m *Machine) wake(now time.Time) (first time.Time) {
	due := func(t time.Time) {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	up, opening, ready := 0, 0, false
	for _, s := range m.streams {
		switch s.phase {
		case streamLeaving:
			due(s.at)
		case streamUp:
			up++
		case streamOpening:
			opening++
		}
	}
	for _, s := range m.streams {
		if s.phase == streamDown && m.streaming(now) && up < wantedStreams {
			if at := m.openAt(now, s); !at.After(now) {
				ready = true
			} else {
				due(at)
			}
		}
	}
	switch m.state {
	case Trying:
		due(m.probeAt)
		m.dueInTrial(now, due)
	case Blocked:
		due(m.probeAt)
	case Returning:
		due(m.probeAt)
		due(m.since.Add(m.confirm))
		due(m.answered.Add(confirmGap))
	}
	if ready && up == 0 && opening >= wantedStreams && opening < mostOpening {
		due(m.since.Add(moreEvery * time.Duration(opening-wantedStreams+1)))
	}
	return first
}

// dueInTrial names the times that end a trial, or a part of it.
func (m *Machine) dueInTrial(now time.Time, due func(time.Time)) {
	for _, after := range []time.Duration{headStart, decisive, trialTime, spared} {
		if at := m.since.Add(after); at.After(now) {
			due(at)
			return
		}
	}
}
