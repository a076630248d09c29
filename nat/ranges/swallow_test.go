package ranges

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func routesOf(texts ...string) (out []Route) {
	for _, text := range texts {
		out = append(out, Route{Prefix: netip.MustParsePrefix(text), Peer: "phone"})
	}
	return out
}

func TestSwallowing(t *testing.T) {
	ground := []Ground{
		{netip.MustParseAddr("::ffff:198.51.100.7"), "the endpoint of static peer phone"}, {netip.MustParseAddr("203.0.113.1"), "the anchor gate"},
		{netip.MustParseAddr("192.168.1.1"), "the router of this network"}, {netip.MustParseAddr("192.168.1.5"), "an address of this machine"},
		{netip.MustParseAddr("10.1.2.3"), "an address of this machine"}, {netip.MustParseAddr("2001:db8::7"), "the endpoint of static peer six"},
		{netip.MustParseAddr("192.168.1.77"), "the endpoint of static peer near"},
	}
	elsewhere := []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("10.1.2.0/24"), netip.MustParsePrefix("172.20.0.0/16")}
	eighths := make([]string, 256) // all of IPv4
	for i := range eighths {
		eighths[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(i)}), 8).String()
	}
	// What a well-known calculator makes of "everything but the endpoint": here 198.51.100.7.
	around := []string{"0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/6", "196.0.0.0/7", "198.0.0.0/11", "198.32.0.0/12", "198.48.0.0/15", "198.50.0.0/16", "198.51.0.0/18", "224.0.0.0/3"}
	for _, tt := range []struct {
		routes []string
		want   string // in every refusal; "" for none
		refuse []string
	}{
		{[]string{"100.70.0.9/32", "10.97.0.0/16", "fd00:7::/64", "198.51.100.8/32", "198.51.101.0/24"}, "", nil},
		{[]string{"0.0.0.0/0", "10.97.0.0/16"}, "it is all of IPv4", []string{"0.0.0.0/0"}},
		{[]string{"::/0"}, "it is all of IPv6", []string{"::/0"}},
		{[]string{"0.0.0.0/1", "128.0.0.0/1"}, "a large part of IPv4", []string{"0.0.0.0/1", "128.0.0.0/1"}},
		{[]string{"::/1", "8000::/1", "fd00:7::/64"}, "a large part of IPv6", []string{"::/1", "8000::/1"}},
		{[]string{"2000::/3"}, "a large part of IPv6", []string{"2000::/3"}},
		{[]string{"0.0.0.0/2", "64.0.0.0/2"}, "a large part of IPv4", []string{"0.0.0.0/2", "64.0.0.0/2"}},
		{slices.Concat(eighths, []string{"10.97.0.0/16"}), "most of the IPv4 Internet, piece by piece", slices.Concat(eighths[:10], eighths[11:])},
		{eighths[64:100], "", nil}, // an eighth of it
		{slices.Concat(around, []string{"10.97.0.0/16"}), "a large part of IPv4", around},
		{[]string{"198.51.100.0/24"}, "it holds the endpoint of static peer phone, 198.51.100.7, which the tunnel itself needs outside", []string{"198.51.100.0/24"}},
		{[]string{"198.51.100.7/32"}, "it holds the endpoint of static peer phone", []string{"198.51.100.7/32"}},
		{[]string{"203.0.0.0/16"}, "it holds the anchor gate, 203.0.113.1", []string{"203.0.0.0/16"}},
		{[]string{"2001:db8::/48"}, "it holds the endpoint of static peer six", []string{"2001:db8::/48"}},
		// A network that this machine is on: as a whole, or a part with its router; not one around it, nor another host in it.
		{[]string{"192.168.1.0/24"}, "it holds the router of this network", []string{"192.168.1.0/24"}},
		{[]string{"192.168.1.0/29"}, "it holds the router of this network", []string{"192.168.1.0/29"}},
		{[]string{"192.168.1.64/26"}, "it holds the endpoint of static peer near", []string{"192.168.1.64/26"}},
		{[]string{"192.168.0.0/16", "10.0.0.0/8", "192.168.1.200/32"}, "", nil},
		{[]string{"224.0.0.0/4", "ff02::/16", "10.97.0.0/16"}, "multicast", []string{"224.0.0.0/4", "ff02::/16"}},
		{[]string{"127.0.0.0/8", "::1/128", "127.0.0.1/32"}, "loopback", []string{"127.0.0.0/8", "::1/128", "127.0.0.1/32"}},
		{[]string{"fe80::/64"}, "link-local", []string{"fe80::/64"}},
		{[]string{"::ffff:10.9.0.0/120"}, "write 10.9.0.0/24", []string{"::ffff:10.9.0.0/120"}},
		{[]string{"172.20.0.0/16"}, "by another interface already", []string{"172.20.0.0/16"}},
	} {
		routes := routesOf(tt.routes...)
		got := Swallowing(routes, ground, elsewhere)
		var refused, whys []string
		for i, r := range routes {
			if why, no := got[i]; no {
				refused, whys = append(refused, r.Prefix.String()), append(whys, why)
			}
		}
		if !slices.Equal(refused, tt.refuse) || !strings.Contains(strings.Join(whys, "\n"), tt.want) {
			t.Errorf("%v: got refused %v: %q, want %v: %q", tt.routes, refused, whys, tt.refuse, tt.want)
		}
	}
	// However it is cut: no cover of a family passes, and what is private stays.
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		cover := []string{"10.97.0.0/16", "fd00:7::/64"}
		for _, all := range []string{"0.0.0.0/0", "::/0"} {
			cover = append(cover, cut(r, netip.MustParsePrefix(all))...)
		}
		routes := routesOf(cover...)
		got := Swallowing(routes, nil, nil)
		for i, route := range routes {
			if _, refused := got[i]; refused == isInside(route.Prefix) && (route.Prefix.Addr().Is4() || onInternet(route.Prefix)) {
				t.Errorf("seed %d: %v: refused: %t", seed, route.Prefix, refused)
			}
		}
	}
}

// cut splits a prefix at random.
func cut(r *rand.Rand, p netip.Prefix) []string {
	if p.Bits() >= 12 || p.Bits() > 0 && r.IntN(5) == 0 {
		return []string{p.String()}
	}
	raw := p.Addr().AsSlice()
	raw[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	upper, _ := netip.AddrFromSlice(raw)
	return append(cut(r, netip.PrefixFrom(p.Addr(), p.Bits()+1)), cut(r, netip.PrefixFrom(upper, p.Bits()+1))...)
}

func TestSwallowingIsFast(t *testing.T) {
	var routes []Route
	var ground []Ground
	for i := range 5000 {
		a := netip.AddrFrom4([4]byte{198, 18 + byte(i/65536), byte(i / 256), byte(i)})
		routes = append(routes, Route{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 97, byte(i / 256), byte(i)}), 32)})
		ground = append(ground, Ground{Addr: a, What: "an endpoint"})
	}
	if n := testing.AllocsPerRun(1, func() { Swallowing(routes, ground, nil) }); n > 100 {
		t.Errorf("got %v allocations for 5,000 peers, want few", n)
	}
}
