package nat

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/nat/stunwire"
)

// What is expected and comes in is told once, whoever sends it; what is not, or too late, is told never.
func TestOnlyWhatIsExpectedArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		x, other := s.start(s.host(nil, 10), simID(1)), s.host(nil, 20)
		arrived := func() (got [][12]byte) {
			time.Sleep(time.Second)
			x.mu.Lock()
			defer x.mu.Unlock()
			for _, n := range x.news {
				got = append(got, n.Arrived...)
			}
			x.news = nil
			return got
		}
		x.Expect([12]byte{1}, time.Now().Add(10*time.Second))
		x.Expect([12]byte{2}, time.Now().Add(10*time.Second))
		for _, id := range [][12]byte{{1}, {3}, {1}, {2}} {
			s.send(other, stunwire.Bare(id), x.host.addr)
		}
		if got, want := arrived(), [][12]byte{{1}, {2}}; !slices.Equal(got, want) {
			t.Errorf("got %v told, want %v", got, want)
		}
		x.Expect([12]byte{4}, time.Now().Add(time.Second))
		time.Sleep(time.Second)
		s.send(other, stunwire.Bare(stunwire.ID{4}), x.host.addr)
		if got := arrived(); len(got) != 0 {
			t.Errorf("got %v told, which came too late, want nothing", got)
		}
		for i := range 2 * maxExpected {
			x.Expect([12]byte{5, byte(i), byte(i >> 8)}, time.Now().Add(time.Minute))
		}
		s.send(other, stunwire.Bare(stunwire.ID{5}), x.host.addr)
		s.send(other, stunwire.Bare(stunwire.ID{5, 255, 1}), x.host.addr)
		if got, want := arrived(), [][12]byte{{5, 255, 1}}; !slices.Equal(got, want) {
			t.Errorf("got %v told of too many, want the newest ones only, %v", got, want)
		}
		x.halt()
	})
}

// Nobody reads for a while: what there is to tell is told when somebody does, each thing once.
func TestNewsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor := s.start(s.host(nil, 1), simID(200))
		h := s.host(s.nat(portRestricted, 10), 10)
		n, err := New(Options{Self: simID(1), STUN: h, Signals: anchor})
		if err != nil {
			t.Fatal(err)
		}
		x := &simNode{NAT: n, sim: s, id: simID(1), host: h, stopped: make(chan error, 1)}
		s.nodes[x.id] = x
		ctx, cancel := context.WithCancel(t.Context())
		x.stop = cancel
		go func() { x.stopped <- x.Run(ctx) }()
		x.Set(Local{Port: 9277, Hosts: []netip.Addr{h.addr.Addr()}, Anchors: []Anchor{{ID: anchor.id, Addr: anchor.host.addr}}})
		x.Expect([12]byte{1}, time.Now().Add(time.Hour))
		time.Sleep(3*time.Minute + time.Second) // the anchor is asked once a minute
		s.mu.Lock()
		h.box.reset()
		s.mu.Unlock()
		time.Sleep(time.Minute)
		s.send(anchor.host, stunwire.Bare(stunwire.ID{1}), x.Mapped()[0])
		time.Sleep(time.Second)
		got := <-x.News()
		if !got.Moved || !slices.Equal(got.Answered, []netip.AddrPort{anchor.host.addr}) || !slices.Equal(got.Arrived, [][12]byte{{1}}) || len(got.Doubts) != 0 {
			t.Errorf("got %+v, want the move, the anchor's answers and what was expected, once", got)
		}
		time.Sleep(time.Second)
		select {
		case again := <-x.News():
			t.Errorf("got %+v after all was told, want nothing", again)
		default:
		}
		x.halt()
		anchor.halt()
	})
}

// A path that answers no checks is told with its peer.
func TestDoubtIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		anchor, x, y := pair(s, public, public)
		meet(x, y)
		s.until("direct", time.Second, both(x, y, Direct))
		time.Sleep(10 * time.Second)
		y.halt()
		x.mu.Lock()
		x.sending, x.news = true, nil
		x.mu.Unlock()
		x.Stirred(y.id)
		time.Sleep(time.Second)
		x.mu.Lock()
		var doubts []Doubt
		for _, n := range x.news {
			doubts = append(doubts, n.Doubts...)
		}
		x.mu.Unlock()
		if want := []Doubt{{Peer: y.id, Via: identity.NodeID{}}}; !slices.Equal(doubts, want) {
			t.Errorf("got doubts %v, want %v", doubts, want)
		}
		x.halt()
		anchor.halt()
	})
}
