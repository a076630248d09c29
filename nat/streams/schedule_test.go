package streams

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/nat/due/duetest"
)

/* Schedules
 *
 * A machine lives through what chance has for it: UDP that passes for all, for STUN alone, or not at all; anchors that take streams, refuse
 * them, or are gone; sessions that come up and are lost; loss, answers that come late, a loop that does nothing for seconds, other networks,
 * other anchors. Then the network stays as it is, and within healBound the machine has to believe what is so, and to have what it needs:
 * sessions by UDP and no stream, or a stream. At every step, no state but Open may be without a next time.
 *
 *	WARREN_SCHEDULES=100000 go test -run Schedules ./nat/streams
 */

// healBound is the sum of all that may have to be waited for in a row: a session by UDP is found lost, or four rounds of dialling fail
// (dialsSeenEvery); members still answer (spared); streams are dialled, of which each may take dialTime, and the next one waits as long as
// the longest time without one has it; or UDP is asked, or an anchor is knocked at, at the longest rung, and has to answer for the longest
// time until that is believed.
const healBound = (distrustAfter+1)*dialsSeenEvery + spared + 4*dialTime + 2*(knockMost+probeMost*5/4) + confirmMost + 2*lingerTime

// how a session goes.
type sessionWay uint8

const (
	noSession sessionWay = iota
	byUDP
	byStream
)

// site is one anchor.
type site struct {
	id    identity.NodeID
	alive bool
	takes bool // streams
	way   sessionWay
	lost  int // looks at a session that did not answer
	ref   Ref // of the stream that is up; zero: none
	left  bool
}

// schedule is a machine and its surroundings.
type schedule struct {
	rnd   *rand.Rand
	m     *Machine
	now   time.Time
	wake  time.Time
	queue duetest.Queue
	sites []*site
	known int // how many of the sites are the machine's anchors

	stun, udp bool // answers to STUN, sessions by UDP
	others    bool // members that are no anchors are heard
	tcp       bool
	loss      float64
	busy      time.Time
	spins     int
	coverage  map[reachedState]int
	failed    string
}

// reachedState is what the machine was, for coverage.
type reachedState struct {
	state           State
	distrust, spare bool
	phases          [streamLeaving + 1]uint8
	lonely          bool
	event           string
}

func (s *schedule) after(d time.Duration, do func()) {
	s.queue.Put(s.now.Add(d), do)
}

// tell gives an input to the machine, when the loop has time.
func (s *schedule) tell(in Input) {
	if s.now.Before(s.busy) {
		s.after(s.busy.Sub(s.now), func() { s.step(in) })
		return
	}
	s.step(in)
}

func eventOf(in Input) string {
	switch in.(type) {
	case Anchors:
		return "anchors"
	case Moved:
		return "moved"
	case NetworkChanged:
		return "network"
	case Doubt:
		return "doubt"
	case DialFailed:
		return "dial failed"
	case Answered:
		return "answered"
	case PeerAnswered:
		return "peer"
	case SessionUp:
		return "session up"
	case SessionDown:
		return "session down"
	case Knocked:
		return "knocked"
	case StreamUp:
		return "stream up"
	case StreamDown:
		return "stream down"
	case Tick:
		return "tick"
	}
	return fmt.Sprintf("%T", in)
}

func (s *schedule) step(in Input) {
	m := s.m
	was := reachedState{state: m.state, distrust: m.sessions.distrust, spare: m.spares(s.now), lonely: !m.lonely.IsZero(), event: eventOf(in)}
	for _, one := range m.streams {
		was.phases[one.phase] = min(was.phases[one.phase]+1, 2)
	}
	s.coverage[was]++
	out, wake := m.Step(s.now, in)
	if s.wake = wake; !wake.IsZero() && wake.Before(s.now) {
		s.wake = s.now // as the loop does
	}
	switch {
	case m.state != Open && wake.IsZero():
		s.fail(in, "no next time in %s", m.state)
	case m.state != Open && wake.Sub(s.now) > probeMost*5/4:
		s.fail(in, "nothing to do for %s in %s", wake.Sub(s.now), m.state)
	}
	for _, o := range out {
		s.do(o)
	}
}

func (s *schedule) fail(in Input, format string, args ...any) {
	if s.failed == "" {
		s.failed = fmt.Sprintf("after %s at %s: ", eventOf(in), s.now.Format("04:05.000")) + fmt.Sprintf(format, args...)
	}
}

func (s *schedule) site(id identity.NodeID) *site {
	for _, one := range s.sites {
		if one.id == id {
			return one
		}
	}
	panic("internal error: a stream to nobody")
}

func (s *schedule) trip() time.Duration { return time.Duration(20+s.rnd.IntN(200)) * time.Millisecond }

func (s *schedule) do(o Output) {
	switch o := o.(type) {
	case Probe:
		alive := slices.ContainsFunc(s.sites[:s.known], func(one *site) bool { return one.alive })
		if (s.udp || s.stun) && alive && s.rnd.Float64() >= s.loss {
			s.after(s.trip(), func() { s.tell(Answered{}) })
		}
	case Knock:
		took := 4 * time.Second
		open := s.udp && slices.ContainsFunc(s.sites[:s.known], func(one *site) bool { return one.alive })
		if open {
			took = 2 * s.trip()
		}
		s.after(took, func() { s.tell(Knocked{o.Serial, open}) })
	case OpenStream:
		one := s.site(o.ID)
		if !s.tcp || !one.alive {
			s.after(dialTime, func() { s.tell(StreamDown(o)) })
			return
		}
		s.after(3*s.trip(), func() {
			if !one.takes || !s.tcp || !one.alive {
				s.tell(StreamDown(o))
				return
			}
			if current := s.m.streams[o.ID]; current != nil && current.serial == o.Serial && current.phase == streamOpening {
				one.ref, one.left = o.Ref, false
			}
			s.tell(StreamUp(o))
		})
	case LeaveStream:
		if one := s.site(o.ID); one.ref == o.Ref {
			one.left = true
		}
	case CloseStream:
		if one := s.site(o.ID); one.ref == o.Ref {
			s.hangUp(one)
		}
		s.after(s.trip(), func() { s.tell(StreamDown(o)) })
	}
}

// hangUp ends a stream, and the session by it.
func (s *schedule) hangUp(one *site) {
	one.ref = Ref{}
	if one.way == byStream {
		one.way = noSession
	}
}

// look is what the sessions do, twice a second: they are dialled where they can be had, and found lost where they are silent.
func (s *schedule) look() {
	for i, one := range s.sites {
		reached := s.udp && one.alive && i < s.known
		switch {
		case one.ref != (Ref{}) && (!s.tcp || !one.alive):
			ref := one.ref
			s.hangUp(one)
			s.tell(StreamDown{ref})
		case one.way == noSession && one.ref != (Ref{}) && !one.left:
			one.way = byStream
		case one.way == noSession && reached:
			one.way, one.lost = byUDP, 0
			s.tell(SessionUp{one.id})
		case one.way == byStream && one.left:
			one.way = noSession // it comes back by UDP
		case one.way == byUDP && (!reached || s.m.state == Blocked && one.ref != (Ref{})):
			if one.lost++; one.lost < 4 && !reached {
				continue
			}
			one.way = noSession
			s.tell(SessionDown{one.id})
			s.tell(Doubt{})
		}
	}
	if s.others {
		s.tell(PeerAnswered{})
	}
	s.after(500*time.Millisecond, s.look)
}

// dial is what is seen of dialling anchors.
func (s *schedule) dial() {
	up := slices.ContainsFunc(s.sites, func(one *site) bool { return one.way == byUDP })
	for _, one := range s.sites[:s.known] {
		if s.m.state == Open && !up && one.way == noSession && !(s.udp && one.alive) {
			s.tell(DialFailed{one.id})
		}
	}
	s.after(dialsSeenEvery, s.dial)
}

func (s *schedule) pass(d time.Duration) {
	end := s.now.Add(d)
	for s.failed == "" {
		next, wakes := end, false
		if at, ok := s.queue.Next(); ok && at.Before(next) {
			next = at
		}
		if at := s.wake; !at.IsZero() && at.Before(next) {
			if at.Before(s.busy) {
				at = s.busy.Add(1)
			}
			if at.Before(next) {
				next, wakes = at, true
			}
		}
		if !next.Before(end) {
			s.now = end
			return
		}
		if next.After(s.now) {
			s.spins = 0
		} else if s.spins++; s.spins > 200 {
			s.fail(Tick{}, "it spins")
		}
		s.now = next
		if wakes {
			s.step(Tick{Busy: s.rnd.IntN(2) == 0, Late: s.now.Sub(s.wake)})
			continue
		}
		_, do := s.queue.Pop()
		do()
	}
}

func (s *schedule) anchors() {
	ids := make([]identity.NodeID, 0, s.known)
	for i, one := range s.sites {
		if i < s.known {
			ids = append(ids, one.id)
			continue
		}
		if one.way == byUDP {
			defer s.tell(SessionDown{one.id})
		}
		one.way, one.ref = noSession, Ref{}
	}
	s.tell(Anchors{ids})
}

func (s *schedule) disturb() {
	r := s.rnd
	one := s.sites[r.IntN(len(s.sites))]
	switch r.IntN(15) {
	case 0, 1:
		s.udp = !s.udp
		s.stun = s.udp || r.IntN(3) == 0
	case 2:
		s.stun = !s.stun
	case 3:
		s.tcp = !s.tcp
	case 4:
		one.alive = !one.alive
	case 5:
		one.takes = !one.takes
	case 6:
		s.loss = r.Float64()
	case 7:
		s.others = !s.others
	case 8:
		if until := s.now.Add(time.Duration(r.IntN(4000)) * time.Millisecond); until.After(s.busy) {
			s.busy = until // what comes stays in order
		}
	case 9:
		s.tell(NetworkChanged{})
	case 10:
		s.known = r.IntN(len(s.sites) + 1)
		s.anchors()
	case 11:
		s.tell(Doubt{})
	case 12: // a stream ends by itself
		if ref := one.ref; ref != (Ref{}) {
			s.hangUp(one)
			s.tell(StreamDown{ref})
		}
	case 14:
		s.tell(Moved{one.id})
	case 13: // news of an older one
		var older Ref
		if current := s.m.streams[one.id]; current != nil && current.serial > 0 {
			older = Ref{one.id, r.Uint64N(current.serial)}
		}
		s.tell([...]Input{StreamDown{older}, StreamUp{older}, Knocked{r.Uint64N(s.m.sessions.serial + 1), false}}[r.IntN(3)])
	}
}

// right reports whether the machine believes what is so, and has what it needs.
func (s *schedule) right() bool {
	up, left := false, false
	for _, one := range s.sites {
		up = up || one.ref != (Ref{}) && !one.left
		left = left || one.ref != (Ref{})
	}
	if s.udp {
		return s.m.state == Open && !left
	}
	return s.m.state == Blocked && up
}

func (s *schedule) play() (trouble string, took time.Duration) {
	s.after(0, s.look)
	s.after(dialsSeenEvery, s.dial)
	s.anchors()
	for range 3 + s.rnd.IntN(14) {
		wait := time.Duration(s.rnd.IntN(2500)) * time.Millisecond
		if s.rnd.IntN(6) == 0 {
			wait *= 12
		}
		s.pass(wait)
		s.disturb()
	}
	s.tcp, s.loss = true, 0
	if s.stun = s.udp; !s.udp {
		s.stun = s.rnd.IntN(2) == 0
	}
	s.known = max(s.known, 1)
	s.anchors()
	for _, one := range s.sites[:s.known] {
		one.alive, one.takes = true, true
	}
	begin := s.now
	for !s.right() {
		if s.failed != "" {
			return s.failed, 0
		}
		if s.now.Sub(begin) > healBound {
			return fmt.Sprintf("%s after the network was whole, UDP passes %t, STUN %t: %s, since %s, %q", healBound, s.udp, s.stun, s.m.state,
				s.m.since.Format("04:05"), s.m.reason), healBound
		}
		s.pass(250 * time.Millisecond)
	}
	took = s.now.Sub(begin)
	s.pass(2 * time.Second)
	return s.failed, took
}

// TestSchedules asserts that from every state that the machine comes to it finds within healBound to what is so, and that no state but Open
// is without a next time.
func TestSchedules(t *testing.T) {
	n, until := duetest.Schedules(2000)
	coverage, kinds, states := make(map[reachedState]int), make(map[string]int), make(map[State]int)
	var took []time.Duration
	failed := 0
	for seed := range n {
		if time.Now().After(until) {
			break
		}
		r := rand.New(rand.NewPCG(seed, 2))
		s := &schedule{
			rnd: r, m: NewMachine(r.Float64), now: start, stun: true, udp: r.IntN(2) == 0, tcp: true, known: 2, coverage: coverage,
		}
		for i := range 3 {
			s.sites = append(s.sites, &site{id: anchor(byte(i + 1)), alive: true, takes: true})
		}
		trouble, d := s.play()
		took = append(took, d)
		if trouble != "" {
			t.Errorf("seed %d: %s", seed, trouble)
			if failed++; failed == 10 {
				break
			}
		}
	}
	for s, count := range coverage {
		kinds[s.event] += count
		states[s.state] += count
	}
	slices.Sort(took)
	t.Logf("%d schedules, %d pairs of a state and an event: %v in %v; whole again to right: median %s, 99 %% %s, worst %s of %s",
		len(took), len(coverage), kinds, states, took[len(took)/2], took[len(took)*99/100], took[len(took)-1], healBound)
}
