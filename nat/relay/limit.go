package relay

import "time"

// Limits on what one member can make a relay do. A node asks for two channels for each of the peers that it cannot
// reach, and again for all when its session was lost.
const (
	maxOfMember    = 512
	maxChannels    = 8192 // in all; each change of the socket's table copies it
	asksPerSecond  = 20
	asksBurst      = maxOfMember
	maxLoadStreams = 2 // of one member: one, and that of a session before
)

// account is what a relay keeps of a member.
type account struct {
	tokens  float64
	filled  time.Time
	watches int     // streams on which the load is told
	ended   Traffic // by channels that are no more
}

// ask reports whether one more request is within the rate.
func (a *account) ask(now time.Time) bool {
	if a.filled.IsZero() {
		a.tokens = asksBurst
	}
	a.tokens = min(asksBurst, a.tokens+now.Sub(a.filled).Seconds()*asksPerSecond)
	a.filled = now
	if a.tokens < 1 {
		return false
	}
	a.tokens--
	return true
}
