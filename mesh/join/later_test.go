package join

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// TestLaterVersionsAreBorne reads messages that say more than this version knows of, and has a joiner of a later version of the protocol told so, and
// what to do.
func TestLaterVersionsAreBorne(t *testing.T) {
	for _, m := range []message{
		{Hello: &hello{Version: 1, Invite: make([]byte, 32), Proof: make([]byte, 64)}},
		{Refusal: &refusal{Code: 200, Text: "of a later version"}},
		{Done: true},
	} {
		raw, err := encoding.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		known := make(map[int]any)
		if err := cbor.Unmarshal(raw, &known); err != nil {
			t.Fatal(err)
		}
		for _, inside := range known {
			if inside, ok := inside.(map[any]any); ok {
				inside[uint64(70)] = "more"
			}
		}
		known[71] = []byte("more")
		if raw, err = encoding.Marshal(known); err != nil {
			t.Fatal(err)
		}
		got, err := decode(raw)
		if err != nil || (got.Hello == nil) != (m.Hello == nil) || (got.Refusal == nil) != (m.Refusal == nil) || got.Done != m.Done {
			t.Errorf("got %+v, %v, want %+v", got, err, m)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		m := newMember(t)
		seed, _ := m.invite(t, 1, time.Hour)
		near, far := pipe("one")
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = Serve(context.Background(), far, m)
		}()
		key := ed25519.NewKeyFromSeed(seed[:])
		if err := write(near, message{Hello: &hello{Version: protocolVersion + 1, Invite: key.Public().(ed25519.PublicKey), Proof: bytes.Repeat([]byte{1}, 64)}}); err != nil {
			t.Fatal(err)
		}
		answer, err := read(near, maxFromMember)
		if err != nil || answer.Refusal == nil || answer.Refusal.Code != CodeVersion || !strings.Contains(answer.Refusal.Text, "install the same release") {
			t.Errorf("a joiner of a later version: got %+v, %v, want code %d and what to do", answer, err, CodeVersion)
		}
		near.Close()
		<-done
	})
	var no *Refusal
	if err := error(&Refusal{Code: 200, Text: "of a later version"}); !errors.As(err, &no) || !strings.Contains(err.Error(), "of a later version") {
		t.Errorf("a refusal of a later version: got %v, want its words", err)
	}
}
