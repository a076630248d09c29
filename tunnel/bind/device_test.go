package bind

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"warren/tunnel/bind/bindtest"
)

// Two devices talk while the path is moved from direct to relayed and back. Nothing may be lost beyond what is under
// way when a path changes, and on a loopback nothing is.
func TestPathSwitchUnderTraffic(t *testing.T) {
	relay := New(Options{Logger: quiet})
	relayAddr := pump(t, relay, nil)
	a, b := startNode(t, conn.NewStdNetBind(), "10.0.0.1"), startNode(t, conn.NewStdNetBind(), "10.0.0.2")
	atA, atB := Half{a.addr, 0x4001}, Half{b.addr, 0x4802}
	there, err := relay.Forwards().Set(atA, atB)
	if err != nil {
		t.Fatal(err)
	}
	back, err := relay.Forwards().Set(atB, atA)
	if err != nil {
		t.Fatal(err)
	}
	ea, eb := a.peer(b, true), b.peer(a, false)
	viaA, err := a.bind.Channels().Open(relayAddr, atA.Channel)
	if err != nil {
		t.Fatal(err)
	}
	viaB, err := b.bind.Channels().Open(relayAddr, atB.Channel)
	if err != nil {
		t.Fatal(err)
	}

	ea.SetSources([]netip.AddrPort{b.addr, viaA})
	eb.SetSources([]netip.AddrPort{a.addr, viaB})

	const (
		window = 32 // under way at once
		phase  = 2000
	)
	// The sides do not move at the same moment: each phase moves first one, then in its middle the other.
	steps := []struct {
		name         string
		pathA, pathB netip.AddrPort
	}{
		{"direct", b.addr, a.addr},
		{"relayed", viaA, viaB},
		{"direct again", b.addr, a.addr},
	}
	var sent, seen, lost uint32
	for _, step := range steps {
		ea.SetPath(step.pathA)
		before := there.Load().Packets
		for i := range phase {
			if i == 10 {
				eb.SetPath(step.pathB)
			}
			for sent-seen >= window {
				n, ok := b.number(10 * time.Second)
				if !ok {
					t.Fatalf("%s: nothing arrives any more after %d of %d", step.name, seen, sent)
				}
				if n != seen {
					lost += n - seen
				}
				seen = n + 1
			}
			sent++
			a.ping(b, sent-1)
			if i%100 == 0 {
				b.ping(a, uint32(i))
				if n, ok := a.number(10 * time.Second); !ok || n != uint32(i) {
					t.Fatalf("%s: the way back: got %d, %v, want %d", step.name, n, ok, i)
				}
			}
		}
		relayed := there.Load().Packets - before
		// The relay counts after sending, so its count lags by what it has under way.
		if step.pathA == viaA && relayed < phase*9/10 || step.pathA != viaA && relayed > phase/10 {
			t.Errorf("%s: got %d packets through the relay", step.name, relayed)
		}
	}
	for seen < sent {
		n, ok := b.number(10 * time.Second)
		if !ok {
			break
		}
		lost += n - seen
		seen = n + 1
	}
	lost += sent - seen
	if lost > 0 {
		t.Errorf("got %d of %d lost, want none", lost, sent)
	}
	if back.Load().Packets == 0 {
		t.Error("nothing went back through the relay")
	}
	for _, n := range []*node{a, b} {
		select {
		case stray := <-n.bind.Strays():
			t.Errorf("got stray %v, want none", stray)
		default:
		}
	}
	if got := eb.DstToString(); got != a.addr.String() {
		t.Errorf("after all: got path %v, want %v", got, a.addr)
	}
}

// Traffic before there is a path makes WireGuard send an initiation that it would repeat after five seconds only. The
// endpoint keeps it, so the tunnel is up as soon as the path is.
func TestHandshakeLeavesWithThePath(t *testing.T) {
	a, b := startNode(t, conn.NewStdNetBind(), "10.0.0.1"), startNode(t, conn.NewStdNetBind(), "10.0.0.2")
	ea, eb := a.peer(b, true), b.peer(a, false)
	a.ping(b, 1)
	b.ping(a, 2) // the other side has traffic too, and must not cross the handshake
	held := func() bool {
		return ea.Carried().Initiation(time.Now(), 1) != nil
	}
	for deadline := time.Now().Add(30 * time.Second); !held() || b.bind.Counters()[DropNotOurTurn] == 0; {
		if time.Now().After(deadline) {
			t.Fatal("no initiation was held")
		}
		time.Sleep(time.Millisecond)
	}
	eb.SetPath(a.addr)
	soon := beforeRetry(t)
	ea.SetPath(b.addr)
	if n, ok := b.number(30 * time.Second); !ok || n != 1 {
		t.Fatalf("got %d, %v, want ping 1", n, ok)
	}
	soon("path to first packet")
	if n, ok := a.number(30 * time.Second); !ok || n != 2 {
		t.Fatalf("the way back: got %d, %v, want ping 2", n, ok)
	}
}

// Both sides have traffic the moment there is a path: their initiations cross, and the tunnel is up all the same.
func TestCrossedHandshakes(t *testing.T) {
	network := bindtest.NewNetwork()
	network.Delay(5 * time.Millisecond)
	var both sync.WaitGroup // both initiations have been sent
	both.Add(2)
	var left sync.Map
	network.Lose(func(from, _ netip.AddrPort, p []byte) bool {
		if _, again := left.LoadOrStore(from, true); !again && isInitiation(p) {
			both.Done()
			both.Wait()
		}
		return false
	})
	start := func(host, ip string) *node {
		n := startNode(t, network.Host(netip.MustParseAddr(host)), ip)
		n.addr = netip.AddrPortFrom(netip.MustParseAddr(host), n.bind.Port())
		return n
	}
	a, b := start("192.0.2.1", "10.0.0.1"), start("192.0.2.2", "10.0.0.2")
	a.peer(b, true).SetPath(b.addr)
	b.peer(a, false).SetPath(a.addr)
	soon := beforeRetry(t)
	a.ping(b, 1)
	b.ping(a, 2)
	if n, ok := b.number(30 * time.Second); !ok || n != 1 {
		t.Errorf("got %d, %v, want ping 1", n, ok)
	}
	if n, ok := a.number(30 * time.Second); !ok || n != 2 {
		t.Errorf("got %d, %v, want ping 2", n, ok)
	}
	soon("both directions")
	if got := a.bind.Counters()[DropCrossed]; got != 1 {
		t.Errorf("got %d crossed, want 1", got)
	}
}

// A mesh peer that turns up at an address nobody knows is answered there at once (WireGuard's roaming), and told.
// When its path is set, its next packet makes it the peer's endpoint again.
func TestRoamingComesBack(t *testing.T) {
	a, b := startNode(t, conn.NewStdNetBind(), "10.0.0.1"), startNode(t, conn.NewStdNetBind(), "10.0.0.2")
	a.peer(b, true).SetPath(b.addr)
	eb := b.peer(a, false) // b has not heard of any path
	a.ping(b, 1)
	if n, ok := b.number(30 * time.Second); !ok || n != 1 {
		t.Fatalf("got %d, %v, want ping 1", n, ok)
	}
	b.ping(a, 2)
	if n, ok := a.number(30 * time.Second); !ok || n != 2 {
		t.Fatalf("got %d, %v, want ping 2", n, ok)
	}
	if stray := <-b.bind.Strays(); stray != a.addr {
		t.Errorf("got stray %v, want %v", stray, a.addr)
	}
	eb.SetPath(a.addr)
	a.ping(b, 3)
	if n, ok := b.number(30 * time.Second); !ok || n != 3 {
		t.Fatalf("got %d, %v, want ping 3", n, ok)
	}
	b.ping(a, 4)
	if n, ok := a.number(30 * time.Second); !ok || n != 4 {
		t.Fatalf("got %d, %v, want ping 4", n, ok)
	}
	if got := eb.Activity(); got.TxPackets == 0 || got.RxPackets == 0 {
		t.Errorf("got %+v, want both directions through the endpoint object", got)
	}
}

// Static peers have plain endpoints and WireGuard's own roaming.
func TestStaticPeer(t *testing.T) {
	a, b := startNode(t, conn.NewStdNetBind(), "10.0.0.1"), startNode(t, conn.NewStdNetBind(), "10.0.0.2")
	a.bind.SetStatic([]netip.AddrPort{b.addr})
	b.bind.SetStatic([]netip.AddrPort{a.addr})
	a.configure(b, b.addr)
	b.configure(a, a.addr)
	a.ping(b, 1)
	if n, ok := b.number(30 * time.Second); !ok || n != 1 {
		t.Fatalf("got %d, %v, want ping 1", n, ok)
	}
	b.ping(a, 2)
	if n, ok := a.number(30 * time.Second); !ok || n != 2 {
		t.Fatalf("got %d, %v, want ping 2", n, ok)
	}
	for _, n := range []*node{a, b} {
		select {
		case stray := <-n.bind.Strays():
			t.Errorf("got stray %v, want none", stray)
		default:
		}
	}
}
