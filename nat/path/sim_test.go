package path

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/nat/due/duetest"
	"warren/nat/natkind"
)

// world runs two machines against each other in its own time. Everything that package nat does for a
// machine is done here in its simplest form.
type world struct {
	t     *testing.T
	rnd   *rand.Rand
	now   time.Time
	queue duetest.Queue
	side  [2]*side
	tapes []*tape
	skew  [2]time.Duration // of the sides' clocks
	noUDP [2]bool          // the sides are where UDP is blocked

	answers [2]*Answers // that the sides know of; nil: nothing

	// The network, changed by tests.
	direct   bool                     // do packets pass straight
	relayed  bool                     // do the anchors forward
	dead     identity.NodeID          // the one that does not
	hollow   identity.NodeID          // one that forwards checks and nothing else
	mute     bool                     // all do so
	refused  map[identity.NodeID]bool // those that grant no channel
	signals  bool                     // is there a route for signals
	loss     float64                  // of signals
	latency  time.Duration            // of everything, one way
	punching time.Duration            // of ICE, once both try

	// Of schedules, see schedule_test.go.
	light  bool          // nothing is taped, and messages are handed over as they are
	spread time.Duration // of what takes latency: more than that, by chance, so that order is lost
	lost   float64       // of checks and their answers
	twice  float64       // of signals
	busy   [2]time.Time  // until when a side does nothing
	// What happens to a machine, before and after.
	reached func(m *Machine, in Input)
	stepped func(i int, in Input, wake time.Time)
}

type side struct {
	id       identity.NodeID
	index    int
	m        *Machine
	tape     *tape // of m
	instance [8]byte
	addr     netip.AddrPort // where its packets come from
	wakeAt   time.Time
	wakes    int
	ice      *StartICE
	relay    netip.AddrPort // its channel at anchorID
	opened   map[identity.NodeID]bool
	away     map[identity.NodeID]bool      // the anchors that it has no session with
	sessions map[identity.NodeID]time.Time // since when it has one, or has none
	trusted  []Credentials
	tx, rx   time.Time
	events   []Event
	sent     map[Kind]int
	checks   int
}

// anchorID is nearer than spareID.
var anchorID, spareID = identity.NodeID{9, 9}, identity.NodeID{8, 8}

// channel is the virtual address of a side's channel at an anchor, anchorOf its reverse.
func channel(side int, anchor identity.NodeID) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte{1, 14: anchor[0], 15: byte(side + 1)}), 4000)
}

func anchorOf(a netip.AddrPort) identity.NodeID {
	n := a.Addr().As16()[14]
	return identity.NodeID{n, n}
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, rnd: rand.New(rand.NewPCG(seed, 1)), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		direct: true, relayed: true, signals: true, latency: 5 * time.Millisecond, punching: 30 * time.Millisecond,
	}
	for i := range w.side {
		w.side[i] = &side{
			id: identity.NodeID{byte(i + 1)}, index: i,
			addr:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}), 9277),
			relay: channel(i, anchorID), away: map[identity.NodeID]bool{},
		}
	}
	return w
}

// start begins (or restarts) the process of a side.
func (w *world) start(i int) {
	s := w.side[i]
	s.instance = [8]byte{byte(i + 1)}
	for j := 1; j < 8; j++ {
		s.instance[j] = byte(w.rnd.Uint32())
	}
	w.begin(i)
}

// begin makes a side's machine anew in the same process.
func (w *world) begin(i int) {
	s := w.side[i]
	s.ice, s.opened, s.trusted, s.sent = nil, map[identity.NodeID]bool{}, nil, map[Kind]int{}
	cfg := Config{Self: s.id, Peer: w.side[1-i].id, Instance: s.instance, Answers: w.answers[i]}
	for k := range cfg.Seed {
		cfg.Seed[k] = byte(w.rnd.Uint32())
	}
	s.m = New(cfg, w.clock(i))
	w.tapes = append(w.tapes, &tape{cfg: cfg, begun: w.clock(i)})
	s.tape = w.tapes[len(w.tapes)-1]
	w.input(i, Local{
		Candidates: []Candidate{NewCandidate(Host, s.addr, 0)},
		Relays:     []RelayOffer{{Anchor: anchorID, RTTms: 10}},
		NoUDP:      w.noUDP[i],
	})
	w.input(i, Routable{})
}

func (w *world) clock(i int) time.Time { return w.now.Add(w.skew[i]) }

func (w *world) after(d time.Duration, do func()) {
	w.queue.Put(w.now.Add(d), do)
}

// input steps the machine of a side and carries out what it says, as soon as the side has time.
func (w *world) input(i int, in Input) {
	if busy := w.busy[i]; w.now.Before(busy) {
		w.after(busy.Sub(w.now), func() { w.step(i, in) })
		return
	}
	w.step(i, in)
}

func (w *world) step(i int, in Input) {
	s := w.side[i]
	if s.m == nil {
		return
	}
	if w.reached != nil {
		w.reached(s.m, in)
	}
	out, wake := s.m.Step(w.clock(i), in)
	if w.stepped != nil {
		w.stepped(i, in, wake)
	}
	if !w.light {
		s.tape.frames = append(s.tape.frames, frame{w.clock(i), in, out, wake})
	}
	for _, o := range out {
		w.do(s, o)
	}
	if wake.IsZero() {
		return
	}
	wake = wake.Add(-w.skew[i])
	if !wake.After(w.now) {
		s.wakes++
		if s.wakes > 50 {
			w.t.Fatalf("side %d spins at %s after %#v: %s", i, w.now, in, s.m.Status(w.now).Reason)
		}
	} else {
		s.wakes = 0
	}
	s.wakeAt = wake
	m := s.m
	w.after(max(0, wake.Sub(w.now)), func() {
		w.awake(i, m, wake)
	})
}

// awake wakes a machine, after all that has come while its side was busy.
func (w *world) awake(i int, m *Machine, wake time.Time) {
	s := w.side[i]
	switch busy := w.busy[i]; {
	case s.m != m || !s.wakeAt.Equal(wake):
	case w.now.Before(busy):
		w.after(busy.Sub(w.now)+1, func() { w.awake(i, m, wake) })
	default:
		w.step(i, Wake{LastTx: s.tx.Add(w.skew[i]), LastRx: s.rx.Add(w.skew[i]), Late: w.now.Sub(wake)})
	}
}

// trip is the time that something takes, one way.
func (w *world) trip() time.Duration {
	if w.spread == 0 {
		return w.latency
	}
	return w.latency + time.Duration(w.rnd.Int64N(int64(w.spread)))
}

func (w *world) do(s *side, o Output) {
	other := w.side[1-s.index]
	switch o := o.(type) {
	case Send:
		s.sent[o.Message.Kind]++
		if !w.signals {
			w.step(s.index, Unroutable{Kind: o.Message.Kind, Text: "no anchor session"})
			return
		}
		if w.rnd.Float64() < w.loss {
			return
		}
		o.Message.NAT = natkind.Self{UDPBlocked: w.noUDP[s.index]}.Pack()
		if w.light {
			w.after(w.trip(), func() { w.input(other.index, Received(o)) })
			if w.rnd.Float64() < w.twice {
				w.after(2*w.trip(), func() { w.input(other.index, Received(o)) })
			}
			return
		}
		raw, err := o.Message.Encode()
		if err != nil {
			w.t.Fatal(err)
		}
		msg, err := Decode(raw)
		if err != nil {
			w.t.Fatal(err)
		}
		w.after(w.latency+time.Duration(w.rnd.IntN(3))*time.Millisecond, func() { w.input(other.index, Received{msg}) })
	case StartICE:
		s.ice = &o
		w.tryICE()
	case StopICE:
		if s.ice != nil && s.ice.Attempt == o.Attempt {
			s.ice = nil
		}
	case Trust:
		s.trusted = o.Own
	case Check:
		s.checks++
		w.check(s, other, o)
	case OpenRelay:
		w.after(4*w.latency, func() {
			if w.refused[o.Anchor] {
				w.input(s.index, RelayOpened{Anchor: o.Anchor, Text: "refused"})
				return
			}
			s.opened[o.Anchor] = true
			w.input(s.index, RelayOpened{Anchor: o.Anchor, Addr: channel(s.index, o.Anchor)})
		})
	case CloseRelay:
		delete(s.opened, anchorOf(o.Addr))
	case Report:
		s.events = append(s.events, o.Event)
	}
}

// tryICE lets both sides nominate when both run the same attempt and packets pass.
func (w *world) tryICE() {
	a, b := w.side[0].ice, w.side[1].ice
	if a == nil || b == nil || a.Attempt != b.Attempt || a.Local != b.Remote || b.Local != a.Remote {
		return
	}
	w.after(w.punching, func() {
		if w.side[0].ice != a || w.side[1].ice != b || !w.direct {
			return
		}
		for i, s := range w.side {
			w.input(i, Proven{From: w.side[1-s.index].addr})
			if w.rnd.Float64() < 0.5 { // else the nomination is as quick
				w.input(i, PairAnswered{Attempt: s.ice.Attempt, Addr: w.side[1-s.index].addr})
			}
		}
		w.input(0, Nominated{Attempt: a.Attempt, Addr: w.side[1].addr})
		w.after(w.latency, func() { w.input(1, Nominated{Attempt: b.Attempt, Addr: w.side[0].addr}) })
	})
}

func (w *world) check(s, other *side, c Check) {
	if w.lost > 0 && w.rnd.Float64() < w.lost {
		return
	}
	from := s.addr
	if IsVirtual(c.To.Addr()) {
		if !w.forwards(c.To) {
			return
		}
		from = channel(other.index, anchorOf(c.To))
	} else if !w.direct || c.To != other.addr {
		return
	}
	w.after(w.trip(), func() {
		if other.m == nil || !slices.Contains(other.trusted, c.Remote) || other.ice != nil && !IsVirtual(from.Addr()) {
			return
		}
		m := s.m
		if w.lost == 0 || w.rnd.Float64() >= w.lost {
			w.after(w.trip(), func() {
				if s.m == m {
					w.input(s.index, CheckAnswered{ID: c.ID})
				}
			})
		}
		w.input(other.index, PeerChecked{From: from})
	})
}

// forwards reports whether what is sent to a channel arrives.
func (w *world) forwards(to netip.AddrPort) bool {
	anchor := anchorOf(to)
	return w.relayed && anchor != w.dead && w.side[0].holds(anchor) && w.side[1].holds(anchor)
}

// holds reports whether the anchor has the side's half of the relayed path.
func (s *side) holds(anchor identity.NodeID) bool { return s.opened[anchor] && !s.away[anchor] }

// run lets d pass; traffic says whether both sides have packets to send.
func (w *world) run(d time.Duration, traffic bool) {
	end := w.now.Add(d)
	for at, ok := w.queue.Next(); ok && !at.After(end); at, ok = w.queue.Next() {
		_, do := w.queue.Pop()
		w.now = at
		if traffic {
			w.traffic()
		}
		do()
	}
	w.now = end
}

// traffic has every side with a path send, and the other receive if packets pass.
func (w *world) traffic() {
	for i, s := range w.side {
		other := w.side[1-i]
		if s.m == nil || other.m == nil {
			continue
		}
		p := s.m.route.path
		if p.Kind != None {
			stirred := w.now.Sub(s.tx) >= time.Second
			s.tx = w.now
			if stirred {
				w.input(i, Stirred{LastTx: s.tx.Add(w.skew[i]), LastRx: s.rx.Add(w.skew[i])})
			}
		}
		theirs := other.m.route.path // only what comes by the path in use counts
		if p.Kind == Direct && w.direct && p.Addr == other.addr && theirs.Addr == s.addr || p.Kind == Relayed && w.forwards(p.Addr) && theirs.Via == p.Via && p.Via != w.hollow && !w.mute {
			other.rx = w.now
		}
	}
}

func (w *world) kinds() [2]PathKind {
	var k [2]PathKind
	for i, s := range w.side {
		if s.m != nil {
			k[i] = s.m.route.path.Kind
		}
	}
	return k
}

// until runs until both sides have a path of that kind and returns how long it took.
func (w *world) until(kind PathKind, limit time.Duration, traffic bool) time.Duration {
	w.t.Helper()
	begin := w.now
	for w.now.Sub(begin) < limit {
		if w.kinds() == [2]PathKind{kind, kind} {
			return w.now.Sub(begin)
		}
		w.run(5*time.Millisecond, traffic)
	}
	w.t.Fatalf("after %s: got paths %v, want %v twice; reasons: %q, %q", limit, w.kinds(), kind, w.reason(0), w.reason(1))
	return 0
}

func (w *world) reason(i int) string {
	if w.side[i].m == nil {
		return "off"
	}
	return w.side[i].m.Status(w.now).Reason.String()
}

func (w *world) pathEvents(i int) []string {
	var list []string
	for _, e := range w.side[i].events {
		text := fmt.Sprintf("%s restarted=%v", e.Path.Kind, e.PeerRestarted)
		if len(list) == 0 || list[len(list)-1] != text {
			list = append(list, text)
		}
	}
	return list
}

func netipPort(a netip.AddrPort, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr(), port)
}
