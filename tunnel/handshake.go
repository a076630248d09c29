package tunnel

import (
	"net/netip"
	"time"
)

// Handshakes. WireGuard repeats one that got no answer after five seconds, which suits a peer that may be away; here a
// path has just been proved, so that an answer that is missing after handshakeRetry was lost, or has a long way: one that is
// started anew has its answer taken and no other's, so that each wait is as long as all before it. The other side knows of a
// handshake only when the first packet under the new keys comes. If that one is lost and there is nothing to say, it
// would wait for ever: so that packet is sent twice more, and after handshakeTurn the other side starts a handshake
// itself, later than WireGuard's own repetition.
const (
	handshakeRetry = 700 * time.Millisecond
	handshakeTurn  = 6 * time.Second
	handshakeTries = 6 // of the controlling side: a relay on a bad line may lose a third of all packets
	handshakeTurns = 4 // of the other
	confirmTries   = 2
)

// putOffFor is how long a handshake is put off, and again, while the device works out the response to the one before (bind/answers.go): a third of a
// millisecond when it gets its turn.
const putOffFor = 20 * time.Millisecond

// WireGuard rekeys a session after two minutes and refuses one after three (WireGuard, section 6.1).
const (
	goodKeys  = 150 * time.Second // a session that will last for a while
	staleKeys = 180 * time.Second // one that refuses packets

	staleEvery = time.Minute // is looked for those
)

// awaited is a handshake that is looked for.
type awaited struct {
	since       time.Time // zero: none is
	next        time.Time // when to look; zero: never
	tries       int       // made after the first
	confirms    int       // sent
	controlling bool
	putOff      bool // it should have been started
}

// look says whether to start the handshake (again) now, or to confirm it once more, given the last one that was done. It
// ends the wait when one was, and after the last try: WireGuard goes on by itself for 90 s from there.
func (a *awaited) look(now, done time.Time) (start, confirm bool) {
	every, early, most, due := handshakeRetry, time.Duration(0), handshakeTries, retryAfter(a.tries)
	if !a.controlling {
		// The peer may have been told of the path, and have done it, before this side was.
		every, early, most = handshakeTurn, handshakeTurn, handshakeTurns
		due = time.Duration(a.tries+1) * every
	}
	if a.since.IsZero() {
		return false, false
	}
	if a.putOff && !done.After(a.since) {
		a.next = now.Add(putOffFor)
		return true, false
	}
	a.putOff = false
	a.next = now.Add(every)
	switch {
	case a.controlling && a.confirms < confirmTries && done.After(a.since):
		a.confirms++
		return false, true
	case a.tries == most || done.After(a.since.Add(-early)):
		*a = awaited{}
	case now.Sub(a.since) >= due:
		a.tries++
		return true, false
	}
	return false, false
}

// retryAfter is when, after the first, the controlling side tries again that has done so n times: 0.7, 1.4, 2.8, 5.6 s, and then
// every 4.9 s, as WireGuard does.
func retryAfter(n int) time.Duration {
	const last = 3
	if n <= last {
		return handshakeRetry << n
	}
	return handshakeRetry<<last + time.Duration(n-last)*7*handshakeRetry
}

// await has the handshake that was started, or should be by the member, looked after.
func (p *followed) await(controlling bool, now time.Time) {
	p.shake = awaited{since: now, next: now.Add(handshakeRetry), controlling: controlling}
	if !controlling {
		p.shake.next = now.Add(handshakeTurn)
	}
}

// handshake starts one, unless one was started just now: two in a row cross, and the peer takes the second for a flood.
// The side that is not controlling leaves that to the other, and looks whether it comes about.
func (w *ways) handshake(p *followed, controlling bool, now time.Time) {
	start := controlling && (p.shake.putOff || now.Sub(p.shake.since) >= handshakeRetry)
	p.await(controlling, now)
	if start {
		p.initiate(w.device, true, now)
	}
}

// initiate starts it, or does so soon.
func (p *followed) initiate(device wireGuard, fresh bool, now time.Time) {
	began, was := device.Initiate(p.member, fresh), p.shake.putOff
	p.shake.putOff = !began
	switch {
	case !began:
		p.shake.next = now.Add(putOffFor)
	case was && p.shake.controlling && p.shake.tries == 0:
		p.await(true, now) // the first has been put off
	}
}

// lookAgain starts a handshake again that had no answer, or confirms it.
func (w *ways) lookAgain(p *followed, now time.Time) {
	done := w.device.LastHandshake(p.member)
	start, confirm := p.shake.look(now, done)
	switch {
	case p.shake.since.IsZero() && now.Sub(done) > staleKeys && p.misses(now):
		w.tell(Stale, p.id, netip.AddrPort{}) // all tries by a way that works were in vain
	case start:
		// The session of the side that is not controlling may be good, though not confirmed: it is not given up.
		p.initiate(w.device, p.shake.controlling, now)
	case confirm:
		w.device.Confirm(p.member)
	}
}

// keysAreGood reports whether the WireGuard session with a member will last for a while.
func (w *ways) keysAreGood(p *followed, now time.Time) bool {
	return now.Sub(w.device.LastHandshake(p.member)) < goodKeys
}

// agreed is told that this side, which is controlling, and an instance of the member have agreed on a preshared key. A handshake
// that was tried before could not succeed, and a new process has no session: both begin anew at once, by a way that there
// is, but where the introduction has carried a handshake already; one that comes will see to it by itself.
func (w *ways) agreed(p *followed, a agreement, now time.Time) {
	another := p.instance != a.instance
	p.instance = a.instance
	if a.keyed && w.keysAreGood(p, now) {
		if p.keyed && p.way.Addr.IsValid() { // else the way that comes sees to it, or has
			p.confirm(w.device, now)
			w.attend(p)
		}
		return
	}
	if p.way.Addr.IsValid() && (another || !p.shake.since.IsZero() || !w.keysAreGood(p, now)) {
		w.handshake(p, true, now)
		w.attend(p)
	}
}

// confirm has a handshake that was carried confirmed by the way that there is, and again, as lookAgain does with one that went by it.
func (p *followed) confirm(device wireGuard, now time.Time) {
	p.keyed = false
	p.await(true, now)
	p.shake.since, p.shake.confirms = device.LastHandshake(p.member).Add(-1), 1 // it has been done since
	device.Confirm(p.member)
}

// findStale tells of the members whose way works and carries packets one way, while WireGuard agrees on no keys: the two ends
// then have different preshared keys, because every answer of an introduction was lost. WireGuard gives up after 90 s
// without traffic, so a handshake that was never done is started anew as well.
func (w *ways) findStale(now time.Time) {
	for _, p := range w.peers {
		if !p.way.Addr.IsValid() {
			continue
		}
		done := w.device.LastHandshake(p.member)
		if now.Sub(done) <= staleKeys {
			continue
		}
		if now.Sub(p.endpoint.Activity().LastTx) < staleEvery && p.misses(now) {
			w.tell(Stale, p.id, netip.AddrPort{})
		}
		if done.IsZero() && p.shake.since.IsZero() {
			w.handshake(p, p.controlling, now)
			w.attend(p)
		}
	}
}

// misses reports, once a minute at most, that no keys are agreed with the member.
func (p *followed) misses(now time.Time) bool {
	if now.Sub(p.stale) < staleEvery {
		return false
	}
	p.stale = now
	return true
}
