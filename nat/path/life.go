package path

import (
	"net/netip"
	"time"
)

// Times of the checks on the path in use, after RFC 7675 but at the pace that each path needs.
const (
	// silence makes a path suspect: packets out and none in for so long, or a flow that came in and stopped. A suspicion
	// costs one small packet each way when it is wrong.
	silence    = 400 * time.Millisecond
	checkEvery = 200 * time.Millisecond // while suspect
	deadAfter  = time.Second            // of unanswered checks
	firstGrace = 3 * time.Second        // the same before the round trip is known
	idleEvery  = 25 * time.Second       // because most UDP mappings live 30 s
	// followEvery replaces idleEvery on the controlled side while the peer's checks arrive: they and
	// our answers keep the same mappings open.
	followEvery = 100 * time.Second
	// pollEvery is the time between looks at the activity of a path in use; after activeFor without any they end, and
	// begin again with Stirred: an idle peer wakes nobody.
	pollEvery = 200 * time.Millisecond
	activeFor = 2 * time.Second
	// flowPolls looks in a row that all found packets coming in make a flow. The end of one is checked, because this side
	// may have nothing more to send: it would never learn that its own NAT has forgotten it.
	flowPolls = 3
	settle    = 3 * time.Second // after a change of path, in which the peer may still try other pairs
	// lopsided is how much longer a path is kept that goes on to bring WireGuard's packets but answers no check,
	// while another is looked for: our direction is broken, or only the checks are. It is dead as soon as they stop.
	lopsided    = 10 * time.Second
	stillComing = 1200 * time.Millisecond // since the last of them: more than a ping each second leaves between two
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
	unanswered   time.Time // of the first packet sent after the last one heard, zero for none
	lastRx       time.Time // as of the last look
	flow         int       // looks in a row that found packets coming in
	failedChecks int       // since suspectSince
	doubted      bool      // since suspectSince: one check is overdue
	searched     bool      // the same: two are
	extended     bool
	checkID      uint64
	pending      [16]pendingCheck // by checkID
}

type pendingCheck struct {
	id uint64
	to netip.AddrPort
	at time.Time
}

// checkInterval leaves an answer the time to arrive.
func (t *route) checkInterval() time.Duration { return max(checkEvery, t.path.RTT*3/2) }

// suspect begins checking the current path now.
func (t *route) suspect(now time.Time) {
	if t.path.Kind == None || !t.life.suspectSince.IsZero() {
		return
	}
	t.life.suspectSince, t.life.failedChecks, t.life.extended = now, 0, false
	t.life.doubted, t.life.searched = false, false
	t.life.grace = t.path.grace()
	t.sendCheck(now, t.path.Addr)
}

// suspectDirect is suspect for a direct path: the peer begins an introduction when it finds the path broken or has moved, and
// this side may have nothing to send by which it would notice. Relayed peers try for a direct path anyway.
func (t *route) suspectDirect(now time.Time) {
	if t.path.Kind == Direct {
		t.suspect(now)
	}
}

// grace is how long a path that is suspect has to answer. A relay that is moved to has been heard before: if that was long
// ago it may not work any more.
func (p Path) grace() time.Duration {
	if p.RTT == 0 {
		return firstGrace
	}
	return max(deadAfter, 4*p.RTT)
}

func (t *route) sendCheck(now time.Time, to netip.AddrPort) {
	if !t.agreed.ok() {
		return
	}
	l := &t.life
	l.checkID++
	l.pending[l.checkID%uint64(len(l.pending))] = pendingCheck{id: l.checkID, to: to, at: now}
	if to == t.path.Addr {
		l.lastCheck = now
		l.failedChecks++
	}
	t.emit(Check{ID: l.checkID, To: to, Own: t.agreed.own, Remote: t.agreed.remote})
}

// watch looks for the signs of a dead path: packets out and none in, a flow that stopped, a check unanswered, an idle
// path that lost its mapping.
func (t *route) watch(now time.Time, activity Wake) {
	l := &t.life
	switch {
	case t.path.Kind == None:
	case !l.suspectSince.IsZero():
		t.watchSuspect(now, activity)
	case t.silent(now, activity), due(now, l.idleAt):
		t.suspect(now)
	case due(now, l.poll) || l.poll.IsZero():
		l.poll = nextPoll(now, activity)
	}
}

// watchSuspect waits for the answer to a check, and gets ready for its not coming: the longer it is overdue, the more is
// done.
//
//	suspect ──1 check overdue──▶ doubted ──2 overdue──▶ searched ──grace over──▶ dead
//	                             sessions and own       a new introduction,
//	                             address looked at      the path stays in use
func (t *route) watchSuspect(now time.Time, activity Wake) {
	l := &t.life
	since := now.Sub(l.suspectSince)
	known := t.path.RTT != 0 // else nothing is overdue yet
	brings := activity.LastRx.After(l.suspectSince) && now.Sub(activity.LastRx) < stillComing
	switch {
	case t.leaveDirect(now):
		return
	case since >= l.grace && t.altWorks(now), known && since >= t.checkInterval() && t.altOK.After(l.suspectSince):
		t.moveToAlt(now)
		return
	case since >= l.grace && !l.extended && brings:
		l.extended = true
		l.grace += lopsided
		t.news.doubtful = true
	case since >= l.grace, l.extended && !brings:
		t.dead(now)
		return
	case now.Sub(l.lastCheck) >= t.checkInterval():
		t.sendCheck(now, t.path.Addr)
	}
	if known && !l.doubted && since >= t.checkInterval() {
		l.doubted = true
		t.emit(Doubt{Via: t.path.Via})
	}
	if known && !l.searched && since >= 2*t.checkInterval() {
		l.searched = true
		t.news.failing = true
	}
}

// leaveDirect gives a direct path up that answers no check, when UDP is blocked at one of its ends and a relay works. There
// is nothing to wait for then; on a LAN there may be.
func (t *route) leaveDirect(now time.Time) bool {
	l := &t.life
	if !t.trying.forlorn || t.path.Kind != Direct || local(t.path.Addr.Addr()) || l.suspectSince.IsZero() || now.Sub(l.suspectSince) < t.checkInterval() || t.relays.ready() == nil {
		return false
	}
	t.dead(now)
	return true
}

// local reports whether an address may be reached without the Internet.
func local(addr netip.Addr) bool { return addr.IsPrivate() || addr.IsLinkLocalUnicast() }

// silent reports whether the peer should have been heard by now.
func (t *route) silent(now time.Time, activity Wake) bool {
	l := &t.life
	heard := later(l.heard, activity.LastRx)
	switch {
	case !activity.LastTx.After(heard):
		l.unanswered = time.Time{}
	case !l.unanswered.After(heard):
		l.unanswered = activity.LastTx
	}
	stopped := false
	switch {
	case activity.LastRx.After(l.lastRx):
		l.flow++
	case now.Sub(heard) >= silence:
		stopped = l.flow >= flowPolls
		l.flow = 0
	}
	l.lastRx = activity.LastRx
	return stopped || !l.unanswered.IsZero() && now.Sub(l.unanswered) >= silence
}

// nextPoll falls on whole multiples, so that the peers of a node wake it together.
func nextPoll(now time.Time, activity Wake) time.Time {
	if now.Sub(later(activity.LastTx, activity.LastRx)) >= activeFor {
		return time.Time{}
	}
	return now.Add(pollEvery - time.Duration(now.UnixNano()%int64(pollEvery)))
}

// believe ends a suspicion and plans the next check of an idle path.
func (t *route) believe(now time.Time) {
	l := &t.life
	l.suspectSince, l.failedChecks, l.heard, l.unanswered = time.Time{}, 0, now, time.Time{}
	every := idleEvery
	if !t.controlling && now.Sub(l.peerCheck) < 35*time.Second {
		every = followEvery
	}
	l.idleAt = now.Add(every - time.Duration(t.random.Float64()*float64(3*time.Second)))
	l.poll = now.Add(pollEvery) // the path may be in use since before this
}

func (t *route) checkAnswered(now time.Time, id uint64) {
	l := &t.life
	p := l.pending[id%uint64(len(l.pending))]
	if p.id != id || id == 0 {
		return
	}
	l.pending[id%uint64(len(l.pending))] = pendingCheck{}
	t.relayAnswered(now, p)
	switch p.to {
	case t.path.Addr:
		t.path.RTT = max(now.Sub(p.at), time.Microsecond)
		if t.restarted && t.path.Kind == Relayed && t.agreed == t.newest {
			t.set(now, t.path, "the peer has restarted")
		}
		t.believe(now)
	case t.alt:
		t.altOK = now
		if overdue := !l.suspectSince.IsZero() && t.path.RTT != 0 && now.Sub(l.suspectSince) >= t.checkInterval(); overdue || t.path.Kind != Direct {
			t.moveToAlt(now)
		}
	}
}

// peerChecked notices where the peer sends from. An address that is not the path's is a peer whose
// mapping moved, or one that chose otherwise: both addresses are checked and the path moves only if
// it is dead and the other answers.
func (t *route) peerChecked(now time.Time, from netip.AddrPort) {
	l := &t.life
	switch {
	case from == t.path.Addr:
		l.peerCheck = now
		if !t.controlling && l.suspectSince.IsZero() && !l.idleAt.IsZero() {
			l.idleAt = later(l.idleAt, now.Add(idleEvery+settle))
			if last := l.heard.Add(followEvery); l.idleAt.After(last) {
				l.idleAt = last
			}
		}
	case IsVirtual(from.Addr()):
		t.relayChecked(now, from)
	case t.rejects(from.Addr()) || !t.agreed.ok():
	case t.path.Kind == Direct && t.path.RTT == 0 && now.Sub(t.since) < settle, now.Sub(l.lastAlt) < checkEvery:
		// A new path is to answer first, and one check is enough.
	case t.trying.waiting && now.Sub(t.trying.begun) < settle:
		// ICE is about to choose.
	default:
		if t.alt != from {
			t.alt, t.altOK = from, time.Time{}
		}
		l.lastAlt = now
		t.sendCheck(now, from)
		t.suspect(now)
	}
}
