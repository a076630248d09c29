package path

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// Kind says what a Message asks of its receiver.
type Kind uint8

// The messages of an introduction. The node with the smaller ID is controlling: it alone offers.
const (
	KindAsk        Kind = 1 // controlled → controlling: please offer
	KindOffer      Kind = 2 // controlling → controlled: credentials, candidates, anchors
	KindAnswer     Kind = 3 // controlled → controlling: credentials, candidates, the chosen relay
	KindCandidates Kind = 4 // either way: the whole candidate list again, after it grew
	KindRefuse     Kind = 5 // either way: the sender does not know this peer
	KindRemind     Kind = 6 // controlling → controlled: answer the offer of that number again, or ask for it if it has not come
)

// String names the kind in logs.
func (k Kind) String() string {
	switch k {
	case KindAsk:
		return "ask"
	case KindOffer:
		return "offer"
	case KindAnswer:
		return "answer"
	case KindCandidates:
		return "candidates"
	case KindRefuse:
		return "refuse"
	case KindRemind:
		return "remind"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Limits of a message. They bound what a hostile member can make this node hold or try.
const (
	MaxMessage    = 4096 // bytes of an encoded message
	MaxCandidates = 16   // candidates of one attempt
	maxPorts      = 4    // those of them at one IP address: a mapped port, and what STUN servers see behind a NAT that maps by destination
	maxLine       = 160  // bytes of one candidate line
	maxRelays     = 8
	minUfrag      = 4 // RFC 8839, section 5.4
	maxUfrag      = 32
	minPwd        = 22
	maxPwd        = 64
)

// ErrMalformed is wrapped by every error of Decode.
var ErrMalformed = errors.New("malformed introduction")

// Message is the plain text of one signal; mesh/signal signs and seals it. Attempt numbers are chosen by
// the controlling side and grow, by its clock also from one Instance to the next; an Ask carries the newest
// number that the asker has seen (zero for none). Instance is the sender's, new at each start of its process.
type Message struct {
	Kind       Kind
	Attempt    uint64
	Instance   [8]byte
	Ufrag      string          // Offer, Answer
	Pwd        string          // Offer, Answer
	Candidates []string        // RFC 8839 candidate lines, without "candidate:"
	Relays     []RelayOffer    // Offer: anchors that the sender can relay through
	Relay      identity.NodeID // Answer: the anchor chosen, zero for none
	NAT        uint32          // Ask, Offer, Answer: where the sender stands, a natkind.Self packed; zero: unknown
	Predicted  Predicted       // Candidates: where the sender's NAT may let the receiver in
	Spare      identity.NodeID // Answer: the anchor to hold ready beside it, zero for none
	Lacks      uint64          // Ask: the number of an offer of which a reminder has come, and the offer has not; zero for none
	// Straight is where it goes, or has come from, as a letter and not by sessions; zero: by sessions. It is not in the text.
	Straight netip.AddrPort
}

// LogValue leaves out what is secret, and what would fill the line.
func (m Message) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("kind", m.Kind.String()), slog.Uint64("attempt", m.Attempt)}
	if m.Straight.IsValid() {
		attrs = append(attrs, slog.Any("address", m.Straight))
	}
	if len(m.Candidates) > 0 {
		attrs = append(attrs, slog.Int("candidates", len(m.Candidates)))
	}
	for _, o := range m.Relays {
		attrs = append(attrs, slog.Uint64("offers."+o.Anchor.Short(), uint64(o.RTTms)))
	}
	if !m.Relay.IsZero() {
		attrs = append(attrs, slog.String("relay", m.Relay.Short()), slog.String("spare", m.Spare.Short()))
	}
	return slog.GroupValue(attrs...)
}

// RelayOffer names an anchor, the sender's round-trip time to it in milliseconds, and what the anchor told of its load:
// 0 for none or not known, 255 for all that it can carry.
type RelayOffer struct {
	Anchor identity.NodeID
	RTTms  uint32
	Load   uint8
	Since  time.Time // when the session with it came up, zero for not known; not told to the peer
	// Private says that strangers cannot reach it, so that the peer may have no session with it; not told to the peer.
	Private bool
}

// messageWire is a Message in CBOR. IDs are slices in it, for an array would take a byte string of any length, cut
// or filled up with zeros.
type messageWire struct {
	Kind       Kind           `cbor:"1,keyasint"`
	Attempt    uint64         `cbor:"2,keyasint,omitempty"`
	Instance   []byte         `cbor:"3,keyasint"`
	Ufrag      string         `cbor:"4,keyasint,omitempty"`
	Pwd        string         `cbor:"5,keyasint,omitempty"`
	Candidates []string       `cbor:"6,keyasint,omitempty"`
	Relays     []relayWire    `cbor:"7,keyasint,omitempty"`
	Relay      []byte         `cbor:"8,keyasint,omitempty"`
	NAT        uint64         `cbor:"9,keyasint,omitempty"` // wider than today's, for later bits
	Spare      []byte         `cbor:"11,keyasint,omitempty"`
	Predicted  *predictedWire `cbor:"10,keyasint,omitempty"`
	Lacks      uint64         `cbor:"12,keyasint,omitempty"`
}

type relayWire struct {
	Anchor []byte `cbor:"1,keyasint"`
	RTTms  uint32 `cbor:"2,keyasint,omitempty"`
	Load   uint8  `cbor:"3,keyasint,omitempty"`
}

func (m Message) wire() messageWire {
	w := messageWire{
		Kind: m.Kind, Attempt: m.Attempt, Instance: m.Instance[:], Ufrag: m.Ufrag, Pwd: m.Pwd, Candidates: m.Candidates, NAT: uint64(m.NAT), Lacks: m.Lacks,
	}
	for _, r := range m.Relays {
		w.Relays = append(w.Relays, relayWire{Anchor: r.Anchor[:], RTTms: r.RTTms, Load: r.Load})
	}
	if !m.Relay.IsZero() {
		w.Relay = m.Relay[:]
	}
	w.Predicted = m.Predicted.wire()
	if !m.Spare.IsZero() {
		w.Spare = m.Spare[:]
	}
	return w
}

// message checks lengths; Message.check does the rest.
func (w messageWire) message() (Message, error) {
	m := Message{Kind: w.Kind, Attempt: w.Attempt, Ufrag: w.Ufrag, Pwd: w.Pwd, Candidates: w.Candidates, NAT: uint32(w.NAT), Lacks: w.Lacks}
	if len(w.Instance) != len(m.Instance) {
		return Message{}, fmt.Errorf("%s: instance of %d bytes: %w", w.Kind, len(w.Instance), ErrMalformed)
	}
	m.Instance = [8]byte(w.Instance)
	predicted, err := w.Predicted.predicted()
	if err != nil {
		return Message{}, fmt.Errorf("%s: %w", w.Kind, err)
	}
	m.Predicted = predicted
	for _, r := range w.Relays {
		if len(r.Anchor) != len(identity.NodeID{}) {
			return Message{}, fmt.Errorf("%s: relay's ID of %d bytes: %w", w.Kind, len(r.Anchor), ErrMalformed)
		}
		m.Relays = append(m.Relays, RelayOffer{Anchor: identity.NodeID(r.Anchor), RTTms: r.RTTms, Load: r.Load})
	}
	for _, chosen := range []struct {
		raw []byte
		to  *identity.NodeID
	}{{w.Relay, &m.Relay}, {w.Spare, &m.Spare}} {
		switch len(chosen.raw) {
		case 0:
		case len(chosen.to):
			*chosen.to = identity.NodeID(chosen.raw)
		default:
			return Message{}, fmt.Errorf("%s: relay's ID of %d bytes: %w", w.Kind, len(chosen.raw), ErrMalformed)
		}
	}
	return m, nil
}

var (
	encoding = record.Deterministic()
	decoding = record.Strict(64, 16)
)

// Encode returns the CBOR encoding of m, with integer keys.
func (m Message) Encode() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	raw, err := encoding.Marshal(m.wire())
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.Kind, err)
	}
	if len(raw) > MaxMessage {
		return nil, fmt.Errorf("encode %s: %d bytes, want at most %d: %w", m.Kind, len(raw), MaxMessage, ErrMalformed)
	}
	return raw, nil
}

// Decode is the reverse of Encode. Its error wraps ErrMalformed. Candidate lines are only bounded
// here; ParseCandidate judges each.
func Decode(raw []byte) (Message, error) {
	var w messageWire
	if len(raw) > MaxMessage {
		return Message{}, fmt.Errorf("decode message: %d bytes, want at most %d: %w", len(raw), MaxMessage, ErrMalformed)
	}
	if err := decoding.Unmarshal(raw, &w); err != nil {
		return Message{}, fmt.Errorf("decode message: %w: %w", ErrMalformed, err)
	}
	m, err := w.message()
	if err != nil {
		return Message{}, fmt.Errorf("decode message: %w", err)
	}
	if err := m.check(); err != nil {
		return Message{}, err
	}
	return m, nil
}

// check holds what Encode and Decode both promise.
func (m *Message) check() error {
	bad := func(what string) error { return fmt.Errorf("%s: %s: %w", m.Kind, what, ErrMalformed) }
	switch m.Kind {
	case KindAsk, KindRefuse:
	case KindOffer, KindAnswer:
		if m.Attempt == 0 {
			return bad("no attempt number")
		}
		if !(Credentials{Ufrag: m.Ufrag, Pwd: m.Pwd}).valid() {
			return bad("unusable credentials")
		}
	case KindCandidates, KindRemind:
		if m.Attempt == 0 {
			return bad("no attempt number")
		}
	default:
		return bad("unknown kind")
	}
	if len(m.Candidates) > MaxCandidates {
		return bad("too many candidates")
	}
	for _, line := range m.Candidates {
		if len(line) > maxLine {
			return bad("candidate line too long")
		}
	}
	if len(m.Relays) > maxRelays {
		return bad("too many relays")
	}
	if len(m.Predicted.Ports) > MaxPredicted {
		return bad("too many predicted ports")
	}
	return nil
}

// Credentials are the short-term STUN credentials of one side of one attempt (RFC 8445, section 5.3).
type Credentials struct {
	Ufrag, Pwd string
}

// String hides the password.
func (c Credentials) String() string { return c.Ufrag + ":…" }

func (c Credentials) valid() bool {
	return len(c.Ufrag) >= minUfrag && len(c.Ufrag) <= maxUfrag && iceChars(c.Ufrag) &&
		len(c.Pwd) >= minPwd && len(c.Pwd) <= maxPwd && iceChars(c.Pwd)
}

// IceAlphabet holds the 64 characters that RFC 8839 allows in credentials.
const IceAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

func iceChars(s string) bool {
	for i := range len(s) {
		c := s[i]
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '/'
		if !ok {
			return false
		}
	}
	return true
}
