package path

import (
	"time"

	"golang.org/x/time/rate"

	"warren/nat/due"
)

// Answers is how long peers take to answer introductions at present, which the machines of one node know together: the network's part, and that of
// machines that are busy. What is repeated sooner than answers come is work for both ends and for all between them, and keeps them busy. All
// machines that share one are stepped by one goroutine.
type Answers struct {
	lately  due.Answers
	repeats *rate.Limiter // of whole offers, for all peers
}

// repeatsOfOffers may be sent again whole at once, and one each repeatsOfOffersEvery. When more are out without an answer, what lacks is most likely time: the peers are
// reminded, a ninth of the bytes, and those which lack the offer ask for it.
const (
	repeatsOfOffers      = 2
	repeatsOfOffersEvery = 2 * time.Second
)

// mayRepeat reports whether an offer may be sent again whole, and counts it.
func (a *Answers) mayRepeat(now time.Time) bool {
	if a.repeats == nil {
		a.repeats = rate.NewLimiter(rate.Every(repeatsOfOffersEvery), repeatsOfOffers)
	}
	return a.repeats.AllowN(now, 1)
}

// longestAnswer bounds what is waited for because others take long.
const longestAnswer = 1500 * time.Millisecond

// note takes down that an answer took so long. One that took longer than an attempt is of a peer that was not there.
func (a *Answers) note(now time.Time, took time.Duration) {
	if took <= attemptTime {
		a.lately = a.lately.Note(now, took)
	}
}

// share is half of what answers take, between two bounds: what checks of the peer may take, which are answered once, and it does.
func (a *Answers) share(now time.Time, least, most time.Duration) time.Duration {
	return max(least, min(a.lately.Recent(now)/2, most))
}

// ofChecks is the time between two checks of one address: a quarter of what answers take. An answer to an introduction goes twice by a third node, one to a
// check does not.
func (a *Answers) ofChecks(now time.Time) time.Duration {
	return min(a.lately.Recent(now), longestAnswer) / 4
}

// spacing is the time between two messages that ask for the same, at least.
func (a *Answers) spacing(now time.Time, least time.Duration) time.Duration {
	return a.lately.Spacing(now, least, longestAnswer)
}
