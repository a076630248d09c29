package session

import (
	"golang.org/x/time/rate"

	"warren/nat/limit"
)

// What one session may bring, before anything of it waits in a queue or is looked into: a member that brings more loses of its own.
// What it forwards for others has a share of its own, so that it cannot be made to lose what is its own, and a larger one, for an
// anchor brings what all members say; but not without limit, since whoever forwards can name anybody as the source.
var (
	directRates = map[Proto]limit.Rate{
		ProtoGossip: {PerSecond: 500, Burst: 1000},
		ProtoSignal: {PerSecond: 10, Burst: 100}, // an introduction is some five messages and their repetitions
		ProtoAsk:    {PerSecond: 10, Burst: 50},
	}
	forwardedRates = map[Proto]limit.Rate{
		ProtoGossip: {PerSecond: 500, Burst: 2000},
		ProtoSignal: {PerSecond: 200, Burst: 2000}, // each costs about 0.1 ms to open: 2 % of a core
		ProtoAsk:    {PerSecond: 20, Burst: 100},
	}
	otherRate    = limit.Rate{PerSecond: 10, Burst: 100}  // of protocols that are not known here, all together; of a stranger, of all
	pingRate     = limit.Rate{PerSecond: 50, Burst: 200}  // a check is six
	streamRate   = limit.Rate{PerSecond: 50, Burst: 600}  // a relay's members ask for their channels anew after an outage, 512 at most
	strangerRate = limit.Rate{PerSecond: 2, Burst: 10}    // streams of a stranger: a sync or two
	forwardRate  = limit.Rate{PerSecond: 400, Burst: 800} // messages passed on for one member
)

// meter is how much a link has brought. Its methods may be called concurrently.
type meter struct {
	direct, forwarded map[Proto]*rate.Limiter // constant
	others            *rate.Limiter
	pings             *rate.Limiter
	streams           *rate.Limiter
	strangerStreams   *rate.Limiter
}

func newMeter() *meter {
	m := &meter{
		direct: make(map[Proto]*rate.Limiter), forwarded: make(map[Proto]*rate.Limiter),
		others: otherRate.Limiter(), pings: pingRate.Limiter(), streams: streamRate.Limiter(), strangerStreams: strangerRate.Limiter(),
	}
	for p, r := range directRates {
		m.direct[p] = r.Limiter()
	}
	for p, r := range forwardedRates {
		m.forwarded[p] = r.Limiter()
	}
	return m
}

// message reports whether one more message may be taken, and counts it if so.
func (m *meter) message(p Proto, forwarded, stranger bool) bool {
	of := m.direct
	if forwarded {
		of = m.forwarded
	}
	if b := of[p]; b != nil && !stranger {
		return b.Allow()
	}
	return m.others.Allow()
}

// ping reports whether one more ping is answered.
func (m *meter) ping() bool { return m.pings.Allow() }

// stream reports whether one more stream may be opened to this node or through it.
func (m *meter) stream(stranger bool) bool {
	if stranger {
		return m.strangerStreams.Allow()
	}
	return m.streams.Allow()
}
