package path

import (
	"net/netip"
	"testing"
	"time"

	"warren/mesh/identity"
)

// lone is a machine with a host address whose outputs are looked at.
func lone(t *testing.T, self, peer byte) (m *Machine, now time.Time) {
	t.Helper()
	now = time.Unix(1_800_000_000, 0)
	m = New(Config{Self: identity.NodeID{self}, Peer: identity.NodeID{peer}, Instance: [8]byte{self}, Seed: [32]byte{self}}, now)
	m.Step(now, Local{
		Candidates: []Candidate{NewCandidate(Host, netip.MustParseAddrPort("192.0.2.1:9277"), 0)}, Overlay: []netip.Prefix{netip.MustParsePrefix("100.70.0.0/16")},
	})
	return m, now
}

// straightOf are the messages that go straight.
func straightOf(out []Output) (list []Message) {
	for _, o := range out {
		if s, ok := o.(Send); ok && s.Message.Straight.IsValid() {
			list = append(list, s.Message)
		}
	}
	return list
}

func answerTo(offer Message, from netip.AddrPort) Received {
	return Received{Message{Kind: KindAnswer, Attempt: offer.Attempt, Instance: [8]byte{9}, Ufrag: "abcdefgh", Pwd: "abcdefghijklmnopqrstuvwx", Straight: from}}
}

// What is remembered is tried five times, and no more, whatever time passes.
func TestMetIsTriedFiveTimes(t *testing.T) {
	for name, self := range map[string]byte{"who offers": 1, "who asks": 3} {
		m, now := lone(t, self, 2)
		there := netip.MustParseAddrPort("198.51.100.7:9277")
		start, sent := now, 0
		out, wake := m.Step(now, Met{there})
		for now.Sub(start) < time.Minute && !wake.IsZero() {
			for _, msg := range straightOf(out) {
				if at := now.Sub(start); sent >= len(straightAfter) || at != straightAfter[sent] || msg.Straight != there {
					t.Errorf("%s: got number %d to %v after %s, want five to %v after %v", name, sent+1, msg.Straight, at, there, straightAfter)
				}
				sent++
			}
			now = wake
			out, wake = m.Step(now, Wake{})
		}
		if sent != len(straightAfter) {
			t.Errorf("%s: got %d, want %d", name, sent, len(straightAfter))
		}
		if m.Status(now).Path.Kind != None {
			t.Errorf("%s: got a path, want none", name)
		}
	}
}

// Who is late with one try is as late with the others, and where answers take long at present none is sooner than they come.
func TestMetIsNotHurried(t *testing.T) {
	for _, tt := range []struct {
		name       string
		late, took time.Duration
		want       []time.Duration // between two
	}{
		{"late with the first", time.Second, 0, []time.Duration{60 * time.Millisecond, 90 * time.Millisecond, 200 * time.Millisecond, 450 * time.Millisecond}},
		{"answers take long", 0, 160 * time.Millisecond, []time.Duration{200 * time.Millisecond, 200 * time.Millisecond, 200 * time.Millisecond, 450 * time.Millisecond}},
	} {
		var m memory
		now := time.Unix(1_800_000_000, 0)
		m.met(now, netip.MustParseAddrPort("198.51.100.7:9277"))
		var answers Answers
		if tt.took > 0 {
			answers.note(now, tt.took)
		}
		now = now.Add(tt.late)
		for i, want := range tt.want {
			if _, due := m.due(now, answers.spacing(now, 0)); !due {
				t.Fatalf("%s: number %d is not due", tt.name, i+1)
			}
			if got := m.wake().Sub(now); got != want {
				t.Errorf("%s: got %v until number %d, want %v", tt.name, got, i+2, want)
			}
			now = m.wake()
		}
	}
}

// What has gone straight may be answered yet when the first session comes up: the offer goes by that a moment later.
func TestStraightComesBeforeTheSession(t *testing.T) {
	for _, answered := range []bool{false, true} {
		m, now := lone(t, 1, 2)
		there := netip.MustParseAddrPort("198.51.100.7:9277")
		out, _ := m.Step(now, Met{there})
		offer := straightOf(out)[0]
		m.Step(now, Unroutable{Kind: KindOffer, Text: "no session"})
		now = now.Add(20 * time.Millisecond)
		out, wake := m.Step(now, Routable{})
		offers := func() (n int) {
			for _, o := range out {
				if s, ok := o.(Send); ok && s.Message.Kind == KindOffer && !s.Message.Straight.IsValid() {
					n++
				}
			}
			return n
		}
		if got := offers(); got != 0 {
			t.Fatalf("got %d offers by the session at once, want none", got)
		}
		if answered {
			out, wake = m.Step(now.Add(time.Millisecond), answerTo(offer, there))
		}
		sent := offers()
		for end := now.Add(routeSpacing); !wake.IsZero() && !wake.After(end); {
			out, wake = m.Step(wake, Wake{})
			sent += offers()
		}
		if want := map[bool]int{false: 1, true: 0}[answered]; sent != want {
			t.Errorf("answered %v: got %d offers by the session within %v, want %d", answered, sent, routeSpacing, want)
		}
	}
}

// An address that is no underlay's is never tried nor answered, whoever names it.
func TestStraightKeepsToTheUnderlay(t *testing.T) {
	for _, text := range []string{"100.70.0.9:9277", "127.0.0.1:9277", "224.0.0.1:9277", "255.255.255.255:9277", "[100::1]:9", "198.51.100.7:0"} {
		addr := netip.MustParseAddrPort(text)
		m, now := lone(t, 1, 2)
		m.Step(now, Routable{})
		out, _ := m.Step(now, Met{addr})
		asked, _ := m.Step(now.Add(time.Second), Received{Message{Kind: KindAsk, Instance: [8]byte{9}, Straight: addr}})
		if got := straightOf(append(out, asked...)); got != nil {
			t.Errorf("%s: got %v sent there, want nothing", text, got)
		}
		m, now = lone(t, 3, 2)
		out, _ = m.Step(now, Received{Message{Kind: KindOffer, Attempt: 7, Instance: [8]byte{9}, Ufrag: "abcdefgh", Pwd: "abcdefghijklmnopqrstuvwx", Straight: addr}})
		if got := straightOf(out); got != nil {
			t.Errorf("%s: got %v sent there, want the answer by a session", text, got)
		}
		for _, o := range out {
			if c, ok := o.(Check); ok && c.To == addr {
				t.Errorf("%s: it is checked, want not", text)
			}
		}
	}
}

// The answer makes only that address a path to which the offer went: a peer that writes another source on it, which may be somebody's who
// is to be flooded, gains nothing.
func TestAnswerFromElsewhereIsNoPath(t *testing.T) {
	there, elsewhere := netip.MustParseAddrPort("198.51.100.7:9277"), netip.MustParseAddrPort("203.0.113.66:9277")
	for name, test := range map[string]struct {
		from  netip.AddrPort
		after time.Duration
		want  PathKind
	}{
		"from there": {there, 200 * time.Millisecond, Direct}, "from elsewhere": {elsewhere, 200 * time.Millisecond, None}, "much too late": {there, 7 * time.Second, None},
		"by a session": {netip.AddrPort{}, 200 * time.Millisecond, None},
	} {
		m, now := lone(t, 1, 2)
		out, _ := m.Step(now, Met{there})
		offers := straightOf(out)
		if len(offers) != 1 {
			t.Fatalf("got %d letters, want the offer", len(offers))
		}
		m.Step(now.Add(test.after), answerTo(offers[0], test.from))
		if got := m.Status(now.Add(test.after)).Path; got.Kind != test.want || test.want == Direct && (got.Addr != there || got.RTT != test.after) {
			t.Errorf("%s: got path %+v, want %v", name, got, test.want)
		}
	}
}

// An offer that came straight is no proof of its source, which is checked before packets go there.
func TestOfferFromSomewhereIsCheckedFirst(t *testing.T) {
	from := netip.MustParseAddrPort("203.0.113.66:9277")
	m, now := lone(t, 3, 2)
	out, _ := m.Step(now, Received{Message{Kind: KindOffer, Attempt: 7, Instance: [8]byte{9}, Ufrag: "abcdefgh", Pwd: "abcdefghijklmnopqrstuvwx", Straight: from}})
	if got := straightOf(out); len(got) != 1 || got[0].Kind != KindAnswer || got[0].Straight != from {
		t.Errorf("got %v, want one answer to %v", got, from)
	}
	var checks []Check
	for _, o := range out {
		if c, ok := o.(Check); ok {
			checks = append(checks, c)
		}
	}
	if got := m.Status(now).Path.Kind; got != None || len(checks) != 1 || checks[0].To != from {
		t.Fatalf("got path %v and checks %v, want none yet and one to %v", got, checks, from)
	}
	m.Step(now.Add(50*time.Millisecond), CheckAnswered{checks[0].ID})
	if got := m.Status(now).Path; got.Kind != Direct || got.Addr != from {
		t.Errorf("got path %+v after its answer, want direct", got)
	}
}

// Somebody who asks again and again is not sent more than he sends, nor more often than so.
func TestAskedStraightAgainAndAgain(t *testing.T) {
	m, now := lone(t, 1, 2)
	m.Step(now, Routable{})
	from, sent, asks := netip.MustParseAddrPort("203.0.113.66:9277"), 0, 0
	for at := now.Add(time.Second); at.Before(now.Add(11 * time.Second)); at = at.Add(5 * time.Millisecond) {
		out, _ := m.Step(at, Received{Message{Kind: KindAsk, Instance: [8]byte{9}, Straight: from}})
		sent, asks = sent+len(straightOf(out)), asks+1
	}
	if limit := int(10*time.Second/straightSpacing) + 1; sent == 0 || sent > limit || sent > asks {
		t.Errorf("got %d offers for %d asks, want %d at most", sent, asks, limit)
	}
}
