package path

import "time"

// Answers is how long peers take to answer introductions at present, which the machines of one node know together: the network's part, and that of
// machines that are busy. What is repeated sooner than answers come is work for both ends and for all between them, and keeps them busy. All
// machines that share one are stepped by one goroutine.
type Answers struct {
	took time.Duration
	at   time.Time
}

const (
	// answersLast is how long what was measured holds.
	answersLast = 5 * time.Second
	// slowAnswer is above what an introduction takes by an anchor over the longest lines.
	slowAnswer = time.Second
	// longestAnswer bounds what is waited for because others take long.
	longestAnswer = 1500 * time.Millisecond
	// lateTurns is how many times its own lateness a side waits for an answer beyond its time: what it waits for takes as many turns of machines
	// that are as busy.
	lateTurns = 4
)

// note takes down that an answer took so long. It rises at once, and falls by half with each that came sooner. One that took longer than an attempt
// is of a peer that was not there.
func (a *Answers) note(now time.Time, took time.Duration) {
	if took <= attemptTime {
		a.took, a.at = max(took, a.recent(now)/2), now
	}
}

func (a *Answers) recent(now time.Time) time.Duration {
	if now.Sub(a.at) >= answersLast {
		return 0
	}
	return a.took
}

// slow reports whether answers take longer than any line does: peers are busy.
func (a *Answers) slow(now time.Time) bool { return a.recent(now) >= slowAnswer }

// spacing is the time between two messages that ask for the same, at least.
func (a *Answers) spacing(now time.Time, least time.Duration) time.Duration {
	took := a.recent(now)
	return max(least, min(took+took/4, longestAnswer))
}
