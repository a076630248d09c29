package noise

import (
	"sync/atomic"
)

// traffic is what the data loops and the control goroutine tell each other of a peer: when what was sent and received. All
// words are written now and then, not for each packet: the loops take the time once for a batch.
type traffic struct {
	// written by those who send
	sent   atomic.Int64 // anything that is authenticated; later than owed, nothing is owed
	asked  atomic.Int64 // data, the first since answered: an answer is expected if it is later
	demand atomic.Int64 // a key was wanted, last
	wanted atomic.Bool  // and the control goroutine has yet to see to it

	_ [64]byte

	// written by those who receive
	got      atomic.Int64 // anything that is authenticated
	answered atomic.Int64 // what was sent up to then needs no answer any more
	owed     atomic.Int64 // data, the first since sent
	again    atomic.Bool  // and more data after it

	planned atomic.Int64 // when the control goroutine will look after this peer; see due
}

func (t *traffic) init() {
	for _, word := range []*atomic.Int64{&t.sent, &t.asked, &t.demand, &t.got, &t.answered, &t.owed} {
		word.Store(int64(longAgo))
	}
	t.planned.Store(int64(Never))
}

// raise stores the later one, and leaves the word alone if it is the same.
func raise(word *atomic.Int64, to int64) {
	if word.Load() < to {
		word.Store(to)
	}
}

// due reports with Wake that something has to be done earlier than the control goroutine plans. Once: the plan is changed.
func (t *traffic) due(at Instant) Signal {
	for {
		planned := t.planned.Load()
		if int64(at) >= planned {
			return 0
		}
		if t.planned.CompareAndSwap(planned, int64(at)) {
			return Wake
		}
	}
}

// sentSome notes that something was sent.
func (t *traffic) sentSome(now Instant, data bool) Signal {
	raise(&t.sent, max(int64(now), t.owed.Load()))
	if !data {
		return 0
	}
	answered := t.answered.Load()
	if t.asked.Load() > answered {
		return 0 // the first of them counts
	}
	at := max(int64(now), answered+1)
	t.asked.Store(at)
	return t.due(Instant(at).Add(KeepaliveTimeout + RekeyTimeout))
}

// heardSome notes that something was received. It is an answer only if the peer has shown by it that it has the key that is sent
// with, or was given it just now: else two that send with different keys, of which one is lost, would never see it.
func (t *traffic) heardSome(now Instant, data, answer bool) Signal {
	raise(&t.got, int64(now))
	if asked := t.asked.Load(); answer && asked > t.answered.Load() {
		t.answered.Store(max(int64(now), asked))
	}
	if !data {
		return 0
	}
	sent := t.sent.Load()
	if t.owed.Load() > sent {
		if !t.again.Load() {
			t.again.Store(true)
		}
		return 0
	}
	at := max(int64(now), sent+1)
	t.again.Store(false)
	t.owed.Store(at)
	return t.due(Instant(at).Add(KeepaliveTimeout))
}

// silentSince returns since when data wait for an answer, or Never.
func (t *traffic) silentSince() Instant {
	if asked := t.asked.Load(); asked > t.answered.Load() {
		return Instant(asked)
	}
	return Never
}

// owedSince returns since when the peer waits for an answer, or Never.
func (t *traffic) owedSince() Instant {
	if owed := t.owed.Load(); owed > t.sent.Load() {
		return Instant(owed)
	}
	return Never
}

// demand notes that a new key is wanted: there is none, or it is old.
func (p *Peer) demand(now Instant) Signal {
	t := &p.traffic
	raise(&t.demand, int64(now))
	if !t.wanted.Load() && t.wanted.CompareAndSwap(false, true) {
		return Wake
	}
	return 0
}

// received notes that something came under a session.
func (p *Peer) received(k *pair, now Instant, data bool) Signal {
	all := p.keys.Load()
	current := all.current
	answer := current == nil || k == current || k == all.next && k.standing.Load() != ceded || now.Sub(current.created) < RekeyTimeout
	signal := p.traffic.heardSome(now, data, answer)
	if current != nil && current.initiator && now.Sub(current.created) >= lastMinute {
		signal |= p.demand(now)
	}
	return signal
}

// lastMinute is the age at which one who only receives has to begin a handshake, to have new keys in time (section 6.2).
const lastMinute = RejectAfterTime - KeepaliveTimeout - RekeyTimeout
