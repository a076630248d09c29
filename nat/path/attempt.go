package path

import (
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
)

// Times of an attempt.
const (
	// attemptTime is how long candidate pairs are tried. Both sides begin within one signalling round
	// trip of each other; punching that works, works within two seconds.
	attemptTime = 6 * time.Second
	// preferDirect is how long a relay that works already waits for ICE.
	preferDirect = 300 * time.Millisecond
)

// trickleAgain says when the grown candidate list is repeated: signals may be lost.
var trickleAgain = [...]time.Duration{300 * time.Millisecond, time.Second}

// directLadder spaces the tries for a direct path while relayed, noneLadder those while there is none.
var (
	directLadder = [...]time.Duration{
		5 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute,
		2 * time.Minute, 5 * time.Minute, 10 * time.Minute,
	}
	noneLadder = [...]time.Duration{
		time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second,
		20 * time.Second, 40 * time.Second, time.Minute,
	}
)

// attempt is one run of ICE.
type attempt struct {
	number   uint64
	on       bool // the agent runs
	won      bool // it nominated
	own      Credentials
	theirs   Credentials
	started  time.Time
	deadline time.Time
	relay    identity.NodeID // agreed on, zero for none
	remote   []Candidate
	repeats  int // of the trickled list; -1 when nothing was trickled
	count    uint64
	failure  string // of the last attempt that failed, empty after a success
}

func (a *attempt) wake() time.Time {
	if !a.on {
		return time.Time{}
	}
	if a.repeats >= 0 && a.repeats < len(trickleAgain) {
		return earlier(a.started.Add(trickleAgain[a.repeats]), a.deadline)
	}
	return a.deadline
}

// ladder is the time of the next introduction made unasked.
type ladder struct {
	at   time.Time
	rung int
}

func (m *Machine) startAttempt(now time.Time, number uint64, own, theirs Credentials, remote []Candidate, relay identity.NodeID) {
	m.try = attempt{
		number: number, on: true, own: own, theirs: theirs, started: now, deadline: now.Add(attemptTime), relay: relay,
		remote: remote, repeats: -1, count: m.try.count + 1, failure: m.try.failure,
	}
	if m.cur.path.Kind == None {
		m.agree()
	}
	m.emit(StartICE{
		Attempt: number, Controlling: m.controlling, Local: own, Remote: theirs, Candidates: slices.Clone(remote),
	})
	m.sources = nil
	m.learnSources(remote)
	m.planRelay(now, relay)
}

// agree makes the credentials of the newest attempt those of checks. While a path works, that waits
// until the attempt has won: the peer may never learn of an attempt whose answer was lost.
func (m *Machine) agree() {
	if m.try.own.Ufrag != "" {
		m.agreed = exchange{own: m.try.own, remote: m.try.theirs, ok: true}
	}
}

func (m *Machine) endAttempt() {
	m.sig.waiting = false
	if m.try.on {
		m.try.on = false
		m.emit(StopICE{Attempt: m.try.number})
	}
}

// addRemote feeds new candidates of the peer to the running attempt.
func (m *Machine) addRemote(more []Candidate) {
	if !m.try.on {
		return
	}
	all, added := merge(m.try.remote, more)
	m.try.remote = all
	if len(added) > 0 {
		m.emit(AddCandidates{Attempt: m.try.number, Candidates: added})
		m.learnSources(added)
	}
}

func (m *Machine) learnSources(candidates []Candidate) {
	var fresh bool
	for _, c := range candidates {
		if !slices.Contains(m.sources, c.Addr) {
			m.sources = append(m.sources, c.Addr)
			fresh = true
		}
	}
	if fresh {
		m.report(false)
	}
}

// setLocal takes this node's candidates. What a running attempt does not know yet is trickled.
func (m *Machine) setLocal(now time.Time, l Local) {
	before := m.local.Candidates
	m.local = l.bounded()
	fresh := slices.ContainsFunc(l.Candidates, func(c Candidate) bool {
		return !slices.ContainsFunc(before, func(b Candidate) bool { return b.Addr == c.Addr })
	})
	switch {
	case !fresh:
	case m.try.on:
		m.try.repeats = 0
		for m.try.repeats < len(trickleAgain) && now.Sub(m.try.started) >= trickleAgain[m.try.repeats] {
			m.try.repeats++
		}
		m.trickle()
	case m.controlling && m.sig.waiting && m.sig.sent > 0 && m.sig.noRoute == "":
		m.trickle()
	}
}

func (l Local) bounded() Local {
	l.Candidates = l.Candidates[:min(len(l.Candidates), MaxCandidates)]
	l.Relays = l.Relays[:min(len(l.Relays), maxRelays)]
	return l
}

func (m *Machine) trickle() {
	m.send(Message{Kind: KindCandidates, Attempt: m.sig.number, Candidates: Lines(m.local.Candidates)})
}

func (m *Machine) watchAttempt(now time.Time) {
	if r := m.try.repeats; r >= 0 && r < len(trickleAgain) && due(now, m.try.started.Add(trickleAgain[r])) {
		m.try.repeats++
		m.trickle()
	}
	if due(now, m.try.deadline) {
		m.failed(now, Failed{Attempt: m.try.number, Text: m.tried()})
	}
}

// tried says what an attempt without success did.
func (m *Machine) tried() string {
	var v4, v6 bool
	for _, c := range m.local.Candidates {
		v4, v6 = v4 || c.Addr.Addr().Is4(), v6 || c.Addr.Addr().Is6()
	}
	pairs := 0
	for _, c := range m.try.remote {
		if c.Addr.Addr().Is4() && v4 || c.Addr.Addr().Is6() && v6 {
			pairs++
		}
	}
	switch {
	case len(m.try.remote) == 0:
		return "the peer has told no usable candidate"
	case pairs == 0:
		return "the peer has no address of a family that this node has"
	}
	return counted(pairs, "pair") + " tried, none answered"
}

// nominated moves to the direct path. The agent has done its work: from here on the peer's checks are
// answered, and the path watched, by our own.
func (m *Machine) nominated(now time.Time, in Nominated) {
	if !m.try.on || in.Attempt != m.try.number {
		return
	}
	m.endAttempt()
	m.agree()
	m.try.won, m.try.failure = true, ""
	m.retry = ladder{}
	m.cur.alt = netip.AddrPort{}
	m.setPath(now, Path{Addr: in.Addr, Kind: Direct}, "nominated by ICE")
	m.relay.retire(now)
}

// failed leaves what path there is in use and plans the next try.
func (m *Machine) failed(now time.Time, in Failed) {
	if !m.try.on || in.Attempt != m.try.number {
		return
	}
	m.endAttempt()
	m.try.failure = in.Text
	m.useRelay(now)
	if m.retry.at.IsZero() {
		m.climb(now)
	}
}

// climb plans the next introduction by the ladder that fits the path. The controlled side leaves the
// initiative to the other, and asks only if that stays silent.
func (m *Machine) climb(now time.Time) {
	var steps []time.Duration
	switch m.cur.path.Kind {
	case Direct:
		return
	case Relayed:
		steps = directLadder[:]
	case None:
		steps = noneLadder[:]
	}
	wait := m.backoff(steps[min(m.retry.rung, len(steps)-1)], time.Hour, 0)
	if !m.controlling {
		wait += wait/2 + time.Second
	}
	m.retry.at = now.Add(wait)
	m.retry.rung++
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
