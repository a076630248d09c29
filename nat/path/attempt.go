package path

import (
	"slices"
	"time"
	"warren/nat/due"
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
)

// trickleAgain says when the grown candidate list is repeated: signals may be lost.
var trickleAgain = [...]time.Duration{300 * time.Millisecond, time.Second}

// attempt is one run of ICE.
type attempt struct {
	*core
	number   uint64
	on       bool // the agent runs
	won      bool // there is a direct path
	chosen   bool // the controlling side has nominated, so it has the answer
	agreed   bool // the peer's agent has answered a check, so it runs: likewise
	exchange exchange
	started  time.Time
	deadline time.Time
	relays   choice // agreed on
	remote   []Candidate
	repeats  int // of the trickled list; -1 when nothing was trickled
	count    uint64
	failure  string    // of the last attempt that failed, empty after a success
	failed   time.Time // when that was
	ports    prediction
}

func (a *attempt) wake() time.Time {
	if !a.on {
		return time.Time{}
	}
	if a.repeats >= 0 && a.repeats < len(trickleAgain) {
		return due.Sooner(a.started.Add(trickleAgain[a.repeats]), a.deadline)
	}
	return a.deadline
}

// runs reports whether the attempt of that number is the one that runs.
func (a *attempt) runs(number uint64) bool { return a.on && number == a.number }

// excuse gives an attempt the time back in which this side did nothing.
func (a *attempt) excuse(late time.Duration) {
	if a.on {
		a.deadline = a.deadline.Add(min(late, attemptTime))
	}
}

func (a *attempt) expired(now time.Time) bool { return a.on && isDue(now, a.deadline) }

// start runs ICE with what both sides have told.
func (a *attempt) start(now time.Time, number uint64, keys exchange, remote []Candidate, relays choice, limit time.Duration) {
	*a = attempt{
		core: a.core, number: number, on: true, exchange: keys, started: now, deadline: now.Add(limit), relays: relays,
		remote: remote, repeats: -1, count: a.count + 1, failure: a.failure, failed: a.failed,
	}
	a.emit(StartICE{
		Attempt: number, Controlling: a.controlling, Local: keys.own, Remote: keys.remote, Candidates: slices.Clone(remote),
		Spacing: a.cfg.Answers.ofChecks(now),
	})
}

// answer is what the controlled side tells of its half.
func (a *attempt) answer(own []Candidate) Message {
	return Message{
		Kind: KindAnswer, Attempt: a.number, Ufrag: a.exchange.own.Ufrag, Pwd: a.exchange.own.Pwd,
		Candidates: Lines(own), Relay: a.relays.first, Spare: a.relays.spare,
	}
}

// addRemote feeds new candidates of the peer to the agent, if it runs.
func (a *attempt) addRemote(more []Candidate) {
	if !a.on {
		return
	}
	all, added := merge(a.remote, more)
	a.remote = all
	if len(added) > 0 {
		a.emit(AddCandidates{Attempt: a.number, Candidates: added})
	}
}

// planRepeats notes that the grown candidate list is told now. A list that grows late is repeated less often.
func (a *attempt) planRepeats(now time.Time) {
	a.repeats = 0
	for a.repeats < len(trickleAgain) && now.Sub(a.started) >= trickleAgain[a.repeats] {
		a.repeats++
	}
}

// repeatDue reports whether the list is to be told again, and counts it.
func (a *attempt) repeatDue(now time.Time) bool {
	r := a.repeats
	if !a.on || r < 0 || r >= len(trickleAgain) || !isDue(now, a.started.Add(trickleAgain[r])) {
		return false
	}
	a.repeats++
	return true
}

// extend gives the attempt its whole time: a relayed path can be used meanwhile.
func (a *attempt) extend() { a.deadline = later(a.deadline, a.started.Add(attemptTime)) }

// shorten gives an attempt that had a path when it began the time of one without.
func (a *attempt) shorten(now time.Time) {
	if a.on {
		a.deadline = due.Sooner(a.deadline, now.Add(shortAttempt))
	}
}

// stop ends the attempt, if one is under way.
func (a *attempt) stop() {
	if a.on {
		a.on = false
		a.emit(StopICE{Attempt: a.number})
	}
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
