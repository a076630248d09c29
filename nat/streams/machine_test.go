package streams

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/mesh/identity"
)

func anchor(n byte) identity.NodeID { return identity.NodeID{n} }

// network is what a machine lives in: anchors that answer by UDP and take streams, or not.
type network struct {
	m       *Machine
	now     time.Time
	wake    time.Time
	rtt     time.Duration
	udp     bool          // STUN gets answers
	dials   bool          // anchors can be dialled by UDP
	streams map[byte]bool // anchors that take streams
	events  []event       // under way, by time
	up      map[Ref]bool
	left    map[Ref]bool
	log     []string
	probes  int
	knocks  int
}

type event struct {
	at time.Time
	in Input
}

var start = time.Unix(1e9, 0)

func newNetwork(udp bool, takers ...byte) *network {
	n := &network{
		m: NewMachine(func() float64 { return 0.5 }), now: start, rtt: 50 * time.Millisecond, udp: udp, dials: udp,
		streams: make(map[byte]bool), up: make(map[Ref]bool), left: make(map[Ref]bool),
	}
	for _, t := range takers {
		n.streams[t] = true
	}
	return n
}

func (n *network) step(in Input) {
	out, wake := n.m.Step(n.now, in)
	n.wake = wake
	note := func(what string, ref Ref) {
		n.log = append(n.log, fmt.Sprintf("%v %s %d", n.now.Sub(start).Round(time.Millisecond), what, ref.ID[0]))
	}
	for _, o := range out {
		switch o := o.(type) {
		case Probe:
			n.probes++
			if n.udp {
				n.later(n.rtt, Answered{})
			}
		case Knock:
			n.knocks++
			n.later(2*n.rtt, Knocked{o.Serial, n.dials})
		case OpenStream:
			note("open", o.Ref)
			if n.streams[o.ID[0]] {
				n.later(3*n.rtt, StreamUp(o))
			} else {
				n.later(5*time.Second, StreamDown(o))
			}
		case LeaveStream:
			note("leave", o.Ref)
			n.left[o.Ref] = true
		case CloseStream:
			note("close", o.Ref)
			delete(n.up, o.Ref)
			n.events = slices.DeleteFunc(n.events, func(e event) bool { return e.in == StreamUp(o) })
			n.later(n.rtt, StreamDown(o))
		}
	}
}

func (n *network) later(d time.Duration, in Input) {
	n.events = append(n.events, event{n.now.Add(d), in})
	slices.SortStableFunc(n.events, func(a, b event) int { return a.at.Compare(b.at) })
}

// run lets time pass.
func (n *network) run(d time.Duration) {
	end := n.now.Add(d)
	for steps := 0; ; steps++ {
		next := end.Add(1)
		if len(n.events) > 0 {
			next = n.events[0].at
		}
		if !n.wake.IsZero() && n.wake.Before(next) {
			next = n.wake
		}
		if next.After(end) || steps > 10000 {
			n.now = end
			return
		}
		if next.After(n.now) {
			n.now = next
		}
		if len(n.events) > 0 && !n.events[0].at.After(n.now) {
			in := n.events[0].in
			n.events = n.events[1:]
			if up, ok := in.(StreamUp); ok {
				n.up[up.Ref] = true
			}
			n.step(in)
		} else {
			n.step(Tick{})
		}
	}
}

func (n *network) expect(t *testing.T, what string, state State, want ...string) {
	t.Helper()
	if got, _, reason := n.m.State(); got != state {
		t.Errorf("%s: got state %v (%s), want %v", what, got, reason, state)
	}
	if !slices.Equal(n.log, want) {
		t.Errorf("%s: got\n\t%s\nwant\n\t%s", what, strings.Join(n.log, "\n\t"), strings.Join(want, "\n\t"))
	}
	n.log = nil
}

func TestUDPWorks(t *testing.T) {
	n := newNetwork(true, 1, 2)
	n.step(Anchors{[]identity.NodeID{anchor(1), anchor(2)}})
	n.run(time.Minute)
	n.expect(t, "start", Open)
	if n.probes != 1 {
		t.Errorf("got %d probes, want 1", n.probes)
	}
	n.step(SessionUp{anchor(1)})
	for range 10 { // a dead anchor beside one that lives
		n.step(DialFailed{anchor(2)})
		n.run(time.Minute)
	}
	n.step(NetworkChanged{})
	n.run(time.Minute)
	n.expect(t, "later", Open)
	if n.probes != 2 {
		t.Errorf("got %d probes, want 2", n.probes)
	}
}

// Blocked from the start: streams are dialled beside the probes and end the trial, and are left when UDP answers.
func TestBlockedAndBack(t *testing.T) {
	n := newNetwork(false, 1, 2, 3)
	n.step(Anchors{[]identity.NodeID{anchor(1), anchor(2), anchor(3)}})
	n.run(10 * time.Second)
	n.expect(t, "blocked", Blocked, "100ms open 1", "100ms open 2")
	if len(n.up) != 2 || n.now.Sub(start) != 10*time.Second {
		t.Errorf("got %d streams, want 2", len(n.up))
	}
	before := n.probes
	n.run(10 * time.Minute)
	if got := n.probes - before; got < 8 || got > 16 {
		t.Errorf("got %d probes in ten minutes, want about 12", got)
	}
	n.expect(t, "still blocked", Blocked)
	n.udp = true
	asked := n.now
	n.run(2 * time.Minute)
	if got, since, _ := n.m.State(); got != Open || since.Sub(asked) > time.Minute+2*time.Second {
		t.Errorf("got %v after %v, want open within a minute", got, since.Sub(asked))
	}
	if len(n.log) != 4 || len(n.left) != 2 || len(n.up) != 0 {
		t.Errorf("got %v, want two streams left and closed", n.log)
	}
	_, since, _ := n.m.State()
	if want := fmt.Sprintf("%v close 2", since.Add(lingerTime).Sub(start).Round(time.Millisecond)); n.log[3] != want {
		t.Errorf("got %s, want %s", n.log[3], want)
	}
}

// The network changes while UDP is blocked, and UDP works in the new one.
func TestLeftAfterNetworkChange(t *testing.T) {
	n := newNetwork(false, 1)
	n.step(Anchors{[]identity.NodeID{anchor(1)}})
	n.run(time.Minute)
	n.expect(t, "blocked", Blocked, "100ms open 1")
	n.udp = true
	n.step(NetworkChanged{})
	n.run(10 * time.Second)
	n.expect(t, "open", Open, "1m0.05s leave 1", "1m3.05s close 1")
	n.udp = false
	n.step(NetworkChanged{})
	n.run(10 * time.Second)
	n.expect(t, "and back", Blocked, "1m10.1s open 1")
}

// The stream dies with the network that it was made in; the next network drops UDP as well.
func TestBlockedInTwoNetworks(t *testing.T) {
	n := newNetwork(false, 1)
	n.step(Anchors{[]identity.NodeID{anchor(1)}})
	n.run(time.Minute)
	n.log = nil
	n.step(NetworkChanged{})
	n.run(1600 * time.Millisecond)
	n.step(StreamDown{Ref{anchor(1), 1}}) // the session's check has failed
	n.run(5 * time.Second)
	n.expect(t, "second network", Blocked, "1m1.6s open 1")
}

// The first anchors of the list take no streams: the others are tried soon, and the ladder slows the dead ones down.
func TestDeadAnchors(t *testing.T) {
	n := newNetwork(false, 4, 5)
	var ids []identity.NodeID
	for i := range byte(6) {
		ids = append(ids, anchor(i+1))
	}
	n.step(Anchors{ids})
	n.run(3 * time.Second)
	n.expect(t, "soon", Blocked, "100ms open 1", "100ms open 2", "300ms open 3", "600ms open 4")
	n.run(time.Hour)
	if len(n.up) != 2 {
		t.Errorf("got %v, want streams to 4 and 5", n.up)
	}

	n = newNetwork(false)
	n.step(Anchors{ids})
	n.run(time.Hour)
	if got := len(n.log); got < 300 || got > 500 { // six anchors, five seconds each and a minute between
		t.Errorf("got %d dials in an hour, want about 350", got)
	}
}

// A cut line drops UDP and TCP alike. When it is mended UDP is used at once, however often that happens: nothing was blocked.
func TestOutage(t *testing.T) {
	n := newNetwork(true, 1)
	n.step(Anchors{[]identity.NodeID{anchor(1)}})
	n.run(time.Second)
	for round := range 6 {
		n.udp, n.streams = false, map[byte]bool{}
		n.step(Doubt{})
		n.run(20 * time.Second)
		if s, _, _ := n.m.State(); s != Blocked {
			t.Fatalf("round %d: got %v while the line is cut, want blocked", round, s)
		}
		n.udp = true
		n.step(SessionUp{ID: anchor(1)})
		if s, _, _ := n.m.State(); s != Open {
			t.Fatalf("round %d: got %v with a session by UDP and no stream, want open", round, s)
		}
		n.run(time.Second)
		n.step(SessionDown{ID: anchor(1)})
		n.log = nil
	}
}

// Over a line whose answers take longer than any usual round trip, UDP is taken to be blocked once and not again; when it is blocked
// indeed, that is found out, though later; and on another network nothing of it is left.
func TestLongLineIsNotBlockedUDP(t *testing.T) {
	for _, trip := range []time.Duration{1200 * time.Millisecond, 1600 * time.Millisecond, 2600 * time.Millisecond} {
		n := newNetwork(true)
		n.rtt = trip
		n.step(Anchors{[]identity.NodeID{anchor(1)}})
		n.run(10 * time.Second)
		for round := range 5 {
			n.probes = 0
			n.step(Doubt{})
			n.run(trip - 100*time.Millisecond)
			if got, _, reason := n.m.State(); got != Trying {
				t.Fatalf("%v, doubt %d: got %v (%s) before the answer is due", trip, round+1, got, reason)
			}
			if n.probes > 16 {
				t.Errorf("%v, doubt %d: got %d probes, want 16 at most", trip, round+1, n.probes)
			}
			n.run(10 * time.Second)
			if got, _, reason := n.m.State(); got != Open {
				t.Fatalf("%v, doubt %d: got %v (%s), want it open", trip, round+1, got, reason)
			}
		}
		n.udp = false
		n.step(Doubt{})
		n.run(2*trip + 100*time.Millisecond)
		if got, _, _ := n.m.State(); got != Blocked {
			t.Errorf("%v: got %v without answers, want it blocked after two of them", trip, got)
		}
		n.step(NetworkChanged{})
		n.run(trialTime + 100*time.Millisecond)
		if got, _, _ := n.m.State(); got != Blocked {
			t.Errorf("%v: got %v on another network without answers, want it blocked after %v", trip, got, trialTime)
		}
	}
}

// Whoever has no stream waits a tenth of the time without one, whatever the ladder says.
// A machine that was busy with other things for two seconds has not read what came meanwhile: nothing follows from that silence.
func TestBusyMachineIsNotBlockedUDP(t *testing.T) {
	n := newNetwork(true)
	n.step(Anchors{[]identity.NodeID{anchor(1)}})
	n.run(time.Second)
	for range 2 {
		if got, _, _ := n.m.State(); got != Open {
			t.Fatalf("got %v, want UDP in use", got)
		}
		n.udp = false // what is asked now stays unread
		n.step(Doubt{})
		n.now = n.now.Add(2 * time.Second)
		n.step(Tick{Late: 1900 * time.Millisecond})
		if got, _, reason := n.m.State(); got != Trying {
			t.Fatalf("got %v (%s) after a stall of two seconds, want it still to be found out", got, reason)
		}
		n.udp = true
		n.run(time.Second)
	}
	n.udp = false
	n.step(Doubt{})
	n.run(2 * time.Second)
	if got, _, _ := n.m.State(); got != Blocked {
		t.Errorf("got %v without a stall, want it blocked", got)
	}
}

func TestLonely(t *testing.T) {
	for _, away := range []time.Duration{20 * time.Second, time.Minute, 3 * time.Minute} {
		n := newNetwork(false)
		n.step(Anchors{[]identity.NodeID{anchor(1)}})
		n.run(away)
		n.streams[1] = true
		begin := n.now
		for len(n.up) == 0 && n.now.Sub(begin) < time.Minute {
			n.run(100 * time.Millisecond)
		}
		// A dial that began before takes its 5 s, and the wait after it a tenth.
		if got, most := n.now.Sub(begin), 5*time.Second+lonelyFirst+away/8+time.Second; got > most {
			t.Errorf("after %v without: a stream after %v, want %v at most", away, got, most)
		}
	}
}

// An anchor that comes and goes is dialled soon each time: that it came shows that it can.
func TestAnchorThatFlaps(t *testing.T) {
	n := newNetwork(false, 1)
	n.step(Anchors{[]identity.NodeID{anchor(1)}})
	n.run(time.Second)
	for round := range 8 {
		if len(n.up) != 1 {
			t.Fatalf("round %d: got %d streams, want one", round, len(n.up))
		}
		for ref := range n.up {
			delete(n.up, ref)
			n.step(StreamDown{ref})
		}
		n.run(2 * time.Second)
	}
}

// Some networks let STUN pass and nothing else.
func TestSessionsBlockedOnly(t *testing.T) {
	n := newNetwork(true, 1)
	n.dials = false
	n.step(Anchors{[]identity.NodeID{anchor(1), anchor(2)}})
	for range 4 {
		n.run(1500 * time.Millisecond)
		n.step(DialFailed{anchor(1)})
		n.step(DialFailed{anchor(2)})
	}
	n.run(10 * time.Minute)
	if got, _, _ := n.m.State(); got != Blocked || len(n.up) != 1 {
		t.Errorf("got %v, %d streams, want blocked, 1", got, len(n.up))
	}
	if n.knocks < 5 || n.knocks > 15 {
		t.Errorf("got %d knocks in ten minutes, want one a minute and some at the beginning", n.knocks)
	}
	n.step(SessionUp{anchor(2)})
	n.run(10 * time.Second)
	if got, _, _ := n.m.State(); got != Open || len(n.up) != 0 {
		t.Errorf("got %v, %d streams, want open, none", got, len(n.up))
	}
}

// Whatever kept sessions from coming up may end: then UDP is used again, though no session is dialled by it beside one by a stream.
func TestSessionsPassAgain(t *testing.T) {
	for _, after := range []time.Duration{0, time.Second, 20 * time.Second, 10 * time.Minute} {
		n := newNetwork(true, 1)
		n.dials = false
		n.step(Anchors{[]identity.NodeID{anchor(1)}})
		for range distrustAfter {
			n.run(time.Second)
			n.step(DialFailed{anchor(1)})
		}
		n.run(after)
		n.expect(t, "before", Blocked, "3s open 1")
		n.dials = true
		n.run(min(2*after, knockMost*3/2) + 15*time.Second)
		if got, _, reason := n.m.State(); got != Open || len(n.up) != 0 {
			t.Errorf("after %v: got %v (%s), %d streams, want open, none", after, got, reason, len(n.up))
		}
	}
}

// What came of a knock in another network, or of one that was given up, means nothing.
func TestLateKnock(t *testing.T) {
	n := newNetwork(false, 1)
	n.step(Anchors{[]identity.NodeID{anchor(1)}})
	n.run(2 * time.Second)
	n.expect(t, "blocked", Blocked, "100ms open 1")
	n.step(Knocked{0, true})
	n.step(Knocked{7, true})
	n.expect(t, "a knock that nobody has asked for", Blocked)
}

// UDP ends under a running session: the first sign of it leads to a stream in half a second.
func TestBlockedUnderTraffic(t *testing.T) {
	n := newNetwork(true, 1, 2)
	n.step(Anchors{[]identity.NodeID{anchor(1), anchor(2)}})
	n.step(SessionUp{anchor(1)})
	n.run(time.Minute)
	n.expect(t, "open", Open)
	n.udp = false
	n.step(Doubt{})
	n.run(300 * time.Millisecond)
	n.expect(t, "soon", Blocked, "1m0.1s open 1", "1m0.1s open 2")
	if len(n.up) != 2 {
		t.Errorf("got %d streams, want 2", len(n.up))
	}
}

// A doubt without a cause costs no stream, and one that a slow answer ends leaves none behind.
func TestDoubtWithoutCause(t *testing.T) {
	n := newNetwork(true, 1, 2)
	n.step(Anchors{[]identity.NodeID{anchor(1), anchor(2)}})
	n.run(time.Minute)
	n.step(Doubt{})
	n.run(time.Minute)
	n.expect(t, "near", Open)
	n.rtt = 600 * time.Millisecond
	n.step(Doubt{})
	n.run(time.Minute)
	n.expect(t, "by satellite", Open, "2m0.1s open 1", "2m0.1s open 2", "2m0.6s close 1", "2m0.6s close 2")
	if len(n.up) != 0 {
		t.Errorf("got %d streams, want none", len(n.up))
	}
}

// The only anchor is dead, but other members are heard: no stream is dialled until that may have another reason.
func TestDeadAnchorIsNotBlockedUDP(t *testing.T) {
	n := newNetwork(false)
	n.step(Anchors{[]identity.NodeID{anchor(1)}})
	n.step(Doubt{})
	for range 9 {
		n.step(PeerAnswered{})
		n.run(time.Second)
	}
	n.expect(t, "spared", Trying)
	if n.probes > 25 {
		t.Errorf("got %d probes in nine seconds, want at most 25", n.probes)
	}
	n.run(3 * time.Second)
	n.expect(t, "in the end", Blocked, "10s open 1")

	n = newNetwork(false)
	n.step(Anchors{[]identity.NodeID{anchor(1)}})
	n.step(PeerAnswered{})
	n.run(5 * time.Second)
	n.udp = true
	n.run(5 * time.Second)
	n.expect(t, "it is back", Open)
}

// Under traffic the way back is looked for every few seconds, however long UDP has been blocked.
func TestBackSoonUnderTraffic(t *testing.T) {
	n := newNetwork(false, 1)
	n.step(Anchors{[]identity.NodeID{anchor(1)}})
	n.run(time.Hour)
	n.step(Tick{Busy: true})
	n.run(probeBusy)
	n.udp = true
	asked := n.now
	for range 4 {
		n.step(Tick{Busy: true})
		n.run(2 * time.Second)
	}
	if got, since, _ := n.m.State(); got != Open || since.Sub(asked) > 7*time.Second {
		t.Errorf("got %v after %v, want open within 7 s", got, since.Sub(asked))
	}
}

// UDP comes and goes: each return that does not last makes the next one slower.
func TestFlapping(t *testing.T) {
	n := newNetwork(false, 1)
	n.step(Anchors{[]identity.NodeID{anchor(1)}})
	n.run(5 * time.Second)
	for range 30 {
		n.udp = true
		n.run(10 * time.Second)
		n.udp = false
		n.step(Doubt{})
		n.run(10 * time.Second)
	}
	left := 0
	for _, line := range n.log {
		if strings.Contains(line, "leave") {
			left++
		}
	}
	if left < 1 || left > 4 {
		t.Errorf("got %d returns in ten minutes, want a few:\n%s", left, strings.Join(n.log, "\n"))
	}
}

func TestAnchorsGone(t *testing.T) {
	n := newNetwork(false, 1, 2)
	n.step(Anchors{[]identity.NodeID{anchor(1), anchor(2)}})
	n.run(5 * time.Second)
	n.log = nil
	n.step(Anchors{[]identity.NodeID{anchor(2)}})
	n.run(time.Second)
	n.expect(t, "one gone", Blocked, "5s close 1")
	n.step(Anchors{})
	n.run(time.Second)
	n.expect(t, "all gone", Open, "6s close 2")
	if !n.wake.IsZero() {
		t.Errorf("got a wake-up at %v, want none", n.wake)
	}
}

// Whatever happens, a machine does not spin, and never has more streams than it may.
func TestMachineAtRandom(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		n := newNetwork(r.IntN(2) == 0, 1, 3)
		n.m.jitter = r.Float64
		ids := []identity.NodeID{anchor(1), anchor(2), anchor(3), anchor(4)}
		for range 100 {
			id := ids[r.IntN(len(ids))]
			switch r.IntN(12) {
			case 0:
				n.step(Anchors{ids[:r.IntN(len(ids)+1)]})
			case 1:
				n.step(NetworkChanged{})
			case 2:
				n.step(Doubt{})
			case 3:
				n.step(DialFailed{id})
			case 4:
				n.step(SessionUp{id})
			case 5:
				n.step(SessionDown{id})
			case 6:
				n.udp = !n.udp
				n.dials = n.udp && r.IntN(2) == 0
			case 7:
				n.streams[id[0]] = !n.streams[id[0]]
			case 8:
				n.step(StreamDown{Ref{id, uint64(r.IntN(20))}})
			case 9:
				n.step(PeerAnswered{})
			case 10:
				n.step(Tick{Busy: true})
			}
			before, steps := n.now, len(n.log)
			n.run(time.Duration(r.IntN(20000)) * time.Millisecond)
			if lines := len(n.log) - steps; lines > 100 {
				t.Fatalf("seed %d: %d outputs in %v", seed, lines, n.now.Sub(before))
			}
			if !n.wake.IsZero() && n.wake.Before(n.now) {
				t.Fatalf("seed %d: woken up in the past: state %v", seed, n.m.state)
			}
			opening, up := 0, 0
			for _, s := range n.m.streams {
				switch s.phase {
				case streamOpening:
					opening++
				case streamUp:
					up++
				}
			}
			if up > wantedStreams || opening > mostOpening {
				t.Fatalf("seed %d: %d streams up, %d opening", seed, up, opening)
			}
		}
		// Whatever was before: where UDP works, it is used in the end.
		n.udp, n.dials = true, true
		n.run(5 * time.Minute)
		used := slices.ContainsFunc(slices.Collect(maps.Values(n.m.streams)), func(s *slot) bool { return s.phase != streamDown })
		if got, since, reason := n.m.State(); got != Open || used {
			t.Fatalf("seed %d: got %v for %v (%s), streams in use: %t, want UDP used again", seed, got, n.now.Sub(since), reason, used)
		}
	}
}

// A side that wakes late dials no stream before the answers to what it has asked by UDP can have been read; where UDP is blocked it does so soon.
func TestLateSideDialsNoStreamBesideUDP(t *testing.T) {
	for _, tt := range []struct {
		udp    bool
		rtt    time.Duration
		want   int
		within time.Duration
	}{{true, 250 * time.Millisecond, 0, 2 * time.Second}, {false, 250 * time.Millisecond, 2, time.Second}} {
		n := newNetwork(tt.udp, 1, 2)
		n.rtt = tt.rtt
		n.step(Anchors{[]identity.NodeID{anchor(1), anchor(2)}})
		n.now = n.now.Add(90 * time.Millisecond)
		n.step(Tick{Late: 60 * time.Millisecond})
		n.run(tt.within)
		dials := 0
		for _, line := range n.log {
			if strings.Contains(line, " open ") {
				dials++
			}
		}
		if dials != tt.want {
			t.Errorf("UDP passes %v: got %d streams dialled, want %d: %q", tt.udp, dials, tt.want, n.log)
		}
	}
}
