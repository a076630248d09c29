package bind

import (
	"net/netip"
	"testing"
)

func TestWords(t *testing.T) {
	for kind, want := range map[byte]string{virtualHandle: "no path yet, peer 258", virtualChannel: "relay channel 258", virtualStream: "stream 258", 9: ""} {
		if got := Words(virtualAddr(kind, 258).Addr()); got != want {
			t.Errorf("kind %d: got %q, want %q", kind, got, want)
		}
	}
	for _, real := range []string{"100.1.2.3", "2001:db8::1", "100:0:0:1::1"} {
		if got := Words(netip.MustParseAddr(real)); got != "" {
			t.Errorf("%s: got %q, want none", real, got)
		}
	}
}
