package nat

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/nat/natkind"
	"warren/nat/path"
)

// ports counts the packets that a host sends to each port of an address.
func (s *sim) ports(from *simHost, to netip.Addr) map[uint16]int {
	counted := make(map[uint16]int)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tap = func(h *simHost, dst netip.AddrPort) {
		if h == from && dst.Addr() == to {
			counted[dst.Port()]++
		}
	}
	return counted
}

// A node that knows that its own NAT maps by destination, from two anchors, punches nothing: it would be in vain.
func TestNothingIsPunchedFromBehindADependentMapping(t *testing.T) {
	for _, kind := range []natKind{sequential, symmetric} {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t)
			anchor := s.start(s.host(nil, 1), simID(200))
			second := s.start(s.host(nil, 2), simID(201))
			x := s.start(s.host(s.nat(sequential, 10), 10), simID(1), anchor, second)
			y := s.start(s.host(s.nat(kind, 20), 20), simID(2), anchor, second)
			time.Sleep(time.Second)
			counted := s.ports(y.host, x.host.box.addr)
			meet(x, y)
			s.until("relayed", time.Second, both(x, y, Relayed))
			time.Sleep(time.Minute)
			s.mu.Lock()
			if len(counted) > 2 { // x is told two addresses of its own
				t.Errorf("%s: got packets to ports %v, want to none but those that the anchors see", kind, counted)
			}
			s.mu.Unlock()
			for _, n := range []*simNode{x, y, anchor, second} {
				n.halt()
			}
		})
	}
}

// Samples cost a node with a public address nothing, and one behind a NAT without an order of ports a few packets in a
// network, however long it runs and however often it tries.
func TestSamplesAreTakenWhereTheyAreOfUse(t *testing.T) {
	tests := []struct {
		kind    natKind
		samples int
		ports   natkind.Ports
	}{
		{public, 0, natkind.PortsUnknown},
		{portRestricted, learnSamples + 2*maxBarren, natkind.PortsSequential},
		{symmetric, learnSamples + 2, natkind.PortsRandom},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t)
			samples := 0
			s.tap = func(h *simHost, _ netip.AddrPort) {
				if h.addr.Port() != 9277 {
					samples++
				}
			}
			anchor, x, y := pair(s, tt.kind, public)
			meet(x, y)
			time.Sleep(time.Second)
			if got := x.Ports(); got != tt.ports {
				t.Errorf("%s: got ports %s, want %s", tt.kind, got, tt.ports)
			}
			for i := range 20 {
				time.AfterFunc(time.Duration(i)*10*time.Second, func() { y.Introduce(x.id) })
			}
			time.Sleep(10 * time.Minute)
			s.mu.Lock()
			if samples > tt.samples {
				t.Errorf("%s: got %d samples in ten minutes, want %d at most", tt.kind, samples, tt.samples)
			}
			s.mu.Unlock()
			for _, n := range []*simNode{x, y, anchor} {
				n.halt()
			}
		})
	}
}

// A node behind a NAT that is known from a measurement not to map by destination takes no samples.
func TestNoSamplesWhereMeasured(t *testing.T) {
	for kind, want := range map[natkind.Mapping]bool{
		natkind.MappingUnknown: true, natkind.MappedDependent: true, natkind.MappedIndependent: false, natkind.Unmapped: false,
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t)
			s.measured = kind
			anchor, x, y := pair(s, symmetric, public)
			meet(x, y)
			time.Sleep(time.Minute)
			if got := x.Ports() != natkind.PortsUnknown; got != want {
				t.Errorf("measured %s: got samples %v, want %v", kind, got, want)
			}
			for _, n := range []*simNode{x, y, anchor} {
				n.halt()
			}
		})
	}
}

// When the first attempt comes to nothing, because the peer does not punch in time, the mapping towards the peer lives on
// and the next samples find no new one: what the first found is told again.
func TestPredictionOutlivesAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor, x, y := pair(s, sequential, portRestricted)
		time.Sleep(time.Second)
		s.mu.Lock()
		s.blocked = y.host // neither its checks nor its punches leave
		s.mu.Unlock()
		meet(x, y)
		time.Sleep(8 * time.Second)
		if x.current().Kind == Direct {
			t.Fatal("got a direct path through a wall")
		}
		s.mu.Lock()
		s.blocked = nil
		s.mu.Unlock()
		t.Logf("direct %s after the wall fell", s.until("direct", time.Minute, both(x, y, Direct)))
		for _, n := range []*simNode{x, y, anchor} {
			n.halt()
		}
	})
}

// A router loses its state while WireGuard's packets go on: they, not a check between samples, make the new mapping.
func TestPredictionAfterTheRouterForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor, x, y := pair(s, sequential, portRestricted)
		meet(x, y)
		s.until("direct", time.Second, both(x, y, Direct))
		time.Sleep(10 * time.Second)
		old := y.current().Addr
		s.mu.Lock()
		x.host.box.reset()
		s.mu.Unlock()
		ctx, cancel := context.WithCancel(context.Background())
		var senders sync.WaitGroup
		for n, peer := range map[*simNode]*simNode{x: y, y: x} {
			n.mu.Lock()
			n.sending = true
			n.mu.Unlock()
			n.Stirred(peer.id)
			senders.Go(func() {
				for ; ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
					at := n.current().Addr
					if at.IsValid() && at.Addr().Is4() {
						s.send(n.host, []byte{4, 0, 0, 0}, at)
					}
				}
			})
		}
		took := s.until("direct again", time.Minute, func() bool { return both(x, y, Direct)() && y.current().Addr != old })
		t.Logf("direct again after %s", took)
		if took > 10*time.Second {
			t.Errorf("got direct again after %s, want 10 s at most", took)
		}
		cancel()
		senders.Wait()
		for _, n := range []*simNode{x, y, anchor} {
			n.halt()
		}
	})
}

// A router that gives out ports in another order from one day to the next is learnt anew when it moves the node.
func TestLearntAnewInAnotherNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor, x, y := pair(s, symmetric, portRestricted)
		meet(x, y)
		s.until("relayed", time.Second, both(x, y, Relayed))
		time.Sleep(10 * time.Second)
		s.move(x.host, s.nat(sequential, 30), 30)
		x.networkChanged()
		t.Logf("direct %s after the move", s.until("direct", 2*time.Minute, both(x, y, Direct)))
		for _, n := range []*simNode{x, y, anchor} {
			n.halt()
		}
	})
}

// A hostile peer sets this node on one that it names, as often as it can, with new attempts each time.
func TestPunchBudget(t *testing.T) {
	q, now := newPuncher(), time.Unix(1e9, 0)
	sent := func(d time.Duration, peers ...identity.NodeID) (packets int) {
		attempt := uint64(0)
		for end := now.Add(d); now.Before(end); now = now.Add(50 * time.Millisecond) {
			for _, peer := range peers {
				attempt++
				p := path.Punch{Attempt: attempt}
				for port := range uint16(path.MaxPredicted) {
					p.To = append(p.To, netip.AddrPortFrom(remote4.Addr(), 2000+port))
				}
				q.add(now, peer, p)
			}
			for _, to := range q.due(now) {
				packets += len(to)
			}
		}
		return packets
	}
	const attempt = path.MaxPredicted * len(punchTimes)
	if got := sent(2*time.Second, simID(1)); got > 2*attempt {
		t.Errorf("got %d packets to one peer in 2 s, want %d at most", got, 2*attempt)
	}
	if got := sent(time.Hour, simID(1)); got > 17*attempt {
		t.Errorf("got %d packets to one peer in an hour, want %d at most", got, 17*attempt)
	}
	var crowd []identity.NodeID
	for i := range 100 {
		crowd = append(crowd, simID(100+i))
	}
	if got := sent(2*time.Second, crowd...); got == 0 || got > 420 {
		t.Errorf("got %d packets to a hundred peers in 2 s, want 400 or so at most", got)
	}
	if len(q.pauses) != 101 {
		t.Errorf("got pauses of %d peers, want 101", len(q.pauses))
	}
	now = now.Add(2 * punchLastPause)
	sent(time.Second, simID(1))
	if len(q.pauses) != 1 {
		t.Errorf("got pauses of %d peers when those of all but one are over, want 1", len(q.pauses))
	}
}

// What is told at once is punched at once, and again twice; a direct path lifts the pause.
func TestPunchTimes(t *testing.T) {
	q, now := newPuncher(), time.Unix(1e9, 0)
	to := []netip.AddrPort{netip.AddrPortFrom(remote4.Addr(), 2000), netip.AddrPortFrom(remote4.Addr(), 2001)}
	begin := now
	var at []time.Duration
	if !q.add(now, simID(1), path.Punch{Attempt: 1, To: to}) {
		t.Fatal("got the first attempt refused")
	}
	for wake := q.wake(); !wake.IsZero(); wake = q.wake() {
		now = wake
		for id, list := range q.due(now) {
			if id != simID(1) || !slices.Equal(list, to) {
				t.Errorf("got %v for %s, want %v", list, id.Short(), to)
			}
			at = append(at, now.Sub(begin))
		}
	}
	if !slices.Equal(at, punchTimes[:]) {
		t.Errorf("got punches at %v, want %v", at, punchTimes)
	}
	for i := uint64(2); i < 10; i++ {
		q.add(now, simID(1), path.Punch{Attempt: i, To: to})
	}
	if q.add(now, simID(1), path.Punch{Attempt: 10, To: to}) {
		t.Error("got a tenth attempt at once, want a pause")
	}
	q.stop(simID(1))
	q.won(simID(1))
	if !q.add(now, simID(1), path.Punch{Attempt: 11, To: to}) {
		t.Error("got a pause after a direct path, want none")
	}
}

func TestGuesses(t *testing.T) {
	now := time.Unix(1e9, 0)
	p := &predictor{ports: natkind.PortsSequential, step: 1} // no first sample
	at := func(port uint16) natkind.Sample {
		return natkind.Sample{Local: 50000, Mapped: netip.AddrPortFrom(netip.MustParseAddr("203.0.113.9"), port)}
	}
	other := netip.MustParseAddrPort("192.0.2.8:1234")
	var g guesses
	if _, _, ok := g.between(now, p, remote4, at(2000), at(2001)); ok {
		t.Error("got ports without room and without an earlier guess, want none")
	}
	want := []uint16{2001}
	through := func(first, last uint16) (ports []uint16) {
		for p := first; p <= last; p++ {
			ports = append(ports, p)
		}
		return ports
	}
	for _, step := range []struct {
		what          string
		target        netip.AddrPort
		after         time.Duration
		before, until uint16
		want          []uint16
	}{
		{"a new mapping", remote4, 0, 2000, 2002, want},
		{"the same one again", remote4, time.Minute, 2010, 2011, want},
		{"and again, for it is in use", remote4, 90 * time.Second, 2020, 2021, want},
		{"towards another address, made since the last sample", other, 0, 2030, 2031, through(2022, 2029)},
		{"the same, later", other, time.Minute, 2032, 2033, through(2022, 2029)},
		{"long after", remote4, 3 * time.Minute, 2040, 2041, through(2034, 2039)},
		{"ports out of order", remote4, 0, 5000, 2041, through(2034, 2039)},
	} {
		now = now.Add(step.after)
		got, _, _ := g.between(now, p, step.target, at(step.before), at(step.until))
		if !slices.Equal(got.Ports, step.want) {
			t.Errorf("%s: got %v, want %v", step.what, got.Ports, step.want)
		}
	}
	g.between(now, p, remote4, at(2000), at(2002))
	p.reset()
	p.ports, p.step = natkind.PortsSequential, 1
	if got, _, ok := g.between(now, p, remote4, at(2010), at(2011)); ok {
		t.Errorf("got %v of another network, want nothing", got)
	}
}

func TestTargets(t *testing.T) {
	var candidates []path.Candidate
	for _, addr := range []string{
		"192.168.1.2:9277", "100.64.1.2:9277", "[2001:db8::1]:9277", "203.0.113.1:9277", "203.0.113.1:9277", "198.51.100.1:1", "198.51.100.1:2",
	} {
		candidates = append(candidates, path.NewCandidate(path.ServerReflexive, netip.MustParseAddrPort(addr), 0))
	}
	want := []netip.AddrPort{netip.MustParseAddrPort("203.0.113.1:9277"), netip.MustParseAddrPort("198.51.100.1:1")}
	if got := targets(candidates); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The router of the other side gets another address, which nobody knows until that side asks for it. Its last answer is
// young, and its node is idle: the introduction that the first node begins has to make it ask.
func TestPredictionWhenTheOtherRouterMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor, x, y := pair(s, sequential, portRestricted)
		meet(x, y)
		s.until("direct", time.Second, both(x, y, Direct))
		time.Sleep(4 * time.Second)
		moved := s.nat(portRestricted, 40)
		s.mu.Lock()
		delete(s.boxes, y.host.box.addr)
		y.host.box = moved
		s.mu.Unlock()
		x.mu.Lock()
		x.sending = true
		x.mu.Unlock()
		x.Stirred(y.id)
		took := s.until("direct again", time.Minute, func() bool {
			return both(x, y, Direct)() && x.current().Addr.Addr() == moved.addr
		})
		t.Logf("direct again after %s", took)
		if took > 5*time.Second {
			t.Errorf("got direct again after %s, want 5 s at most", took)
		}
		for _, n := range []*simNode{x, y, anchor} {
			n.halt()
		}
	})
}
