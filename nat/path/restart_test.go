package path

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"warren/mesh/identity"
)

// restartAnchor has an anchor forget its channels. Each side has a session with it again after a time of its own, and
// then takes up the channels that it still wants.
func (w *world) restartAnchor(anchor identity.NodeID, back [2]time.Duration) {
	for i, s := range w.side {
		s.away[anchor] = true
		w.input(i, w.known(i, nil))
		w.after(back[i], func() {
			delete(s.away, anchor)
			since := map[identity.NodeID]time.Time{anchor: w.clock(i)}
			w.input(i, w.known(i, since))
		})
	}
}

// known is local without the anchors that the side has no session with.
func (w *world) known(i int, since map[identity.NodeID]time.Time) Local {
	l := w.local(i, 0, 0)
	var there []RelayOffer
	for _, o := range l.Relays {
		if !w.side[i].away[o.Anchor] {
			o.Since = since[o.Anchor]
			there = append(there, o)
		}
	}
	l.Relays = there
	return l
}

// arrives reports whether what a side sends reaches the other.
func (w *world) arrives(i int) bool {
	p := w.side[i].m.route.path
	return p.Kind == Relayed && w.forwards(p.Addr)
}

// The restarted relay is the spare one again before the next restart, and the pair never waits for one.
func TestRelayThatRestarts(t *testing.T) {
	for seed := range uint64(100) {
		w := newRelayedWorld(t, 1000+seed)
		w.run(time.Duration(w.rnd.IntN(40_000))*time.Millisecond, true)
		for round := range 3 {
			anchor := w.via(0)
			ms := func(n int) time.Duration { return time.Duration(w.rnd.IntN(n)) * time.Millisecond }
			both := 300*time.Millisecond + ms(700)
			back := [2]time.Duration{both + ms(300), both + ms(300)}
			if w.rnd.IntN(3) == 0 {
				back[w.rnd.IntN(2)] += ms(3000)
			}
			begun := w.now
			w.restartAnchor(anchor, back)
			var silent, longest time.Duration
			for w.now.Sub(begun) < 30*time.Second {
				w.run(10*time.Millisecond, true)
				silent += 10 * time.Millisecond
				if w.arrives(0) && w.arrives(1) {
					silent = 0
				}
				longest = max(longest, silent)
			}
			if longest > 2*time.Second {
				t.Errorf("seed %d, round %d: silent for %s when the relay was back after %v, want 2 s at most", seed, round, longest, back)
				break
			}
			w.run(ms(20_000), true)
		}
	}
}

// A peer whose process was restarted is spoken to by the relay in use under what was agreed on last: the process that knew what
// was agreed before is gone.
func TestPeerBehindRelayRestarts(t *testing.T) {
	for seed := range uint64(60) {
		w := newRelayedWorld(t, 3000+seed)
		w.run(20*time.Second, true)
		again := int(seed % 2)
		events := len(w.side[1-again].events)
		w.start(again)
		w.input(again, w.local(again, 0, 0))
		begun := w.now
		for told := false; !told || !w.arrives(0) || !w.arrives(1); {
			w.run(10*time.Millisecond, true)
			for _, e := range w.side[1-again].events[events:] {
				told = told || e.PeerRestarted
			}
			if took := w.now.Sub(begun); took > time.Second {
				t.Errorf("seed %d: silent for %s after the peer restarted, want 1 s at most", seed, took)
				break
			}
		}
	}
}

// The peer restarts while nothing gets through. When it does again, the new process answers the offer that is out: that answer
// begins the attempt, although it is the first word of this process.
func TestFirstWordOfANewProcessIsAnAnswer(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t, 2000+seed)
		w.start(0)
		w.start(1)
		w.until(Direct, time.Second, true)
		w.run(10*time.Second, true)
		w.direct, w.relayed, w.loss = false, false, 1
		w.run(3*time.Second, true)
		w.start(1)
		w.run(7*time.Second, true)
		w.direct, w.relayed, w.loss = true, true, 0
		w.input(0, Routable{})
		w.until(Direct, 300*time.Millisecond, true)
	}
}

// The controlling side learns an address of its own while its offer is out. The peer answers that offer, and may never have heard of
// the address: it is told with the attempt, and again.
func TestCandidatesSinceTheOfferAreToldAgain(t *testing.T) {
	host := NewCandidate(Host, netip.MustParseAddrPort("192.168.1.1:9277"), 0)
	mapped := NewCandidate(ServerReflexive, netip.MustParseAddrPort("203.0.113.1:9277"), 0)
	moved := NewCandidate(Host, netip.MustParseAddrPort("192.168.7.1:9277"), 0)
	for _, tt := range []struct {
		name  string
		since []Candidate // told once, and lost
		want  int
	}{
		{"nothing new", []Candidate{host}, 0},
		{"one more", []Candidate{host, mapped}, 1 + len(trickleAgain)},
		{"another one instead", []Candidate{moved}, 1 + len(trickleAgain)},
	} {
		now := time.Unix(1e9, 0)
		m := New(Config{Self: identity.NodeID{1}, Peer: identity.NodeID{2}, Instance: [8]byte{1}}, now)
		m.Step(now, Local{Candidates: []Candidate{host}})
		m.Step(now, Routable{})
		m.Step(now, Local{Candidates: tt.since})
		out, wake := m.Step(now, Received{Message{Kind: KindAnswer, Attempt: m.intro.sig.number, Instance: [8]byte{2}, Ufrag: "theirufr", Pwd: "theirpasswordtheirpassword"}})
		told := 0
		count := func(out []Output) {
			for _, o := range out {
				if s, ok := o.(Send); ok && s.Message.Kind == KindCandidates && slices.Equal(s.Message.Candidates, Lines(tt.since)) {
					told++
				}
			}
		}
		count(out)
		for wake.Sub(now) < 2*time.Second {
			at := wake
			out, wake = m.Step(at, Wake{})
			count(out)
		}
		if told != tt.want {
			t.Errorf("%s: told %d times, want %d", tt.name, told, tt.want)
		}
	}
}

// The relay that an attempt began with dies, and the attempt has no other: it does not take the time that one with a path has.
func TestAttemptWhoseRelayDiedIsShort(t *testing.T) {
	w := newWorld(t, 31)
	w.direct = false
	w.start(0)
	w.start(1)
	w.until(Relayed, 2*time.Second, true)
	w.run(time.Minute, true)
	before := w.attempts()
	w.input(0, Introduce{})
	w.run(100*time.Millisecond, true)
	if got := w.attempts() - before; got != 1 || !w.side[0].m.intro.try.on {
		t.Fatalf("got %d attempts, want one under way", got)
	}
	w.relayed = false
	w.run(5200*time.Millisecond, true)
	if got := w.attempts() - before; got < 2 {
		t.Errorf("5.2 s after the relay died: got %d attempts, want another one", got)
	}
}
