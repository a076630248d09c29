package streams

import (
	"time"
	"warren/nat/due"
)

// Times of the decision.
const (
	// trialTime is how long nobody may answer by UDP until it is taken to be blocked: twice the longest round trip that
	// is usual on earth, by satellite. With two round trips for TLS and one for the session that makes two seconds. Where answers
	// have taken longer, as over a modem whose queue is full, it is twice as long as they did.
	trialTime  = time.Second
	trialMost  = 8 * time.Second
	trialEvery = 100 * time.Millisecond // between probes in a trial at first: three lost in a row are rare

	// headStart is what the answers by UDP have until streams are dialled as well, so that a doubt without a cause
	// costs no anchor a handshake unless it is far away.
	headStart = 100 * time.Millisecond
	// A side that is late itself waits for due.Turns times its lateness more, and no more than lateStart: the answers lie unread here, and those who
	// answer are most likely as busy; a handshake for each of all that start at once would keep them so.
	lateStart = 500 * time.Millisecond
	// decisive is how old a trial has to be for a stream to end it. A stream takes three round trips and the head start, so that
	// the answers to the first probes were due long before it is up; this leaves room for some that were lost.
	decisive = 200 * time.Millisecond

	// spared is how long UDP is not taken to be blocked because members that are no anchors still answer by it: most
	// likely the anchors are dead. After that streams are tried all the same, for some firewalls let UDP pass to a few
	// addresses.
	spared = 10 * time.Second

	probeFirst = 2 * time.Second // between probes while streams are used, doubled
	probeMost  = time.Minute
	probeBusy  = 4 * time.Second // the most while packets go over the streams: a probe more costs their user nothing

	// Going back: UDP has to answer for so long, without a gap. Each return that does not last makes the next one longer.
	confirmFirst = time.Second
	confirmMost  = time.Minute
	confirmEvery = 250 * time.Millisecond
	confirmGap   = 1200 * time.Millisecond
	lasting      = 2 * time.Minute // a return that lasted this long is forgotten
)

// belief is what is believed of UDP, and when it is asked next.
type belief struct {
	*core
	state  State
	since  time.Time
	reason string
	why    string // UDP was taken to be blocked, the last time

	tried    time.Time     // when the last trial began
	patience time.Duration // how long answers took in trials lately
	room     time.Duration // beyond the head start, in this trial

	probeAt   time.Time
	probeWait time.Duration // Blocked: the rung of the ladder
	answered  time.Time     // Returning: the last answer
	confirm   time.Duration // the next return takes so long
	left      time.Time     // the last return
}

func (b *belief) enter(now time.Time, s State, reason string) {
	b.state, b.since, b.reason, b.room = s, now, reason, 0
}

// trial is how long nobody may answer in one.
func (b *belief) trial() time.Duration { return min(max(trialTime, 2*b.patience), trialMost) }

// learn takes the time that an answer took since the trial began, if it belongs to that. What is shorter than before is believed slowly.
func (b *belief) learn(now time.Time) {
	took := now.Sub(b.tried)
	switch {
	case b.tried.IsZero() || took > trialMost || b.state != Trying && b.state != Blocked:
	case took > b.patience:
		b.patience = took
	default:
		b.patience -= (b.patience - took) / 4
	}
	b.tried = time.Time{}
}

// block enters the state in which UDP is asked seldom. The sooner after a return, the longer the next one takes.
func (b *belief) block(now time.Time, reason string) {
	b.enter(now, Blocked, reason)
	b.why = reason
	b.probeWait = 0
	b.climb(now)
	if now.Sub(b.left) < lasting {
		b.confirm = min(4*b.confirm, confirmMost)
	} else {
		b.confirm = confirmFirst
	}
}

// excuse takes a time in which this side did nothing off those in which UDP did not answer.
func (b *belief) excuse(now time.Time, late time.Duration) {
	if late < due.Busy {
		return
	}
	switch b.state {
	case Trying:
		b.since = due.Sooner(now, b.since.Add(late))
		b.tried = due.Sooner(now, b.tried.Add(late))
		b.room = min(b.room+due.Turns*late, lateStart)
	case Returning:
		b.answered = due.Sooner(now, b.answered.Add(late))
	}
}

// climb plans the next probe while UDP is blocked.
func (b *belief) climb(now time.Time) {
	b.probeWait = min(max(2*b.probeWait, probeFirst), probeMost)
	b.probeAt = now.Add(b.jittered(b.probeWait))
}

// hurry has the next probe come soon while UDP is blocked.
func (b *belief) hurry(now time.Time) {
	if soon := now.Add(b.jittered(probeBusy)); b.state == Blocked && b.probeAt.After(soon) {
		b.probeAt = soon
	}
}

// askSeldom probes when it is due, and climbs.
func (b *belief) askSeldom(now time.Time) {
	if !now.Before(b.probeAt) {
		b.climb(now)
		b.emit(Probe{})
	}
}

// ask probes when it is due.
func (b *belief) ask(now time.Time, every time.Duration) {
	if !now.Before(b.probeAt) {
		b.probeAt = now.Add(every)
		b.emit(Probe{})
	}
}

// wake returns when something is due, zero for never.
func (b *belief) wake(now time.Time) time.Time {
	switch b.state {
	case Trying:
		return due.Sooner(b.probeAt, b.dueInTrial(now))
	case Blocked:
		return b.probeAt
	case Returning:
		return due.Sooner(b.probeAt, due.Sooner(b.since.Add(b.confirm), b.answered.Add(confirmGap)))
	}
	return time.Time{}
}

// dueInTrial names the next of the times that end a trial, or a part of it.
func (b *belief) dueInTrial(now time.Time) (next time.Time) {
	for _, after := range []time.Duration{headStart + b.room, decisive, b.trial(), spared} {
		if at := b.since.Add(after); at.After(now) {
			next = due.Sooner(next, at)
		}
	}
	return next
}
