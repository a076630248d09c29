package relay

import "time"

// loadEvery is how often a relay that is in use measures its load. Members hear of it no more often.
const loadEvery = time.Second

// loadStep is the change of load worth telling.
const loadStep = 16

// gauge turns what a relay forwards into its load, 0 to 255: the share of its limit that is taken, or how full its queue
// gets, whichever is more. Losses say more than either.
type gauge struct {
	load float64 // 0 to 1
	last Traffic
	at   time.Time
}

const (
	// lossy is the share of packets dropped from which on the relay counts as full: TCP sees less on a good link.
	lossy     = 0.005
	lossyLoad = 0.95
	// A burst fills the queue without any harm, and one of its kind shall not send everybody away.
	fillLoad = 0.8
	// The load rises faster than it falls, so that who has left does not come back at once.
	rise, fall = 0.5, 0.2
)

// sample takes what was forwarded so far in all, the limit in bytes a second (0: none), and how full the queue has been
// since the last sample, between 0 and 1.
func (g *gauge) sample(now time.Time, sum Traffic, limit int, fill float64) uint8 {
	before, since := g.last, now.Sub(g.at)
	g.last, g.at = sum, now
	if since <= 0 || since > 10*loadEvery || sum.Packets < before.Packets || sum.Dropped < before.Dropped {
		return uint8(g.load * 255) // the first after a pause
	}
	load := fillLoad * fill
	if limit > 0 {
		load = max(load, float64(sum.Bytes-before.Bytes)/since.Seconds()/float64(limit))
	}
	packets, dropped := sum.Packets-before.Packets, sum.Dropped-before.Dropped
	if dropped > 0 && float64(dropped) >= lossy*float64(packets+dropped) {
		load = max(load, lossyLoad)
	}
	load = min(load, 1)
	weight := fall
	if load > g.load {
		weight = rise
	}
	g.load += weight * (load - g.load)
	if g.load < 1.0/255 {
		g.load = 0
	}
	return uint8(g.load * 255)
}

// Traffic is what a relay has forwarded for somebody. Bytes are payload without the ChannelData header.
type Traffic struct {
	Packets, Bytes, Dropped uint64
	Last                    time.Time // of the last packet; zero: never
}

func (t Traffic) plus(other Traffic) Traffic {
	sum := Traffic{Packets: t.Packets + other.Packets, Bytes: t.Bytes + other.Bytes, Dropped: t.Dropped + other.Dropped, Last: t.Last}
	if other.Last.After(sum.Last) {
		sum.Last = other.Last
	}
	return sum
}
