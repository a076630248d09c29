package standing

import (
	"net/netip"
	"testing"
)

func TestTaken(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("203.0.113.2"), netip.MustParseAddr("192.168.1.1"), netip.MustParseAddr("2001:db8::2")}
	for name, test := range map[string]struct {
		port uint16
		seen []string
		want string
	}{
		"nothing seen":           {9277, nil, ""},
		"seen as it is":          {9277, []string{"203.0.113.2:9277", "[2001:db8::2]:9277"}, ""},
		"behind a router":        {9277, []string{"198.51.100.9:31131"}, ""},
		"another port":           {9277, []string{"203.0.113.2:31131"}, "203.0.113.2:31131"},
		"by some anchors only":   {9277, []string{"203.0.113.2:9277", "203.0.113.2:1024"}, "203.0.113.2:1024"},
		"over IPv6":              {9277, []string{"[2001:db8::2]:1024"}, "[2001:db8::2]:1024"},
		"from inside the LAN":    {9277, []string{"192.168.1.1:1024"}, "192.168.1.1:1024"},
		"the socket is not open": {0, []string{"203.0.113.2:31131"}, ""},
	} {
		var seen []netip.AddrPort
		for _, text := range test.seen {
			seen = append(seen, netip.MustParseAddrPort(text))
		}
		got := taken(own, test.port, seen)
		if (got.Port != 0) != (test.want != "") || test.want != "" && (got.Seen.String() != test.want || got.Port != test.port) {
			t.Errorf("%s: got %+v, want %q", name, got, test.want)
		}
	}
}
