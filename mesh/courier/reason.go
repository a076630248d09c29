package courier

import (
	"errors"
	"time"

	"warren/mesh/signal"
)

// reason is why a message was dropped.
type reason int

// The reasons. Those of opening are the errors of mesh/signal.
const (
	queueFull reason = iota
	notEncoded
	notSealed
	noRoute
	keyNotSet
	foreignHandshake // carried by an offer, and not made by who offers; the answer goes without one
	malformed        // opened, and then no message of nat's, or not in the role that it was sealed in
	malformedSignal
	notForUs
	fromStranger
	forged
	replayed
	clockSkew
	noOffer
	tooMany
	earlier
	other
	reasons // how many there are
)

// names are the reasons in status and metrics.
var names = [reasons]string{
	queueFull: "signal: queue full", notEncoded: "signal: not encoded", notSealed: "signal: not sealed", noRoute: "signal: no route",
	keyNotSet: "signal: preshared key not set", foreignHandshake: "signal: handshake not made by its sender", malformed: "signal: malformed", malformedSignal: "signal: malformed signal",
	notForUs: "signal: not sealed to this node", fromStranger: "signal: from a stranger", forged: "signal: with a wrong signature",
	replayed: "signal: replayed", clockSkew: "signal: outside the time window",
	noOffer: "signal: answer to an offer that was not made or is too old", tooMany: "signal: too many signals from one member",
	earlier: "signal: for an earlier run of this node",
	other:   "signal: other",
}

// refusals are the reasons by the errors of Sealer.Open.
var refusals = []struct {
	err    error
	reason reason
}{
	{signal.ErrMalformed, malformedSignal}, {signal.ErrNotForUs, notForUs}, {signal.ErrStranger, fromStranger}, {signal.ErrForged, forged},
	{signal.ErrReplayed, replayed}, {signal.ErrClockSkew, clockSkew}, {signal.ErrNoOffer, noOffer}, {signal.ErrTooMany, tooMany}, {signal.ErrEarlier, earlier},
}

// reasonOf names a refusal of the sealer.
func reasonOf(err error) reason {
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return r.reason
		}
	}
	return other
}

func (c *Courier) count(r reason) { c.drops[r].Add(1) }

// Dropped returns how many messages were dropped so far, by reason; those that did not occur are left out.
func (c *Courier) Dropped() map[string]uint64 {
	out := make(map[string]uint64)
	for r := range c.drops {
		n := c.drops[r].Load()
		if reason(r) == fromStranger {
			n += c.early.dropped(time.Now())
		}
		if n > 0 {
			out[names[r]] = n
		}
	}
	return out
}
