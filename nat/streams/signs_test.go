package streams

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"warren/nat/path"
	"warren/tunnel/bind"
)

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

// Some networks let STUN pass and nothing else: three dials that fail in silence, one after the other, lead to streams though each
// doubt is answered.
func TestDialsFailSilently(t *testing.T) {
	inWorld(t, true, []byte{1}, func(w *world) {
		w.mu.Lock()
		w.udp, w.stun = false, true
		w.mu.Unlock()
		go w.redial(anchor(1))
		w.until(12 * second)
		w.expect("0s in doubt", "50ms open")
		w.change(func() { w.failing = true })
		w.until(40 * second)
		w.expect(
			"13.55s in doubt", "13.6s open",
			"15.05s in doubt", "15.1s open",
			"16.55s blocked",
			"16.55s dial 1 at [203.0.113.1:9277 203.0.113.1:443]",
			"16.705s targets [1]",
			"16.8s session with 1 by a stream",
			"22.7s knock at 1: false",
			"30.7s knock at 1: false",
		)
		if got := w.Snapshot().Reason; got != "anchors answer probes by UDP, but no session comes up" {
			t.Errorf("got reason %q", got)
		}
		w.until(50 * second) // answers are not believed any more, and ask for more; a session is
		w.expect("46.7s knock at 1: false")
		w.session(1, public(1))
		w.until(60 * second)
		w.expect("50.005s answering again", "51.005s open", "51.01s targets []", "54.005s stream of 1 ends")
	})
}

// A failed dial counts once, however often it is looked at, and two of them are not three. Those that were broken off, or that somebody
// refused, say nothing.
func TestFailedDialCountsOnce(t *testing.T) {
	for _, failed := range []int{1, 2} {
		inWorld(t, true, []byte{1}, func(w *world) {
			w.mu.Lock()
			w.udp, w.stun = false, true
			w.mu.Unlock()
			w.until(12 * second)
			w.mu.Lock()
			w.log = nil
			w.mu.Unlock()
			for range failed {
				w.change(func() { w.failed[anchor(1)]++ })
				w.until(time.Since(w.begin) + 2*second)
			}
			w.until(120 * second)
			w.mu.Lock()
			defer w.mu.Unlock()
			doubts := 0
			for _, l := range w.log {
				if l.text == "in doubt" {
					doubts++
				}
			}
			if got := w.Snapshot(); got.State != Open || doubts != failed {
				t.Errorf("after %d failed dials: got %v, %d trials, want open, %d", failed, got.State, doubts, failed)
			}
		})
	}
}

// And when they pass again, that is found out by dialling an anchor, though its session goes by a stream all the time.
func TestSessionsPassAgainUnderStreams(t *testing.T) {
	inWorld(t, true, []byte{1}, func(w *world) {
		w.mu.Lock()
		w.udp, w.stun = false, true
		w.mu.Unlock()
		go w.redial(anchor(1))
		w.until(12 * second)
		w.change(func() { w.failing = true })
		w.until(40 * second)
		w.mu.Lock()
		w.log, w.failing = nil, false
		w.udp, w.stun = true, false
		w.mu.Unlock()
		w.until(60 * second)
		w.expect(
			"46.7s answering again", "46.7s knock at 1: true",
			"47.7s open", "47.705s drop 1: UDP works again; target none", "47.705s targets []", "47.805s session with 1 by UDP",
			"50.7s stream of 1 ends",
		)
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
