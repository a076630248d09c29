//go:build linux

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// TestNamesThatChange has the name of a static peer's endpoint, and that of the node's own, appear after the agent has started, lead
// somewhere else, and go away. What a name leads to is used within seconds, where nobody answers there at once; what it has led to is
// kept while there is no answer at all.
func TestNamesThatChange(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 3*time.Minute)
	hub := bed.node("hub", nil)
	gate := bed.foreign(bed.Host("gate", nil), 51820, "10.98.0.2")
	wrong := bed.Host("wrong", nil)
	const gateName, ownName = "gate.example.org", "own.example.org"
	zone := hub.Host.Resolver(netip.Prefix{})
	config := bed.configure(hub, fmt.Sprintf("[[peer]]\nname = \"gate\"\npublic_key = %q\nendpoint = \"%s:51820\"\nallowed_ips = [\"10.98.0.2/32\"]\n", gate.PublicKey, gateName))
	bed.must(hub.Create(bed.ctx, "home", "--endpoint", ownName+":9277"))
	bed.must(hub.Start(bed.ctx, "--config", config))
	self := bed.status(hub).Self
	key, err := wgtypes.ParseKey(self.PublicKey)
	bed.must(err)
	bed.must(gate.AddPeer(bed.ctx, ForeignPeer{PublicKey: key, AllowedIPs: prefixes(self.Addresses...)}))

	within := func(what string, most time.Duration, ok func() bool) {
		t.Helper()
		began := time.Now()
		bed.eventually(what, ok)
		took := time.Since(began)
		bed.step("%s after %.1f s", what, took.Seconds())
		if took > stretch(most) {
			t.Errorf("%s: took %v, want seconds", what, took)
		}
	}
	answers := func() bool { return hub.Ping(bed.ctx, netip.MustParseAddr("10.98.0.2"), time.Second) == nil }
	offered := func(at netip.Addr) bool {
		return slices.Contains(bed.status(hub).Self.Endpoints, netip.AddrPortFrom(at, 9277))
	}
	if answers() {
		t.Fatal("the peer answers without an endpoint")
	}

	// They appear: that of the peer with an address where nobody answers.
	forwarded := []netip.Addr{netip.MustParseAddr("203.0.113.201"), netip.MustParseAddr("203.0.113.202")}
	zone.Set(ownName, forwarded[0])
	zone.Set(gateName, wrong.Addr4())
	within("the own endpoint has appeared", 45*time.Second, func() bool { return offered(forwarded[0]) })
	within("the peer's endpoint has appeared", 45*time.Second, func() bool {
		answers() // packets make WireGuard try
		p, _ := Peer(bed.status(hub), "gate")
		return p.Path.Address.Addr() == wrong.Addr4()
	})
	// They change.
	zone.Set(gateName, gate.Host.Addr4())
	zone.Set(ownName, forwarded[1])
	within("the peer answers at its new address", 45*time.Second, answers)
	within("the own endpoint is the new one, alone", 60*time.Second, func() bool { return offered(forwarded[1]) && !offered(forwarded[0]) })
	// They go away, which is no reason to forget what works.
	zone.Set(gateName)
	zone.Set(ownName)
	began := time.Now()
	bed.eventually("names that are gone for a while change nothing", func() bool {
		if !answers() || !offered(forwarded[1]) {
			t.Fatal("what the names have led to is forgotten")
		}
		return time.Since(began) > time.Second
	})
}
