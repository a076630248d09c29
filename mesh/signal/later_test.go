package signal

import (
	"crypto/ed25519"
	"crypto/hpke"
	"errors"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"warren/mesh/identity"
)

// resealed makes a signal anew, with its plain text changed: as a later version of a member would write it.
func resealed(t *testing.T, by *Sealer, to *Sealer, change func(body, outer map[int]any), from body) []byte {
	t.Helper()
	inside, around := make(map[int]any), make(map[int]any)
	raw, err := encoding.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := cbor.Unmarshal(raw, &inside); err != nil {
		t.Fatal(err)
	}
	change(inside, around)
	if raw, err = encoding.Marshal(inside); err != nil {
		t.Fatal(err)
	}
	around[1], around[2] = raw, ed25519.Sign(by.options.Signing, by.toSign(to.options.Self, raw))
	plain, err := encoding.Marshal(around)
	if err != nil {
		t.Fatal(err)
	}
	keys, _ := by.options.Members.Keys(to.options.Self)
	public, err := hpke.DHKEM(x25519()).NewPublicKey(keys.Sealing[:])
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := hpke.Seal(public, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), by.sealContext(to.options.Self), plain)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// TestLaterVersionsAreBorne opens signals that say more than this version knows of, inside what is signed and beside it.
func TestLaterVersionsAreBorne(t *testing.T) {
	alice, bob, _ := pair(t)
	now := time.Unix(1_800_000_000, 0)
	kem, err := alice.offer(now, bob.options.Self, 7)
	if err != nil {
		t.Fatal(err)
	}
	for i, change := range []func(inside, around map[int]any){
		func(_, _ map[int]any) {},
		func(inside, _ map[int]any) { inside[98] = []byte("more"); inside[99] = map[int]any{1: "x"} },
		func(_, around map[int]any) { around[3] = 5; around[40] = "x" },
	} {
		in := body{From: alice.options.Self[:], Millis: now.UnixMilli(), Nonce: append(make([]byte, 15), byte(i)), Role: Offer, Attempt: 7, Payload: []byte("p"), KEM: kem}
		from, got, _, err := bob.Open(now, resealed(t, alice, bob, change, in))
		if err != nil || from != alice.options.Self || got.Attempt != 7 || string(got.Payload) != "p" {
			t.Errorf("signal %d: got %v, %+v, %v, want the offer", i, from.Short(), got, err)
		}
	}
	// A role of a later version is told from a message that is broken, and is nobody's offer.
	in := body{From: alice.options.Self[:], Millis: now.UnixMilli(), Nonce: append(make([]byte, 15), 9), Role: 77, Attempt: 7, Payload: []byte("p")}
	if from, m, psk, err := bob.Open(now, resealed(t, alice, bob, func(_, _ map[int]any) {}, in)); psk != nil || err == nil && m.Role != 77 || from != (identity.NodeID{}) && from != alice.options.Self {
		t.Errorf("a role of a later version: got %v, %+v, %v", from.Short(), m, err)
	}
}

// TestClockSteps sets the clock of either end by an hour, forwards and back again. Signals are refused while the clocks differ, with how far, and taken
// once they agree; none is taken twice, whatever the clock was meanwhile.
func TestClockSteps(t *testing.T) {
	alice, bob, _ := pair(t)
	start := time.Unix(1_800_000_000, 0)
	offer := func(at time.Time, attempt uint64) []byte {
		sealed, _ := seal(t, alice, at, bob, Message{Role: Offer, Attempt: attempt})
		return sealed
	}
	first := offer(start, 1)
	if _, _, _, err := bob.Open(start, first); err != nil {
		t.Fatal(err)
	}
	for i, by := range []time.Duration{time.Hour, -time.Hour} {
		set := start.Add(time.Duration(i+1) * time.Minute).Add(by)
		sealed := offer(set, uint64(2+2*i))
		var skew *SkewError
		if _, _, _, err := bob.Open(start.Add(time.Duration(i+1)*time.Minute), sealed); !errors.As(err, &skew) || skew.Ahead.Round(time.Minute) != by {
			t.Errorf("the sender's clock set by %v: got %v, want it refused with that", by, err)
		}
		if _, _, _, err := bob.Open(set, sealed); err != nil {
			t.Errorf("both clocks set by %v: got %v", by, err)
		}
		if _, _, _, err := bob.Open(set, sealed); err == nil {
			t.Errorf("both clocks set by %v: the same signal was taken twice", by)
		}
		back := start.Add(time.Duration(i+1)*time.Minute + time.Second)
		if _, _, _, err := bob.Open(back, first); err == nil {
			t.Errorf("set by %v and back: the first signal was taken once more", by)
		}
		if _, _, _, err := bob.Open(back, offer(back, uint64(3+2*i))); err != nil {
			t.Errorf("set by %v and back: got %v, want the signal taken", by, err)
		}
	}
}
