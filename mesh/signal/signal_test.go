package signal

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"warren/mesh/identity"
)

// book is the members that there are.
type book map[identity.NodeID]Keys

func (b book) Keys(id identity.NodeID) (Keys, bool) {
	keys, ok := b[id]
	return keys, ok
}

// pair makes two sealers that know each other, and a third that only they do not know.
func pair(t testing.TB) (alice, bob, mallory *Sealer) {
	t.Helper()
	known := make(book)
	make := func(member bool) *Sealer {
		public, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		sealing, sealingPublic, err := GenerateSealingKey()
		if err != nil {
			t.Fatal(err)
		}
		id := identity.NodeIDOf(public)
		if member {
			known[id] = Keys{Signing: public, Sealing: sealingPublic}
		}
		s, err := New(Options{Mesh: identity.MeshID{1}, Self: id, Signing: private, Sealing: sealing, Members: known})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	return make(true), make(true), make(false)
}

func seal(t testing.TB, s *Sealer, now time.Time, to *Sealer, m Message) ([]byte, *PSK) {
	t.Helper()
	sealed, psk, err := s.Seal(now, to.options.Self, m)
	if err != nil {
		t.Fatal(err)
	}
	return sealed, psk
}

func TestOfferAndAnswerAgreeOnOneKey(t *testing.T) {
	alice, bob, _ := pair(t)
	now := time.Unix(1_800_000_000, 0)
	offer := Message{Role: Offer, Attempt: 7, Payload: []byte("candidates")}

	for round := range 3 { // an offer and an answer that are sent again change nothing
		sealed, psk := seal(t, alice, now, bob, offer)
		if psk != nil {
			t.Fatalf("round %d: an offer gave a preshared key before it was answered", round)
		}
		from, got, _, err := bob.Open(now, sealed)
		if err != nil || from != alice.options.Self || got.Attempt != 7 || !bytes.Equal(got.Payload, offer.Payload) {
			t.Fatalf("got %v %+v %v, want the offer of alice", from.Short(), got, err)
		}
	}
	var keys []PSK
	for range 3 {
		sealed, bobs := seal(t, bob, now, alice, Message{Role: Answer, Attempt: 7})
		_, _, alices, err := alice.Open(now, sealed)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, *bobs, *alices)
	}
	for _, key := range keys {
		if key != keys[0] || key == (PSK{}) {
			t.Fatalf("got preshared keys %x, want six equal ones that are not zero", keys)
		}
	}
	sealed, _ := seal(t, alice, now, bob, Message{Role: Offer, Attempt: 8})
	if _, _, _, err := bob.Open(now, sealed); err != nil {
		t.Fatal(err)
	}
	if _, second := seal(t, bob, now, alice, Message{Role: Answer, Attempt: 8}); *second == keys[0] {
		t.Fatal("two attempts gave the same preshared key")
	}
}

// An answer that comes after the one to a newer attempt would bring back a key that the peer has left.
func TestOvertakenAnswer(t *testing.T) {
	alice, bob, _ := pair(t)
	now := time.Unix(1_800_000_000, 0)
	var answers [2][]byte
	var newest PSK
	for i := range answers {
		attempt := uint64(7 + i)
		offer, _ := seal(t, alice, now, bob, Message{Role: Offer, Attempt: attempt})
		if _, _, _, err := bob.Open(now, offer); err != nil {
			t.Fatal(err)
		}
		answer, psk := seal(t, bob, now, alice, Message{Role: Answer, Attempt: attempt})
		answers[i], newest = answer, *psk
	}
	if _, _, psk, err := alice.Open(now, answers[1]); err != nil || *psk != newest {
		t.Fatalf("the newer answer: got %v, want bob's newest key", err)
	}
	if _, _, psk, err := alice.Open(now, answers[0]); !errors.Is(err, ErrNoOffer) || psk != nil {
		t.Errorf("the older answer: got key %v, error %v, want none and ErrNoOffer", psk, err)
	}
}

func TestRefusals(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	cases := []struct {
		name string
		make func(alice, bob, mallory *Sealer) ([]byte, time.Time)
		want error
	}{
		{"replay", func(a, b, _ *Sealer) ([]byte, time.Time) {
			sealed, _ := seal(t, a, now, b, Message{})
			b.Open(now, sealed)
			return sealed, now
		}, ErrReplayed},
		{"replay of a signal dated ahead", func(a, b, _ *Sealer) ([]byte, time.Time) {
			sealed, _ := seal(t, a, now.Add(Window-time.Second), b, Message{})
			b.Open(now, sealed)
			return sealed, now.Add(2*Window - 2*time.Second)
		}, ErrReplayed},
		{"clock behind", func(a, b, _ *Sealer) ([]byte, time.Time) {
			sealed, _ := seal(t, a, now.Add(-6*time.Minute), b, Message{})
			return sealed, now
		}, ErrClockSkew},
		{"clock ahead", func(a, b, _ *Sealer) ([]byte, time.Time) {
			sealed, _ := seal(t, a, now.Add(6*time.Minute), b, Message{})
			return sealed, now
		}, ErrClockSkew},
		{"stranger", func(_, b, m *Sealer) ([]byte, time.Time) {
			sealed, _ := seal(t, m, now, b, Message{})
			return sealed, now
		}, ErrStranger},
		{"forged sender", func(a, b, m *Sealer) ([]byte, time.Time) {
			m.options.Self = a.options.Self
			sealed, _ := seal(t, m, now, b, Message{})
			return sealed, now
		}, ErrForged},
		{"sealed to another", func(a, b, _ *Sealer) ([]byte, time.Time) {
			sealed, _ := seal(t, a, now, a, Message{})
			return sealed, now
		}, ErrNotForUs},
		{"bit flipped", func(a, b, _ *Sealer) ([]byte, time.Time) {
			sealed, _ := seal(t, a, now, b, Message{})
			sealed[len(sealed)-1] ^= 1
			return sealed, now
		}, ErrNotForUs},
		{"truncated", func(a, b, _ *Sealer) ([]byte, time.Time) {
			sealed, _ := seal(t, a, now, b, Message{})
			return sealed[:20], now
		}, ErrNotForUs},
		{"answer without offer", func(a, b, _ *Sealer) ([]byte, time.Time) {
			sealed, _ := seal(t, b, now, a, Message{Role: Offer, Attempt: 3})
			a.Open(now, sealed)
			sealed, _ = seal(t, a, now, b, Message{Role: Answer, Attempt: 3})
			b.peers[a.options.Self].offered = map[uint64]*offered{}
			return sealed, now
		}, ErrNoOffer},
		{"too large", func(_, _, _ *Sealer) ([]byte, time.Time) { return make([]byte, MaxSealed+1), now }, ErrMalformed},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			alice, bob, mallory := pair(t)
			sealed, at := c.make(alice, bob, mallory)
			if _, m, psk, err := bob.Open(at, sealed); !errors.Is(err, c.want) || psk != nil || m.Payload != nil {
				t.Fatalf("got %+v, key %v, error %v; want error %v and nothing else", m, psk, err, c.want)
			}
		})
	}
}

func TestSenderIsBounded(t *testing.T) {
	alice, bob, _ := pair(t)
	now := time.Unix(1_800_000_000, 0)
	for range seenPerPeer {
		sealed, _ := seal(t, alice, now, bob, Message{})
		if _, _, _, err := bob.Open(now, sealed); err != nil {
			t.Fatal(err)
		}
	}
	sealed, _ := seal(t, alice, now, bob, Message{})
	if _, _, _, err := bob.Open(now, sealed); !errors.Is(err, ErrTooMany) {
		t.Fatalf("got error %v, want %v", err, ErrTooMany)
	}
	later := now.Add(2*Window + time.Second)
	sealed, _ = seal(t, alice, later, bob, Message{})
	if _, _, _, err := bob.Open(later, sealed); err != nil {
		t.Fatalf("got error %v after the window, want none", err)
	}
}

// A key agreement with one peer is not waited for by another.
func TestPeersDoNotWaitForEachOther(t *testing.T) {
	alice, bob, _ := pair(t)
	now := time.Unix(1_800_000_000, 0)
	busy := alice.lock(now, identity.NodeID{9})
	defer busy.mu.Unlock()
	sealed, _ := seal(t, alice, now, bob, Message{Role: Offer, Attempt: 1})
	if _, _, _, err := bob.Open(now, sealed); err != nil {
		t.Fatal(err)
	}
	answer, psk := seal(t, bob, now, alice, Message{Role: Answer, Attempt: 1})
	if _, _, got, err := alice.Open(now, answer); err != nil || *got != *psk {
		t.Errorf("got %v, want the key agreed while another peer's lock is held", err)
	}
}

func FuzzOpen(f *testing.F) {
	alice, bob, _ := pair(f)
	now := time.Unix(1_800_000_000, 0)
	sealed, _ := seal(f, alice, now, bob, Message{Role: Offer, Attempt: 1, Payload: []byte("x")})
	f.Add(sealed)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) { bob.Open(now, data) })
}

// FuzzVerify fuzzes what lies under the encryption, which a hostile member controls.
func FuzzVerify(f *testing.F) {
	_, bob, _ := pair(f)
	f.Add([]byte{0xa2, 1, 0x41, 0, 2, 0x41, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, _, err := bob.verify(data); err == nil {
			t.Fatal("accepted bytes that no member signed")
		}
	})
}

// again is a sealer after a restart: with the same keys, another instance, and nothing remembered.
func again(t *testing.T, s *Sealer, instance [8]byte, started time.Time) *Sealer {
	t.Helper()
	o := s.options
	o.Instance, o.Started = instance, started
	out, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// What was sealed for a run of the receiver is refused by the next one, which has seen none of it; what is sealed since that began is not,
// even by who has not heard of it yet, or whose clock is late.
func TestSignalsForAnEarlierRun(t *testing.T) {
	alice, bob, _ := pair(t)
	start := time.Unix(1_800_000_000, 0)
	book := alice.options.Members.(book)
	record := func(s *Sealer) {
		keys := book[s.options.Self]
		keys.Instance = s.options.Instance
		book[s.options.Self] = keys
	}
	plain := Message{Payload: []byte("ask")}
	bob = again(t, bob, [8]byte{1}, start)
	record(bob)
	before, _ := seal(t, alice, start.Add(time.Second), bob, plain)
	if _, _, _, err := bob.Open(start.Add(time.Second), before); err != nil {
		t.Fatal(err)
	}

	restart := start.Add(10 * time.Second)
	bob = again(t, bob, [8]byte{2}, restart)
	if _, _, _, err := bob.Open(restart, before); !errors.Is(err, ErrEarlier) {
		t.Errorf("a replay after the restart: got %v, want ErrEarlier", err)
	}
	for what, c := range map[string]struct {
		sent time.Time // by alice's clock
		tell func(alice *Sealer)
		want error
	}{
		"since the restart, of which alice has not heard":                     {restart, func(*Sealer) {}, nil},
		"by a late clock, of which alice has not heard":                       {restart.Add(-time.Second), func(*Sealer) {}, ErrEarlier},
		"by a late clock, heard by bob's message":                             {restart.Add(-time.Second), func(alice *Sealer) { alice.Runs(restart, bob.options.Self, [8]byte{2}) }, nil},
		"by a late clock, heard by bob's record":                              {restart.Add(-time.Second), func(*Sealer) { record(bob) }, nil},
		"by a late clock, heard by bob's record after a message of the other": {restart.Add(-time.Second), func(alice *Sealer) { alice.Runs(restart, bob.options.Self, [8]byte{1}); record(bob) }, nil},
	} {
		keys := book[bob.options.Self]
		keys.Instance = [8]byte{1}
		book[bob.options.Self] = keys
		alice := again(t, alice, [8]byte{9}, start)
		seal(t, alice, start, bob, plain) // has read the old record
		c.tell(alice)
		sealed, _ := seal(t, alice, c.sent, bob, plain)
		if _, _, _, err := bob.Open(restart.Add(time.Second), sealed); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", what, err, c.want)
		}
	}
	// A message newer than the record says more than that: the record follows.
	alice = again(t, alice, [8]byte{9}, start)
	seal(t, alice, start, bob, plain)
	alice.Runs(restart, bob.options.Self, [8]byte{3})
	if got := alice.instance(restart, bob.options.Self, book[bob.options.Self].Instance); got != [8]byte{3} {
		t.Errorf("got instance %x, want that of the message", got)
	}
}

// What an offer carries is given to who answers it: of repetitions the one that was made last, in whatever order they come.
func TestHandshakeIsCarried(t *testing.T) {
	alice, bob, _ := pair(t)
	now := time.Unix(1_800_000_000, 0)
	if _, _, err := bob.Agree(now, alice.options.Self, 7); !errors.Is(err, ErrNoOffer) {
		t.Errorf("without an offer: got %v, want ErrNoOffer", err)
	}
	var sealed [3][]byte
	for i := range sealed {
		m := Message{Role: Offer, Attempt: 7}
		if i > 0 {
			m.Handshake = bytes.Repeat([]byte{byte(i)}, initiationSize)
		}
		sealed[i], _ = seal(t, alice, now.Add(time.Duration(i)*time.Second), bob, m)
	}
	for _, c := range []struct{ offer, want int }{{0, 0}, {2, 2}, {1, 2}} {
		_, m, _, err := bob.Open(now, sealed[c.offer])
		if err != nil || (len(m.Handshake) > 0) != (c.offer > 0) {
			t.Fatalf("offer %d: got a handshake of %d bytes, %v", c.offer, len(m.Handshake), err)
		}
		psk, initiation, err := bob.Agree(now, alice.options.Self, 7)
		if err != nil || psk == nil || (initiation == nil) != (c.want == 0) || c.want > 0 && initiation[0] != byte(c.want) {
			t.Fatalf("after offer %d: got key %v, a handshake of %d bytes, %v, want that of offer %d", c.offer, psk, len(initiation), err, c.want)
		}
	}
	psk, _, _ := bob.Agree(now, alice.options.Self, 7)
	response := bytes.Repeat([]byte{9}, responseSize)
	answer, sealedKey := seal(t, bob, now, alice, Message{Role: Answer, Attempt: 7, Handshake: response})
	if _, m, got, err := alice.Open(now, answer); err != nil || *got != *psk || *sealedKey != *psk || !bytes.Equal(m.Handshake, response) {
		t.Errorf("got key %v, a handshake of %d bytes, %v, want the key that was agreed on before, and the response", got, len(m.Handshake), err)
	}
}

// A member seals what it likes: a handshake of another size than its role has is refused before anybody looks into it.
func TestHandshakeOfWrongSizeIsMalformed(t *testing.T) {
	alice, bob, _ := pair(t)
	for _, c := range []struct {
		role Role
		size int
		ok   bool
	}{
		{Plain, 0, true}, {Offer, 0, true}, {Answer, 0, true}, {Offer, 148, true}, {Answer, 92, true},
		{Plain, 148, false}, {Plain, 92, false}, {Offer, 92, false}, {Answer, 148, false}, {Offer, 147, false}, {Answer, 4096, false}, {Offer, 1, false},
	} {
		raw, err := encoding.Marshal(body{From: alice.options.Self[:], Nonce: make([]byte, 16), Role: c.role, Handshake: make([]byte, c.size)})
		if err != nil {
			t.Fatal(err)
		}
		plain, err := encoding.Marshal(clear{Body: raw, Signature: ed25519.Sign(alice.options.Signing, alice.toSign(bob.options.Self, raw))})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := bob.verify(plain); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("role %d, %d bytes: got %v, want taken: %v", c.role, c.size, err, c.ok)
		}
	}
}
