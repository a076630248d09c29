//go:build linux

package e2e

import (
	"net/netip"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestEqualNetworks has two members in homes whose LANs have one prefix, where both have the same address, and one of them behind a carrier's NAT
// too. They reach each other directly, and again after the second hop has forgotten all, has got another address, and after one has roamed into a
// third network that has the same prefix, the same gateway and the same address for it.
func TestEqualNetworks(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	lan := netip.MustParsePrefix("192.168.77.0/24")
	carrier := bed.Router("carrier", natlab.EIMAPDF)
	homeA := bed.AddRouter(natlab.RouterOptions{Name: "home-a", Kind: natlab.EIMAPDF, Behind: carrier, LAN: lan})
	homeB := bed.AddRouter(natlab.RouterOptions{Name: "home-b", Kind: natlab.EIMAPDF, LAN: lan})
	third := bed.AddRouter(natlab.RouterOptions{Name: "third", Kind: natlab.EIMAPDF, LAN: lan})
	founder := bed.node("founder", nil)
	a, b := bed.node("a", homeA), bed.node("b", homeB)
	if a.Host.Addr4() != b.Host.Addr4() {
		t.Fatalf("a has %v and b %v, want the same", a.Host.Addr4(), b.Host.Addr4())
	}
	bed.must(Found(bed.ctx, "home", founder, a, b))
	bed.connected(a, b, api.PathDirect)
	bed.judge(a, b, []string{"direct"})
	bed.step("direct from one address to the same")
	m := bed.meter(a, b)
	healed := func(what string, disturb func()) {
		t.Helper()
		bed.eventually("echoes before "+what, func() bool { return m.silent(time.Now()) < hole })
		begin := time.Now()
		disturb()
		bed.eventually("echoes after "+what, func() bool { now := time.Now(); return now.Sub(begin) > time.Second && m.silent(now) < hole })
		silent, _ := m.silences(begin, time.Now())
		bed.step("%s: silent for %v", what, silent.Round(time.Millisecond))
		if silent > 10*time.Second { // it takes less than two
			t.Errorf("%s: got no echo for %v", what, silent)
		}
		bed.connected(a, b, api.PathDirect)
	}
	healed("the second hop forgets", carrier.Flush)
	healed("the second hop has another address", carrier.Rebind)
	before := b.Host.Addr4()
	healed("b roams into an equal network", func() { b.Host.Move(third) })
	if got := b.Host.Addr4(); got != before {
		t.Errorf("b has %v now, want %v as before", got, before)
	}
	healed("and back", func() { b.Host.Move(homeB) })
	bed.judge(a, b, []string{"direct"})
	bed.judge(b, a, []string{"direct"})
}

// TestRenewedIPv6 has two members that have IPv6 alone, one of whose address gives way to another one of its prefix, as temporary addresses do and as after
// a renewal: at first the old one is deprecated, then it goes, in the end the new one comes after the old one has gone.
func TestRenewedIPv6(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	founder := bed.node("founder", nil)
	a, b := bed.node("a", bed.Router("home-a", natlab.IPv6Only)), bed.node("b", bed.Router("home-b", natlab.IPv6Only))
	bed.must(Found(bed.ctx, "home", founder, a, b))
	bed.connected(a, b, api.PathDirect)
	bed.connected(a, founder, api.PathDirect)
	meters := []*meter{bed.meter(a, b), bed.meter(b, a)}
	answered := func() bool { now := time.Now(); return meters[0].silent(now) < hole && meters[1].silent(now) < hole }
	bed.eventually("echoes go", answered)
	run := func(script string) {
		t.Helper()
		_, err := a.Host.Run(bed.ctx, "sh", "-ec", script)
		bed.must(err)
	}
	address := func(n byte) string {
		addr := a.Host.Addr6().As16()
		addr[14] = n
		return netip.AddrFrom16(addr).String() + "/64"
	}
	for _, change := range []struct{ name, script string }{
		{"another one beside it", "ip -6 addr add " + address(1) + " dev eth0 nodad"},
		{"the old one deprecated", "ip -6 addr change " + address(0) + " dev eth0 preferred_lft 0 valid_lft 300"},
		{"the old one gone", "ip -6 addr del " + address(0) + " dev eth0"},
		{"renewed at once", "ip -6 addr del " + address(1) + " dev eth0; ip -6 addr add " + address(2) + " dev eth0 nodad"},
	} {
		begin := time.Now()
		run(change.script)
		bed.eventually("echoes after "+change.name, func() bool { return time.Since(begin) > time.Second && answered() })
		for _, m := range meters {
			silent, _ := m.silences(begin, time.Now())
			bed.step("%s: silent for %v", change.name, silent.Round(time.Millisecond))
			if silent > 10*time.Second {
				t.Errorf("%s: got no echo for %v", change.name, silent)
			}
		}
	}
	bed.connected(a, b, api.PathDirect)
	p, err := b.WaitPath(bed.ctx, a, api.PathDirect)
	bed.must(err)
	if want := address(2); p.Path.Address.Addr().String()+"/64" != want {
		t.Errorf("b reaches a at %v, want the new address %s", p.Path.Address, want)
	}
	bed.judge(a, b, []string{"direct"})
	bed.judge(b, a, []string{"direct"})
}
