package streams

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/nat/path"
	"warren/tunnel/bind"
)

// UDP is blocked at the start: streams are dialled beside the probes, and one that is up ends the trial. The session is
// dialled through it as soon as the sessions have been told.
func TestBlockedAtTheStart(t *testing.T) {
	inWorld(t, false, []byte{1, 2, 3}, func(w *world) {
		go w.redial(anchor(1))
		w.until(50 * ms)
		w.expectState(Trying, "", "", false)
		w.until(10 * second)
		w.expect(
			"0s in doubt",
			"100ms dial 1 at [203.0.113.1:9277 203.0.113.1:443]",
			"100ms dial 2 at [203.0.113.2:9277 203.0.113.2:443]",
			"250ms blocked",
			"255ms targets [1]",
			"265ms targets [1 2]",
			"300ms session with 1 by a stream",
		)
		w.expectState(Blocked, "3 anchors asked by UDP, no answer in 250ms", "", true)
		now := w.Snapshot()
		want := End{Virtual: netip.MustParseAddrPort("[100::300:0:0:1]:9"), Remote: netip.MustParseAddrPort("203.0.113.1:9277")}
		if len(now.Ends) != 2 || now.Ends[anchor(1)] != want || now.Blocks != 1 || now.Returned != 0 || now.Since.Sub(w.begin) != 250*ms {
			t.Errorf("got %+v, want one block at 250ms, and two streams, the first %+v", now, want)
		}
		if want := []netip.AddrPort{public(1), public(2), public(3)}; !slices.Equal(now.Ask, want) {
			t.Errorf("ask: got %v, want %v", now.Ask, want)
		}
		// At once, and each 100 ms of the trial; then the ladder: 2 s and 4 s after that.
		if w.probes != 5 {
			t.Errorf("got %d probes, want 5", w.probes)
		}
	})
}

// UDP ends under a running session: the first path that is silent leads to a stream. The session by UDP is ended only when
// the sessions have been told of the stream, however long that takes; else it would come back by UDP, or not at all.
func TestBlockedUnderSession(t *testing.T) {
	for _, tt := range []struct {
		hubTime time.Duration
		want    []string
	}{
		{5 * ms, []string{
			"1m1.255s drop 1: UDP is blocked; target stream",
			"1m1.255s targets [1]",
			"1m1.265s targets [1 2]",
			"1m1.355s session with 1 by a stream",
		}},
		{700 * ms, []string{ // to say that UDP is in doubt takes as long
			"1m2.4s drop 1: UDP is blocked; target stream",
			"1m2.4s targets [1 2]",
			"1m2.5s session with 1 by a stream",
		}},
	} {
		inWorld(t, true, []byte{1, 2}, func(w *world) {
			w.change(func() { w.hubTime = tt.hubTime })
			w.until(second)
			w.session(1, public(1))
			w.change(func() {
				w.want.Paths[anchor(8)] = path.Path{Kind: path.Direct, Addr: private(8)}
				w.want.Paths[anchor(9)] = path.Path{Kind: path.Direct, Addr: public(9)}
			})
			w.until(60 * second)
			w.expect("0s in doubt", "50ms open")
			w.expectState(Open, "", "", false)
			w.setUDP(false)
			w.PathSilent(anchor(8)) // in the own network: proves nothing
			w.PathSilent(anchor(7)) // no peer
			w.until(61 * second)
			w.expect()
			w.PathSilent(anchor(9))
			w.until(70 * second)
			w.expect(append([]string{
				"1m1s in doubt",
				"1m1.1s dial 1 at [203.0.113.1:9277 203.0.113.1:443]",
				"1m1.1s dial 2 at [203.0.113.2:9277 203.0.113.2:443]",
				"1m1.25s blocked",
			}, tt.want...)...)
		})
	}
}

// UDP returns: when it has answered for a second the streams are no targets any more. The session that goes by one is ended
// when the sessions have been told that, and comes back by UDP; the streams stay for 3 s.
func TestUDPReturns(t *testing.T) {
	inWorld(t, false, []byte{1, 2}, func(w *world) {
		go w.redial(anchor(1))
		w.blocked()
		w.until(3 * second)
		w.setUDP(true)
		w.until(6300 * ms) // asked after 2 s of blocked UDP, and 4 s later
		w.expect("6.3s answering again")
		w.expectState(Returning, "2 anchors asked by UDP, no answer in 250ms", "", false)
		w.until(10290 * ms)
		w.expect(
			"7.3s open",
			"7.305s drop 1: UDP works again; target none",
			"7.305s targets []",
			"7.405s session with 1 by UDP",
		)
		if now := w.Snapshot(); len(now.Ends) != 2 || len(now.Targets) != 0 || len(now.Ask) != 0 {
			t.Errorf("got %+v, want two streams that are no targets", now)
		}
		w.until(20 * second)
		w.expect("10.3s stream of 1 ends", "10.3s stream of 2 ends")
		w.expectState(Open, "", "", false)
		if now := w.Snapshot(); now.Returned != 1 || now.Blocks != 1 || len(now.Ends) != 0 {
			t.Errorf("got %+v, want one block, one return, no streams", now)
		}
	})
}

// The user takes longer than the stream stays: the session ends with the stream.
func TestReturnIsToldLate(t *testing.T) {
	inWorld(t, false, []byte{1}, func(w *world) {
		go w.redial(anchor(1))
		w.blocked()
		w.until(3 * second)
		w.setUDP(true)
		w.change(func() { w.hubTime = 5 * second })
		w.until(20 * second)
		w.expect(
			"6.3s answering again",
			"7.3s open",
			"10.3s drop 1: its stream ended; target stream",
			"10.3s stream of 1 ends",
			"10.4s session with 1 by UDP",
			"13s targets []",
		)
	})
}

// UDP is blocked again within two minutes, so that the next return has to last for 4 s. Answers that stop before bring none:
// nothing has moved, so that no session is ended and nothing is to be checked.
func TestReturnThatDoesNotLast(t *testing.T) {
	inWorld(t, false, []byte{1}, func(w *world) {
		go w.redial(anchor(1))
		w.blocked()
		w.change(func() { w.want.Paths[anchor(9)] = path.Path{Kind: path.Direct, Addr: public(9)} })
		w.mu.Lock()
		w.stun = true
		w.mu.Unlock()
		w.until(10 * second)
		w.expect(
			"2.3s answering again",
			"3.3s open",
			"3.305s drop 1: UDP works again; target none",
			"3.305s targets []",
			"6.3s stream of 1 ends",
		)
		w.mu.Lock()
		w.stun = false
		w.mu.Unlock()
		w.PathSilent(anchor(9))
		w.until(11500 * ms)
		w.expect(
			"10s in doubt",
			"10.1s dial 1 at [203.0.113.1:9277 203.0.113.1:443]",
			"10.25s blocked",
			"10.255s targets [1]",
			"10.305s session with 1 by a stream",
		)
		w.Answered(private(1)) // proves nothing
		w.until(12 * second)
		w.expect()
		w.Answered(public(1))
		w.until(13400 * ms)
		w.expect("12s answering again", "13.2s blocked")
		if now := w.Snapshot(); now.Blocks != 2 || now.Returned != 1 {
			t.Errorf("got %d blocks, %d returns, want 2, 1", now.Blocks, now.Returned)
		}
	})
}

// The session that goes by a stream is told after the end of the stream, and again when the new one is there. The one is
// ended, and only once; the other is left alone.
func TestSessionByDeadStreamIsToldLate(t *testing.T) {
	inWorld(t, false, []byte{1}, func(w *world) {
		w.blocked()
		dead := w.streamTo(1)
		w.until(10 * second)
		w.Detach(dead)
		w.until(11 * second)
		w.expect("10s dial 1 at [203.0.113.1:9277 203.0.113.1:443]", "10s stream of 1 ends", "10.005s targets []", "10.155s targets [1]")
		late := Session{Remote: dead, Since: time.Now()}
		w.change(func() { w.want.Sessions[anchor(1)] = late })
		w.until(12 * second)
		w.expect("11.005s drop 1: its stream ended; target stream", "11.105s session with 1 by a stream")
		w.change(func() { w.want.Sessions[anchor(1)] = late })
		w.until(13 * second)
		w.expect("12.005s drop 1: its stream ended; target stream", "12.105s session with 1 by a stream")
	})
}

// A session is told as it was before its end: the one that has taken its place is not hit.
func TestSessionIsEndedOnce(t *testing.T) {
	inWorld(t, true, []byte{1}, func(w *world) {
		old := Session{Remote: public(1), Since: time.Now()}
		w.until(second)
		w.change(func() {
			w.want.Sessions[anchor(1)] = old
			w.want.Paths[anchor(9)] = path.Path{Kind: path.Direct, Addr: public(9)}
		})
		w.until(2 * second)
		w.setUDP(false)
		w.PathSilent(anchor(9))
		w.until(2256 * ms)
		w.expect(
			"0s in doubt", "50ms open", "2s in doubt", "2.1s dial 1 at [203.0.113.1:9277 203.0.113.1:443]", "2.25s blocked",
			"2.255s drop 1: UDP is blocked; target stream", "2.255s targets [1]",
		)
		w.change(func() { w.want.Sessions[anchor(1)] = old })
		w.until(3 * second)
		w.expect("2.355s session with 1 by a stream")
		w.change(func() { w.want.Sessions[anchor(1)] = Session{Remote: public(1), Since: w.begin} }) // another one, older than the block
		w.until(4 * second)
		w.expect("3.005s drop 1: UDP is blocked; target stream", "3.105s session with 1 by a stream")
	})
}

// The network changes while streams are used. A stream from an address that the machine does not have any more is ended
// (TCP would take long to notice), another one stays; what was answered before proves nothing, nor does a session or
// a stream that was there before.
func TestNetworkChange(t *testing.T) {
	inWorld(t, false, []byte{1}, func(w *world) {
		w.blocked()
		w.session(1, w.streamTo(1))
		w.until(10 * second)
		w.change(func() { w.want.Network++ }) // the address stays
		w.until(12 * second)
		w.expect("10.005s in doubt", "11.005s blocked") // the stream does not end the trial sooner
		if got := w.Snapshot(); got.Reason != "1 anchors asked by UDP, no answer in 1s" || got.Blocks != 2 {
			t.Errorf("got %q, %d blocks, want no answer in 1s, 2", got.Reason, got.Blocks)
		}
		w.until(20 * second)
		w.change(func() {
			w.want.Network++
			w.local = "10.0.0.5"
		})
		w.until(25 * second)
		w.expect(
			"20.005s drop 1: its stream ended; target stream",
			"20.005s in doubt",
			"20.005s stream of 1 ends",
			"20.01s targets []",
			"20.105s dial 1 at [203.0.113.1:9277 203.0.113.1:443]",
			"20.255s blocked",
			"20.26s targets [1]",
			"20.305s session with 1 by a stream",
		)
	})
	// Into a network where UDP works: the stream stays for its 3 s, and is left.
	inWorld(t, false, []byte{1}, func(w *world) {
		w.blocked()
		w.session(1, w.streamTo(1))
		w.until(10 * second)
		w.setUDP(true)
		w.change(func() { w.want.Network++ })
		w.until(20 * second)
		w.expect(
			"10.005s in doubt",
			"10.055s open",
			"10.06s drop 1: UDP works again; target none",
			"10.06s targets []",
			"10.16s session with 1 by UDP",
			"13.055s stream of 1 ends",
		)
		if got := w.Snapshot(); got.Returned != 0 {
			t.Errorf("got %d returns, want none: the change of the network is what others act on", got.Returned)
		}
	})
	// An answer that came while the machine looked for its addresses is one of the old network.
	inWorld(t, false, []byte{1}, func(w *world) {
		w.blocked()
		w.until(10 * second)
		w.change(func() {
			w.want.Network++
			w.looking = 10 * ms
		})
		w.until(10010 * ms)
		w.Answered(public(1))
		w.until(12 * second)
		w.expect("10.015s in doubt", "11.015s blocked")
	})
}

// While a stream is there and UDP is in doubt, whoever has no session by UDP is to look for no answers by it.
func TestForlorn(t *testing.T) {
	inWorld(t, false, []byte{1, 2}, func(w *world) {
		w.blocked()
		w.until(10 * second)
		w.change(func() { w.want.Network++ })
		w.until(10100 * ms)
		w.expectState(Trying, "", "", true)
	})
	inWorld(t, true, []byte{1, 2}, func(w *world) {
		w.session(1, public(1))
		w.until(10 * second)
		w.setUDP(false)
		w.change(func() { w.want.Network++ })
		w.change(func() {
			w.want.Paths[anchor(9)], w.ways[anchor(9)] = path.Path{Kind: path.Direct, Addr: public(9)}, public(9)
		})
		w.until(10180 * ms) // streams are dialled, and would be up soon
		w.change(func() { w.traffic[anchor(9)] = bind.Activity{LastRx: time.Now()} })
		w.until(10300 * ms)
		if got := w.Snapshot(); len(got.Targets) == 0 {
			t.Errorf("got %+v, want streams", got)
		}
		w.expectState(Trying, "", "", false)
	})
}

// What a turn finds it weighs in a fixed order: a session that came up in the trial comes before the time that ends the trial, and
// the change of the network before both.
func TestOrderOfATurn(t *testing.T) {
	inWorld(t, false, nil, func(w *world) {
		l := newLoop(w.Streams)
		l.inbox, l.holder = newInbox(), &holder{client: w, socket: w, inbox: newInbox(), log: l.log}
		ctx, cancel := context.WithCancel(context.Background())
		d := Desired{Anchors: []Anchor{{ID: anchor(1), UDP: []netip.AddrPort{public(1)}}}}
		turn := func(want State) {
			t.Helper()
			l.turn(ctx, time.Now(), 0)
			if got, _, _ := l.machine.State(); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		}
		l.inbox.set(d)
		turn(Trying)
		up := time.Now().Add(900 * ms)
		time.Sleep(2 * second)
		d.Sessions = map[identity.NodeID]Session{anchor(1): {Remote: public(1), Since: up}}
		l.inbox.set(d)
		turn(Open)
		d.Network++
		l.inbox.set(d)
		turn(Trying)
		time.Sleep(2 * second)
		d.Network++
		l.inbox.set(d)
		turn(Trying) // a new trial; the old one would have ended
		cancel()
		l.holder.work.Wait()
	})
}
