package due

import "time"

// AnswersLast is how long what was measured holds: machines may be busy no more, or in another network.
const AnswersLast = 5 * time.Second

// Answers is how long others take to answer at present: the network's part, and that of machines that are busy. The zero value knows nothing.
type Answers struct {
	took time.Duration
	at   time.Time
}

// Note returns what is known after an answer that took so long. It rises at once, and falls by half with each that came sooner.
func (a Answers) Note(now time.Time, took time.Duration) Answers {
	return Answers{max(took, a.Recent(now)/2), now}
}

// Recent is how long they take, as far as is known from the last seconds; zero: nothing is.
func (a Answers) Recent(now time.Time) time.Duration {
	if now.Sub(a.at) >= AnswersLast {
		return 0
	}
	return a.took
}

// Spacing is the time between two that ask for the same: least, or a quarter more than answers take, and of that no more than most.
func (a Answers) Spacing(now time.Time, least, most time.Duration) time.Duration {
	took := a.Recent(now)
	return max(least, min(took+took/4, most))
}
