package path

import (
	"net/netip"
	"time"
	"warren/nat/due"
)

// Times of the checks on the path in use, after RFC 7675 but at the pace that each path needs.
const (
	// silence makes a path suspect: packets out and none in for so long, or a flow that came in and stopped. A suspicion
	// costs one small packet each way when it is wrong. A path whose answers take longer has as long as they may take.
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
	// hollowFor is how long a path may answer checks, take packets all the time, and bring none of WireGuard's: a peer that gets
	// any sends an empty one within ten seconds. Packets go out all the time while less than goingOut is between two, as between
	// WireGuard's tries of a handshake.
	hollowFor = 15 * time.Second
	goingOut  = 6 * time.Second
)

// life is what the signs of life of the path in use were so far. A suspicion ends with an answer or with the path:
//
//	suspect ──1 check overdue──▶ doubted ──2 overdue──▶ searched ──grace over──▶ dead
//	                             sessions and own       a new introduction,
//	                             address looked at      the path stays in use
type life struct {
	suspectSince time.Time     // zero when the path is believed in
	grace        time.Duration // until dead, from suspectSince
	lastCheck    time.Time
	heard        time.Time // of the path: the last answer, or its beginning
	peerCheck    time.Time // the peer's last check over this path
	idleAt       time.Time
	poll         time.Time
	unanswered   time.Time // of the first packet sent after the last one heard, zero for none
	lastRx       time.Time // as of the last look
	lastTx       time.Time // the same
	goesOut      time.Time // of the first packet since the last one that came in, zero for none
	flow         int       // looks in a row that found packets coming in
	failedChecks int       // since suspectSince
	doubted      bool      // since suspectSince: one check is overdue
	searched     bool      // the same: two are
	extended     bool
}

// checkInterval leaves an answer over the path the time to arrive.
func (p Path) checkInterval() time.Duration { return max(checkEvery, p.trip()*3/2) }

// grace is how long a path that is suspect has to answer. A relay that is moved to has been heard before: if that was long
// ago it may not work any more.
func (p Path) grace() time.Duration {
	if p.RTT == 0 {
		return firstGrace
	}
	return max(deadAfter, 4*p.trip())
}

// local reports whether an address may be reached without the Internet.
func local(addr netip.Addr) bool { return addr.IsPrivate() || addr.IsLinkLocalUnicast() }

// wake is when the next check or look is due.
func (l *life) wake(interval time.Duration) time.Time {
	if l.suspect() {
		return due.Sooner(l.lastCheck.Add(interval), l.suspectSince.Add(l.grace))
	}
	return due.Sooner(l.idleAt, l.poll)
}

func (l *life) suspect() bool { return !l.suspectSince.IsZero() }

// begin is that of a path that is moved to: it is to answer first.
func (l *life) begin(now time.Time, grace time.Duration) {
	*l = life{heard: now, suspectSince: now, grace: grace}
}

// accuse begins a suspicion.
func (l *life) accuse(now time.Time, grace time.Duration) {
	l.suspectSince, l.grace, l.failedChecks = now, grace, 0
	l.doubted, l.searched, l.extended = false, false, false
}

// excuse takes a time in which this side did nothing off those in which the peer was silent.
func (l *life) excuse(now time.Time, late time.Duration) {
	for _, since := range []*time.Time{&l.suspectSince, &l.unanswered} {
		if !since.IsZero() {
			*since = due.Sooner(now, since.Add(late))
		}
	}
}

// believe ends a suspicion. An idle path is checked next at idle.
func (l *life) believe(now, idle time.Time) {
	l.suspectSince, l.failedChecks, l.heard, l.unanswered = time.Time{}, 0, now, time.Time{}
	l.idleAt = idle
	l.poll = now.Add(pollEvery) // the path may be in use since before this
}

// checked notes that a check is out.
func (l *life) checked(now time.Time) {
	l.lastCheck = now
	l.failedChecks++
}

// silent reports whether the peer should have been heard by now, over a path whose answers have come after the interval at the latest.
func (l *life) silent(now time.Time, activity Wake, interval time.Duration) bool {
	long := max(silence, interval)
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
	case now.Sub(heard) >= long:
		stopped = l.flow >= flowPolls
		l.flow = 0
	}
	l.lastRx = activity.LastRx
	return stopped || !l.unanswered.IsZero() && now.Sub(l.unanswered) >= long
}

// hollow reports whether packets have gone out for long and none came in, whatever checks show.
func (l *life) hollow(activity Wake) bool {
	pause := activity.LastTx.Sub(l.lastTx) > goingOut
	l.lastTx = activity.LastTx
	switch {
	case !activity.LastTx.After(activity.LastRx):
		l.goesOut = time.Time{}
	case l.goesOut.IsZero(), pause, activity.LastRx.After(l.goesOut):
		l.goesOut = activity.LastTx
	}
	return !l.goesOut.IsZero() && activity.LastTx.Sub(l.goesOut) >= hollowFor
}

// verdict is what becomes of a path that is suspect.
type verdict uint8

const (
	holdOn     verdict = iota // the check that is out may still be answered
	checkAgain                // another one is due
	seekOther                 // it brings packets and answers nothing: it is kept, while another is looked for
	giveUp                    // it is dead
)

// judge says what becomes of the path at now.
func (l *life) judge(now time.Time, activity Wake, interval time.Duration) verdict {
	since := now.Sub(l.suspectSince)
	brings := activity.LastRx.After(l.suspectSince) && now.Sub(activity.LastRx) < stillComing
	switch {
	case since >= l.grace && !l.extended && brings:
		l.extended = true
		l.grace += lopsided
		return seekOther
	case since >= l.grace, l.extended && !brings:
		return giveUp
	case now.Sub(l.lastCheck) >= interval:
		return checkAgain
	}
	return holdOn
}

// overdue reports what the path has just become by an answer's not coming, once in a suspicion: doubtful with the first
// check, failing with the second.
func (l *life) overdue(now time.Time, interval time.Duration) (doubtful, failing bool) {
	since := now.Sub(l.suspectSince)
	doubtful = !l.doubted && since >= interval
	failing = !l.searched && since >= 2*interval
	l.doubted, l.searched = l.doubted || doubtful, l.searched || failing
	return doubtful, failing
}

// nextPoll falls on whole multiples, so that the peers of a node wake it together.
func nextPoll(now time.Time, activity Wake) time.Time {
	if now.Sub(later(activity.LastTx, activity.LastRx)) >= activeFor {
		return time.Time{}
	}
	return now.Add(pollEvery - time.Duration(now.UnixNano()%int64(pollEvery)))
}

// followed puts off an idle check over a way that the peer has just checked itself, but not for ever after an answer.
func followed(now, at, heard time.Time) time.Time {
	at = later(at, now.Add(idleEvery+settle))
	if last := heard.Add(followEvery); at.After(last) {
		return last
	}
	return at
}
