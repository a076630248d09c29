package nat

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/nat/path"
)

// What is set again changes nothing; peers wait for the first Set; another Network has them introduced anew, other anchors
// do not.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor, x, y := pair(s, portRestricted, portRestricted)
		meet(x, y)
		s.until("direct", time.Second, both(x, y, Direct))
		time.Sleep(10 * time.Second)
		attempts := func() uint64 { return x.Snapshot()[y.id].Attempts }
		before := attempts()
		s.mu.Lock()
		sent := s.packets
		s.mu.Unlock()
		for range 100 {
			x.Set(x.local)
		}
		time.Sleep(time.Millisecond)
		s.mu.Lock()
		if s.packets != sent || attempts() != before {
			t.Errorf("got %d packets and %d attempts for what was set again, want none", s.packets-sent, attempts()-before)
		}
		s.mu.Unlock()
		second := s.start(s.host(nil, 2), simID(201))
		x.local.Anchors = append(slices.Clone(x.local.Anchors), Anchor{ID: second.id, Addr: second.host.addr})
		x.Set(x.local)
		time.Sleep(time.Second)
		if got := len(x.Sightings()); got != 2 || attempts() != before {
			t.Errorf("got %d servers that have answered and %d attempts, want 2 and no attempt", got, attempts()-before)
		}
		x.local.External = []netip.AddrPort{netip.MustParseAddrPort("203.0.113.99:9277")}
		x.Set(x.local)
		time.Sleep(time.Second)
		if got := x.Snapshot()[y.id].Local; len(got) != 3 || attempts() != before {
			t.Errorf("got candidates %v and %d attempts, want a third candidate and no attempt", got, attempts()-before)
		}
		s.move(x.host, s.nat(portRestricted, 30), 30)
		x.networkChanged()
		time.Sleep(time.Second)
		if got := attempts(); got != before+1 {
			t.Errorf("got %d attempts for another network, want one", got-before)
		}
		for _, n := range []*simNode{x, y, anchor, second} {
			n.halt()
		}
	})
}

func TestPeersWaitForTheFirstSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		x := s.run(s.host(nil, 10), simID(1))
		x.SetPeers([]identity.NodeID{simID(2)})
		time.Sleep(time.Second)
		if got := x.Snapshot(); len(got) != 0 {
			t.Errorf("got %v before anything was set, want no peer", got)
		}
		x.Set(x.local)
		time.Sleep(time.Millisecond)
		if got := x.Snapshot()[simID(2)]; len(got.Local) != 1 || got.State != path.StateIntroducing {
			t.Errorf("got %+v, want an introduction with the host candidate", got)
		}
		x.halt()
	})
}
