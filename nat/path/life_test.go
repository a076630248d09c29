package path

import (
	"testing"
	"time"
)

// watched is one machine with a path that has answered its first check, fed with looks at its activity.
type watched struct {
	t      *testing.T
	m      *Machine
	now    time.Time
	wake   time.Time
	tx, rx time.Time
	checks int
	doubts int
	answer bool // the path answers, in 10 ms
	open   []uint64
}

func newWatched(t *testing.T) *watched {
	w := newWorld(t, 21)
	w.start(0)
	w.start(1)
	w.until(Direct, time.Second, false)
	w.run(10*time.Second, false)
	s := &watched{t: t, m: w.side[0].m, now: w.now, answer: true}
	s.step(Wake{})
	return s
}

func (w *watched) step(in Input) {
	out, wake := w.m.Step(w.now, in)
	w.wake = wake
	for _, o := range out {
		switch o := o.(type) {
		case Check:
			w.checks++
			w.open = append(w.open, o.ID)
		case Doubt:
			w.doubts++
		}
	}
}

// run lets d pass in steps of 10 ms, with packets out and in as often as said, 0 for none.
func (w *watched) run(d, out, in time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(10 * time.Millisecond) {
		if w.answer {
			for _, id := range w.open {
				w.step(CheckAnswered{ID: id})
			}
		}
		w.open = nil
		if in > 0 && w.now.Sub(w.rx) >= in {
			w.rx = w.now
		}
		if out > 0 && w.now.Sub(w.tx) >= out {
			stirred := w.now.Sub(w.tx) >= time.Second
			w.tx = w.now
			if stirred {
				w.step(Stirred{LastTx: w.tx, LastRx: w.rx})
			}
		}
		if !w.wake.IsZero() && !w.wake.After(w.now) {
			w.step(Wake{LastTx: w.tx, LastRx: w.rx})
		}
	}
}

// A path that goes on to bring packets is kept for a while although it answers nothing. One late packet is no such sign: where
// the peer has moved to another relay, or can send by a stream only, it was the last.
func TestPathThatBringsPackets(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   time.Duration // between packets after the first late one, 0 for none
		last time.Duration // how long they come
		kept time.Duration // at least
		dead time.Duration // by then
	}{
		{"one late packet", 0, 0, 900 * time.Millisecond, 2 * time.Second},
		{"packets that stop", 100 * time.Millisecond, 3 * time.Second, 3 * time.Second, 5 * time.Second},
		{"a ping a second", time.Second, time.Minute, lopsided, lopsided + 2*time.Second},
	} {
		w := newWatched(t)
		w.run(5*time.Second, 20*time.Millisecond, 20*time.Millisecond)
		w.answer = false
		w.step(Suspect{})
		w.run(50*time.Millisecond, 20*time.Millisecond, 0)
		begun, took := w.now, time.Duration(0)
		w.rx = w.now
		for w.m.route.path.Kind == Direct && took < 20*time.Second {
			in := tt.in
			if took >= tt.last {
				in = 0
			}
			w.run(10*time.Millisecond, 20*time.Millisecond, in)
			took = w.now.Sub(begun)
		}
		if took < tt.kept || took > tt.dead {
			t.Errorf("%s: the path was given up after %s, want %s to %s", tt.name, took, tt.kept, tt.dead)
		}
	}
}

func TestTrafficThatIsAnsweredNeedsNoChecks(t *testing.T) {
	for _, every := range []time.Duration{20 * time.Millisecond, time.Second, 10 * time.Second} {
		w := newWatched(t)
		w.run(20*time.Second, every, every)
		if w.checks > 2 {
			t.Errorf("packets both ways every %s: got %d checks in 20 s, want 2 at most", every, w.checks)
		}
	}
}

// What has to be noticed, and when: by whoever sends, and by whoever only answered and hears nothing any more.
func TestDeadPathIsNoticed(t *testing.T) {
	const used = 20 * time.Millisecond
	for _, c := range []struct {
		name      string
		out, in   time.Duration // before
		out2, in2 time.Duration // after
	}{
		{"both send", used, used, used, 0},
		{"this side only answered", used, used, 0, 0},
		{"idle, and this side begins to send", 0, 0, used, 0},
	} {
		w := newWatched(t)
		w.run(5*time.Second, c.out, c.in)
		w.checks, w.answer = 0, false
		died := w.now
		for w.doubts == 0 && w.now.Sub(died) < 5*time.Second {
			w.run(10*time.Millisecond, c.out2, c.in2)
		}
		if took := w.now.Sub(died); took > time.Second {
			t.Errorf("%s: got doubt after %s, want 1 s at most", c.name, took)
		}
		for w.m.route.path.Kind != None && w.now.Sub(died) < 5*time.Second {
			w.run(10*time.Millisecond, c.out2, c.in2)
		}
		if took := w.now.Sub(died); took > 2*time.Second {
			t.Errorf("%s: got the path given up after %s, want 2 s at most", c.name, took)
		}
		if w.doubts != 1 {
			t.Errorf("%s: got %d doubts of one dead path, want 1", c.name, w.doubts)
		}
	}
}

// One way only is no sign of anything, but is asked about.
func TestOneWayTrafficIsChecked(t *testing.T) {
	w := newWatched(t)
	w.run(10*time.Second, 20*time.Millisecond, 0)
	if w.checks < 10 || w.checks > 30 || w.doubts != 0 || w.m.route.path.Kind != Direct {
		t.Errorf("got %d checks in 10 s, %d doubts and path %s; want 10 to 30, none, direct", w.checks, w.doubts, w.m.route.path.Kind)
	}
}

// After a flow the machine sleeps until the check of an idle path.
func TestIdleMachineSleeps(t *testing.T) {
	w := newWatched(t)
	w.run(5*time.Second, 20*time.Millisecond, 20*time.Millisecond)
	w.run(4*time.Second, 0, 0)
	if left := w.wake.Sub(w.now); left < 10*time.Second {
		t.Errorf("4 s after a flow: got the next wake in %s, want 10 s at least", left)
	}
	wakes := 0
	for end := w.now.Add(10 * time.Minute); w.now.Before(end); {
		before := w.checks
		w.run(10*time.Millisecond, 0, 0)
		if w.checks > before {
			wakes++
		}
	}
	if wakes > 10*60/22 {
		t.Errorf("got %d checks in ten idle minutes, want one in 22 s at most", wakes)
	}
}

// A peer that checks from elsewhere, while the path answers nothing, has moved: the path follows at the next answer, and
// again when it moves again.
func TestMovedPeerIsFollowedAtOnce(t *testing.T) {
	w := newWorld(t, 22)
	w.start(0)
	w.start(1)
	w.until(Direct, time.Second, true)
	w.run(10*time.Second, true)
	w.signals, w.relayed = false, false
	for _, port := range []uint16{2222, 3333, 4444} {
		w.side[1].addr = netipPort(w.side[1].addr, port)
		w.run(time.Second, true)
		if got, want := w.side[0].m.route.path, w.side[1].addr; got.Addr != want {
			t.Errorf("1 s after the peer moved: got path to %v, want %s: %s", got.Addr, want, w.reason(0))
		}
	}
}

// flapWorld is two nodes with traffic, one of which is told of changes of its network.
func flapWorld(t *testing.T, seed uint64) (w *world, local Local) {
	w = newWorld(t, seed)
	w.start(0)
	w.start(1)
	w.until(Direct, time.Second, true)
	w.run(20*time.Second, true)
	return w, w.side[0].m.intro.local
}

func (w *world) offers() int { return w.side[0].sent[KindOffer] + w.side[1].sent[KindAsk] }

func (w *world) attempts() int { return int(w.side[0].m.intro.try.count) }

// A link that goes and comes back at the same addresses: the path is checked, and that is all.
func TestSameNetworkIsNoReasonToBeginAnew(t *testing.T) {
	w, local := flapWorld(t, 23)
	offers, attempts := w.offers(), w.attempts()
	for range 10 {
		w.direct = false
		w.input(0, NetworkChanged{Local: Local{Relays: local.Relays}, Same: true})
		w.run(200*time.Millisecond, true)
		w.direct = true
		w.input(0, NetworkChanged{Local: local, Same: true})
		w.run(800*time.Millisecond, true)
	}
	if got := w.kinds(); got != [2]PathKind{Direct, Direct} {
		t.Errorf("got %v after ten flaps, want direct twice", got)
	}
	if w.offers() != offers || w.attempts() != attempts {
		t.Errorf("got %d offers and asks and %d attempts for ten short flaps, want none", w.offers()-offers, w.attempts()-attempts)
	}
}

// Longer ones, in which checks stay unanswered: two attempts at most in ten seconds.
func TestLongFlapsAreOneRecovery(t *testing.T) {
	for seed := range uint64(20) {
		w, local := flapWorld(t, seed)
		attempts := w.attempts()
		for range 10 {
			w.direct, w.signals, w.relayed = false, false, false
			w.input(0, NetworkChanged{Local: Local{Relays: local.Relays}, Same: true})
			w.run(650*time.Millisecond, true)
			w.direct, w.signals, w.relayed = true, true, true
			w.input(0, NetworkChanged{Local: local, Same: true})
			w.run(350*time.Millisecond, true)
		}
		if took := w.until(Direct, 5*time.Second, true); took > time.Second {
			t.Errorf("seed %d: got direct %s after the last flap, want a second at most", seed, took)
		}
		if got := w.attempts() - attempts; got > 3 {
			t.Errorf("seed %d: got %d attempts for ten flaps, want 3 at most", seed, got)
		}
	}
}

// Both ends move at the same time, and neither knows where the other is.
func TestBothMove(t *testing.T) {
	for seed := range uint64(20) {
		w, _ := flapWorld(t, seed)
		for i, s := range w.side {
			s.addr = netipPort(s.addr, uint16(3000+i))
		}
		w.direct = false // neither's packets get through the other's filter
		w.run(200*time.Millisecond, true)
		w.direct = true
		for i, s := range w.side {
			w.side[i].m.intro.local.Candidates = []Candidate{NewCandidate(ServerReflexive, s.addr, 0)}
		}
		w.run(1300*time.Millisecond, true)
		for i := range w.side {
			if got, want := w.side[i].m.route.path.Addr, w.side[1-i].addr; got != want {
				t.Errorf("seed %d: 1.5 s after both moved, side %d: got path to %s, want %s", seed, i, got, want)
			}
		}
	}
}

// A relayed pair tries for a direct path when the peer's record says something new, but not each time.
func TestPeerChanged(t *testing.T) {
	w := newWorld(t, 24)
	w.direct = false
	w.start(0)
	w.start(1)
	w.until(Relayed, 2*time.Second, true)
	w.run(5*time.Minute, true)
	w.direct = true
	before := w.side[0].sent[KindOffer]
	w.input(0, PeerChanged{})
	if took := w.until(Direct, time.Second, true); took > 100*time.Millisecond {
		t.Errorf("got direct %s after the peer's record changed, want 100 ms at most", took)
	}
	for range 100 {
		w.input(0, PeerChanged{})
		w.run(50*time.Millisecond, true)
	}
	if got := w.side[0].sent[KindOffer] - before; got != 1 {
		t.Errorf("got %d offers for a hundred changes with a direct path, want the first alone", got)
	}
	w.direct = false
	w.until(Relayed, 5*time.Second, true)
	w.run(time.Minute, true)
	before = w.attempts()
	for range 100 {
		w.input(0, PeerChanged{})
		w.run(100*time.Millisecond, true)
	}
	if got := w.attempts() - before; got > 4 {
		t.Errorf("got %d attempts for a hundred changes in ten seconds, want 4 at most", got)
	}
}

// One side finds the direct path dead; the other sends nothing, and would not notice before its next idle check.
func TestIntroductionMakesAQuietPathSuspect(t *testing.T) {
	for i := range 2 {
		w := newWorld(t, 12)
		w.start(0)
		w.start(1)
		w.until(Direct, 2*time.Second, false)
		w.run(8*time.Second, false)
		w.direct = false
		w.input(i, Suspect{})
		if took := w.until(Relayed, 30*time.Second, false); took > 4*time.Second {
			t.Errorf("side %d noticed: got both relayed after %s, want it within 4 s", i, took)
		}
	}
}

// The peer goes to another network and has something to send; this side has not, and was heard from a moment ago. It leaves its
// direct path, which is dead, with the introduction that the peer begins.
func TestPeerThatMovesIsBelieved(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t, 300+seed)
		w.start(0)
		w.start(1)
		w.until(Direct, time.Second, true)
		w.run(400*time.Millisecond, true)
		mover := int(seed % 2)
		w.direct = false
		w.input(mover, NetworkChanged{Local: w.local(mover, 0, 0)})
		if took := w.until(Relayed, 3*time.Second, false); took > 1500*time.Millisecond {
			t.Errorf("seed %d: relayed after %s, want 1.5 s at most", seed, took)
		}
	}
}

// TestSignsOfThePath holds what the status says of a path that is in use and dies: until two checks are overdue nothing, and then that it
// owes an answer, long before it is given up; and when the peer last proved that it is there.
func TestSignsOfThePath(t *testing.T) {
	w := newWatched(t)
	w.run(3*time.Second, 100*time.Millisecond, 100*time.Millisecond)
	s := w.m.Status(w.now)
	if s.Overdue(w.now) || s.Proved.IsZero() || w.now.Sub(s.Proved) > 13*time.Second {
		t.Fatalf("in use: got overdue %v, proved %v ago, want no and the last check", s.Overdue(w.now), w.now.Sub(s.Proved))
	}
	w.answer = false
	died, proved := w.now, s.Proved
	for w.now.Sub(died) < 3*time.Second {
		w.run(10*time.Millisecond, 100*time.Millisecond, 0)
		if s = w.m.Status(w.now); s.Overdue(w.now) {
			break
		}
	}
	if took := w.now.Sub(died); took < 700*time.Millisecond || took > time.Second {
		t.Errorf("a path that died was overdue after %v, want 0.8 s: 0.4 s of silence and two checks", took)
	}
	if s.Path.Kind != Direct || s.Proved != proved || s.Doubted.IsZero() {
		t.Errorf("got path %v, proved %v, doubted %v, want it in use still, and no new sign", s.Path.Kind, s.Proved, s.Doubted)
	}
	w.run(2*time.Second, 100*time.Millisecond, 0)
	if s = w.m.Status(w.now); s.Path.Kind != None || s.Overdue(w.now) {
		t.Errorf("got path %v, overdue %v, want none, which owes nothing", s.Path.Kind, s.Overdue(w.now))
	}
}
