package zone

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

var (
	net4 = netip.MustParsePrefix("100.125.0.0/16")
	net6 = netip.MustParsePrefix("fdfd:110d:301d::/48")
)

func addrs(list ...string) (out []netip.Addr) {
	for _, text := range list {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

func sample() *Zone {
	return New(Options{
		Domain: "home.internal", Self: "nas", Networks: []netip.Prefix{net4, net6},
		Hosts: []Host{
			{"nas", addrs("100.125.0.7", "fdfd:110d:301d::7")},
			{"alice", addrs("fdfd:110d:301d::a1")},
			{"nas", addrs("100.125.0.9")},              // the name is taken
			{"router", addrs("192.168.1.1")},           // none of its addresses is the mesh's
			{"wpad", addrs("100.125.0.6")},             // whoever is called so is not obeyed
			{"Not_a_label", addrs("100.125.0.8")},      // could not be asked for
			{"twin", addrs("100.125.0.7", "10.0.0.1")}, // the address is nas's by name
		},
	})
}

func TestFind(t *testing.T) {
	z := sample()
	const arpa6 = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.1.0.3.d.0.1.1.d.f.d.f.ip6.arpa"
	for _, test := range []struct {
		name string
		want Found
	}{
		{"nas.home.internal", Found{Kind: Named, Zone: "home.internal", Addrs: addrs("100.125.0.7", "fdfd:110d:301d::7")}},
		{"NaS.HOME.Internal", Found{Kind: Named, Zone: "home.internal", Addrs: addrs("100.125.0.7", "fdfd:110d:301d::7")}},
		{"alice.home.internal", Found{Kind: Named, Zone: "home.internal", Addrs: addrs("fdfd:110d:301d::a1")}},
		{"home.internal", Found{Kind: Apex, Zone: "home.internal"}},
		{"bob.home.internal", Found{Kind: Unknown, Zone: "home.internal"}},
		{"www.nas.home.internal", Found{Kind: Unknown, Zone: "home.internal"}},
		{"wpad.home.internal", Found{Kind: Unknown, Zone: "home.internal"}},
		{"router.home.internal", Found{Kind: Unknown, Zone: "home.internal"}},
		{"not_a_label.home.internal", Found{Kind: Unknown, Zone: "home.internal"}},
		{"nas", Found{}},
		{"internal", Found{}},
		{"xhome.internal", Found{}},
		{"nas.home.internal.example.com", Found{}},
		{"", Found{}},
		{".", Found{}},
		{"7.0.125.100.in-addr.arpa", Found{Kind: Pointer, Zone: "125.100.in-addr.arpa", Name: "nas.home.internal"}},
		{"9.0.125.100.in-addr.arpa", Found{Kind: Unknown, Zone: "125.100.in-addr.arpa"}},
		{"0.125.100.in-addr.arpa", Found{Kind: Inner, Zone: "125.100.in-addr.arpa"}},
		{"1.125.100.in-addr.arpa", Found{Kind: Unknown, Zone: "125.100.in-addr.arpa"}},
		{"125.100.in-addr.arpa", Found{Kind: Apex, Zone: "125.100.in-addr.arpa"}},
		{"100.in-addr.arpa", Found{}},
		{"07.0.125.100.in-addr.arpa", Found{Kind: Unknown, Zone: "125.100.in-addr.arpa"}},
		{"1.1.168.192.in-addr.arpa", Found{}},
		{"7." + arpa6, Found{Kind: Pointer, Zone: "d.1.0.3.d.0.1.1.d.f.d.f.ip6.arpa", Name: "nas.home.internal"}},
		{"8." + arpa6, Found{Kind: Unknown, Zone: "d.1.0.3.d.0.1.1.d.f.d.f.ip6.arpa"}},
		{arpa6, Found{Kind: Inner, Zone: "d.1.0.3.d.0.1.1.d.f.d.f.ip6.arpa"}},
	} {
		got := z.Find(test.name)
		if got.Kind != test.want.Kind || got.Zone != test.want.Zone || got.Name != test.want.Name || !slices.Equal(got.Addrs, test.want.Addrs) {
			t.Errorf("%q: got %+v, want %+v", test.name, got, test.want)
		}
	}
	if z.Self() != "nas.home.internal" {
		t.Errorf("self: got %q", z.Self())
	}
	var none *Zone
	if got := none.Find("nas.home.internal"); got.Kind != Foreign || none.Domain() != "" || none.Hosts() != nil || none.Self() != "" {
		t.Errorf("no zone: got %+v", got)
	}
}

// TestReverseZones asserts that the zones hold the addresses of a network and no others, whatever its length.
func TestReverseZones(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(is6 bool) netip.Addr {
		var a [16]byte
		for i := range a {
			a[i] = byte(r.UintN(256))
		}
		if is6 {
			return netip.AddrFrom16(a)
		}
		return netip.AddrFrom4([4]byte(a[:4]))
	}
	inside := func(zones []string, addr netip.Addr) bool {
		return slices.ContainsFunc(zones, func(z string) bool {
			return ReverseName(addr) == z || strings.HasSuffix(ReverseName(addr), "."+z)
		})
	}
	for range 20_000 {
		is6 := r.UintN(2) == 0
		base := random(is6)
		bits := 1 + int(r.UintN(uint(base.BitLen())))
		network := netip.PrefixFrom(base, bits)
		zones := reverseZones(network)
		if !inside(zones, base) {
			t.Fatalf("%s is not in its own zones %v", network, zones)
		}
		other := base.AsSlice() // differs in the last bit of the network
		other[(bits-1)/8] ^= 1 << (7 - (bits-1)%8)
		if addr, _ := netip.AddrFromSlice(other); inside(zones, addr) {
			t.Fatalf("%s, outside of %s, is in its zones %v", addr, network, zones)
		}
		if got, ok := addrOf(ReverseName(base)); !ok || got != base {
			t.Fatalf("%s: its name is read as %s, %v", base, got, ok)
		}
	}
	if got := reverseZones(netip.MustParsePrefix("100.64.0.0/10")); len(got) != 64 || got[0] != "64.100.in-addr.arpa" || got[63] != "127.100.in-addr.arpa" {
		t.Errorf("100.64.0.0/10: got %d zones, %v", len(got), got)
	}
}

func TestSerialAndEqual(t *testing.T) {
	a, b := sample(), sample()
	if !a.Equal(b) || a.Serial() != b.Serial() || a.Serial() == 0 {
		t.Errorf("two of the same: %v, serials %d and %d", a.Equal(b), a.Serial(), b.Serial())
	}
	c := New(Options{Domain: "home.internal", Self: "nas", Networks: []netip.Prefix{net4, net6}, Hosts: []Host{{"nas", addrs("100.125.0.8")}}})
	if a.Equal(c) || a.Serial() == c.Serial() || c.Equal(nil) || (*Zone)(nil).Equal(c) {
		t.Error("another one counts as the same")
	}
}

func FuzzFind(f *testing.F) {
	z := sample()
	for _, name := range []string{"nas.home.internal", "7.0.125.100.in-addr.arpa", "", "..", "1.2.3.4.5.in-addr.arpa", strings.Repeat("f.", 32) + "ip6.arpa"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := z.Find(name)
		if (got.Kind == Foreign) != (got.Zone == "") || (got.Kind == Named) != (got.Addrs != nil) || (got.Kind == Pointer) != (got.Name != "") {
			t.Errorf("%q: got %+v", name, got)
		}
	})
}
