package path

import (
	"fmt"
	"net/netip"
	"time"
)

// Times of the checks on the path in use, after RFC 7675 but at the pace that each path needs.
const (
	silence    = time.Second            // packets out and none in for so long make a path suspect
	checkEvery = 200 * time.Millisecond // while suspect
	deadAfter  = time.Second            // of unanswered checks
	firstGrace = 3 * time.Second        // the same before the round trip is known
	idleEvery  = 25 * time.Second       // because most UDP mappings live 30 s
	// followEvery replaces idleEvery on the controlled side while the peer's checks arrive: they and
	// our answers keep the same mappings open.
	followEvery = 100 * time.Second
	busyPoll    = time.Second // between looks at the activity of a peer that was lately sent to
	idlePoll    = 5 * time.Second
	busyFor     = time.Minute
	settle      = 3 * time.Second // after a change of path, in which the peer may still try other pairs
	// lopsided is how much longer a path is kept that brings WireGuard's packets but answers no check,
	// while another is looked for: our direction is broken, or only the checks are.
	lopsided = 10 * time.Second
)

// life is the watch over the current path.
type life struct {
	suspectSince time.Time     // zero when the path is believed in
	grace        time.Duration // until dead, from suspectSince
	lastCheck    time.Time
	lastAlt      time.Time
	heard        time.Time // of the path: the last answer, or its beginning
	peerCheck    time.Time // the peer's last check over this path
	idleAt       time.Time
	poll         time.Time
	failedChecks int // since suspectSince
	extended     bool
	checkID      uint64
	pending      [16]pendingCheck // by checkID
}

type pendingCheck struct {
	id uint64
	to netip.AddrPort
	at time.Time
}

func (l *life) wake(m *Machine) time.Time {
	if m.cur.path.Kind == None {
		return time.Time{}
	}
	if !l.suspectSince.IsZero() {
		return earlier(l.lastCheck.Add(m.checkInterval()), l.suspectSince.Add(l.grace))
	}
	return earlier(l.idleAt, l.poll)
}

// checkInterval leaves an answer the time to arrive.
func (m *Machine) checkInterval() time.Duration { return max(checkEvery, m.cur.path.RTT*3/2) }

// suspect begins checking the current path now.
func (m *Machine) suspect(now time.Time) {
	if m.cur.path.Kind == None || !m.life.suspectSince.IsZero() {
		return
	}
	m.life.suspectSince, m.life.failedChecks, m.life.extended = now, 0, false
	m.life.grace = max(deadAfter, 4*m.cur.path.RTT)
	if m.cur.path.RTT == 0 {
		m.life.grace = firstGrace
	}
	m.sendCheck(now, m.cur.path.Addr)
}

func (m *Machine) sendCheck(now time.Time, to netip.AddrPort) {
	if !m.agreed.ok {
		return
	}
	l := &m.life
	l.checkID++
	l.pending[l.checkID%uint64(len(l.pending))] = pendingCheck{id: l.checkID, to: to, at: now}
	if to == m.cur.path.Addr {
		l.lastCheck = now
		l.failedChecks++
	}
	m.emit(Check{ID: l.checkID, To: to, Own: m.agreed.own, Remote: m.agreed.remote})
}

// watchPath looks for the three signs of a dead path: packets out and none in, a check unanswered,
// an idle path that lost its mapping.
func (m *Machine) watchPath(now time.Time, activity Wake) {
	l := &m.life
	if m.cur.path.Kind == None {
		return
	}
	if !l.suspectSince.IsZero() {
		switch {
		case now.Sub(l.suspectSince) >= l.grace && m.altWorks(now):
			m.moveToAlt(now)
		case now.Sub(l.suspectSince) >= l.grace && !l.extended && activity.LastRx.After(l.suspectSince):
			l.extended = true
			l.grace += lopsided
			m.search(now)
		case now.Sub(l.suspectSince) >= l.grace:
			m.dead(now)
		case now.Sub(l.lastCheck) >= m.checkInterval():
			m.sendCheck(now, m.cur.path.Addr)
		}
		return
	}
	heard := later(l.heard, activity.LastRx)
	switch {
	case activity.LastTx.Sub(heard) > silence:
		m.suspect(now)
	case due(now, l.idleAt):
		m.suspect(now)
	}
	if due(now, l.poll) || l.poll.IsZero() {
		l.poll = nextPoll(now, activity)
	}
}

// nextPoll falls on whole multiples, so that the peers of a node wake it together.
func nextPoll(now time.Time, activity Wake) time.Time {
	every := idlePoll
	if now.Sub(activity.LastTx) < busyFor {
		every = busyPoll
	}
	return now.Add(every - time.Duration(now.UnixNano()%int64(every)))
}

// believe ends a suspicion and plans the next check of an idle path.
func (m *Machine) believe(now time.Time) {
	l := &m.life
	l.suspectSince, l.failedChecks, l.heard = time.Time{}, 0, now
	every := idleEvery
	if !m.controlling && now.Sub(l.peerCheck) < 35*time.Second {
		every = followEvery
	}
	l.idleAt = now.Add(every - time.Duration(m.cfg.Jitter()*float64(3*time.Second)))
	if l.poll.IsZero() || !l.poll.After(now) {
		l.poll = now.Add(busyPoll - time.Duration(now.UnixNano()%int64(busyPoll)))
	}
}

func (m *Machine) checkAnswered(now time.Time, id uint64) {
	l := &m.life
	p := l.pending[id%uint64(len(l.pending))]
	if p.id != id || id == 0 {
		return
	}
	l.pending[id%uint64(len(l.pending))] = pendingCheck{}
	switch p.to {
	case m.cur.path.Addr:
		m.cur.path.RTT = max(now.Sub(p.at), time.Microsecond)
		m.believe(now)
	case m.relay.addr:
		if m.relay.phase == relayChecking {
			m.relay.phase, m.relay.why = relayReady, ""
			m.useRelay(now)
		}
	case m.cur.alt:
		m.cur.altOK = now
		if m.cur.path.Kind != Direct {
			m.moveToAlt(now)
		}
	}
}

// peerChecked notices where the peer sends from. An address that is not the path's is a peer whose
// mapping moved, or one that chose otherwise: both addresses are checked and the path moves only if
// it is dead and the other answers.
func (m *Machine) peerChecked(now time.Time, from netip.AddrPort) {
	l := &m.life
	switch {
	case from == m.cur.path.Addr:
		l.peerCheck = now
		if !m.controlling && l.suspectSince.IsZero() && !l.idleAt.IsZero() {
			l.idleAt = later(l.idleAt, now.Add(idleEvery+settle))
			if last := l.heard.Add(followEvery); l.idleAt.After(last) {
				l.idleAt = last
			}
		}
	case IsVirtual(from.Addr()):
		// The peer uses or tries the relay. If we have long been direct, it may know why.
		if m.cur.path.Kind == Direct && now.Sub(m.cur.since) >= settle {
			m.suspect(now)
		}
	case m.cfg.Reject != nil && m.cfg.Reject(from.Addr()) || !m.agreed.ok:
	case m.cur.path.Kind == Direct && now.Sub(m.cur.since) < settle || now.Sub(l.lastAlt) < checkEvery:
	case m.sig.waiting && now.Sub(m.sig.begun) < settle:
		// ICE is about to choose.
	default:
		if m.cur.alt != from {
			m.cur.alt, m.cur.altOK = from, time.Time{}
			m.report(false)
		}
		l.lastAlt = now
		m.sendCheck(now, from)
		m.suspect(now)
	}
}

// altWorks reports whether the peer was lately reached at the address that its checks come from.
func (m *Machine) altWorks(now time.Time) bool {
	return m.cur.alt.IsValid() && now.Sub(m.cur.altOK) < firstGrace
}

// moveToAlt adopts the address that the peer's checks come from.
func (m *Machine) moveToAlt(now time.Time) {
	addr := m.cur.alt
	m.cur.alt = netip.AddrPort{}
	m.endAttempt()
	m.try.won, m.try.failure = true, ""
	m.retry = ladder{}
	m.setPath(now, Path{Addr: addr, Kind: Direct}, "the peer has moved")
	m.relay.retire(now)
}

// dead gives the path up for the next best, and looks for a better one at once.
func (m *Machine) dead(now time.Time) {
	old := m.cur.path
	reason := fmt.Sprintf("%s path to %s is dead: %d checks unanswered in %s",
		old.Kind, old.Addr, m.life.failedChecks, now.Sub(m.life.suspectSince).Round(100*time.Millisecond))
	if old.Kind == Relayed {
		reason = fmt.Sprintf("relay through %s is dead: %d checks unanswered", old.Via.Short(), m.life.failedChecks)
	}
	m.setPath(now, Path{}, reason)
	m.agree()
	if old.Kind == Relayed {
		m.closeRelay()
		m.relay.why = reason
	}
	m.useRelay(now)
	m.retry.rung = 0
	m.search(now)
}

// search makes sure that a better path is being looked for, and that a running attempt has its relay.
func (m *Machine) search(now time.Time) {
	switch {
	case m.try.on && m.relay.phase == relayOff:
		m.planRelay(now, m.try.relay)
	case !m.try.on && !m.sig.waiting:
		m.begin(now)
	}
}
