//go:build linux

package natlab

import (
	"net/netip"
	"testing"
)

func TestSwitchLeadsNowhere(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	public := l.Host("public", nil)
	for name, lan := range map[string][2]netip.Prefix{
		"four": {netip.MustParsePrefix("169.254.0.0/24"), {}},
		"six":  {{}, netip.MustParsePrefix("fd00:1::/64")},
	} {
		s := l.Switch(name, lan[0], lan[1])
		a, b := l.Host(name+"-a", s), l.Host(name+"-b", s)
		for _, addr := range []netip.Addr{b.Addr4(), b.Addr6()} {
			if addr.IsValid() {
				reach(t, a, addr)
			}
		}
		if b.Addr4().IsValid() != lan[0].IsValid() || b.Addr6().IsValid() != lan[1].IsValid() {
			t.Errorf("%s: got addresses %v and %v", name, b.Addr4(), b.Addr6())
		}
		if ping(a, public.Addr4()) || ping(a, public.Addr6()) {
			t.Errorf("%s: the Internet answers", name)
		}
	}
}
