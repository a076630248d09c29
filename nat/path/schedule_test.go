package path

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/nat/due/duetest"
)

/* Schedules
 *
 * Two machines live through what chance has for them: loss, delay, duplicates, things out of order, sides that do nothing for seconds,
 * new addresses, restarts, UDP blocked, sessions and anchors that come and go. Then the network is whole again, and the two have to talk
 * within healBound, whatever state they were in. At every step, no machine may be without a next time; see checkWay.
 *
 *	WARREN_SCHEDULES=100000 go test -run Schedules ./nat/path
 */

// healBound is within which two talk on a network that has become whole, if nothing but their own timers tells them: an idle path is
// checked, and is dead (idleEvery, firstGrace, and lopsided where packets went on to come); the side that may begin waits for its rung of
// the ladder or of the repetitions, both a minute and 15 % at most, and once more if the other would not have it begin then; both try.
const healBound = idleEvery + settle + firstGrace + lopsided + 2*(lastRepeat+lastRepeat*15/100) + attemptTime + relayTime

// longestWait is above every time for which a machine without a path may do nothing: the last rung of the side that leaves the initiative to the other.
const longestWait = (lastRepeat+lastRepeat*15/100)*5/2 + time.Second

// reachedState is what a machine was, for coverage.
type reachedState struct {
	path     PathKind
	suspect  bool
	intro    State
	refused  bool
	noRoute  bool
	planned  bool // another introduction
	phases   [relayReady + 1]bool
	barred   bool
	role     bool
	restarts bool
	event    string
}

func stateOf(m *Machine, in Input) reachedState {
	s := reachedState{
		path: m.route.path.Kind, suspect: m.route.life.suspect(), refused: m.intro.sig.waiting && m.intro.sig.refused,
		noRoute: m.intro.sig.waiting && m.intro.sig.noRoute != "", planned: !m.intro.retry.at.IsZero(), barred: len(m.route.relays.gone) > 0,
		role: m.core.controlling, restarts: m.route.restarted, event: eventOf(in),
	}
	switch {
	case m.intro.try.on:
		s.intro = StateChecking
	case m.intro.sig.waiting:
		s.intro = StateIntroducing
	default:
		s.intro = StateWaiting
	}
	for _, r := range m.route.relays.list {
		s.phases[r.phase] = true
	}
	return s
}

// eventOf names an input without the cost of reflection.
func eventOf(in Input) string {
	switch in := in.(type) {
	case Wake:
		return "wake"
	case Local:
		return "local"
	case Received:
		return in.Message.Kind.String()
	case Stirred:
		return "stirred"
	case Routable:
		return "routable"
	case Unroutable:
		return "unroutable"
	case NetworkChanged:
		return "network"
	case PeerChanged:
		return "peer changed"
	case Suspect:
		return "suspect"
	case RelayGone:
		return "relay gone"
	case Introduce:
		return "introduce"
	case PairAnswered:
		return "pair answered"
	case Nominated:
		return "nominated"
	case Failed:
		return "failed"
	case RelayOpened:
		return "relay opened"
	case CheckAnswered:
		return "answered"
	case PeerChecked:
		return "checked"
	case Proven:
		return "proven"
	}
	return fmt.Sprintf("%T", in)
}

// schedule is one of them.
type schedule struct {
	*world
	seed    uint64
	traffic bool
	failed  string // what was wrong first
	last    [2]Input
}

func newSchedule(t *testing.T, seed uint64, coverage map[reachedState]int) *schedule {
	w := newWorld(t, seed)
	s := &schedule{world: w, seed: seed}
	w.light = true
	w.reached = func(m *Machine, in Input) { coverage[stateOf(m, in)]++ }
	w.stepped = s.checkWay
	return s
}

// checkWay asserts that the machine of a side, which has just been told something, has a way out of the state that it is in.
func (s *schedule) checkWay(i int, in Input, wake time.Time) {
	m, now := s.side[i].m, s.clock(i)
	s.last[i] = in
	fail := func(format string, args ...any) {
		if s.failed == "" {
			s.failed = fmt.Sprintf("side %d after %s at %s: ", i, eventOf(in), s.now.Format("04:05.000")) + fmt.Sprintf(format, args...)
		}
	}
	if _, first := in.(Local); first && m.intro.sig.begun.IsZero() {
		return // Routable comes next
	}
	switch {
	case wake.IsZero():
		fail("no next time; %s", m.Status(now).Reason)
	case wake.Before(now):
		fail("is to be woken %s ago", now.Sub(wake))
	case m.route.path.Kind != Direct && m.intro.idle() && m.intro.retry.at.IsZero():
		fail("%s path, nothing under way, and no next try", m.route.path.Kind)
	case m.route.path.Kind == None && wake.Sub(now) > longestWait:
		fail("no path, and nothing to do for %s", wake.Sub(now))
	case m.route.path.Kind != None && !m.route.life.suspect() && wake.Sub(now) > followEvery+settle:
		fail("a path that is not looked at for %s", wake.Sub(now))
	}
}

// local tells a side what it knows of itself now.
func (s *schedule) local(i int) Local {
	side := s.side[i]
	l := Local{Candidates: []Candidate{NewCandidate(Host, side.addr, 0)}, NoUDP: s.noUDP[i]}
	for n, anchor := range [...]identity.NodeID{anchorID, spareID} {
		if !side.away[anchor] {
			l.Relays = append(l.Relays, RelayOffer{Anchor: anchor, RTTms: uint32(10 * (n + 1)), Since: side.sessions[anchor]})
		}
	}
	return l
}

// session has a side's session with an anchor come up or end.
func (s *schedule) session(i int, anchor identity.NodeID, up bool) {
	side := s.side[i]
	if side.away[anchor] == !up {
		return
	}
	side.away[anchor] = !up
	side.sessions[anchor] = s.clock(i)
	s.route()
	s.input(i, s.local(i))
	if up {
		s.input(i, Routable{Perhaps: s.rnd.IntN(2) == 0 && s.side[1-i].away[anchor]})
	}
}

// route has signals pass when both sides have a session with one anchor.
func (s *schedule) route() {
	a, b := s.side[0], s.side[1]
	s.signals = !a.away[anchorID] && !b.away[anchorID] || !a.away[spareID] && !b.away[spareID]
}

// open has packets pass straight or not.
func (s *schedule) open(direct bool) { s.direct = direct && !s.noUDP[0] && !s.noUDP[1] }

// disturb does one thing that can happen.
func (s *schedule) disturb() {
	r := s.rnd
	i := r.IntN(2)
	side := s.side[i]
	anchor := [...]identity.NodeID{anchorID, spareID}[r.IntN(2)]
	switch r.IntN(22) {
	case 0:
		s.open(r.IntN(2) == 0)
	case 1:
		s.relayed = !s.relayed
	case 2:
		s.dead = anchor
	case 3:
		s.dead = identity.NodeID{}
	case 4, 5:
		s.session(i, anchor, side.away[anchor])
	case 6: // the anchor is another process: it has forgotten its channels
		for _, side := range s.side {
			delete(side.opened, anchor)
		}
		s.session(0, anchor, false)
		s.session(1, anchor, false)
		s.after(time.Duration(r.IntN(2000))*time.Millisecond, func() { s.session(0, anchor, true) })
		s.after(time.Duration(r.IntN(2000))*time.Millisecond, func() { s.session(1, anchor, true) })
	case 7:
		s.loss, s.lost = r.Float64()*0.8, r.Float64()*0.8
	case 8:
		s.loss, s.lost = 0, 0
	case 9:
		s.latency = time.Duration(1+r.IntN(300)) * time.Millisecond
		s.spread = time.Duration(r.IntN(3)) * s.latency
	case 10:
		s.twice = r.Float64()
	case 11, 12: // it does nothing for a while
		s.busy[i] = later(s.busy[i], s.now.Add(time.Duration(r.IntN(4000))*time.Millisecond))
	case 13: // it has moved, and knows
		side.addr = netipPort(side.addr, uint16(1024+r.IntN(60000)))
		s.input(i, NetworkChanged{Local: s.local(i), Same: r.IntN(4) == 0})
	case 14: // its router gives it another address, and it may or may not be told
		side.addr = netipPort(side.addr, uint16(1024+r.IntN(60000)))
		if r.IntN(2) == 0 {
			s.input(i, s.local(i))
			s.input(i, Suspect{})
		}
	case 15:
		s.restart(i)
	case 16: // UDP is blocked there, or is not any more
		s.noUDP[i] = !s.noUDP[i]
		s.open(r.IntN(2) == 0)
		s.input(i, s.local(i))
	case 17:
		s.input(i, [...]Input{Introduce{}, PeerChanged{}, Suspect{}, Routable{}, Routable{Perhaps: true}}[r.IntN(5)])
	case 18:
		s.input(i, RelayGone{Anchor: anchor})
		s.after(time.Second, func() { s.input(i, s.local(i)) })
	case 19:
		if s.side[i].m.intro.try.on {
			s.input(i, Failed{Attempt: side.m.intro.try.number, Text: "no agent"})
		}
	case 20:
		if s.refused = nil; r.IntN(2) == 0 {
			s.refused = map[identity.NodeID]bool{anchor: true}
		}
	case 21: // a peer that does not know this node, or a stray
		s.input(i, Received{Message{Kind: KindRefuse, Instance: s.side[1-i].instance}})
	}
}

// restart begins a side's process anew, with the clock where it was.
func (s *schedule) restart(i int) {
	side := s.side[i]
	if side.m != nil && s.rnd.IntN(3) == 0 {
		for _, o := range side.m.Stop() {
			s.do(side, o)
		}
	} else {
		for j := range side.instance {
			side.instance[j] = byte(s.rnd.Uint32())
		}
	}
	s.busy[i] = time.Time{}
	s.enlist(i)
}

// enlist makes a side's machine anew.
func (s *schedule) enlist(i int) {
	side := s.side[i]
	side.ice, side.opened, side.trusted, side.events, side.wakes = nil, map[identity.NodeID]bool{}, nil, nil, 0
	if side.sent == nil {
		side.sent = map[Kind]int{}
	}
	cfg := Config{Self: side.id, Peer: s.side[1-i].id, Instance: side.instance}
	for k := range cfg.Seed {
		cfg.Seed[k] = byte(s.rnd.Uint32())
	}
	side.m = New(cfg, s.clock(i))
	s.input(i, s.local(i))
	s.input(i, Routable{})
}

// pass lets time pass.
func (s *schedule) pass(d time.Duration) {
	for end := s.now.Add(d); s.now.Before(end) && s.failed == ""; {
		step := end.Sub(s.now)
		if s.traffic {
			step = min(step, 500*time.Millisecond)
			s.world.traffic()
		}
		s.run(step, s.traffic)
	}
}

// talks reports whether what each sends by its path arrives.
func (s *schedule) talks() bool {
	for i, side := range s.side {
		other, p := s.side[1-i], side.m.route.path
		switch {
		case p.Kind == Direct && s.direct && p.Addr == other.addr:
		case p.Kind == Relayed && s.forwards(p.Addr):
		default:
			return false
		}
	}
	return true
}

// heal makes the network whole: anchors, sessions and lines. What may stay is that packets do not pass straight, that UDP is blocked, and
// that one of the anchors is gone.
func (s *schedule) heal() {
	s.loss, s.lost, s.twice, s.latency, s.spread, s.refused, s.relayed = 0, 0, 0, 20*time.Millisecond, 0, nil, true
	s.open(s.direct || s.rnd.IntN(2) == 0)
	if s.dead != (identity.NodeID{}) && s.rnd.IntN(2) == 0 {
		s.dead = identity.NodeID{}
	}
	for i := range s.side {
		for _, anchor := range [...]identity.NodeID{anchorID, spareID} {
			s.session(i, anchor, anchor != s.dead)
		}
		s.route()
	}
	for i := range s.side {
		s.input(i, s.local(i))
		s.input(i, Routable{Perhaps: s.rnd.IntN(2) == 0})
	}
}

// play runs a schedule and returns what was wrong; "" for nothing.
func (s *schedule) play() (trouble string, took time.Duration) {
	for i, side := range s.side {
		side.sessions = map[identity.NodeID]time.Time{}
		side.instance = [8]byte{byte(i + 1), byte(s.seed), byte(s.seed >> 8)}
	}
	s.traffic = s.rnd.IntN(3) == 0
	s.direct = s.rnd.IntN(2) == 0
	s.enlist(0)
	s.pass(time.Duration(s.rnd.IntN(1500)) * time.Millisecond)
	s.enlist(1)
	for range 3 + s.rnd.IntN(12) {
		wait := time.Duration(s.rnd.IntN(1500)) * time.Millisecond
		if s.rnd.IntN(6) == 0 {
			wait *= 20
		}
		s.pass(wait)
		s.disturb()
	}
	s.pass(time.Duration(s.rnd.IntN(3000)) * time.Millisecond)
	s.heal()
	begin := s.now
	for !s.talks() || s.now.Sub(begin) < time.Second {
		if s.failed != "" {
			return s.failed, 0
		}
		if s.now.Sub(begin) > healBound {
			return fmt.Sprintf("%s after the network was whole: paths %v; reasons: %q, %q", healBound, s.kinds(), s.reason(0), s.reason(1)), healBound
		}
		s.pass(250 * time.Millisecond)
	}
	took = s.now.Sub(begin)
	s.pass(2 * time.Second)
	return s.failed, took
}

// TestSchedules asserts that from every state that two machines come to, on a network that does what it likes, they talk
// within healBound once it is whole, and that no state is without a next time.
func TestSchedules(t *testing.T) {
	n, until := duetest.Schedules(2000)
	coverage, kinds := make(map[reachedState]int), make(map[string]int)
	var took []time.Duration
	failed := 0
	for seed := range n {
		if time.Now().After(until) {
			break
		}
		trouble, d := newSchedule(t, seed, coverage).play()
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
	}
	slices.Sort(took)
	t.Logf("%d schedules, %d pairs of a state and an event: %v; whole again to talking: median %s, 99 %% %s, worst %s of %s",
		len(took), len(coverage), kinds, took[len(took)/2], took[len(took)*99/100], took[len(took)-1], healBound)
}
