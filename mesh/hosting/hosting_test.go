package hosting

import (
	"errors"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"warren/mesh/record"
)

var (
	request = Request{Name: "phone", PublicKey: [32]byte{1}, Tags: []string{"lab"}, Endpoint: "vpn.example.org:9277"}
	answer  = Answer{Addrs: []netip.Addr{netip.MustParseAddr("100.70.0.9"), netip.MustParseAddr("fd00::9")}, PublicKey: [32]byte{2}, PresharedKey: [32]byte{3},
		Endpoint: "203.0.113.6:9277", Public: true, DNS: []netip.Addr{netip.MustParseAddr("100.70.0.1")}}
)

func TestExchange(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		want Answer
	}{{"hosted", nil, answer}, {"refused", errors.New("no room"), Answer{Refusal: "no room"}}} {
		near, far := net.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- Serve(far, func(r Request) (Answer, error) {
				if !reflect.DeepEqual(r, request) {
					t.Errorf("got %+v, want %+v", r, request)
				}
				return answer, test.err
			})
		}()
		if got, err := Ask(near, request); err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %+v, %v, want %+v", test.name, got, err, test.want)
		}
		if err := <-done; err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// TestNoMessage asserts that what is none gets no answer, whoever of the two says it.
func TestNoMessage(t *testing.T) {
	for _, raw := range []string{"", "\x00", "\xff\xff", "\x00\x01\xff", "\x00\x02\xa1\x01", "\x00\x00"} {
		near, far := net.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- Serve(far, func(Request) (Answer, error) { t.Errorf("%q was taken", raw); return answer, nil })
		}()
		near.Write([]byte(raw))
		near.Close()
		if err := <-done; err == nil {
			t.Errorf("%q: no error", raw)
		}
	}
	for name, bad := range map[string]answerWire{
		"no keys":         {Addrs: [][]byte{{1, 2, 3, 4}}},
		"half a key":      {Addrs: [][]byte{{1, 2, 3, 4}}, PublicKey: make([]byte, 16), PresharedKey: make([]byte, 32)},
		"no address":      {PublicKey: make([]byte, 32), PresharedKey: make([]byte, 32)},
		"half an address": {Addrs: [][]byte{{1, 2}}, PublicKey: make([]byte, 32), PresharedKey: make([]byte, 32)},
		"a long endpoint": {Addrs: [][]byte{{1, 2, 3, 4}}, PublicKey: make([]byte, 32), PresharedKey: make([]byte, 32), Endpoint: strings.Repeat("x", 301)},
	} {
		raw, err := record.Deterministic().Marshal(bad)
		if err != nil {
			t.Fatal(err)
		}
		if a, err := parseAnswer(raw); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %+v, %v", name, a, err)
		}
	}
}

func FuzzMessages(f *testing.F) {
	for _, m := range []any{requestWire{Name: "phone", PublicKey: make([]byte, 32)}, answerWire{Refusal: "no"}, answerWire{Addrs: [][]byte{{1, 2, 3, 4}}, PublicKey: make([]byte, 32), PresharedKey: make([]byte, 32)}} {
		raw, err := record.Deterministic().Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r, err := parseRequest(raw); err == nil && (len(r.Name) > 63 || len(r.Tags) > 16) {
			t.Errorf("%x: got %+v", raw, r)
		}
		if a, err := parseAnswer(raw); err == nil && a.Refusal == "" && len(a.Addrs) == 0 {
			t.Errorf("%x: got %+v", raw, a)
		}
	})
}
