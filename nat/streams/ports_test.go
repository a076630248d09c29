package streams

import (
	"net/netip"
	"slices"
	"testing"

	"warren/nat/portmap"
)

func TestStreamEndpoints(t *testing.T) {
	addrs := func(list ...string) (out []netip.AddrPort) {
		for _, a := range list {
			out = append(out, netip.MustParseAddrPort(a))
		}
		return out
	}
	mapped := func(external string) []portmap.Mapping {
		return []portmap.Mapping{{External: netip.MustParseAddrPort(external)}}
	}
	for _, tt := range []struct {
		name              string
		endpoints, mapped []netip.AddrPort
		tcp               []portmap.Mapping
		listening         []uint16
		want              []netip.AddrPort
	}{
		{"its own", addrs("203.0.113.9:9277", "[2001:db8::9]:9277"), nil, nil, []uint16{9277}, addrs("203.0.113.9:9277", "[2001:db8::9]:9277")},
		{"443 too", addrs("203.0.113.9:9277"), nil, nil, []uint16{9277, 443}, addrs("203.0.113.9:443", "203.0.113.9:9277")},
		{"443 alone", addrs("203.0.113.9:9277"), nil, nil, []uint16{443}, addrs("203.0.113.9:443")},
		{"forwarded by hand", addrs("203.0.113.9:1234"), nil, nil, []uint16{9277}, addrs("203.0.113.9:1234")},
		{"mapped, UDP only", addrs("203.0.113.9:1234"), addrs("203.0.113.9:1234"), nil, []uint16{9277, 443}, nil},
		{"mapped", addrs("203.0.113.9:1234"), addrs("203.0.113.9:1234"), mapped("203.0.113.9:4321"), []uint16{9277, 443}, addrs("203.0.113.9:4321")},
		{"nobody listens", addrs("203.0.113.9:9277"), nil, nil, nil, nil},
		{"no anchor", nil, addrs("203.0.113.9:1234"), mapped("203.0.113.9:4321"), []uint16{9277}, nil},
	} {
		if got := Endpoints(tt.endpoints, tt.mapped, tt.tcp, 9277, tt.listening); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}
