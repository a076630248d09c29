package path

import (
	"time"
	"warren/nat/due"
)

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

// hurryTime is in which two introductions may begin for events that may come often.
const hurryTime = 10 * time.Second

// ladder is the time of the next introduction made unasked.
type ladder struct {
	*core
	at   time.Time // zero: none is planned
	rung int
	// hurried are the last two times that an introduction was begun in a hurry.
	hurried [2]time.Time
}

// climb plans the next introduction by the steps that fit the path. The controlled side leaves the
// initiative to the other, and asks only if that stays silent.
func (l *ladder) climb(now time.Time, kind PathKind) {
	var steps []time.Duration
	switch kind {
	case Direct:
		return
	case Relayed:
		steps = directLadder[:]
	case None:
		steps = noneLadder[:]
	}
	wait := l.backoff(steps[min(l.rung, len(steps)-1)], time.Hour, 0)
	if !l.controlling {
		wait += wait/2 + min(2*wait, time.Second)
	}
	l.at = now.Add(wait)
	l.rung++
}

// descend has the next climb begin at the first step: something has happened that makes a try worth more.
func (l *ladder) descend() { l.rung = 0 }

// leave forgets what was planned, and how far it went.
func (l *ladder) leave() { l.at, l.rung = time.Time{}, 0 }

// sooner plans an introduction, unless one is planned for before.
func (l *ladder) sooner(at time.Time) { l.at = due.Sooner(l.at, at) }

// hurry reports whether an introduction may begin at once for an event that may come often, and counts it.
func (l *ladder) hurry(now time.Time) bool {
	if now.Sub(l.hurried[0]) < hurryTime {
		return false
	}
	l.hurried = [2]time.Time{l.hurried[1], now}
	return true
}

// attemptLimit is how long an attempt may take that begins now.
func (l *ladder) attemptLimit(kind PathKind) time.Duration {
	if kind == None && l.rung < shortAttempts {
		return shortAttempt
	}
	return attemptTime
}
