package path

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"warren/mesh/identity"
)

func sampleOffer() Message {
	return Message{
		Kind: KindOffer, Attempt: 7, Instance: [8]byte{1, 2, 3}, Ufrag: "abcdEFGH", Pwd: strings.Repeat("p", 24),
		Candidates: []string{NewCandidate(Host, netip.MustParseAddrPort("192.0.2.1:9277"), 0).String()},
		Relays:     []RelayOffer{{Anchor: identity.NodeID{4}, RTTms: 12, Load: 200}, {Anchor: identity.NodeID{5}}},
	}
}

func TestMessageRoundTrip(t *testing.T) {
	answer := sampleOffer()
	answer.Kind, answer.Relay, answer.Spare, answer.Relays, answer.NAT = KindAnswer, identity.NodeID{4}, identity.NodeID{5}, nil, 0x29c
	for _, want := range []Message{
		{Kind: KindAsk, Instance: [8]byte{9}},
		{Kind: KindRefuse, Attempt: 3},
		{Kind: KindCandidates, Attempt: 1, Candidates: []string{"x"}},
		{Kind: KindCandidates, Attempt: 1, Predicted: Predicted{Addr: netip.MustParseAddr("203.0.113.1"), Ports: make([]uint16, MaxPredicted)}},
		{Kind: KindCandidates, Attempt: 1, Predicted: Predicted{Addr: netip.MustParseAddr("2001:db8::1"), Ports: []uint16{1, 65535}}},
		sampleOffer(), answer,
	} {
		raw, err := want.Encode()
		if err != nil {
			t.Fatalf("%s: %v", want.Kind, err)
		}
		got, err := Decode(raw)
		if err != nil {
			t.Fatalf("%s: %v", want.Kind, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", want.Kind, got, want)
		}
		if want.Kind == KindAsk && len(raw) > 20 {
			t.Errorf("got an ask of %d bytes, want a small one", len(raw))
		}
	}
}

func TestMessageRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Message){
		"kind":      func(m *Message) { m.Kind = 9 },
		"attempt":   func(m *Message) { m.Attempt = 0 },
		"short pwd": func(m *Message) { m.Pwd = "short" },
		"odd ufrag": func(m *Message) { m.Ufrag = "a:bcd" },
		"long line": func(m *Message) { m.Candidates = []string{strings.Repeat("c", maxLine+1)} },
		"many":      func(m *Message) { m.Candidates = make([]string, MaxCandidates+1) },
		"many ports": func(m *Message) {
			m.Predicted = Predicted{Addr: netip.MustParseAddr("203.0.113.1"), Ports: make([]uint16, MaxPredicted+1)}
		},
		"many relays": func(m *Message) { m.Relays = make([]RelayOffer, maxRelays+1) },
	} {
		m := sampleOffer()
		spoil(&m)
		if _, err := m.Encode(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got error %v from Encode, want ErrMalformed", name, err)
		}
		raw, err := encoding.Marshal(m.wire())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(raw); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got error %v from Decode, want ErrMalformed", name, err)
		}
	}
}

// wrongLengths are messages with a byte string that is no ID of its sort.
func wrongLengths() map[string]messageWire {
	list := make(map[string]messageWire)
	for _, n := range []int{0, 7, 9, 32} {
		w := sampleOffer().wire()
		w.Instance = make([]byte, n)
		list[fmt.Sprintf("instance of %d", n)] = w
	}
	for _, n := range []int{0, 31, 33} {
		w := sampleOffer().wire()
		w.Relays = []relayWire{{Anchor: make([]byte, n)}}
		list[fmt.Sprintf("relay offered of %d", n)] = w
	}
	for _, n := range []int{1, 31, 33} {
		w := sampleOffer().wire()
		w.Kind, w.Relay = KindAnswer, make([]byte, n)
		list[fmt.Sprintf("relay chosen of %d", n)] = w
		w.Relay, w.Spare = nil, w.Relay
		list[fmt.Sprintf("spare relay of %d", n)] = w
	}
	return list
}

func TestWrongLengthsAreRefused(t *testing.T) {
	for name, w := range wrongLengths() {
		raw, err := encoding.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := Decode(raw); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %+v, %v, want ErrMalformed", name, m, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, w := range wrongLengths() {
		raw, err := encoding.Marshal(w)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	answer := sampleOffer()
	answer.Kind, answer.Relay, answer.Spare, answer.Relays = KindAnswer, identity.NodeID{4}, identity.NodeID{5}, nil
	predicted := predictedMessage(2, "203.0.113.1", 4001, 4002).Message
	for _, m := range []Message{sampleOffer(), answer, {Kind: KindAsk}, {Kind: KindCandidates, Attempt: 2}, predicted} {
		raw, err := m.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := Decode(raw)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("got error %v, want ErrMalformed", err)
			}
			return
		}
		again, err := m.Encode()
		if err != nil {
			t.Fatalf("got a message that does not encode: %v", err)
		}
		if back, err := Decode(again); err != nil || !reflect.DeepEqual(back, m) {
			t.Fatalf("got %+v (%v) back, want %+v", back, err, m)
		}
	})
}

func TestParseCandidate(t *testing.T) {
	for _, c := range []Candidate{
		NewCandidate(Host, netip.MustParseAddrPort("192.168.1.5:9277"), 0),
		NewCandidate(ServerReflexive, netip.MustParseAddrPort("[2001:db8::5]:1"), 3),
	} {
		got, err := ParseCandidate(c.String())
		if err != nil || got != c {
			t.Errorf("got %+v, %v, want %+v", got, err, c)
		}
	}
	for _, line := range []string{
		"",
		"1 1 udp 100 192.0.2.1 9277 typ relay",
		"1 1 tcp 100 192.0.2.1 9277 typ host",
		"1 2 udp 100 192.0.2.1 9277 typ host",
		"1 1 udp 0 192.0.2.1 9277 typ host",
		"1 1 udp 4294967295 192.0.2.1 9277 typ host",
		"1 1 udp 100 192.0.2.1 0 typ host",
		"1 1 udp 100 127.0.0.1 9277 typ host",
		"1 1 udp 100 ::1 9277 typ host",
		"1 1 udp 100 ::ffff:127.0.0.1 9277 typ host",
		"1 1 udp 100 224.0.0.1 9277 typ host",
		"1 1 udp 100 255.255.255.255 9277 typ host",
		"1 1 udp 100 0.0.0.0 9277 typ host",
		"1 1 udp 100 fe80::1%eth0 9277 typ host",
		"1 1 udp 100 100::5 9277 typ host",
		"1 1 udp 100 some.local 9277 typ host",
	} {
		if c, err := ParseCandidate(line); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: got %+v, %v, want ErrMalformed", line, c, err)
		}
	}
}

func TestParseCandidatesBounds(t *testing.T) {
	var lines []string
	for i := range 40 {
		lines = append(lines, NewCandidate(Host, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i / 2)}), 1), 0).String())
	}
	overlay := []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}
	got := ParseCandidates(lines, overlay)
	if len(got) != MaxCandidates {
		t.Errorf("got %d candidates, want %d", len(got), MaxCandidates)
	}
	for i, c := range got {
		if InOverlay(overlay, c.Addr.Addr()) || i > 0 && c.Addr == got[i-1].Addr {
			t.Errorf("got %v, want none of the overlay and no repeated address", c)
		}
	}
}

func FuzzParseCandidate(f *testing.F) {
	f.Add("1 1 udp 100 192.0.2.1 9277 typ host")
	f.Add("14 1 UDP 1677721855 2001:db8::1 65535 typ srflx raddr 0.0.0.0 rport 0")
	f.Fuzz(func(t *testing.T, line string) {
		c, err := ParseCandidate(line)
		if err != nil {
			return
		}
		if back, err := ParseCandidate(c.String()); err != nil || back != c {
			t.Fatalf("got %+v (%v) back, want %+v", back, err, c)
		}
	})
}
