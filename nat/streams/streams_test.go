package streams

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/nat/path"
	"warren/nat/stream"
	"warren/tunnel/bind"
)

const (
	ms     = time.Millisecond
	second = time.Second
)

// blocked brings the world, in which UDP is blocked, to where it has streams to the anchors 1 and 2.
func (w *world) blocked() {
	w.until(second)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log, w.probes = nil, 0
}

func (w *world) expectState(state State, blocked, cutOff string, forlorn bool) {
	w.Helper()
	got := w.Snapshot()
	if got.State != state || got.Blocked != blocked || got.CutOff != cutOff || got.Forlorn != forlorn {
		w.Errorf("got %v, blocked %q, cut off %q, forlorn %t, want %v, %q, %q, %t", got.State, got.Blocked, got.CutOff, got.Forlorn, state, blocked, cutOff, forlorn)
	}
}

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

// The path to a peer goes by a relay: silence is evidence if the session with the relay goes by UDP.
func TestSilentRelay(t *testing.T) {
	inWorld(t, true, []byte{1, 2}, func(w *world) {
		w.change(func() { w.want.Paths[anchor(9)] = path.Path{Kind: path.Relayed, Via: anchor(1)} })
		w.until(second)
		w.PathSilent(anchor(9))
		w.until(2 * second)
		w.expect("0s in doubt", "50ms open")
		w.session(1, public(1))
		w.until(3 * second)
		w.PathSilent(anchor(9))
		w.until(4 * second)
		w.expect("3s in doubt", "3.05s open")
	})
}

// A session that ended in silence is evidence against the way that it went, whether that is told before the user's Set
// without it or after: UDP is doubted, and a stream is ended.
func TestSessionLost(t *testing.T) {
	inWorld(t, true, []byte{1, 2}, func(w *world) {
		w.session(1, public(1))
		w.until(second)
		w.expect("0s in doubt", "50ms open")
		w.SessionLost(anchor(1), public(1))
		w.change(func() { delete(w.want.Sessions, anchor(1)) })
		w.until(2 * second)
		w.expect("1s in doubt", "1.05s open")

		w.session(1, public(1))
		w.until(3 * second)
		w.change(func() { delete(w.want.Sessions, anchor(1)) })
		w.until(4 * second)
		w.SessionLost(anchor(1), public(1))
		w.SessionLost(anchor(2), private(2)) // proves nothing
		w.until(5 * second)
		w.expect("4s in doubt", "4.05s open")
		w.SessionLost(anchor(2), private(2))
		w.SessionLost(anchor(9), public(9)) // no anchor
		w.until(6 * second)
		w.expect()
	})
	inWorld(t, false, []byte{1}, func(w *world) {
		w.blocked()
		virtual := w.streamTo(1)
		w.until(10 * second)
		w.SessionLost(anchor(1), virtual)
		w.until(11 * second)
		w.expect( // it lived for 5 s, so that it is opened again at once
			"10s dial 1 at [203.0.113.1:9277 203.0.113.1:443]",
			"10s stream of 1 ends",
			"10.005s targets []",
			"10.155s targets [1]",
		)
	})
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
		w.expectState(Returning, "an anchor answers by UDP", "", false)
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

// The stream ends: so does the session that goes by it, at once, and the other anchor's is there.
func TestStreamLost(t *testing.T) {
	inWorld(t, false, []byte{1, 2}, func(w *world) {
		w.blocked()
		w.session(1, w.streamTo(1))
		w.until(3 * second)
		w.setStreams(1, nil, false)
		w.DetachStream(w.streamTo(1))
		w.until(4 * second)
		w.expect(
			"3s drop 1: its stream ended; target stream",
			"3s stream of 1 ends",
			"3.005s targets [2]",
			"3.5s dial 1 at [203.0.113.1:9277 203.0.113.1:443]", // it lived for less than 5 s
		)
		w.expectState(Blocked, "2 anchors asked by UDP, no answer in 250ms", "", true)
	})
}

// The session that goes by a stream is told after the end of the stream, and again when the new one is there. The one is
// ended, and only once; the other is left alone.
func TestSessionByDeadStreamIsToldLate(t *testing.T) {
	inWorld(t, false, []byte{1}, func(w *world) {
		w.blocked()
		dead := w.streamTo(1)
		w.until(10 * second)
		w.DetachStream(dead)
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

// A session by UDP that has come up since UDP was blocked is evidence, and is not ended. One that was there before
// is none.
func TestSessionIsEvidence(t *testing.T) {
	inWorld(t, false, []byte{1, 2}, func(w *world) {
		w.blocked()
		w.session(2, private(2)) // does not count, and is not ended
		w.change(func() { w.want.Sessions[anchor(1)] = Session{Remote: public(1), Since: w.begin.Add(249 * ms)} })
		w.until(1500 * ms)
		w.expect("1.005s drop 1: UDP is blocked; target stream", "1.105s session with 1 by a stream")
		w.session(1, public(1))
		w.until(3 * second)
		w.expect("1.505s answering again", "2.505s open", "2.51s targets []")
		w.expectState(Open, "", "", false)
	})
	// In a trial it has to be younger than the trial.
	inWorld(t, false, []byte{1, 2}, func(w *world) {
		w.change(func() { w.want.Sessions[anchor(1)] = Session{Remote: public(1), Since: w.begin} })
		w.until(50 * ms)
		w.expect("0s in doubt")
		w.session(2, public(2))
		w.until(90 * ms)
		w.expect("55ms open")
	})
}

// Members open streams to this node. Its own UDP is not doubted; of two streams of one member the newer counts, and the end of
// the older means nothing.
func TestAccepted(t *testing.T) {
	inWorld(t, true, []byte{1}, func(w *world) {
		w.until(second)
		w.change(func() { w.want.Listen = []uint16{443, 9277} })
		w.until(2 * second)
		older := w.accept(7)
		want := End{Virtual: older, Remote: netip.MustParseAddrPort("198.51.100.7:40001"), Accepted: true}
		if got := w.Snapshot().Ends; len(got) != 1 || got[anchor(7)] != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		joiner := w.accept(0)
		if got := w.Snapshot(); len(got.Ends) != 1 || !w.streams[joiner].o.QUICOnly || w.streams[older].o.QUICOnly {
			t.Errorf("got %+v, want no stream of a joiner, which carries QUIC only", got.Ends)
		}
		newer := w.accept(7)
		w.session(7, older)
		w.until(3 * second)
		w.expect("0s in doubt", "50ms open")
		w.DetachStream(older)
		w.until(4 * second)
		w.expect("3s drop 7: its stream ended; target none", "3s stream of 7 ends", "3.1s session with 7 by UDP")
		if got := w.Snapshot().Ends[anchor(7)].Virtual; got != newer {
			t.Errorf("got %v, want %v", got, newer)
		}
		w.DetachStream(newer)
		w.DetachStream(joiner)
		w.Drop(anchor(7))
		w.until(5 * second)
		w.expect("4s drop streams of 7", "4s stream of 0 ends", "4s stream of 7 ends")
		got := w.Snapshot()
		if len(got.Ends) != 0 || got.State != Open || got.Counts.Accepted != 7 || !slices.Equal(got.Listening(), []uint16{9277}) || len(got.Deaf()) != 1 {
			t.Errorf("got %+v, want none left, open, the counts, and 9277 listened on", got)
		}
	})
}

// An anchor that has opened a stream to this node is dialled too: the stream that this node has dialled is the one that
// counts, until it ends.
func TestAcceptedAndDialled(t *testing.T) {
	inWorld(t, false, []byte{1}, func(w *world) {
		w.until(50 * ms)
		accepted := w.accept(1)
		if got := w.Snapshot(); got.Ends[anchor(1)].Virtual != accepted || len(got.Targets) != 0 {
			t.Errorf("got %+v, want the accepted stream, and no target", got)
		}
		w.until(second)
		got := w.Snapshot()
		dialled := got.Targets[anchor(1)]
		if end := got.Ends[anchor(1)]; end.Virtual != dialled || end.Accepted || dialled == accepted {
			t.Errorf("got %+v, want the dialled stream", got)
		}
		w.setStreams(1, nil, false)
		w.DetachStream(dialled)
		w.until(1100 * ms)
		if got := w.Snapshot(); got.Ends[anchor(1)].Virtual != accepted || len(got.Targets) != 0 {
			t.Errorf("got %+v, want the accepted stream again, and no target", got)
		}
	})
}

// Where no UDP gets through, an anchor's no is heard over TLS alone.
func TestRefused(t *testing.T) {
	inWorld(t, false, []byte{1}, func(w *world) {
		w.setStreams(1, &stream.Refusal{Code: 256, Reason: "revoked by root"}, true)
		w.until(900 * ms)
		want := Refusal{Code: 256, Reason: "revoked by root", At: w.begin.Add(250 * ms)}
		if got := w.Snapshot(); len(got.Refusals) != 1 || got.Refusals[anchor(1)] != want || !strings.HasSuffix(got.Trouble, "refused by the anchor: revoked by root") {
			t.Errorf("got %+v, want %+v", got, want)
		}
		w.until(30 * second)
		trouble := "dial stream to " + anchor(1).Short() + ": refused by the anchor: revoked by root"
		w.expectState(Blocked, "", trouble, true)
		if got := w.Snapshot().Refusals[anchor(1)]; got != want {
			t.Errorf("the same again: got %+v, want %+v, heard first", got, want)
		}
		w.setStreams(1, nil, true)
		w.until(60 * second)
		if got := w.Snapshot(); len(got.Refusals) != 0 || got.Trouble != "" || len(got.Ends) != 1 {
			t.Errorf("taken: got %+v, want no refusal, no trouble, one stream", got)
		}
	})
	// A session that is younger than the no ends it.
	inWorld(t, false, []byte{1}, func(w *world) {
		w.setStreams(1, &stream.Refusal{Code: 256, Reason: "revoked by root"}, true)
		w.change(func() { w.want.Sessions[anchor(1)] = Session{Remote: private(1), Since: w.begin} })
		w.until(700 * ms)
		if got := w.Snapshot().Refusals; len(got) != 1 {
			t.Errorf("older session: got %v, want a refusal", got)
		}
		w.session(1, private(1))
		w.until(710 * ms)
		if got := w.Snapshot().Refusals; len(got) != 0 {
			t.Errorf("younger session: got %v, want none", got)
		}
	})
}

// The proxy's trouble is told without the addresses that it is the same for.
func TestProxyTrouble(t *testing.T) {
	inWorld(t, false, []byte{1}, func(w *world) {
		proxy := &stream.ProxyError{Proxy: "http://proxy:3128", Err: errors.New("it answers 502")}
		w.setStreams(1, errors.Join(fmt.Errorf("203.0.113.1:9277: %w", proxy), fmt.Errorf("203.0.113.1:443: %w", proxy)), true)
		w.until(5 * second)
		w.expectState(Blocked, "", "through the proxy http://proxy:3128: it answers 502", true)
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
			l.turn(ctx, time.Now())
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

// A peer that is no anchor is heard in the trial: the anchors are more likely dead than blocked. What comes in within
// 50 ms may have been sent before, and what comes by another way than the path says nothing.
func TestPeerHeard(t *testing.T) {
	for _, tt := range []struct {
		heard time.Duration // after the beginning of the trial
		way   netip.AddrPort
		want  []string
	}{
		{50 * ms, public(9), []string{"1s in doubt", "1.1s dial 1 at [203.0.113.1:9277 203.0.113.1:443]", "1.25s blocked", "1.255s targets [1]"}},
		{51 * ms, public(9), []string{"1s in doubt"}},
		{51 * ms, netip.MustParseAddrPort("[100::300:0:0:77]:9"), []string{"1s in doubt", "1.1s dial 1 at [203.0.113.1:9277 203.0.113.1:443]", "1.25s blocked", "1.255s targets [1]"}},
	} {
		inWorld(t, true, []byte{1}, func(w *world) {
			w.change(func() {
				w.want.Paths[anchor(9)] = path.Path{Kind: path.Direct, Addr: public(9)}
				w.ways[anchor(9)] = tt.way
			})
			w.until(second)
			w.expect("0s in doubt", "50ms open")
			w.setUDP(false)
			w.PathSilent(anchor(9))
			w.until(second + tt.heard)
			w.change(func() { w.traffic[anchor(9)] = bind.Activity{LastRx: time.Now()} })
			w.until(6 * second)
			w.expect(tt.want...)
		})
	}
}

// A mesh whose anchors are all in private networks: their addresses count then, and not before.
func TestPrivateAnchorsOnly(t *testing.T) {
	inWorld(t, false, []byte{1}, func(w *world) {
		w.change(func() {
			w.want.Private = true
			w.want.Anchors = []Anchor{{ID: anchor(1), UDP: []netip.AddrPort{private(1)}, TCP: []netip.AddrPort{netip.MustParseAddrPort("192.168.1.1:443")}}}
		})
		w.until(90 * ms)
		if got := w.Snapshot().Ask; !slices.Equal(got, []netip.AddrPort{private(1)}) {
			t.Errorf("ask: got %v, want %v", got, private(1))
		}
		w.until(3 * second)
		w.expect(
			"0s in doubt",
			"100ms dial 1 at [192.168.1.1:443]",
			"250ms blocked",
			"255ms targets [1]",
		)
		w.Answered(private(1))
		w.until(3100 * ms)
		w.expect("3s answering again")
	})
	// In a mesh with anchors on the Internet they do not: neither are they asked, nor do streams lead there.
	inWorld(t, false, []byte{1}, func(w *world) {
		w.change(func() {
			w.want.Anchors = []Anchor{{ID: anchor(1), UDP: []netip.AddrPort{private(1), public(1)}, TCP: []netip.AddrPort{private(1)}}}
		})
		w.until(90 * ms)
		if got := w.Snapshot().Ask; !slices.Equal(got, []netip.AddrPort{public(1)}) {
			t.Errorf("ask: got %v, want %v", got, public(1))
		}
		w.until(200 * ms)
		w.expect("0s in doubt", "100ms dial 1 at [203.0.113.1:9277 203.0.113.1:443]")
	})
}

// Nobody answers, by UDP or TCP: nothing is used, and what is tried says why.
func TestNobodyAnswers(t *testing.T) {
	inWorld(t, false, nil, func(w *world) {
		w.until(second)
		w.expect() // nobody to ask
		w.expectState(Open, "", "", false)
		w.change(func() { w.want.Anchors = []Anchor{{ID: anchor(1), UDP: []netip.AddrPort{public(1)}}} })
		w.until(11500 * ms)
		w.expect(
			"1.005s in doubt",
			"1.105s dial 1 at [203.0.113.1:9277 203.0.113.1:443]",
			"2.005s blocked",
		)
		w.expectState(Blocked, "", "context deadline exceeded", true)
		w.setUDP(true)
		w.until(20 * second)
		w.expect( // it was an outage of everything, and there is nothing to leave
			"11.605s dial 1 at [203.0.113.1:9277 203.0.113.1:443]",
			"16.055s open",
		)
		if got := w.Snapshot(); got.Returned != 0 || got.Blocks != 1 {
			t.Errorf("got %d returns, %d blocks, want none, 1", got.Returned, got.Blocks)
		}
		w.change(func() { w.want.Anchors = nil })
		w.until(21 * second)
		w.expect()
	})
}

// Some networks let STUN pass and nothing else: four rounds of dials that fail in silence, five seconds apart, lead to
// streams though each doubt is answered.
func TestDialsFailSilently(t *testing.T) {
	inWorld(t, true, []byte{1}, func(w *world) {
		w.mu.Lock()
		w.udp, w.stun = false, true
		w.mu.Unlock()
		go w.redial(anchor(1))
		w.until(12 * second)
		w.expect("0s in doubt", "50ms open")
		w.change(func() { w.failed[anchor(1)] = 1 })
		w.until(40 * second)
		w.expect(
			"15.05s in doubt", "15.1s open",
			"20.05s in doubt", "20.1s open",
			"25.05s in doubt", "25.1s open",
			"30.05s blocked",
			"30.05s dial 1 at [203.0.113.1:9277 203.0.113.1:443]",
			"30.205s targets [1]",
			"30.3s session with 1 by a stream",
		)
		if got := w.Snapshot().Reason; got != "anchors answer probes by UDP, but no session comes up" {
			t.Errorf("got reason %q", got)
		}
		w.until(50 * second) // answers are not believed any more; a session is
		w.expect()
		w.session(1, public(1))
		w.until(60 * second)
		w.expect("50.005s answering again", "51.005s open", "51.01s targets []", "54.005s stream of 1 ends")
	})
}

// While packets go over streams, UDP is asked soon, whatever the ladder says: a look plans the probe four seconds later, and the
// next look is as long after that.
func TestBusy(t *testing.T) {
	for _, tt := range []struct {
		path path.Path
		way  netip.AddrPort
		want int
	}{
		{path.Path{}, netip.AddrPort{}, 1},
		{path.Path{}, netip.MustParseAddrPort("[100::300:0:0:1]:9"), 8},
		{path.Path{Kind: path.Relayed, Via: anchor(1)}, netip.AddrPort{}, 8},
		{path.Path{Kind: path.Relayed, Via: anchor(2)}, netip.AddrPort{}, 1},
	} {
		inWorld(t, false, []byte{1}, func(w *world) {
			w.blocked()
			w.session(1, w.streamTo(1))
			w.until(60 * second)
			w.change(func() {
				w.want.Paths[anchor(9)], w.ways[anchor(9)] = tt.path, tt.way
				w.traffic[anchor(9)] = bind.Activity{LastTx: time.Now().Add(time.Hour)}
				w.probes = 0
			})
			w.until(120 * second)
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.probes != tt.want {
				t.Errorf("%+v: got %d probes in a minute, want %d", tt, w.probes, tt.want)
			}
		})
	}
}

func TestCounts(t *testing.T) {
	for _, tt := range []struct {
		addr              string
		counts, inPrivate bool
	}{
		{"203.0.113.9", true, true}, {"::ffff:203.0.113.9", true, true}, {"2001:db8::9", true, true}, {"192.168.1.9", false, true},
		{"100.64.0.9", false, true}, {"fe80::9", false, false}, {"127.0.0.1", false, false}, {"100::300:0:0:1", false, false},
	} {
		a := netip.MustParseAddr(tt.addr)
		if got, private := Counts(a, false), Counts(a, true); got != tt.counts || private != tt.inPrivate {
			t.Errorf("%v: got %t, %t, want %t, %t", a, got, private, tt.counts, tt.inPrivate)
		}
	}
}

func TestNewAndRunTwice(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("got no error for no options")
	}
	inWorld(t, true, nil, func(w *world) {
		w.until(0)
		if err := w.Streams.Run(context.Background()); err == nil {
			t.Error("got no error for a second run")
		}
	})
}
