//go:build linux

package e2e

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"warren/nat/natlab"
)

// TestForeignPeersReachEachOther shows that the stand-ins work, so that a test
// of ours against one of them that fails tells something about us.
func TestForeignPeersReachEachOther(t *testing.T) {
	t.Parallel()
	l := natlab.ForTest(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	start := func(h *natlab.Host, port uint16, addr string) *Foreign {
		f, err := StartForeign(ctx, h, port, netip.MustParsePrefix(addr))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	a := start(l.Host("a", nil), 51820, "10.99.0.1/32")
	b := start(l.Host("b", l.Router("home", natlab.EIMAPDF)), 0, "10.99.0.2/32")
	peers := []struct {
		on *Foreign
		p  ForeignPeer
	}{
		{a, ForeignPeer{PublicKey: b.PublicKey, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.99.0.2/32")}}},
		{b, ForeignPeer{PublicKey: a.PublicKey, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.99.0.1/32")}, Endpoint: netip.AddrPortFrom(a.Host.Addr4(), a.Port)}},
	}
	for _, p := range peers {
		if err := p.on.AddPeer(ctx, p.p); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := b.Host.Run(ctx, "ping", "-n", "-c", "1", "-W", "5", "10.99.0.1"); err != nil {
		show, _ := b.Show(ctx)
		t.Errorf("%v: %s\n%s", err, out, show)
	}
	if err := b.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}
