package path

import (
	"slices"
	"time"
)

// Times of an attempt.
const (
	// attemptTime is how long candidate pairs are tried. Both sides begin within one signalling round
	// trip of each other; punching that works, works within two seconds.
	attemptTime = 6 * time.Second
	// shortAttempt is the same for the first shortAttempts in a row without any path, as long as no relay works either: a packet
	// may have been lost that matters, and the next attempt is worth more than the end of this one.
	shortAttempt  = 3 * time.Second
	shortAttempts = 3
	// preferDirect is how long a relay that works already waits for ICE: most pairs need no relay then, and the change to
	// a direct path that comes later loses nothing.
	preferDirect = 200 * time.Millisecond
)

// trickleAgain says when the grown candidate list is repeated: signals may be lost.
var trickleAgain = [...]time.Duration{300 * time.Millisecond, time.Second}

// directLadder spaces the tries for a direct path while relayed, noneLadder those while there is none.
var (
	directLadder = [...]time.Duration{
		5 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute,
		2 * time.Minute, 5 * time.Minute, 10 * time.Minute,
	}
	noneLadder = [...]time.Duration{
		300 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second,
		20 * time.Second, 40 * time.Second, time.Minute,
	}
)

// attempt is one run of ICE.
type attempt struct {
	number   uint64
	on       bool // the agent runs
	won      bool // it nominated
	exchange exchange
	started  time.Time
	deadline time.Time
	relays   choice // agreed on
	remote   []Candidate
	repeats  int // of the trickled list; -1 when nothing was trickled
	count    uint64
	failure  string // of the last attempt that failed, empty after a success
	predict  prediction
}

func (a *attempt) wake() time.Time {
	if !a.on {
		return time.Time{}
	}
	if a.repeats >= 0 && a.repeats < len(trickleAgain) {
		return earlier(a.started.Add(trickleAgain[a.repeats]), a.deadline)
	}
	return a.deadline
}

// ladder is the time of the next introduction made unasked.
type ladder struct {
	at   time.Time
	rung int
}

// start runs ICE with what both sides have told.
func (i *introduction) start(now time.Time, number uint64, keys exchange, remote []Candidate, relays choice) {
	i.try = attempt{
		number: number, on: true, exchange: keys, started: now, deadline: now.Add(i.attemptLimit()), relays: relays,
		remote: remote, repeats: -1, count: i.try.count + 1, failure: i.try.failure,
	}
	i.emit(StartICE{
		Attempt: number, Controlling: i.controlling, Local: keys.own, Remote: keys.remote, Candidates: slices.Clone(remote),
	})
	i.news.started = true
}

// attemptLimit is how long an attempt may take that begins now.
func (i *introduction) attemptLimit() time.Duration {
	if i.path.Kind == None && i.retry.rung < shortAttempts {
		return shortAttempt
	}
	return attemptTime
}

// extend gives the attempt its whole time: a relayed path can be used meanwhile.
func (i *introduction) extend() {
	i.try.deadline = later(i.try.deadline, i.try.started.Add(attemptTime))
}

// shorten gives an attempt that had a path when it began the time of one without.
func (i *introduction) shorten(now time.Time) {
	if i.path.Kind == None && i.try.on {
		i.try.deadline = earlier(i.try.deadline, now.Add(shortAttempt))
	}
}

// end stops what is under way.
func (i *introduction) end() {
	i.sig.waiting = false
	i.stop()
}

// stop ends the attempt, if one is under way.
func (i *introduction) stop() {
	if i.try.on {
		i.try.on = false
		i.emit(StopICE{Attempt: i.try.number})
	}
}

// won notes ICE's success; false for an attempt that is not the one running. The agent has done its
// work: from here on the peer's checks are answered, and the path watched, by our own.
func (i *introduction) won(number uint64) bool {
	if !i.try.on || number != i.try.number {
		return false
	}
	i.succeed()
	return true
}

// succeed ends what is under way, because there is a direct path.
func (i *introduction) succeed() {
	i.end()
	i.try.won, i.try.failure = true, ""
	i.retry = ladder{}
}

// lost notes the end of an attempt without success; false as with won.
func (i *introduction) lost(number uint64, text string) bool {
	if !i.try.on || number != i.try.number {
		return false
	}
	i.end()
	i.try.failure = text
	return true
}

func (a *attempt) expired(now time.Time) bool { return a.on && due(now, a.deadline) }

// addRemote feeds new candidates of the peer to the running attempt.
func (i *introduction) addRemote(more []Candidate) {
	if !i.try.on {
		return
	}
	all, added := merge(i.try.remote, more)
	i.try.remote = all
	if len(added) > 0 {
		i.emit(AddCandidates{Attempt: i.try.number, Candidates: added})
	}
}

// setLocal takes this node's candidates. What a running attempt does not know yet is trickled.
func (i *introduction) setLocal(now time.Time, l Local) {
	before := i.local.Candidates
	i.local = l.bounded()
	switch {
	case !anyNew(before, i.local.Candidates):
	case i.try.on:
		i.tellMore(now)
	case i.controlling && i.sig.waiting && i.sig.sent > 0 && i.sig.noRoute == "":
		i.trickle()
	case i.path.Kind == Relayed:
		i.hurry(now) // it may be what was missing for a direct path
	}
}

// anyNew reports whether a list has an address that the one before had not.
func anyNew(before, after []Candidate) bool {
	return slices.ContainsFunc(after, func(c Candidate) bool {
		return !slices.ContainsFunc(before, func(b Candidate) bool { return b.Addr == c.Addr })
	})
}

func (l Local) bounded() Local {
	l.Candidates = l.Candidates[:min(len(l.Candidates), MaxCandidates)]
	l.Relays = l.Relays[:min(len(l.Relays), maxRelays)]
	return l
}

// tellMore tells the peer at once what was found during the attempt, and plans its repetition.
func (i *introduction) tellMore(now time.Time) {
	i.try.repeats = 0
	for i.try.repeats < len(trickleAgain) && now.Sub(i.try.started) >= trickleAgain[i.try.repeats] {
		i.try.repeats++
	}
	i.trickle()
}

func (i *introduction) trickle() {
	msg := Message{Kind: KindCandidates, Attempt: i.sig.number, Candidates: Lines(i.local.Candidates)}
	if i.try.on && i.try.number == i.sig.number {
		msg.Predicted = i.try.predict.own
	}
	i.send(msg)
}

// tried says what an attempt without success did.
func (l Local) tried(remote []Candidate) string {
	var v4, v6 bool
	for _, c := range l.Candidates {
		v4, v6 = v4 || c.Addr.Addr().Is4(), v6 || c.Addr.Addr().Is6()
	}
	pairs := 0
	for _, c := range remote {
		if c.Addr.Addr().Is4() && v4 || c.Addr.Addr().Is6() && v6 {
			pairs++
		}
	}
	switch {
	case len(remote) == 0:
		return "the peer has told no usable candidate"
	case pairs == 0:
		return "the peer has no address of a family that this node has"
	}
	return counted(pairs, "pair") + " tried, none answered"
}

// climb plans the next introduction by the ladder that fits the path. The controlled side leaves the
// initiative to the other, and asks only if that stays silent.
func (i *introduction) climb(now time.Time) {
	var steps []time.Duration
	switch i.path.Kind {
	case Direct:
		return
	case Relayed:
		steps = directLadder[:]
	case None:
		steps = noneLadder[:]
	}
	wait := i.backoff(steps[min(i.retry.rung, len(steps)-1)], time.Hour, 0)
	if !i.controlling {
		wait += wait/2 + min(2*wait, time.Second)
	}
	i.retry.at = now.Add(wait)
	i.retry.rung++
}

// climbIfIdle plans, unless an introduction is under way.
func (i *introduction) climbIfIdle(now time.Time) {
	if !i.try.on && !i.sig.waiting {
		i.climb(now)
	}
}
