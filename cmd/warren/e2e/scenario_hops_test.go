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
