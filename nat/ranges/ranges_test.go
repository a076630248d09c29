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

func TestDialable(t *testing.T) {
	overlay := []netip.Prefix{netip.MustParsePrefix("100.70.0.0/16"), netip.MustParsePrefix("fd12:3456:789a::/48")}
	for text, want := range map[string]bool{
		"203.0.113.1": true, "2001:db8::1": true, "192.168.1.1": true, "100.71.0.1": true, "fd12:3456:789b::1": true, "::ffff:10.0.0.1": true,
		"127.0.0.1": false, "::1": false, "::ffff:127.0.0.1": false, "0.0.0.0": false, "::": false, "0.1.2.3": false, "240.0.0.1": false,
		"255.255.255.255": false, "224.0.0.1": false, "ff02::1": false, "fe80::1": false, "169.254.1.1": false, "100::300:0:0:1": false,
		"100.70.9.9": false, "::ffff:100.70.9.9": false, "fd12:3456:789a::7": false,
	} {
		if got := Dialable(netip.MustParseAddr(text), overlay...); got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
	if Dialable(netip.Addr{}) {
		t.Error("no address: got dialable, want not")
	}
}

func TestPublicOf(t *testing.T) {
	public, private := netip.MustParseAddrPort("8.8.8.8:1"), netip.MustParseAddrPort("10.0.0.1:1")
	if got := PublicOf([]netip.AddrPort{private, public}); !slices.Equal(got, []netip.AddrPort{public}) {
		t.Errorf("got %v, want %v", got, public)
	}
}
