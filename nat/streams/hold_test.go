package streams

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/nat/stream"
	"warren/tunnel/bind"
)

// The stream ends: so does the session that goes by it, at once, and the other anchor's is there.
func TestStreamLost(t *testing.T) {
	inWorld(t, false, []byte{1, 2}, func(w *world) {
		w.blocked()
		w.session(1, w.streamTo(1))
		w.until(3 * second)
		w.setStreams(1, nil, false)
		w.Detach(w.streamTo(1))
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
		w.Detach(older)
		w.until(4 * second)
		w.expect("3s drop 7: its stream ended; target none", "3s stream of 7 ends", "3.1s session with 7 by UDP")
		if got := w.Snapshot().Ends[anchor(7)].Virtual; got != newer {
			t.Errorf("got %v, want %v", got, newer)
		}
		w.Detach(newer)
		w.Detach(joiner)
		w.Drop(anchor(7))
		w.until(5 * second)
		w.expect("4s drop streams of 7", "4s stream of 0 ends", "4s stream of 7 ends")
		got := w.Snapshot()
		if len(got.Ends) != 0 || got.State != Open || got.Counts.Accepted != 7 || !slices.Equal(got.Listening(), []uint16{9277}) {
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
		w.Detach(dialled)
		w.until(1100 * ms)
		if got := w.Snapshot(); got.Ends[anchor(1)].Virtual != accepted || len(got.Targets) != 0 {
			t.Errorf("got %+v, want the accepted stream again, and no target", got)
		}
	})
}

// Where no UDP gets through, an anchor's no is heard over TLS alone.
func TestRefused(t *testing.T) {
	inWorld(t, false, []byte{1}, func(w *world) {
		proof := [][]byte{{1, 2, 3}}
		w.setStreams(1, &stream.Refusal{Code: 256, Reason: "revoked by root", Proof: proof}, true)
		w.until(900 * ms)
		want := Refusal{Code: 256, Reason: "revoked by root", At: w.begin.Add(250 * ms), Proof: proof, Proved: w.begin.Add(900 * ms)}
		if got := w.Snapshot(); len(got.Refusals) != 1 || !reflect.DeepEqual(got.Refusals[anchor(1)], want) || !strings.HasSuffix(got.Trouble, "refused by the anchor: revoked by root") {
			t.Errorf("got %+v, want %+v", got, want)
		}
		w.until(30 * second)
		trouble := "dial stream to " + anchor(1).Short() + ": refused by the anchor: revoked by root"
		w.expectState(Blocked, "", trouble, true)
		got := w.Snapshot().Refusals[anchor(1)]
		if !got.Proved.After(want.Proved) {
			t.Errorf("the same again: got the proof at %v, want it anew", got.Proved)
		}
		if got.Proved = want.Proved; !reflect.DeepEqual(got, want) {
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

// A stream that the socket does not take has failed, and is tried again.
func TestNotAttached(t *testing.T) {
	inWorld(t, false, []byte{1}, func(w *world) {
		w.change(func() { w.full = true })
		w.until(900 * ms)
		w.expect(
			"0s in doubt",
			"100ms dial 1 at [203.0.113.1:9277 203.0.113.1:443]",
			"750ms dial 1 at [203.0.113.1:9277 203.0.113.1:443]",
		)
		if _, err := w.taker.Accept(anchor(7), &twinConn{}); !errors.Is(err, bind.ErrTooManyStreams) {
			t.Errorf("accept: got %v, want the socket's error", err)
		}
		w.change(func() { w.full = false })
		w.until(3 * second)
		w.expect("1s blocked", "1.9s dial 1 at [203.0.113.1:9277 203.0.113.1:443]", "2.055s targets [1]")
	})
}

// When the server fails, everything ends.
func TestServerFails(t *testing.T) {
	inWorld(t, false, []byte{1}, func(w *world) {
		w.blocked()
		w.fails = errors.New("no more")
		w.broken <- w.fails
		w.until(second)
		w.expect("1s stream of 1 ends")
	})
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

// An anchor that says where else it is has a stream dialled there at once, whatever rung the failures had led to.
func TestAnchorElsewhere(t *testing.T) {
	inWorld(t, false, []byte{1}, func(w *world) {
		w.setStreams(1, errors.New("refused"), true)
		w.until(2 * time.Minute)
		w.expectState(Blocked, "", "dial stream to "+anchor(1).Short()+": refused", true)
		w.setStreams(1, nil, true)
		w.change(func() { w.log = nil; w.want.Anchors[0].UDP = []netip.AddrPort{public(9)} })
		w.until(2*time.Minute + 20*ms)
		w.expect("2m0.005s dial 1 at [203.0.113.9:9277 203.0.113.9:443]")
	})
}
