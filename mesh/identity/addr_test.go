package identity

import (
	"net/netip"
	"testing"
)

// The probe of an address is what Addr4 is given to make it; what no node has is at none.
func TestProbeOf4(t *testing.T) {
	for _, text := range []string{"100.70.0.0/16", "10.0.0.0/8", "100.64.0.8/29", "192.168.7.0/24"} {
		prefix := netip.MustParsePrefix(text)
		for n := range byte(50) {
			node := NodeID{n, 1}
			for _, want := range []int{0, 1, 5, 63, 64} {
				hosts := 1<<(32-prefix.Bits()) - 2
				if got, ok := ProbeOf4(prefix, node, Addr4(prefix, node, want)); !ok || got != want%hosts {
					t.Fatalf("%s, node %d, probe %d: got %d, %v", text, n, want, got, ok)
				}
			}
		}
		last := prefix.Masked().Addr()
		for prefix.Contains(last.Next()) {
			last = last.Next()
			if prefix.Bits() < 20 {
				break
			}
		}
		for _, none := range []netip.Addr{prefix.Masked().Addr(), netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("fd00::1"), {}} {
			if got, ok := ProbeOf4(prefix, NodeID{1}, none); ok {
				t.Errorf("%s: %v is at probe %d, want none", text, none, got)
			}
		}
		if prefix.Bits() >= 20 {
			if got, ok := ProbeOf4(prefix, NodeID{1}, last); ok {
				t.Errorf("%s: the last address %v is at probe %d, want none", text, last, got)
			}
		}
	}
	for _, none := range []netip.Prefix{{}, netip.MustParsePrefix("fd00::/48"), netip.MustParsePrefix("10.0.0.0/31")} {
		if _, ok := ProbeOf4(none, NodeID{1}, none.Addr()); ok {
			t.Errorf("%v has a probe", none)
		}
	}
}
