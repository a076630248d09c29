package path

import (
	"reflect"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// TestLaterVersionsAreBorne reads introductions that say more than this version knows of: other keys, candidates of other kinds, values of the NAT
// that are not listed.
func TestLaterVersionsAreBorne(t *testing.T) {
	offer := sampleOffer()
	raw, err := offer.Encode()
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[int]any)
	if err := cbor.Unmarshal(raw, &known); err != nil {
		t.Fatal(err)
	}
	known[60], known[61] = []any{1, []byte("x")}, map[int]any{1: 2}
	if raw, err = encoding.Marshal(known); err != nil {
		t.Fatal(err)
	}
	if got, err := Decode(raw); err != nil || !reflect.DeepEqual(got, offer) {
		t.Errorf("with keys of a later version: got %+v, %v, want %+v", got, err, offer)
	}
	list := ParseCandidates([]string{
		"1 1 tcp 99 203.0.113.1 9 typ host tcptype passive",
		"1 1 udp 99 203.0.113.2 9277 typ teleport",
		"something else",
		"1 1 udp 99 203.0.113.3 9277 typ host generation 0 of-a-later-version 7",
	}, nil)
	if len(list) != 1 || list[0].Addr.String() != "203.0.113.3:9277" {
		t.Errorf("candidates of a later version: got %v, want the one that is known", list)
	}
}
