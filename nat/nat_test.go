package nat

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
)

// pair starts an anchor and two nodes behind NATs of those kinds, not yet told of each other.
func pair(s *sim, a, b natKind) (anchor, x, y *simNode) {
	anchor = s.start(s.host(nil, 1), simID(200))
	box := func(k natKind, n byte) *simNAT {
		if k == public {
			return nil
		}
		return s.nat(k, n)
	}
	x = s.start(s.host(box(a, 10), 10), simID(1), anchor)
	y = s.start(s.host(box(b, 20), 20), simID(2), anchor)
	return anchor, x, y
}

func both(x, y *simNode, kind PathKind) func() bool {
	return func() bool { return x.current().Kind == kind && y.current().Kind == kind }
}

func meet(x, y *simNode) {
	x.SetPeers([]identity.NodeID{y.id})
	y.SetPeers([]identity.NodeID{x.id})
}

func TestGrid(t *testing.T) {
	for a := public; a <= symmetric; a++ {
		for b := public; b <= symmetric; b++ {
			want := Direct
			if a == symmetric && b >= portRestricted || b == symmetric && a >= portRestricted || a == sequential && b == sequential {
				want = Relayed
			}
			t.Run(fmt.Sprintf("%s × %s", a, b), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSim(t)
					anchor, x, y := pair(s, a, b)
					time.Sleep(time.Second) // the anchor's answers are known
					meet(x, y)
					limit := 200 * time.Millisecond
					if want == Relayed {
						limit = 500 * time.Millisecond
					}
					took := s.until(want.String(), limit, both(x, y, want))
					t.Logf("%s after %s", want, took)
					time.Sleep(20 * time.Second)
					if !both(x, y, want)() {
						t.Errorf("got %v and %v after 20 s, want to stay %s", x.current(), y.current(), want)
					}
					if want == Relayed && x.current().Via != anchor.id {
						t.Errorf("got relay through %s, want the anchor", x.current().Via)
					}
					for _, n := range []*simNode{x, y, anchor} {
						n.halt()
					}
				})
			})
		}
	}
}

func TestSameLANUsesHostPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor := s.start(s.host(nil, 1), simID(200))
		box := s.nat(portRestricted, 10)
		x := s.start(s.host(box, 10), simID(1), anchor)
		y := s.start(s.host(box, 11), simID(2), anchor)
		time.Sleep(time.Second)
		meet(x, y)
		took := s.until("direct", time.Second, both(x, y, Direct))
		if took > 80*time.Millisecond {
			t.Errorf("got direct after %s, want 80 ms at most", took)
		}
		if got := x.current().Addr; got != y.host.addr {
			t.Errorf("got path to %s, want the LAN address %s", got, y.host.addr)
		}
		for _, n := range []*simNode{x, y, anchor} {
			n.halt()
		}
	})
}

// With a cold cache, the server-reflexive address is found and trickled while the offer travels.
func TestColdStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor, x, y := pair(s, portRestricted, portRestricted)
		meet(x, y)
		took := s.until("direct", time.Second, both(x, y, Direct))
		t.Logf("direct after %s", took)
		if took > 200*time.Millisecond {
			t.Errorf("got direct after %s, want 200 ms at most", took)
		}
		if got, want := x.Mapped(), netip.AddrFrom4([4]byte{203, 0, 113, 10}); len(got) != 1 || got[0].Addr() != want {
			t.Errorf("got mapped addresses %v, want one at %s", got, want)
		}
		for _, n := range []*simNode{x, y, anchor} {
			n.halt()
		}
	})
}

func TestNetworkChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor, x, y := pair(s, portRestricted, portRestricted)
		meet(x, y)
		s.until("direct", time.Second, both(x, y, Direct))
		time.Sleep(10 * time.Second)
		s.move(x.host, s.nat(portRestricted, 30), 30)
		x.networkChanged()
		took := s.until("the new address", time.Second, func() bool {
			return y.current().Kind == Direct && y.current().Addr.Addr() == netip.AddrFrom4([4]byte{203, 0, 113, 30})
		})
		t.Logf("moved after %s", took)
		if took > 200*time.Millisecond {
			t.Errorf("got the new path after %s, want 200 ms at most", took)
		}
		for _, n := range []*simNode{x, y, anchor} {
			n.halt()
		}
	})
}

// A router that reboots silently: checks find the path dead, or the peer at its new mapping.
func TestNATForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor, x, y := pair(s, portRestricted, portRestricted)
		meet(x, y)
		s.until("direct", time.Second, both(x, y, Direct))
		time.Sleep(10 * time.Second)
		old := y.current().Addr
		s.mu.Lock()
		x.host.box.reset()
		s.mu.Unlock()
		for _, pair := range [][2]*simNode{{x, y}, {y, x}} {
			pair[0].mu.Lock()
			pair[0].sending = true
			pair[0].mu.Unlock()
			pair[0].Stirred(pair[1].id)
		}
		took := s.until("a new path", 15*time.Second, func() bool {
			return both(x, y, Direct)() && y.current().Addr != old
		})
		t.Logf("healed after %s", took)
		if took > 1500*time.Millisecond {
			t.Errorf("healed after %s, want 1.5 s at most", took)
		}
		for _, n := range []*simNode{x, y, anchor} {
			n.halt()
		}
	})
}

func TestPeerRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor, x, y := pair(s, portRestricted, fullCone)
		meet(x, y)
		s.until("direct", time.Second, both(x, y, Direct))
		time.Sleep(10 * time.Second)
		y.halt()
		y = s.start(y.host, y.id, anchor)
		y.SetPeers([]identity.NodeID{x.id})
		s.until("direct again", time.Second, both(x, y, Direct))
		time.Sleep(time.Second)
		x.mu.Lock()
		if x.restarts != 1 {
			t.Errorf("got %d events with PeerRestarted, want 1", x.restarts)
		}
		x.mu.Unlock()
		for _, n := range []*simNode{x, y, anchor} {
			n.halt()
		}
	})
}

func TestIntroduce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor, x, y := pair(s, portRestricted, portRestricted)
		meet(x, y)
		s.until("direct", time.Second, both(x, y, Direct))
		time.Sleep(10 * time.Second)
		before := x.Snapshot()[y.id].Attempts
		y.Introduce(x.id)
		y.Introduce(simID(77)) // no peer
		time.Sleep(time.Second)
		if got := x.Snapshot()[y.id]; got.Attempts != before+1 || got.Path.Kind != Direct {
			t.Errorf("got %d attempts and %v, want one more than %d and a direct path", got.Attempts, got.Path, before)
		}
		for _, n := range []*simNode{x, y, anchor} {
			n.halt()
		}
	})
}

func TestReasons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor, x, y := pair(s, portRestricted, portRestricted)
		s.cut = true
		meet(x, y)
		time.Sleep(2 * time.Second)
		status := x.Snapshot()[y.id]
		if !strings.HasPrefix(status.Reason.String(), "no route for introductions: no anchor session") {
			t.Errorf("got reason %q, want no route", status.Reason)
		}
		s.mu.Lock()
		s.cut = false
		s.mu.Unlock()
		x.SignalReady()
		if took := s.until("direct", time.Second, both(x, y, Direct)); took > 150*time.Millisecond {
			t.Errorf("got direct %s after the route, want 150 ms at most", took)
		}
		time.Sleep(time.Second)
		status = x.Snapshot()[y.id]
		if status.Reason != "" || status.RTT != 10*time.Millisecond || len(status.Local) != 2 || len(status.Remote) == 0 {
			t.Errorf("got status %+v, want no reason, the round trip and candidates", status)
		}
		for _, n := range []*simNode{x, y, anchor} {
			n.halt()
		}
	})
}

// An offer that is there before the record that makes its sender a peer must not be lost; one from a
// member that stays unknown is refused.
func TestParking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor, x, y := pair(s, portRestricted, portRestricted)
		time.Sleep(time.Second)
		x.SetPeers([]identity.NodeID{y.id})
		time.Sleep(50 * time.Millisecond)
		y.SetPeers([]identity.NodeID{x.id})
		if took := s.until("direct", time.Second, both(x, y, Direct)); took > 150*time.Millisecond {
			t.Errorf("got direct %s after the record, want 150 ms at most", took)
		}
		x.SetPeers([]identity.NodeID{y.id, anchor.id})
		time.Sleep(parkTime + time.Second)
		if got := x.Snapshot()[anchor.id].Reason.String(); !strings.Contains(got, "refuses") {
			t.Errorf("got reason %q, want a refusal", got)
		}
		for _, n := range []*simNode{x, y, anchor} {
			n.halt()
		}
	})
}

// One node meets many at once; afterwards next to nothing of it is left running.
func TestManyPeers(t *testing.T) {
	const many = 100
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor := s.start(s.host(nil, 1), simID(1000))
		hub := s.start(s.host(s.nat(portRestricted, 10), 10), simID(500), anchor)
		var nodes []*simNode
		var ids []identity.NodeID
		for i := range many {
			n := s.start(s.host(s.nat(portRestricted, byte(100+i)), byte(1+i)), simID(i+1), anchor)
			nodes, ids = append(nodes, n), append(ids, n.id)
		}
		time.Sleep(time.Second)
		idle := runtime.NumGoroutine()
		for _, n := range nodes {
			n.SetPeers([]identity.NodeID{hub.id})
		}
		hub.SetPeers(ids)
		took := s.until("all direct", 5*time.Second, func() bool {
			up := 0
			for _, st := range hub.Snapshot() {
				if st.Path.Kind == Direct {
					up++
				}
			}
			return up == many
		})
		t.Logf("%d peers direct after %s", many, took)
		time.Sleep(5 * time.Second)
		if left := runtime.NumGoroutine() - idle; left > 5 {
			t.Errorf("got %d goroutines more than before, want none", left)
		}
		for _, n := range append(nodes, hub, anchor) {
			n.halt()
		}
	})
}

func TestSetPeersIsIdempotentAndRemoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor, x, y := pair(s, public, public)
		meet(x, y)
		s.until("direct", time.Second, both(x, y, Direct))
		time.Sleep(time.Second)
		before := x.Snapshot()[y.id].Attempts
		for range 10 {
			meet(x, y)
		}
		time.Sleep(time.Second)
		if got := x.Snapshot()[y.id].Attempts; got != before {
			t.Errorf("got %d attempts after repeating SetPeers, want %d", got, before)
		}
		x.SetPeers(nil)
		time.Sleep(time.Millisecond)
		if got := len(x.Snapshot()); got != 0 {
			t.Errorf("got %d peers, want none", got)
		}
		for _, n := range []*simNode{x, y, anchor} {
			n.halt()
		}
	})
}

func TestNewRefusesMissingOptions(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("got no error without options, want one")
	}
	if _, err := New(Options{Self: simID(1)}); err == nil {
		t.Error("got no error without a lane, want one")
	}
}
