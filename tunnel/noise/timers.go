package noise

import "time"

// Kind is what is to be done.
type Kind uint8

// The kinds of actions. Packets are new and the receiver's.
const (
	SendInitiation Kind = iota // Packet to the peer. Attempt counts from 1; from 2 on the way there may be in doubt
	SendResponse               // Packet to where the initiation came from
	SendCookie                 // Packet to where the message came from; there is no Peer
	SendKeepalive              // Packet to the peer
	Ready                      // Seal has a new key: what was kept for the peer is to be sent
	GaveUp                     // nobody has answered for RekeyAttemptTime: what was kept for the peer is to be dropped
	Zeroed                     // all keys are dropped, as nobody has renewed them for ZeroAfterTime
)

// Action is one thing that is to be done.
type Action struct {
	Kind    Kind
	Peer    *Peer
	Packet  []byte
	Attempt int
}

// times are the timers of a peer, where they do not follow from its traffic.
type times struct {
	handshakeSent   Instant // the last initiation or response
	initiationHeard Instant // the last one that was responded to
	started         Instant // the first initiation of those that nobody answers
	attempt         int     // how many there were
	retryAt         Instant // when the next one goes; Never: none waits for an answer
	zeroAt          Instant
	jitter          time.Duration // of the timer for silence
	forced          bool          // a handshake is wanted even if the keys are good

	persistent  time.Duration // 0: off
	persistFrom Instant
	persistNow  bool
}

func (t *times) init(jitter time.Duration) {
	*t = times{
		handshakeSent: longAgo, initiationHeard: longAgo, started: longAgo, retryAt: Never, zeroAt: Never, persistFrom: longAgo,
		jitter: jitter,
	}
}

// done: no handshake is under way or wanted.
func (t *times) done() {
	t.retryAt, t.attempt, t.forced = Never, 0, false
}

// rest stops all timers but the persistent one.
func (t *times) rest() {
	t.done()
	t.handshakeSent, t.zeroAt = longAgo, Never
}

// silentUntil is when those that are sent data without an answer are taken to have lost their keys.
func (t *times) silentUntil(tr *traffic) Instant {
	return tr.silentSince().Add(KeepaliveTimeout + RekeyTimeout).Add(t.jitter)
}

// giveUpAt is when initiations end: some time after the first of them, or after somebody last wanted a key.
func (t *times) giveUpAt(tr *traffic) Instant {
	return max(t.started, Instant(tr.demand.Load())).Add(RekeyAttemptTime)
}

// persistAt is when the persistent keepalive goes.
func (t *times) persistAt(tr *traffic) Instant {
	switch {
	case t.persistent == 0:
		return Never
	case t.persistNow:
		return longAgo
	}
	return max(t.persistFrom, Instant(tr.sent.Load()), Instant(tr.got.Load())).Add(t.persistent)
}

// rest: nothing is expected, owed or wanted.
func (t *traffic) rest() {
	raise(&t.answered, t.asked.Load())
	raise(&t.sent, t.owed.Load())
	t.wanted.Store(false)
}

// Next returns when Step is to be called; an instant that is past means now. The loops report with Wake if it becomes earlier.
func (p *Peer) Next() Instant { return p.plan(p.next()) }

// plan makes at known to the loops, or what is earlier by then. A loop writes what happened and then looks at the plan; here the plan
// is written, then what happened is looked at again. So one of the two sees the other.
func (p *Peer) plan(at Instant) Instant {
	for {
		p.traffic.planned.Store(int64(at))
		again := p.next()
		if again >= at {
			return at
		}
		at = again
	}
}

func (p *Peer) next() Instant {
	t := &p.times
	if p.removed {
		return Never
	}
	if next := p.keys.Load().next; next != nil && next.standing.Load() == heard {
		return longAgo
	}
	at := min(t.zeroAt, t.silentUntil(&p.traffic), p.traffic.owedSince().Add(KeepaliveTimeout), t.persistAt(&p.traffic))
	for way := range p.attempts {
		at = min(at, p.attemptUntil(way))
	}
	switch {
	case t.retryAt != Never:
		at = min(at, t.retryAt, t.giveUpAt(&p.traffic))
	case p.traffic.wanted.Load():
		at = min(at, t.handshakeSent.Add(RekeyTimeout))
	}
	return at
}

// attemptUntil is when an initiation that is not repeated any more is forgotten.
func (p *Peer) attemptUntil(way int) Instant {
	if a := p.attempts[way]; a != nil && (way == carried || p.times.retryAt == Never) {
		return a.at.Add(RekeyAttemptTime)
	}
	return Never
}

// Step does what is due and appends it to out. It is to be called at Next, after Wake, and may be at any time.
func (p *Peer) Step(now Moment, out []Action) []Action {
	t := &p.times
	if p.removed {
		return out
	}
	out = p.settle(now, out)
	if now.At >= t.zeroAt {
		p.keys.forget()
		t.zeroAt = Never
		out = append(out, Action{Kind: Zeroed, Peer: p})
	}
	for way := range p.attempts {
		if now.At >= p.attemptUntil(way) {
			p.abandon(way)
		}
	}
	if now.At >= t.silentUntil(&p.traffic) {
		raise(&p.traffic.answered, p.traffic.asked.Load()) // until more is sent
		t.jitter = p.machine.jitter()
		t.forced = true
		p.demand(now.At)
	}
	switch {
	case t.retryAt == Never:
	case now.At >= t.giveUpAt(&p.traffic):
		out = p.giveUp(now, out)
	case now.At >= t.retryAt:
		out = p.initiate(now, out)
	}
	out = p.keepalives(now, out)
	if t.retryAt == Never && p.traffic.wanted.Load() {
		switch {
		case !t.forced && !p.keys.stale(now.At):
			p.traffic.wanted.Store(false) // a handshake was completed since
		case now.At >= t.handshakeSent.Add(RekeyTimeout):
			t.started, t.attempt = now.At, 0
			out = p.initiate(now, out)
		}
	}
	return out
}

// initiate sends an initiation in place of the last one.
func (p *Peer) initiate(now Moment, out []Action) []Action {
	a, msg := p.begin(now)
	p.abandon(direct)
	p.attempts[direct] = a
	t := &p.times
	t.handshakeSent = now.At
	t.retryAt = now.At.Add(RekeyTimeout).Add(p.machine.jitter())
	t.attempt++
	p.traffic.sentSome(now.At, false)
	return append(out, Action{Kind: SendInitiation, Peer: p, Packet: msg, Attempt: t.attempt})
}

// giveUp ends a handshake that nobody answers.
func (p *Peer) giveUp(now Moment, out []Action) []Action {
	t := &p.times
	p.abandon(direct)
	t.done()
	p.traffic.wanted.Store(false)
	raise(&p.traffic.sent, p.traffic.owed.Load())
	if t.zeroAt == Never {
		t.zeroAt = now.At.Add(ZeroAfterTime)
	}
	return append(out, Action{Kind: GaveUp, Peer: p})
}

// keepalives sends what the peer waits for, or what a NAT on the way does.
func (p *Peer) keepalives(now Moment, out []Action) []Action {
	t, tr := &p.times, &p.traffic
	if now.At >= tr.owedSince().Add(KeepaliveTimeout) {
		out = p.keepalive(now.At, out)
		raise(&tr.sent, tr.owed.Load()) // even without a key
		if tr.again.Swap(false) {
			tr.owed.Store(tr.sent.Load() + 1)
		}
	}
	if now.At >= t.persistAt(tr) {
		t.persistNow, t.persistFrom = false, now.At
		out = p.keepalive(now.At, out)
	}
	return out
}

// keepalive sends an empty packet; without a key it asks for one instead.
func (p *Peer) keepalive(now Instant, out []Action) []Action {
	msg, signal := p.Seal(make([]byte, 0, KeepaliveSize), nil, now)
	if signal&NoKey != 0 {
		return out
	}
	return append(out, Action{Kind: SendKeepalive, Peer: p, Packet: msg})
}
