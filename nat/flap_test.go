package nat

import (
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
)

// The hub of a hundred tunnels has an interface that flaps, and then another address: the first costs checks alone, the
// second one attempt for each peer.
func TestFlapsAndMoveWithManyPeers(t *testing.T) {
	const many = 100
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor := s.start(s.host(nil, 1), simID(1000))
		hub := s.start(s.host(s.nat(portRestricted, 10), 10), simID(500), anchor)
		nodes, ids := []*simNode{hub, anchor}, []identity.NodeID(nil)
		for i := range many {
			n := s.start(s.host(s.nat(portRestricted, byte(100+i)), byte(1+i)), simID(i+1), anchor)
			n.SetPeers([]identity.NodeID{hub.id})
			nodes, ids = append(nodes, n), append(ids, n.id)
		}
		hub.SetPeers(ids)
		up := func() (direct int, attempts uint64) {
			for _, st := range hub.Snapshot() {
				if st.Path.Kind == Direct {
					direct++
				}
				attempts += st.Attempts
			}
			return direct, attempts
		}
		packets := func() int {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.packets
		}
		s.until("all direct", 5*time.Second, func() bool { direct, _ := up(); return direct == many })
		time.Sleep(20 * time.Second)

		_, before := up()
		sent := packets()
		for range 10 {
			hub.networkChanged()
			time.Sleep(time.Second)
		}
		direct, after := up()
		if direct != many || after != before {
			t.Errorf("after ten flaps: got %d direct paths and %d attempts, want %d and none", direct, after-before, many)
		}
		// A check and its answer for each path and flap, and those of idle paths and probes in these ten seconds.
		if got := packets() - sent; got > 10*many*2*3/2 {
			t.Errorf("got %d packets for ten flaps with %d peers, want %d at most", got, many, 10*many*2*3/2)
		}

		s.move(hub.host, s.nat(portRestricted, 30), 30)
		hub.networkChanged()
		time.Sleep(100 * time.Millisecond)
		s.until("all direct again", 5*time.Second, func() bool {
			moved := 0
			for _, n := range nodes[2:] {
				if p := n.current(); p.Kind == Direct && p.Addr.Addr().As4()[3] == 30 {
					moved++
				}
			}
			return moved == many
		})
		if _, again := up(); again-after > many*3/2 {
			t.Errorf("got %d attempts for one move with %d peers, want one each and few more", again-after, many)
		}
		for _, n := range nodes {
			n.halt()
		}
	})
}
