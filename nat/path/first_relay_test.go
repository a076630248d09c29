package path

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"warren/mesh/identity"
)

var (
	farAnchor  = RelayOffer{Anchor: identity.NodeID{7}, RTTms: 100}
	nearAnchor = RelayOffer{Anchor: identity.NodeID{7}, RTTms: 5}
	channelAt  = netip.MustParseAddrPort("[100::7]:1")
)

// withAnchor is lone with a session to relay by.
func withAnchor(t *testing.T, self byte, anchor RelayOffer) (m *Machine, now time.Time) {
	t.Helper()
	m, now = lone(t, self, 2)
	m.Step(now, Local{Candidates: []Candidate{NewCandidate(Host, netip.MustParseAddrPort("192.0.2.1:9277"), 0)}, Relays: []RelayOffer{anchor}})
	return m, now
}

func offerOf(attempt uint64, relays ...RelayOffer) Received {
	return Received{Message{
		Kind: KindOffer, Attempt: attempt, Instance: [8]byte{9}, Ufrag: "abcdefgh", Pwd: "abcdefghijklmnopqrstuvwx", Relays: relays,
		Candidates: []string{NewCandidate(Host, netip.MustParseAddrPort("198.51.100.9:9277"), 0).String()},
	}}
}

func answerOf(attempt uint64, relay identity.NodeID) Received {
	msg := offerOf(attempt).Message
	msg.Kind, msg.Relay = KindAnswer, relay
	return Received{msg}
}

func opens(out []Output) bool {
	return slices.ContainsFunc(out, func(o Output) bool { _, ok := o.(OpenRelay); return ok })
}

// Over a long line the controlled side opens the channel with the offer, and uses it when it is open. Over a short one ICE has its time first.
func TestFarRelayIsTheFirstPath(t *testing.T) {
	for name, anchor := range map[string]RelayOffer{"far": farAnchor, "near": nearAnchor} {
		m, now := withAnchor(t, 3, anchor)
		m.Step(now, offerOf(7, anchor))
		out, _ := m.Step(now, Wake{})
		if got, want := opens(out), name == "far"; got != want {
			t.Fatalf("%s: with the offer the channel is opened: got %v, want %v", name, got, want)
		}
		if name == "near" {
			now = now.Add(relayDelay)
			if out, _ = m.Step(now, Wake{}); !opens(out) {
				t.Fatalf("near: got no channel after %s, want one", relayDelay)
			}
		}
		m.Step(now, RelayOpened{Anchor: anchor.Anchor, Addr: channelAt})
		want := None
		if name == "far" {
			want = Relayed
		}
		if got := m.Status(now).Path; got.Kind != want || got.RTT != 0 {
			t.Errorf("%s: with the channel open: got %v of %v, want %v, not measured", name, got.Kind, got.RTT, want)
		}
	}
}

// The controlling side opens the channel while the answer is on its way to it, if the peer is there, once for an offer; the answer makes it the path.
func TestRelayIsOpenedBeforeTheAnswer(t *testing.T) {
	m, now := withAnchor(t, 1, farAnchor)
	out, _ := m.Step(now, Routable{})
	number := sentOf(out, KindOffer).Attempt
	if opens(out) {
		t.Fatal("got a channel for a peer of which nothing was heard, want none")
	}
	now = now.Add(50 * time.Millisecond)
	if out, _ = m.Step(now, Received{Message{Kind: KindAsk, Instance: [8]byte{9}}}); !opens(out) {
		t.Fatal("got no channel for a peer that asks, want one")
	}
	m.Step(now, RelayOpened{Anchor: farAnchor.Anchor, Addr: channelAt})
	if got := m.Status(now).Path.Kind; got != None {
		t.Fatalf("got %v before the answer, want none: nobody has said that the peer uses this relay", got)
	}
	m.Step(now.Add(100*time.Millisecond), answerOf(number, farAnchor.Anchor))
	if got := m.Status(now).Path; got.Kind != Relayed || got.Addr != channelAt {
		t.Errorf("got %v with the answer, want the channel", got)
	}
}

// The same for a peer whose record has just come from its new process, and no answer: the channel is given up, and no other is opened for the offer.
func TestUnansweredRelayIsGivenUp(t *testing.T) {
	m, now := withAnchor(t, 1, farAnchor)
	m.Step(now, Routable{})
	out, wake := m.Step(now, PeerChanged{})
	opened, closed := 0, 0
	for end := now.Add(5 * time.Minute); now.Before(end); out, wake = m.Step(now, Wake{}) {
		for _, o := range out {
			switch o.(type) {
			case OpenRelay:
				opened++
				m.Step(now, RelayOpened{Anchor: farAnchor.Anchor, Addr: channelAt})
			case CloseRelay:
				closed++
			}
		}
		if m.Status(now).Path.Kind != None {
			t.Fatal("got a path, want none")
		}
		if wake.IsZero() {
			break
		}
		now = wake
	}
	if opened != 1 || closed != 1 {
		t.Errorf("got %d channels opened and %d closed, want one", opened, closed)
	}
}

// A channel that is the path before anybody has answered through it does not stand in the way of ICE, and is no path for long.
func TestUnprovenRelay(t *testing.T) {
	begin := func() (*Machine, time.Time) {
		m, now := withAnchor(t, 3, farAnchor)
		m.Step(now, offerOf(7, farAnchor))
		m.Step(now, Wake{})
		m.Step(now, RelayOpened{Anchor: farAnchor.Anchor, Addr: channelAt})
		return m, now.Add(100 * time.Millisecond)
	}
	there := netip.MustParseAddrPort("198.51.100.9:9277")
	m, now := begin()
	m.Step(now, PairAnswered{Attempt: 7, Addr: there})
	if got := m.Status(now).Path; got.Kind != Direct || got.Addr != there {
		t.Errorf("got %v when ICE has its first answer, want that address", got)
	}
	m, now = begin()
	start, last := now, time.Duration(0)
	_, wake := m.Step(now, Wake{})
	for now.Sub(start) < time.Minute && !wake.IsZero() {
		now = wake
		_, wake = m.Step(now, Wake{})
		if m.Status(now).Path.Kind == Relayed {
			last = now.Sub(start)
		}
	}
	if last > firstGrace {
		t.Errorf("got the channel as the path for %s without an answer, want %s at most", last, firstGrace)
	}
}

// sentOf is the message of that kind among the outputs.
func sentOf(out []Output, kind Kind) (msg Message) {
	for _, o := range out {
		if s, ok := o.(Send); ok && s.Message.Kind == kind {
			return s.Message
		}
	}
	return msg
}
