package session

import "sync/atomic"

// reason is why something was dropped, or how it was passed on.
type reason int

const (
	dropNone       reason = iota
	dropMalformed         // not a frame
	dropForged            // an envelope with another member's name as its source
	dropHops              // passed on too often
	dropLoop              // came back to its source
	dropStranger          // of a node that is no member yet: forwarded for others, or what only members may say
	dropNoRoute           // nobody to pass it on to
	dropRate              // too much from one member
	dropParkFull          // a signal that could not be parked
	dropQueueFull         // the peer does not keep up; the oldest frame goes
	dropRefused           // a connection whose chain or hello was not accepted
	dropNoPlace           // a session of a node that is no member, too many of which there are
	countForwarded        // messages passed on
	countSpliced          // streams spliced through
	reasons
)

var reasonNames = [reasons]string{
	"none", "malformed", "forged_source", "hop_limit", "loop", "stranger", "no_route", "rate", "park_full", "queue_full", "refused", "no_place", "forwarded", "spliced",
}

type counters [reasons]atomic.Uint64

func (c *counters) add(r reason) { c[r].Add(1) }

func (c *counters) snapshot() map[string]uint64 {
	all := make(map[string]uint64, reasons)
	for r := dropMalformed; r < reasons; r++ {
		all[reasonNames[r]] = c[r].Load()
	}
	return all
}
