package tunnel

import (
	"net/netip"
	"testing"

	"warren/tunnel/pathmtu"
)

func TestWhatIsAskedOfAPath(t *testing.T) {
	four, six := netip.MustParseAddrPort("192.0.2.1:9277"), netip.MustParseAddrPort("[2001:db8::1]:9277")
	relay := netip.MustParseAddrPort("[100::200:0:0:1]:9")
	tests := []struct {
		name  string
		path  path
		fixed int
		want  pathmtu.Path
	}{
		{"IPv4", path{Addr: four, Direct: true, Link: 1500}, 0, pathmtu.Path{Addr: four, Overhead: 60, Top: 1376, Default: 1376}},
		{"IPv6", path{Addr: six, Direct: true, Link: 1500}, 0, pathmtu.Path{Addr: six, Overhead: 80, Top: 1376, Default: 1376}},
		{"narrow link", path{Addr: six, Direct: true, Link: 1280}, 0, pathmtu.Path{Addr: six, Overhead: 80, Top: 1376, Default: 1376}},
		{"unknown link", path{Addr: four, Direct: true}, 0, pathmtu.Path{Addr: four, Overhead: 60, Top: 1376, Default: 1376}},
		{"relay", path{Addr: relay, Link: 9000}, 0, pathmtu.Path{Addr: relay, Overhead: 84, Top: 1376, Default: 1376}},
		{"jumbo frames, IPv4", path{Addr: four, Direct: true, Link: 9000}, 0, pathmtu.Path{Addr: four, Overhead: 60, Top: 8928, Default: 1376}},
		{"jumbo frames, IPv6", path{Addr: six, Direct: true, Link: 9001}, 0, pathmtu.Path{Addr: six, Overhead: 80, Top: 8912, Default: 1376}},
		{"loopback", path{Addr: four, Direct: true, Link: 65536}, 0, pathmtu.Path{Addr: four, Overhead: 60, Top: 9152, Default: 1376}},
		{"configured", path{Addr: four, Direct: true, Link: 9000}, 1420, pathmtu.Path{Addr: four, Overhead: 60, Top: 1420, Default: 1420}},
		{"configured at its largest", path{Addr: four, Direct: true}, 65535, pathmtu.Path{Addr: four, Overhead: 60, Top: 65503, Default: 65535}},
		{"none", path{}, 0, pathmtu.Path{Overhead: 84, Top: 1376, Default: 1376}},
	}
	for _, test := range tests {
		if got := test.path.question(test.fixed); got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
}
