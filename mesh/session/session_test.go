package session

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session/sessiontest"
)

const lan = 200 * time.Microsecond

func TestSessionComesUpAndCarries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, b := w.nodes[0], w.nodes[1]
		b.start(nil)
		a.start(nil)
		a.target(b)
		took := w.until(time.Second, "session", func() bool { return a.up(b) && b.up(a) })
		if took > 10*time.Millisecond {
			t.Errorf("session took %v, want at most 10 ms", took)
		}
		expectList(t, "events of a", w.kinds(a.takeEvents()), "up 1")
		expectList(t, "events of b", w.kinds(b.takeEvents()), "up 0")

		large := strings.Repeat("x", MaxMessage)
		for _, text := range []string{"", "small", strings.Repeat("y", 1147), strings.Repeat("z", 1160), large} {
			if err := a.Send(b.ID, ProtoGossip, []byte(text)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			expectList(t, "message", b.takeMessages(), "0 1 "+text)
		}
		if err := a.Send(b.ID, ProtoGossip, []byte(large+"x")); !errors.Is(err, ErrTooLarge) {
			t.Errorf("oversized message: got %v, want ErrTooLarge", err)
		}
		echo(t, a, b)
		st := a.Snapshot()
		if len(st) != 1 || !st[0].Up || !st[0].Target || !st[0].Dialled || st[0].Remote != b.addr || st[0].RTT > 10*lan {
			t.Errorf("status: got %+v", st)
		}
	})
}

// echo sends text through a stream from a to b and back, with half-close.
func echo(t *testing.T, a, b *testNode) {
	t.Helper()
	c, err := a.Open(context.Background(), b.ID, ProtoSync)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer c.Close()
	text := strings.Repeat("hello ", 50_000)
	go func() {
		_, _ = io.WriteString(c, text)
		c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	got, err := io.ReadAll(c)
	if err != nil || string(got) != text {
		t.Errorf("echo: got %d bytes, %v; want %d", len(got), err, len(text))
	}
}

func TestSimultaneousDialEndsWithTheSmallerIDsSession(t *testing.T) {
	for _, latency := range []time.Duration{time.Microsecond, lan, 40 * time.Millisecond} { // without any, one might be done before the other begins
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 2, sessiontest.Options{Latency: latency})
			defer w.stop()
			a, b := w.nodes[0], w.nodes[1]
			a.start(nil)
			b.start(nil)
			a.target(b)
			b.target(a)
			time.Sleep(5 * time.Second)
			if !a.up(b) || !b.up(a) {
				t.Fatal("no session")
			}
			expect(t, "dialled by a", a.Snapshot()[0].Dialled, true)
			expect(t, "dialled by b", b.Snapshot()[0].Dialled, false)
			expect(t, "links of a", len(a.table.links(identity.NodeID{})), 1)
			expect(t, "links of b", len(b.table.links(identity.NodeID{})), 1)
			for _, n := range w.nodes {
				for _, e := range n.takeEvents() {
					if e.Kind == Down {
						t.Errorf("node %d saw its session go down: %+v", w.index(n.ID), e)
					}
				}
			}
		})
	}
}

func TestDropIsSeenWithItsReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, b := w.nodes[0], w.nodes[1]
		a.start(nil)
		b.start(nil)
		a.target(b)
		w.until(time.Second, "session", func() bool { return a.up(b) && b.up(a) })
		a.takeEvents()
		b.takeEvents()
		w.mesh.Refuse(a.ID, &Refusal{Code: 0x101, Reason: "revoked by root"})
		b.Drop(a.ID, 0x101, "revoked")
		time.Sleep(time.Second)
		for n, want := range map[*testNode]Event{
			a: {Kind: Down, ID: b.ID, Code: 0x101, Reason: "revoked", ByPeer: true},
			b: {Kind: Down, ID: a.ID, Code: 0x101, Reason: "revoked"},
		} {
			events := n.takeEvents()
			if len(events) == 0 || events[0] != want {
				t.Errorf("node %d: got %+v, want %+v first", w.index(n.ID), events, want)
			}
			if n == a && (len(events) != 2 || events[1] != Event{Kind: Refused, ID: b.ID, Code: 0x101, Reason: "revoked by root"}) {
				t.Errorf("a's dialling again: got %+v, want one refusal", events)
			}
		}
		if last := a.Snapshot()[0].LastError; !strings.Contains(last, "revoked by root") {
			t.Errorf("last error: got %q, want the reason", last)
		}
	})
}

func TestRefusalAtHandshakeIsToldBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, b := w.nodes[0], w.nodes[1]
		a.start(nil)
		b.start(nil)
		// The accepting side is the revoked one: it learns it from who dials it.
		w.mesh.Refuse(b.ID, &Refusal{Code: 0x101, Reason: "revoked"})
		a.target(b)
		time.Sleep(2 * time.Second)
		expect(t, "session", a.up(b) || b.up(a), false)
		expectList(t, "events of a", a.takeEvents())
		expectList(t, "events of b", b.takeEvents(), Event{Kind: Refused, ID: a.ID, Code: 0x101, Reason: "revoked"})
		if st := a.Snapshot()[0]; st.Attempts < 3 || !strings.Contains(st.LastError, "revoked") {
			t.Errorf("status: got %+v, want several attempts", st)
		}
		w.mesh.Refuse(b.ID, nil)
		w.until(2*time.Second, "session after the refusal", func() bool { return a.up(b) && b.up(a) })
	})
}

func TestAnotherNodeAtTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		a.start(nil)
		c.start(w.net.Listen(b.addr))
		a.target(b)
		time.Sleep(time.Second)
		expect(t, "session", len(a.table.links(identity.NodeID{}))+len(c.table.links(identity.NodeID{})), 0)
		if last := a.Snapshot()[0].LastError; !strings.Contains(last, "another node") {
			t.Errorf("last error: got %q", last)
		}
	})
}

func TestReconnectsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, b := w.nodes[0], w.nodes[1]
		a.start(nil)
		a.target(b)
		time.Sleep(time.Hour)
		if n := a.Snapshot()[0].Attempts; n < 80 || n > 200 {
			t.Errorf("got %d attempts in an hour, want one each 26 to 42 s", n)
		}
		b.start(nil)
		w.until(45*time.Second, "session", func() bool { return a.up(b) })

		time.Sleep(time.Minute)
		b.stop()
		synctest.Wait()
		time.Sleep(10 * time.Millisecond)
		expect(t, "up after a stop", a.up(b), false)
		a.takeEvents()
		b.start(nil)
		took := w.until(time.Second, "session after restart", func() bool { return a.up(b) })
		t.Logf("after a restart: up in %v", took)

		// A crash leaves a with a session that is dead; b's new process dials and replaces it.
		time.Sleep(time.Minute)
		a.takeEvents()
		b.crash()
		time.Sleep(time.Second)
		expect(t, "a notices at once", a.up(b), true)
		if ago := time.Since(a.Heard(b.ID)); ago < time.Second || ago > 2*time.Minute {
			t.Errorf("got b heard %v ago, want a second at least, and not never", ago)
		}
		b.start(nil)
		b.target(a)
		took = w.until(100*time.Millisecond, "session with the new process", func() bool { return b.up(a) })
		t.Logf("after a crash: up in %v", took)
		time.Sleep(10 * time.Second)
		events := a.takeEvents()
		expectList(t, "events of a", w.kinds(events), "down 1", "up 1")
		expect(t, "code", events[0].Code, CodeReplaced)
	})
}

func TestStatelessResetEndsTheSessionOfADeadProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, b := w.nodes[0], w.nodes[1]
		b.start(nil)
		a.start(nil)
		a.target(b)
		w.until(time.Second, "session", func() bool { return a.up(b) })
		time.Sleep(10 * time.Second)
		b.crash()
		b.start(nil)
		a.takeEvents()
		if err := a.Send(b.ID, ProtoGossip, make([]byte, 64)); err != nil {
			t.Fatal(err)
		}
		w.until(20*time.Millisecond, "session with the new process", func() bool { return b.up(a) })
		time.Sleep(10 * time.Millisecond) // b reads the answer to its hello before a tells that it has given it
		expectList(t, "events of a", w.kinds(a.takeEvents()), "down 1", "up 1")
	})
}

func TestSurvivesRebinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, sessiontest.Options{Latency: 10 * time.Millisecond})
		defer w.stop()
		a, b := w.nodes[0], w.nodes[1]
		b.start(nil)
		a.start(w.net.ListenNAT(a.addr))
		a.target(b)
		w.until(time.Second, "session", func() bool { return a.up(b) && b.up(a) })
		a.takeEvents()
		b.takeEvents()
		moved := netip.MustParseAddrPort("192.0.2.7:4711")
		a.conn.Move(moved)
		if err := a.Send(b.ID, ProtoGossip, []byte("from a new address")); err != nil {
			t.Fatal(err)
		}
		w.until(time.Second, "b follows", func() bool { r, _ := b.Remote(a.ID); return r == moved })
		time.Sleep(time.Second)
		expectList(t, "message", b.takeMessages(), "0 1 from a new address")
		expectList(t, "events of b", b.takeEvents(), Event{Kind: Moved, ID: a.ID, Remote: moved})
		expectList(t, "events of a", a.takeEvents())
		if err := b.Send(a.ID, ProtoGossip, []byte("back")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		expectList(t, "message back", a.takeMessages(), "1 1 back")
	})
}

func TestRedialAfterAChangeOfNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, sessiontest.Options{Latency: 10 * time.Millisecond})
		defer w.stop()
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		for _, n := range w.nodes {
			n.start(nil)
		}
		a.target(b) // a is the QUIC client towards b: the session survives
		c.target(a) // and the server towards c: QUIC cannot move that
		a.target(b, c)
		w.until(time.Second, "sessions", func() bool { return a.up(b) && a.up(c) && b.up(a) && c.up(a) })
		time.Sleep(10 * time.Second)
		a.takeEvents()
		c.takeEvents()
		a.conn.SetDown(true)
		time.Sleep(3 * time.Second)
		expect(t, "sessions live through an outage", a.up(b) && a.up(c), true)
		a.addr = netip.MustParseAddrPort("192.0.2.9:9277")
		a.conn.Move(a.addr)
		a.conn.SetDown(false)
		a.Redial()
		took := w.until(3*time.Second, "both follow", func() bool {
			rb, _ := b.Remote(a.ID)
			rc, _ := c.Remote(a.ID)
			return rb == a.addr && rc == a.addr && a.up(b) && a.up(c)
		})
		if took > 700*time.Millisecond {
			t.Errorf("got both to follow after %v, want 0.7 s at most", took)
		}
		echo(t, a, b)
		echo(t, a, c)
	})
}

// TestDoubt has a node's NAT forget it while sessions are idle: a word of doubt repairs those that it dialled, and ends what
// is dead; words that come often cost nothing more.
func TestDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, sessiontest.Options{Latency: 10 * time.Millisecond})
		defer w.stop()
		a, anchor, peer := w.nodes[0], w.nodes[1], w.nodes[2]
		anchor.start(nil)
		peer.start(nil)
		a.start(w.net.ListenNAT(a.addr))
		a.target(anchor, peer)
		w.until(time.Second, "sessions", func() bool { return a.up(anchor) && a.up(peer) })
		time.Sleep(5 * time.Second)
		moved := netip.MustParseAddrPort("192.0.2.7:4711")
		a.conn.Move(moved)
		w.net.Cut(moved.Addr(), peer.addr.Addr(), true)
		before := w.net.Sent()
		for range 100 {
			a.Doubt(peer.ID)
		}
		took := w.until(time.Second, "the anchor follows", func() bool { r, _ := anchor.Remote(a.ID); return r == moved })
		if took > 150*time.Millisecond {
			t.Errorf("got the anchor to follow after %v, want 150 ms at most", took)
		}
		w.until(2*time.Second, "the dead session ends", func() bool { return !a.up(peer) })
		expect(t, "the other one lives", a.up(anchor), true)
		if sent := w.net.Sent() - before; sent > 60 {
			t.Errorf("got %d packets for a hundred words of doubt, want 60 at most", sent)
		}
	})
}

// TestCheckAllEndsWhatCannotFollow has a node's NAT give it another address: the session that the node dialled follows; the one
// that dialled the node cannot, and ends instead of being taken for alive.
func TestCheckAllEndsWhatCannotFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, sessiontest.Options{Latency: 10 * time.Millisecond})
		defer w.stop()
		a, anchor, peer := w.nodes[0], w.nodes[1], w.nodes[2]
		for _, n := range w.nodes {
			n.start(nil)
		}
		a.target(anchor)
		peer.target(a)
		w.until(time.Second, "sessions", func() bool { return a.up(anchor) && a.up(peer) })
		time.Sleep(5 * time.Second)
		a.conn.Move(netip.MustParseAddrPort("192.0.2.7:4711"))
		a.CheckAll()
		w.until(2*time.Second, "the one that cannot follow ends", func() bool { return !a.up(peer) })
		expect(t, "the other one lives", a.up(anchor), true)
	})
}

func TestRacesAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, b := w.nodes[0], w.nodes[1]
		a.start(nil)
		b.start(nil)
		addrs := []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:9277"), netip.MustParseAddrPort("198.51.100.1:9277"), b.addr}
		a.SetTargets([]Target{{ID: b.ID, Addrs: addrs}, {ID: a.ID, Addrs: addrs}})
		took := w.until(time.Second, "session", func() bool { return a.up(b) })
		if took > 150*time.Millisecond {
			t.Errorf("took %v, want little more than two staggers", took)
		}
		time.Sleep(time.Second)
		b.Drop(a.ID, 0x200, "again")
		time.Sleep(10 * time.Millisecond)
		// The address that worked is now the first.
		took = w.until(time.Second, "session", func() bool { return a.up(b) })
		if took > 300*time.Millisecond {
			t.Errorf("again took %v, want the first rung of the ladder", took)
		}
		a.SetTargets(nil)
		time.Sleep(time.Second)
		expect(t, "session with what is no target", a.up(b) || b.up(a), false)
		events := b.takeEvents()
		expect(t, "code", events[len(events)-1].Code, CodeUnneeded)
	})
}

func TestDuplicatedHandshakesThroughLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, sessiontest.Options{Latency: 30 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.2, Seed: 7})
		defer w.stop()
		a, b := w.nodes[0], w.nodes[1]
		a.start(nil)
		b.start(nil)
		a.target(b)
		b.target(a)
		w.until(time.Minute, "session", func() bool { return a.up(b) && b.up(a) })
		time.Sleep(time.Minute)
		expect(t, "up", a.up(b) && b.up(a), true)
		echo(t, a, b)
	})
}

// TestErrands has a member sign another record each second, of eight addresses at which somebody lives who is no member: he is sent
// little. A member that was met before is dialled as often as ever, whatever others do.
func TestErrands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, friend, liars := w.nodes[0], w.nodes[1], w.nodes[2:]
		a.start(nil)
		friend.start(nil)
		a.target(friend)
		w.until(time.Second, "session", func() bool { return a.up(friend) })
		friend.crash()

		bystander := netip.MustParseAddr("198.51.100.77")
		count := func(lasts time.Duration) int {
			before := w.net.SentTo(bystander)
			for second := range int(lasts / time.Second) {
				targets := []Target{{ID: friend.ID, Addrs: []netip.AddrPort{friend.addr}}}
				for i, liar := range liars {
					var addrs []netip.AddrPort
					for n := range 8 {
						addrs = append(addrs, netip.AddrPortFrom(bystander, uint16(20000+second*16+i*8+n)))
					}
					targets = append(targets, Target{ID: liar.ID, Addrs: addrs})
				}
				a.SetTargets(targets)
				time.Sleep(time.Second)
			}
			return w.net.SentTo(bystander) - before
		}
		first, later := count(10*time.Second), count(time.Minute)
		t.Logf("a bystander got %d packets in 10 s, then %d in a minute", first, later)
		if first > 150 || later > 220 {
			t.Errorf("a bystander got %d packets in 10 s, then %d in a minute, want 150 and 220 at most", first, later)
		}
		friend.start(nil)
		took := w.until(12*time.Second, "session with who was met before", func() bool { return a.up(friend) })
		t.Logf("a friend that was away for 70 s is met again after %v", took)
	})
}

// TestFewDialsAtOnce has a node with 31 targets of which one is there: it is found soon, and never are many dialled at the same time.
func TestFewDialsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 32, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, there := w.nodes[0], w.nodes[17]
		a.start(nil)
		there.start(nil)
		a.target(w.nodes[1:]...)
		most := 0
		took := w.until(2*time.Second, "the one that is there", func() bool {
			a.lane.mu.Lock()
			most = max(most, len(a.lane.dials))
			a.lane.mu.Unlock()
			return a.up(there)
		})
		t.Logf("up after %v, %d dialled at once at most", took, most)
		// Silent ones make room before they are given up.
		if limit := dialsAtOnce * int(1+shortDial/dialSilence); most > limit {
			t.Errorf("got %d dialled at once, want %d at most", most, limit)
		}
	})
}

// A knock proves that a node can be dialled, beside a session or without one, and changes nothing.
func TestKnock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, b := w.nodes[0], w.nodes[1]
		a.start(nil)
		b.start(nil)
		nowhere := netip.MustParseAddrPort("198.51.100.1:9277")
		knock := func(addrs ...netip.AddrPort) error { return a.Knock(t.Context(), b.ID, addrs) }
		for _, up := range []bool{false, true} {
			if up {
				a.target(b)
				w.until(time.Second, "session", func() bool { return a.up(b) && b.up(a) })
			}
			expect(t, "dialled at one of two", knock(nowhere, b.addr) == nil, true)
			began := time.Now()
			expect(t, "dialled where nobody is", knock(nowhere) == nil, false)
			expect(t, "it took", time.Since(began) <= longDial+time.Second, true)
			expect(t, "dialled nowhere", errors.Is(knock(), ErrNoRoute), true)
			expect(t, "up", a.up(b) && b.up(a), up)
		}
		expect(t, "another node answers there", a.Knock(t.Context(), identity.NodeID{9}, []netip.AddrPort{b.addr}) == nil, false)
		time.Sleep(10 * time.Second)
		expect(t, "up", a.up(b) && b.up(a), true)
		for _, e := range slices.Concat(a.takeEvents(), b.takeEvents()) {
			if e.Kind != Up {
				t.Errorf("got event %+v, want none but that the session is up", e)
			}
		}
	})
}

// The second address of a target is dialled only when the first has had as long as answers take: a handshake that nobody needed costs both ends
// as much as one that was needed.
func TestSecondAddressesWaitAsAnswersTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 7, sessiontest.Options{Latency: 150 * time.Millisecond})
		defer w.stop()
		a := w.nodes[0]
		var targets []Target
		second := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}) }
		for i, n := range w.nodes {
			n.start(nil)
			if i > 0 {
				targets = append(targets, Target{ID: n.ID, Addrs: []netip.AddrPort{n.addr, netip.AddrPortFrom(second(i), 9277)}})
			}
		}
		a.SetTargets(targets[:1])
		w.until(3*time.Second, "a session", func() bool { return a.up(w.nodes[1]) })
		a.SetTargets(targets)
		took := w.until(3*time.Second, "all sessions", func() bool {
			return !slices.ContainsFunc(w.nodes[1:], func(n *testNode) bool { return !a.up(n) })
		})
		time.Sleep(3 * time.Second)
		for i := range w.nodes[2:] {
			if got := w.net.SentTo(second(i + 2)); got != 0 {
				t.Errorf("target %d: got %d packets to its second address, want none", i+2, got)
			}
		}
		t.Logf("the others after %v", took)

		// An address that does not answer holds up no more than that.
		dead := netip.AddrPortFrom(second(99), 9277)
		a.SetTargets(targets[:1])
		time.Sleep(time.Second)
		a.SetTargets(append(targets[:1:1], Target{ID: w.nodes[2].ID, Addrs: []netip.AddrPort{dead, w.nodes[2].addr}}))
		if took := w.until(3*time.Second, "a session by the second address", func() bool { return a.up(w.nodes[2]) }); took > 1200*time.Millisecond {
			t.Errorf("by the second address: got %v, want the stagger and a handshake", took)
		}
	})
}
