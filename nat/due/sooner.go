package due

import "time"

// Sooner returns the earlier of two times, of which the zero one means never.
func Sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Busy is the lateness from which on whoever is woken so late cannot be sure to have read all that has come: this machine had other things
// to do. Timers of an idle one are a millisecond late.
const Busy = 20 * time.Millisecond

// Turns is how many times its own lateness a side waits for an answer beyond its time: the answer lies unread here, or takes as many turns of
// machines that are as busy.
const Turns = 4
