package streams

import (
	"fmt"
	"slices"
	"time"

	"warren/mesh/identity"
)

// Times of the decision.
const (
	// trialTime is how long nobody may answer by UDP until it is taken to be blocked: twice the longest round trip that
	// is usual on earth, by satellite. With two round trips for TLS and one for the session that makes two seconds.
	trialTime  = time.Second
	trialEvery = 100 * time.Millisecond // between probes in a trial: three lost in a row are rare

	// headStart is what the answers by UDP have until streams are dialled as well, so that a doubt without a cause
	// costs no anchor a handshake unless it is far away.
	headStart = 100 * time.Millisecond
	// decisive is how old a trial has to be for a stream to end it. A stream takes three round trips and the head start, so that
	// the answers to the first probes were due long before it is up; this leaves room for some that were lost.
	decisive = 200 * time.Millisecond

	// spared is how long UDP is not taken to be blocked because members that are no anchors still answer by it: most
	// likely the anchors are dead. After that streams are tried all the same, for some firewalls let UDP pass to a few
	// addresses.
	spared = 10 * time.Second

	// distrustAfter is how many dials of one anchor may fail, while probes are answered, until UDP is taken to be
	// blocked for sessions: some networks let STUN pass and nothing else.
	distrustAfter = 4

	probeFirst = 2 * time.Second // between probes while streams are used, doubled
	probeMost  = time.Minute
	probeBusy  = 4 * time.Second // the most while packets go over the streams: a probe more costs their user nothing

	// Going back: UDP has to answer for so long, without a gap. Each return that does not last makes the next one longer.
	confirmFirst = time.Second
	confirmMost  = time.Minute
	confirmEvery = 250 * time.Millisecond
	confirmGap   = 1200 * time.Millisecond
	lasting      = 2 * time.Minute // a return that lasted this long is forgotten

	// lingerTime is how long a stream stays after the session has been told to leave it: what is relayed over it has
	// to move too.
	lingerTime = 3 * time.Second

	wantedStreams = 2                      // a spare one
	moreEvery     = 300 * time.Millisecond // while none is up, one more anchor is tried
	mostOpening   = 6
	reopenFirst   = 500 * time.Millisecond // doubled for each failure
	reopenMost    = time.Minute
	// provenFailures is how many failures are left of an anchor's once a stream to it is up: it lives, or lives again.
	provenFailures = 1
	// lonelyFirst and lonelyShare bound the wait while no stream is up at all: 3 s and a tenth of the time without one.
	lonelyFirst = 3 * time.Second
	lonelyShare = 10
	steady      = 5 * time.Second // a stream that lived this long is opened again at once
)

// Machine decides whether UDP is blocked and which streams to have. It is pure: time comes in with each step.
type Machine struct {
	jitter func() float64 // in [0, 1)

	state  State
	since  time.Time
	reason string

	anchors  []identity.NodeID
	sessions map[identity.NodeID]bool // by UDP
	failures map[identity.NodeID]int  // of dialling by UDP, since the last session
	streams  map[identity.NodeID]*slot
	serial   uint64
	out      []Output

	probeAt   time.Time
	probeWait time.Duration // Blocked: the rung of the ladder
	answered  time.Time     // Returning: the last answer
	heard     time.Time     // the last packet of a member that is no anchor
	confirm   time.Duration // the next return takes so long
	left      time.Time     // the last return
	lonely    time.Time     // since when no stream is up, zero while one is
	distrust  bool          // answers to probes prove nothing
}

type phase uint8

const (
	streamDown phase = iota
	streamOpening
	streamUp
	streamLeaving // up, and to be closed soon
)

type slot struct {
	serial   uint64 // of the one that is or was last open
	phase    phase
	since    time.Time
	at       time.Time // down: not to be opened before; leaving: to be closed
	failures int
}

// NewMachine returns a machine that believes that UDP works and knows no anchors. jitter returns numbers in [0, 1).
func NewMachine(jitter func() float64) *Machine {
	return &Machine{
		jitter: jitter, confirm: confirmFirst, sessions: make(map[identity.NodeID]bool),
		failures: make(map[identity.NodeID]int), streams: make(map[identity.NodeID]*slot),
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
	m.arrange(now)
	out, m.out = m.out, nil
	return out, m.wake(now)
}

func (m *Machine) emit(o Output) { m.out = append(m.out, o) }

func (m *Machine) enter(now time.Time, s State, reason string) {
	m.state, m.since, m.reason = s, now, reason
}

// take notes the evidence.
func (m *Machine) take(now time.Time, in Input) {
	switch in := in.(type) {
	case Anchors:
		none := len(m.anchors) == 0
		m.setAnchors(in.IDs)
		if none && len(m.anchors) > 0 {
			m.try(now, "start")
		}
	case NetworkChanged:
		m.distrust, m.left = false, time.Time{}
		clear(m.failures)
		for _, s := range m.streams {
			if s.failures = 0; s.phase == streamDown {
				s.at = now
			}
		}
		m.try(now, "the network changed")
	case Doubt:
		m.doubt(now, "an answer is missing")
	case DialFailed:
		m.failures[in.ID]++
		m.dialFailed(now, in.ID)
	case Answered:
		m.evidence(now, !m.distrust, "an anchor answers by UDP")
	case PeerAnswered:
		m.heard = now
	case SessionUp:
		m.sessions[in.ID] = true
		m.distrust = false
		clear(m.failures)
		m.evidence(now, true, "a session by UDP is up")
	case SessionDown:
		delete(m.sessions, in.ID)
	case StreamUp:
		if s := m.streams[in.ID]; s != nil && s.serial == in.Serial && s.phase == streamOpening {
			s.phase, s.since = streamUp, now
			s.failures = min(s.failures, provenFailures)
		}
	case StreamDown:
		m.streamEnded(now, in.Ref)
	case Tick:
		if soon := now.Add(m.jittered(probeBusy)); in.Busy && m.state == Blocked && m.probeAt.After(soon) {
			m.probeAt = soon
		}
	}
}

func (m *Machine) setAnchors(ids []identity.NodeID) {
	m.anchors = slices.Clone(ids)
	for id, s := range m.streams {
		if !slices.Contains(ids, id) {
			if s.phase != streamDown {
				m.close(id, s)
			}
			delete(m.streams, id)
		}
	}
	for id := range m.failures {
		if !slices.Contains(ids, id) {
			delete(m.failures, id)
		}
	}
	for _, id := range ids {
		if m.streams[id] == nil {
			m.streams[id] = &slot{}
		}
	}
}

// try begins a trial.
func (m *Machine) try(now time.Time, reason string) {
	if len(m.anchors) > 0 {
		m.enter(now, Trying, reason)
		m.probeAt = now
	}
}

func (m *Machine) doubt(now time.Time, reason string) {
	if m.state == Open {
		m.try(now, reason)
	}
}

func (m *Machine) dialFailed(now time.Time, id identity.NodeID) {
	if m.state != Open || len(m.sessions) > 0 || !slices.Contains(m.anchors, id) {
		return
	}
	if m.failures[id] >= distrustAfter {
		m.distrust = true
		m.block(now, "anchors answer probes by UDP, but no session comes up")
		return
	}
	m.try(now, "an anchor does not answer")
}

// evidence that UDP works has come.
func (m *Machine) evidence(now time.Time, good bool, reason string) {
	if !good {
		return
	}
	m.answered = now
	switch m.state {
	case Trying:
		m.open(now, reason)
	case Blocked:
		if !m.streamSince(time.Time{}) {
			m.open(now, reason) // it was an outage of everything, and there is nothing to leave
			return
		}
		m.enter(now, Returning, reason)
		m.probeAt = now.Add(confirmEvery)
	}
}

// block begins the use of streams.
func (m *Machine) block(now time.Time, reason string) {
	m.enter(now, Blocked, reason)
	m.probeWait = 0
	m.climb(now)
	if now.Sub(m.left) < lasting {
		m.confirm = min(4*m.confirm, confirmMost)
	} else {
		m.confirm = confirmFirst
	}
	for _, id := range m.anchors {
		if s := m.streams[id]; s.phase == streamLeaving {
			m.close(id, s) // the session has left it: a new one is as soon there
		}
	}
}

// open ends the use of streams.
func (m *Machine) open(now time.Time, reason string) {
	m.enter(now, Open, reason)
	for _, id := range m.anchors {
		switch s := m.streams[id]; s.phase {
		case streamUp:
			m.left = now
			s.phase, s.at = streamLeaving, now.Add(lingerTime)
			m.emit(LeaveStream{Ref{id, s.serial}})
		case streamOpening:
			m.close(id, s)
		}
	}
}

// climb plans the next probe while UDP is blocked.
func (m *Machine) climb(now time.Time) {
	m.probeWait = min(max(2*m.probeWait, probeFirst), probeMost)
	m.probeAt = now.Add(m.jittered(m.probeWait))
}

func (m *Machine) jittered(d time.Duration) time.Duration {
	return d*3/4 + time.Duration(m.jitter()*float64(d/2))
}

// spares reports whether UDP answers elsewhere than at the anchors, which are more likely dead than blocked.
func (m *Machine) spares(now time.Time) bool {
	return m.state == Trying && !m.heard.Before(m.since) && now.Sub(m.since) < spared
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
		if !now.Before(m.probeAt) {
			m.climb(now)
			m.emit(Probe{})
		}
	case Returning:
		switch {
		case now.Sub(m.answered) >= confirmGap:
			m.enter(now, Blocked, "UDP answered, and does not any more")
			m.climb(now)
		case now.Sub(m.since) >= m.confirm:
			m.open(now, m.reason)
		case !now.Before(m.probeAt):
			m.probeAt = now.Add(confirmEvery)
			m.emit(Probe{})
		}
	}
}

// decideTrial ends a trial that nobody has answered, or asks again.
func (m *Machine) decideTrial(now time.Time) {
	age := now.Sub(m.since)
	switch {
	case m.spares(now):
	case age >= trialTime, age >= decisive && m.streamSince(m.since):
		m.block(now, fmt.Sprintf("%d anchors asked by UDP, no answer in %v", len(m.anchors), age.Round(10*time.Millisecond)))
		return
	}
	if !now.Before(m.probeAt) {
		m.probeAt = now.Add(trialEvery)
		if age >= trialTime {
			m.probeAt = now.Add(trialTime)
		}
		m.emit(Probe{})
	}
}

// streamSince reports whether a stream is up that has come up since then. If that is since a trial began, the network works,
// and only UDP does not.
func (m *Machine) streamSince(begin time.Time) bool {
	for _, s := range m.streams {
		if s.phase == streamUp && !s.since.Before(begin) {
			return true
		}
	}
	return false
}
