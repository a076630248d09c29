package ranges

import (
	"net/netip"
	"slices"
	"testing"
)

func TestOf(t *testing.T) {
	for text, want := range map[string]Kind{
		"8.8.8.8": Public, "2001:db8::1": Public, "::ffff:8.8.8.8": Public, "100.63.255.255": Public, "100.128.0.0": Public,
		"10.1.2.3": Private, "172.31.0.1": Private, "192.168.1.1": Private, "fd00::1": Private,
		"100.64.0.1": Shared, "100.127.255.255": Shared, "192.0.0.2": Shared, "198.18.0.1": Shared, "198.19.255.255": Shared,
		"0.1.2.3": Useless, "240.0.0.1": Useless, "255.255.255.255": Useless, "127.0.0.1": Useless, "169.254.1.1": Useless,
		"224.0.0.1": Useless, "fe80::1": Useless, "::1": Useless, "::": Useless,
	} {
		if got := Of(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: got %d, want %d", text, got, want)
		}
	}
	if got := Of(netip.Addr{}); got != Useless {
		t.Errorf("no address: got %d, want %d", got, Useless)
	}
}

func TestPublicOf(t *testing.T) {
	public, private := netip.MustParseAddrPort("8.8.8.8:1"), netip.MustParseAddrPort("10.0.0.1:1")
	if got := PublicOf([]netip.AddrPort{private, public}); !slices.Equal(got, []netip.AddrPort{public}) {
		t.Errorf("got %v, want %v", got, public)
	}
}
