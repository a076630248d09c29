package relay

import (
	"time"

	"golang.org/x/time/rate"

	"warren/nat/limit"
)

// Limits on what one member can make a relay do. A node asks for two channels for each of the peers that it cannot
// reach, and again for all when its session was lost.
const (
	maxOfMember    = 512
	maxChannels    = 8192 // in all; each change of the socket's table copies it
	asksPerSecond  = 20
	asksBurst      = maxOfMember
	maxLoadStreams = 2 // of one member: one, and that of a session before
)

var asks = limit.Rate{PerSecond: asksPerSecond, Burst: asksBurst}

// account is what a relay keeps of a member.
type account struct {
	asks    *rate.Limiter
	watches int     // streams on which the load is told
	ended   Traffic // by channels that are no more
}

// ask reports whether one more request is within the rate.
func (a *account) ask(now time.Time) bool { return a.asks.AllowN(now, 1) }
