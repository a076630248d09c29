package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session/sessiontest"
)

// line starts a world in which each node has a session with its neighbours in the list only: 0 – 1 – 2 – … Nodes 1 to
// n-2 are public, the ends are behind NATs.
func line(t *testing.T, n int) *world {
	t.Helper()
	w := newWorld(t, n, sessiontest.Options{Latency: 5 * time.Millisecond})
	for i, node := range w.nodes {
		if i == 0 || i == n-1 {
			node.start(w.net.ListenNAT(node.addr))
		} else {
			node.start(nil)
		}
	}
	for i := 1; i < n; i++ {
		if i == n-1 {
			w.nodes[i].target(w.nodes[i-1])
		} else {
			w.nodes[i-1].target(w.nodes[i])
		}
	}
	w.until(time.Second, "sessions", func() bool {
		for i := 1; i < n; i++ {
			if !w.nodes[i].up(w.nodes[i-1]) || !w.nodes[i-1].up(w.nodes[i]) {
				return false
			}
		}
		return true
	})
	return w
}

func TestForwardsOverOneAndTwoMembers(t *testing.T) {
	for n := 3; n <= 4; n++ {
		synctest.Test(t, func(t *testing.T) {
			w := line(t, n)
			defer w.stop()
			a, b := w.nodes[0], w.nodes[n-1]
			// Each knows the destination's anchor.
			a.know(by(b, w.nodes[n-2]))
			w.nodes[1].know(by(b, w.nodes[n-2]))
			for _, text := range []string{"small", strings.Repeat("large", 10_000)} {
				if err := a.Send(b.ID, ProtoGossip, []byte(text)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				expectList(t, "message", b.takeMessages(), "0 1 "+text)
			}
			echo(t, a, b)
			time.Sleep(time.Second)
			for _, node := range w.nodes {
				if n := node.router.splices.Load(); n != 0 {
					t.Errorf("got %d splices left, want none", n)
				}
			}
		})
	}
}

func TestNoRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		a.start(nil)
		if err := a.Send(c.ID, ProtoGossip, nil); !errors.Is(err, ErrNoRoute) {
			t.Errorf("send with no session at all: got %v, want ErrNoRoute", err)
		}
		if _, err := a.Open(context.Background(), c.ID, ProtoSync); !errors.Is(err, ErrNoRoute) {
			t.Errorf("open with no session at all: got %v, want ErrNoRoute", err)
		}
		b.start(nil)
		a.target(b)
		w.until(time.Second, "session", func() bool { return a.up(b) && b.up(a) })
		if err := a.Send(c.ID, ProtoGossip, nil); err != nil {
			t.Errorf("send by the only session: got %v, want nil", err)
		}
		start := time.Now()
		if _, err := a.Open(context.Background(), c.ID, ProtoSync); !errors.Is(err, ErrNoRoute) || time.Since(start) > 10*lan {
			t.Errorf("open by the only session: got %v after %v, want ErrNoRoute at once", err, time.Since(start))
		}
		for _, to := range []identity.NodeID{{}, a.ID} {
			if err := a.Send(to, ProtoGossip, nil); !errors.Is(err, ErrNoRoute) {
				t.Errorf("send to %v: got %v, want ErrNoRoute", to, err)
			}
		}
		synctest.Wait()
		expect(t, "counted", b.Counters()["no_route"], 2)
	})
}

func TestHopLimitEndsLoops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5, sessiontest.Options{Latency: lan})
		defer w.stop()
		ring := w.nodes[:4]
		for _, n := range ring {
			n.start(nil)
		}
		for i, n := range ring {
			var others []*testNode
			for j, o := range ring {
				if j > i {
					others = append(others, o)
				}
			}
			n.target(others...)
		}
		w.until(time.Second, "sessions", func() bool { return ring[2].up(ring[3]) && ring[0].up(ring[3]) && ring[1].up(ring[2]) })
		time.Sleep(time.Second)
		if err := ring[0].Send(w.nodes[4].ID, ProtoGossip, []byte("to nobody")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		var forwarded uint64
		for _, n := range ring {
			forwarded += n.Counters()["forwarded"]
		}
		// The first member passes it on, the second may only deliver it.
		expect(t, "forwarded", forwarded, 1)
	})
}

func TestParksSignalsUntilTheDestinationComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, anchor, b := w.nodes[0], w.nodes[1], w.nodes[2]
		anchor.start(nil)
		a.start(w.net.ListenNAT(a.addr))
		a.target(anchor)
		w.until(time.Second, "session", func() bool { return a.up(anchor) && anchor.up(a) })
		large := strings.Repeat("x", largeParked)
		for _, payload := range []string{large + "1", "ask 1", large + "2", "ask 2"} {
			if err := a.Send(b.ID, ProtoSignal, []byte(payload)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err := a.Send(b.ID, ProtoGossip, []byte("not a signal")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second)
		b.start(w.net.ListenNAT(b.addr))
		b.target(anchor)
		time.Sleep(100 * time.Millisecond)
		got := b.takeMessages()
		slices.Sort(got) // they are sent in order, but large ones on streams
		expectList(t, "messages", got, "0 3 ask 2", "0 3 "+large+"2")

		b.stop()
		if err := a.Send(b.ID, ProtoSignal, []byte("too early")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(parkTime + time.Second)
		b.start(w.net.ListenNAT(b.addr))
		b.target(anchor)
		time.Sleep(time.Second)
		expectList(t, "messages after the parking time", b.takeMessages())
	})
}

// newTriangle is a world of two nodes with an anchor, each of which has a session with each.
func newTriangle(t *testing.T) (w *world, a, b, anchor *testNode) {
	t.Helper()
	w = newWorld(t, 3, sessiontest.Options{Latency: lan})
	a, b, anchor = w.nodes[0], w.nodes[1], w.nodes[2]
	for _, n := range w.nodes {
		n.start(nil)
	}
	a.target(b, anchor)
	b.target(anchor)
	w.until(time.Second, "sessions", func() bool { return a.up(b) && b.up(a) && anchor.up(a) && anchor.up(b) })
	return w, a, b, anchor
}

func TestDoubtfulSessionIsNotTrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b, _ := newTriangle(t)
		defer w.stop()
		time.Sleep(10 * time.Second)
		// The way between a and b breaks. b notices first, and sends by the anchor.
		w.net.Cut(a.addr.Addr(), b.addr.Addr(), true)
		b.Redial()
		if err := b.Send(a.ID, ProtoSignal, []byte("by the anchor")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		expectList(t, "at a", a.takeMessages(), "1 3 by the anchor")
		if err := a.Send(b.ID, ProtoSignal, []byte("answer")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		expectList(t, "at b", b.takeMessages(), "0 3 answer")
		time.Sleep(2 * time.Second)
		expect(t, "dead session", a.up(b) || b.up(a), false)
		echo(t, a, b)
	})
}

// TestSignalTakesAnotherWay has a session die that nobody has checked yet, and the first hop with it: signals still arrive,
// and only they are sent twice.
func TestSignalTakesAnotherWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, b, first, second := w.nodes[0], w.nodes[1], w.nodes[2], w.nodes[3]
		for _, n := range w.nodes {
			n.start(nil)
		}
		a.target(b, first, second)
		b.target(first, second)
		w.until(time.Second, "sessions", func() bool {
			return a.up(b) && a.up(first) && a.up(second) && first.up(b) && second.up(b)
		})
		a.know(by(b, first, second))
		time.Sleep(10 * time.Second)
		w.net.Cut(a.addr.Addr(), b.addr.Addr(), true)
		w.net.Cut(a.addr.Addr(), first.addr.Addr(), true)
		for _, p := range []Proto{ProtoSignal, ProtoGossip} {
			if err := a.Send(b.ID, p, []byte("hello")); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Millisecond)
		expectList(t, "at b", b.takeMessages(), "0 3 hello")

		w.net.Cut(a.addr.Addr(), b.addr.Addr(), false)
		a.Doubt(b.ID)
		time.Sleep(2 * time.Second)
		a.Doubt(b.ID)
		time.Sleep(100 * time.Millisecond)
		b.takeMessages()
		if err := a.Send(b.ID, ProtoSignal, []byte("once")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		expectList(t, "over a session that was just heard", b.takeMessages(), "0 3 once")
	})
}

// TestAnswerGoesBackTheWay has a session die right after it was heard, so that it is relied on: the answer to a signal that came
// another way arrives all the same.
func TestAnswerGoesBackTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, b, first, second := w.nodes[0], w.nodes[1], w.nodes[2], w.nodes[3]
		for _, n := range w.nodes {
			n.start(nil)
		}
		a.target(first, second)
		b.target(first, second)
		w.until(time.Second, "sessions", func() bool { return a.up(first) && a.up(second) && b.up(first) && b.up(second) })
		a.know(by(b, first, second))
		b.know(by(a, second))
		time.Sleep(10 * time.Second)
		if err := first.Send(a.ID, ProtoGossip, []byte("heard")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		w.net.Cut(a.addr.Addr(), first.addr.Addr(), true)
		if err := b.Send(a.ID, ProtoSignal, []byte("offer")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		expectList(t, "at a", a.takeMessages(), "2 1 heard", "1 3 offer")
		a.Came(b.ID, second.ID)
		for _, payload := range []string{"answer", "answer again"} {
			if err := a.Send(b.ID, ProtoSignal, []byte(payload)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Millisecond)
		expectList(t, "at b", b.takeMessages(), "0 3 answer", "0 3 answer again")
	})
}

// TestAnswerNeedsOneWay has a signal proven to have come by a member: what answers it goes back by that one alone, what follows by both ways, and
// nobody who names another as the source of what he brings changes the way of anything.
func TestAnswerNeedsOneWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, b, first, second := w.nodes[0], w.nodes[1], w.nodes[2], w.nodes[3]
		for _, n := range w.nodes {
			n.start(nil)
		}
		a.target(first, second)
		b.target(first, second)
		w.until(time.Second, "sessions", func() bool { return a.up(first) && a.up(second) && b.up(first) && b.up(second) })
		a.know(by(b, first, second))
		b.know(by(a, second))
		say := func(payload string, want ...string) {
			t.Helper()
			if err := a.Send(b.ID, ProtoSignal, []byte(payload)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
			expectList(t, payload, b.takeMessages(), want...)
		}
		if err := b.Send(a.ID, ProtoSignal, []byte("offer")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		expectList(t, "at a", a.takeMessages(), "1 3 offer")
		before := second.counters[countForwarded].Load()
		say("not opened yet", "0 3 not opened yet") // by the first alone: that b has sent it is the forwarder's word
		expect(t, "forwarded by the other", second.counters[countForwarded].Load()-before, 0)
		a.Came(b.ID, second.ID)
		say("answer", "0 3 answer")
		expect(t, "forwarded by the way back", second.counters[countForwarded].Load()-before, 1)
		say("answer again", "0 3 answer again", "0 3 answer again")
		a.Came(b.ID, second.ID)
		say("repeated", "0 3 repeated", "0 3 repeated") // b may not have got the first one
		time.Sleep(trustTime)
		for _, n := range []*testNode{first, second} { // a session that has been silent is not relied on
			if err := n.Send(a.ID, ProtoGossip, []byte("heard")); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Millisecond)
		a.Came(b.ID, second.ID)
		say("later", "0 3 later")
	})
}

// TestAcknowledgementsAreSignsOfLife has a side say much to a far side that says nothing: once that acknowledges, nothing is said twice.
func TestAcknowledgementsAreSignsOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, b, anchor := newTriangle(t)
		defer w.stop()
		a.know(by(b, anchor))
		time.Sleep(10 * time.Second)
		for i := range 5 {
			if err := a.Send(b.ID, ProtoSignal, fmt.Appendf(nil, "signal %d", i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(recent / 3)
			want := []string{fmt.Sprintf("0 3 signal %d", i)}
			if i == 0 { // it has been silent
				want = append(want, want[0])
			}
			expectList(t, "at b", b.takeMessages(), want...)
		}
		// The far side is gone, and is not believed in for longer than before.
		w.net.Cut(a.addr.Addr(), b.addr.Addr(), true)
		time.Sleep(recent)
		if err := a.Send(b.ID, ProtoSignal, []byte("by the anchor")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		expectList(t, "at b", b.takeMessages(), "0 3 by the anchor")
	})
}

// TestTrafficIsDatedBack has a packet be as old as it may be: it came after the last time that nothing had.
func TestTrafficIsDatedBack(t *testing.T) {
	var s traffic
	now := time.Unix(1000, 0)
	for i, c := range []struct {
		after time.Duration
		count uint64
		want  bool
	}{
		{0, 7, false}, // it may have come an hour ago
		{recent / 2, 8, true},
		{recent / 4, 8, true},
		{recent / 4, 8, false},
		{2 * recent, 9, false},
		{recent - 1, 10, true},
	} {
		now = now.Add(c.after)
		expect(t, fmt.Sprint("look ", i), s.look(now, c.count), c.want)
	}
}

// TestStrangersForwardNothing has a node whose chain is right, but which the others do not know as a member: it speaks
// for itself, and cannot carry or forge what is another's.
func TestStrangersForwardNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, sessiontest.Options{Latency: 5 * time.Millisecond})
		defer w.stop()
		stranger, anchor, b := w.nodes[0], w.nodes[1], w.nodes[2]
		bringers := make(chan identity.NodeID, 4)
		knows := func(o *Options) {
			o.Inbound = onStream{o.Inbound, func(c net.Conn) {
				bringers <- Bringer(c)
				c.Close()
			}}
		}
		stranger.start(w.net.ListenNAT(stranger.addr))
		anchor.start(nil, knows)
		b.start(w.net.ListenNAT(b.addr), knows)
		anchor.know(book{strangers: []identity.NodeID{stranger.ID}})
		b.know(book{strangers: []identity.NodeID{stranger.ID}})
		stranger.target(anchor)
		b.target(anchor)
		w.until(time.Second, "sessions", func() bool { return anchor.up(stranger) && anchor.up(b) && b.up(anchor) && stranger.up(anchor) })

		if err := stranger.Send(anchor.ID, ProtoGossip, []byte("own")); err != nil {
			t.Fatal(err)
		}
		if err := stranger.Send(b.ID, ProtoGossip, []byte("through")); err != nil {
			t.Fatal(err)
		}
		forged := append(header{kind: frameEnvelope, hops: 1, to: anchor.ID, from: b.ID, proto: ProtoGossip}.appendTo(nil), "forged"...)
		if err := stranger.table.link(anchor.ID).conn.SendDatagram(forged); err != nil {
			t.Fatal(err)
		}
		if _, err := stranger.Open(context.Background(), b.ID, ProtoSync); err == nil {
			t.Error("a stranger opened a stream through another member")
		}
		time.Sleep(time.Second)
		expectList(t, "messages at the anchor", anchor.takeMessages(), "0 1 own")
		expectList(t, "messages at b", b.takeMessages())
		expect(t, "refused for being a stranger's", anchor.Counters()["stranger"], 3)

		if _, err := stranger.OpenDirect(context.Background(), b.ID, ProtoRelay); !errors.Is(err, ErrNoRoute) {
			t.Errorf("direct stream without a session: got %v, want %v", err, ErrNoRoute)
		}
		if _, err := b.OpenDirect(context.Background(), anchor.ID, ProtoRelay); err != nil {
			t.Fatal(err)
		}
		expect(t, "who brings a stream on the session", <-bringers, b.ID)
	})
}

// TestHostileEnvelopes sends frames that no honest member sends, from node 0 over node 1.
func TestHostileEnvelopes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := line(t, 3)
		defer w.stop()
		evil, anchor, b := w.nodes[0], w.nodes[1], w.nodes[2]
		envelope := func(hops byte, to, from identity.NodeID) []byte {
			return append(header{kind: frameEnvelope, hops: hops, to: to, from: from, proto: ProtoGossip}.appendTo(nil), "evil"...)
		}
		before := anchor.Counters()
		for _, c := range []struct {
			reason string
			frame  []byte
		}{
			{"malformed", nil},
			{"malformed", []byte{99}},
			{"malformed", []byte{frameDirect, 0}},
			{"malformed", []byte{framePing, 1, 2, 3}},
			{"malformed", envelope(maxHops+1, b.ID, evil.ID)},
			{"malformed", envelope(maxHops, b.ID, b.ID)},
			{"malformed", envelope(maxHops, identity.NodeID{}, evil.ID)},
			{"malformed", envelope(maxHops, b.ID, identity.NodeID{})},
			{"forged_source", envelope(maxHops, b.ID, identity.NodeID{7})},
			{"forged_source", envelope(maxHops, anchor.ID, b.ID)},
			{"loop", envelope(maxHops, b.ID, anchor.ID)},
			{"hop_limit", envelope(0, b.ID, evil.ID)},
		} {
			if c.frame == nil {
				c.frame = []byte{}
			}
			if err := evil.table.link(anchor.ID).conn.SendDatagram(c.frame); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
			after := anchor.Counters()
			if after[c.reason] != before[c.reason]+1 {
				t.Errorf("frame %x: counters %v, want one more %s", c.frame, after, c.reason)
			}
			before = after
		}
		expectList(t, "messages at b", b.takeMessages())
		expectList(t, "messages at the anchor", anchor.takeMessages())

		// More than one member's share of forwarding.
		for range 2 * forwardRate.Burst {
			if err := evil.Send(b.ID, ProtoGossip, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Microsecond)
		}
		time.Sleep(time.Second)
		if n := len(b.takeMessages()); n < forwardRate.Burst/2 || n > forwardRate.Burst+forwardRate.Burst/4 {
			t.Errorf("got %d messages through, want about %d", n, forwardRate.Burst)
		}
		expect(t, "sessions", anchor.up(evil) && anchor.up(b), true)
	})
}

// TestSplicesArePaced sends more through a forwarding member than one may at once.
func TestSplicesArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := line(t, 3)
		defer w.stop()
		a, b := w.nodes[0], w.nodes[2]
		c, err := a.Open(t.Context(), b.ID, ProtoSync)
		if err != nil {
			t.Fatal(err)
		}
		const seconds = 3
		start := time.Now()
		echoed := make(chan int64)
		go func() {
			n, _ := io.Copy(io.Discard, c)
			echoed <- n
		}()
		const all = (spliceBurst + seconds*spliceRate) / 2 // and as much on its way back
		if _, err := c.Write(make([]byte, all)); err != nil {
			t.Fatal(err)
		}
		c.(interface{ CloseWrite() error }).CloseWrite()
		if n := <-echoed; n != all {
			t.Errorf("got %d bytes back, want %d", n, all)
		}
		if took := time.Since(start); took < seconds*time.Second || took > (seconds+2)*time.Second {
			t.Errorf("%d bytes each way took %v, want %d to %d s", all, took, seconds, seconds+2)
		}
	})
}

func TestHostileStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := line(t, 3)
		defer w.stop()
		evil, anchor, b := w.nodes[0], w.nodes[1], w.nodes[2]
		l := evil.table.link(anchor.ID)
		for _, start := range [][]byte{{99}, {frameDirect, 0}, header{kind: frameEnvelope, hops: 2, to: b.ID, from: identity.NodeID{3}, proto: 1}.appendTo(nil)} {
			st, err := l.conn.OpenStream()
			if err != nil {
				t.Fatal(err)
			}
			_, _ = st.Write(start)
			if _, err := st.Read(make([]byte, 1)); err == nil || isNoRoute(err) {
				t.Errorf("stream beginning %x: got %v, want a reset", start, err)
			}
		}
		// Streams that say nothing are given up, and splices are limited.
		for range maxSplicesPerSession {
			if _, err := evil.Open(context.Background(), b.ID, ProtoSync); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := evil.Open(context.Background(), b.ID, ProtoSync); err == nil {
			t.Error("one splice too many: got nil")
		}
		expect(t, "splices", anchor.router.splices.Load(), maxSplicesPerSession)
		time.Sleep(spliceIdle + time.Second)
		expect(t, "splices after idling", anchor.router.splices.Load(), 0)
		echo(t, evil, b)
	})
}

func TestHandshakesAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, sessiontest.Options{Latency: lan})
		defer w.stop()
		a, b := w.nodes[0], w.nodes[1]
		b.start(nil)
		// Strangers that come with fresh addresses, and never answer the Retry that they get after a while.
		initial := initialPacket(t)
		sent := w.net.Sent()
		for i := range 2000 {
			c := w.net.Listen(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), 5000))
			initial[6+i%8]++ // another connection ID
			_, _ = c.WriteTo(initial, b.conn.LocalAddr())
			c.Close()
		}
		time.Sleep(time.Second)
		halfOpen := b.reception.gate.halfOpen.Taken(nil)
		if halfOpen > unprovenBurst+unprovenPerSecond {
			t.Errorf("got %d half-open connections, want at most %d", halfOpen, unprovenBurst+unprovenPerSecond)
		}
		t.Logf("%d half-open, %d packets for 2000", halfOpen, w.net.Sent()-sent)
		a.start(nil)
		a.target(b)
		w.until(time.Second, "session of a member meanwhile", func() bool { return a.up(b) })
	})
}

// initialPacket catches the first packet of a dial.
func initialPacket(t *testing.T) []byte {
	t.Helper()
	w := newWorld(t, 2, sessiontest.Options{})
	defer w.stop()
	trap := w.net.Listen(w.nodes[1].addr)
	defer trap.Close()
	w.nodes[0].start(nil)
	w.nodes[0].target(w.nodes[1])
	buf := make([]byte, 2000)
	n, _, err := trap.ReadFrom(buf)
	if err != nil || n < 1200 {
		t.Fatalf("got %d bytes, %v", n, err)
	}
	return buf[:n]
}
