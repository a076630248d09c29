package streams

import (
	"fmt"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/nat/due"
)

// distrustAfter is how many dials of one anchor may fail in silence, one after the other, while probes are answered, until UDP is
// taken to be blocked for sessions: some networks let STUN pass and nothing else. Each is a first flight sent three times, and
// the three take 5 s.
const distrustAfter = 3

// Times of knocking, which costs more than a probe: a few packets of full size. The waits are doubled.
const (
	knockFirst = 4 * time.Second
	knockMost  = time.Minute
)

// Machine decides whether UDP is blocked and which streams to have. It is pure: time comes in with each step. Its parts do
// not know each other: what is believed of UDP, what the sessions with anchors prove, and the streams.
type Machine struct {
	*core
	belief
	sessions sessions
	pool
	heard time.Time // the last packet of a member that is no anchor
}

// core is what all parts stand on.
type core struct {
	jitter func() float64 // in [0, 1)
	out    []Output
}

// NewMachine returns a machine that believes that UDP works and knows no anchors. jitter returns numbers in [0, 1).
func NewMachine(jitter func() float64) *Machine {
	c := &core{jitter: jitter}
	return &Machine{
		core:     c,
		belief:   belief{core: c, confirm: confirmFirst},
		sessions: sessions{up: make(map[identity.NodeID]bool), failures: make(map[identity.NodeID]int)},
		pool:     pool{core: c, streams: make(map[identity.NodeID]*slot)},
	}
}

func (c *core) emit(o Output) { c.out = append(c.out, o) }

func (c *core) jittered(d time.Duration) time.Duration {
	return d*3/4 + time.Duration(c.jitter()*float64(d/2))
}

// sessions is what dialling anchors by UDP shows.
type sessions struct {
	up       map[identity.NodeID]bool
	failures map[identity.NodeID]int // of dialling, since the last session
	distrust bool                    // answers to probes prove nothing

	// While they prove nothing, anchors are knocked at: no session that would prove more is dialled by UDP beside one by a stream.
	serial    uint64 // of the last knock, and of the times that there was no need for one any more: what came of an older one means nothing
	knockAt   time.Time
	knockWait time.Duration // at least twice as long as a knock takes
}

// forgive forgets the failures: a session came up, or could have, or the network is another one.
func (s *sessions) forgive() {
	s.distrust = false
	s.serial++
	clear(s.failures)
}

// doubt has answers to probes prove nothing any more.
func (s *sessions) doubt(now time.Time) {
	s.distrust = true
	s.serial++
	s.knockAt, s.knockWait = now.Add(knockFirst), knockFirst
}

// knock reports whether to knock now that a probe was answered, and counts it.
func (s *sessions) knock(now time.Time) bool {
	if !s.distrust || now.Before(s.knockAt) {
		return false
	}
	s.serial++
	s.knockWait = min(2*s.knockWait, knockMost)
	s.knockAt = now.Add(s.knockWait) // whether or not anything is heard of this one
	return true
}

// keep forgets the failures of those that are no anchors any more.
func (s *sessions) keep(ids []identity.NodeID) {
	for id := range s.failures {
		if !slices.Contains(ids, id) {
			delete(s.failures, id)
		}
	}
}

// State returns what is believed, since when, and why.
func (m *Machine) State() (s State, since time.Time, reason string) {
	return m.state, m.since, m.reason
}

// Step takes one input and returns what to do, in order, and when to be woken with a Tick (zero: not at all).
func (m *Machine) Step(now time.Time, in Input) (out []Output, wake time.Time) {
	m.take(now, in)
	m.decide(now)
	m.arrange(now, m.streaming(now), m.since)
	out, m.out = m.out, nil
	return out, due.Sooner(m.belief.wake(now), m.pool.wake(now, m.streaming(now), m.since))
}

// take notes the evidence.
func (m *Machine) take(now time.Time, in Input) {
	switch in := in.(type) {
	case Anchors:
		none := len(m.anchors) == 0
		m.setAnchors(in.IDs)
		m.sessions.keep(in.IDs)
		if none && len(m.anchors) > 0 {
			m.sessions.forgive()
			m.try(now, "start")
		}
	case Moved:
		delete(m.sessions.failures, in.ID)
		m.pool.moved(now, in.ID)
	case NetworkChanged:
		m.left, m.patience = time.Time{}, 0
		m.sessions.forgive()
		m.pool.forgive(now)
		m.try(now, "the network changed")
	case Doubt:
		m.doubt(now, "an answer is missing")
	case DialFailed:
		m.dialFailed(now, in.ID)
	case Answered:
		m.learn(now)
		m.evidence(now, !m.sessions.distrust, "an anchor answers by UDP")
		if m.state == Blocked && m.sessions.knock(now) {
			m.emit(Knock{Serial: m.sessions.serial})
		}
	case Knocked:
		m.knocked(now, in)
	case PeerAnswered:
		m.heard = now
	case SessionUp:
		m.sessions.up[in.ID] = true
		m.sessions.forgive()
		m.evidence(now, true, "a session by UDP is up")
	case SessionDown:
		delete(m.sessions.up, in.ID)
	case StreamUp:
		m.opened(now, in.Ref)
	case StreamDown:
		m.ended(now, in.Ref)
	case Tick:
		m.excuse(now, in.Late)
		if in.Busy {
			m.hurry(now)
		}
	}
}

// try begins a trial.
func (m *Machine) try(now time.Time, reason string) {
	if len(m.anchors) > 0 {
		m.enter(now, Trying, reason)
		m.tried, m.probeAt = now, now
	}
}

func (m *Machine) doubt(now time.Time, reason string) {
	if m.state == Open {
		m.try(now, reason)
	}
}

func (m *Machine) dialFailed(now time.Time, id identity.NodeID) {
	m.sessions.failures[id]++
	if m.state != Open || len(m.sessions.up) > 0 || !slices.Contains(m.anchors, id) {
		return
	}
	if m.sessions.failures[id] >= distrustAfter {
		m.sessions.doubt(now)
		m.useStreams(now, "anchors answer probes by UDP, but no session comes up")
		return
	}
	m.try(now, "an anchor does not answer")
}

// knocked takes what came of the last knock; of an older one it means nothing.
func (m *Machine) knocked(now time.Time, in Knocked) {
	if m.sessions.distrust && in.Serial == m.sessions.serial && in.Open {
		m.sessions.forgive()
		m.evidence(now, true, "an anchor can be dialled by UDP again")
	}
}

// evidence that UDP works has come.
func (m *Machine) evidence(now time.Time, good bool, reason string) {
	if !good {
		return
	}
	m.answered = now
	switch m.state {
	case Trying:
		m.leaveStreams(now, reason)
	case Blocked:
		if !m.streamSince(time.Time{}) {
			m.leaveStreams(now, reason) // it was an outage of everything, and there is nothing to leave
			return
		}
		m.enter(now, Returning, reason)
		m.probeAt = now.Add(confirmEvery)
	}
}

// useStreams begins the use of streams.
func (m *Machine) useStreams(now time.Time, reason string) {
	m.block(now, reason)
	m.closeLeaving() // the session has left it: a new one is as soon there
}

// leaveStreams ends the use of streams.
func (m *Machine) leaveStreams(now time.Time, reason string) {
	m.enter(now, Open, reason)
	if m.leaveAll(now) {
		m.left = now
	}
}

// spares reports whether UDP answers elsewhere than at the anchors, which are more likely dead than blocked.
func (m *Machine) spares(now time.Time) bool {
	return m.state == Trying && !m.heard.Before(m.since) && now.Sub(m.since) < spared
}

// streaming reports whether streams are wanted.
func (m *Machine) streaming(now time.Time) bool {
	switch m.state {
	case Blocked, Returning:
		return true
	case Trying:
		return now.Sub(m.since) >= headStart+m.room && !m.spares(now)
	}
	return false
}

// decide draws the conclusions that time allows.
func (m *Machine) decide(now time.Time) {
	if len(m.anchors) == 0 && m.state != Open {
		m.enter(now, Open, "no anchor to ask")
	}
	switch m.state {
	case Trying:
		m.decideTrial(now)
	case Blocked:
		m.askSeldom(now)
	case Returning:
		switch {
		case now.Sub(m.answered) >= confirmGap:
			m.enter(now, Blocked, "UDP answered, and does not any more")
			m.climb(now)
		case now.Sub(m.since) >= m.confirm:
			m.leaveStreams(now, m.reason)
		default:
			m.ask(now, confirmEvery)
		}
	}
}

// decideTrial ends a trial that nobody has answered, or asks again.
func (m *Machine) decideTrial(now time.Time) {
	age := now.Sub(m.since)
	switch {
	case m.spares(now):
	case age >= m.trial(), age >= decisive && m.streamSince(m.since):
		m.useStreams(now, fmt.Sprintf("%d anchors asked by UDP, no answer in %v", len(m.anchors), age.Round(10*time.Millisecond)))
		return
	}
	m.ask(now, min(max(trialEvery, age/4), trialTime))
}
