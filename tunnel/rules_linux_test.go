package tunnel

import (
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun/tuntest"

	"warren/tunnel/filter"
	"warren/tunnel/osnet/osnettest"
)

// TestRulesInNamespace has two tunnels under rules: the one that protects itself drops what another sends that keeps to none, the one that does
// tells its own programs, and a change holds for the next packet of what goes on.
func TestRulesInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	m := osnettest.New()
	guard := filter.New(time.Now())
	channels := tuntest.NewChannelTUN()
	b := start(t, Options{TUN: named{channels.TUN(), "wb"}, Links: m, Filter: guard})
	b.tun = channels
	a := inMemory(t, "wa", m)
	if err := b.SetPeers([]Peer{{PublicKey: a.key, AllowedIPs: prefixes("10.0.0.1/32")}}); err != nil {
		t.Fatal(err)
	}
	if err := a.SetPeers([]Peer{{PublicKey: b.key, AllowedIPs: prefixes("10.0.0.2/32"), Endpoint: b.at(t)}}); err != nil {
		t.Fatal(err)
	}
	ping := func(src, dst string) []byte { return tuntest.Ping(netip.MustParseAddr(dst), netip.MustParseAddr(src)) }
	allowed := filter.Rules{Incoming: true, Rules: []filter.Rule{{
		From: prefixes("10.0.0.1/32"), To: prefixes("10.0.0.2/32"), Ports: []filter.Ports{{Protocol: 1, Last: 65535}},
	}}}
	guard.SetRules(allowed)
	carries(t, a, b, "10.0.0.1", "10.0.0.2")

	// Nothing may come in any more: what goes on is cut. a keeps to no rules.
	guard.SetRules(filter.Rules{Incoming: true})
	stopped := guard.Dropped()[filter.NotAllowed.String()]
	a.tun.Outbound <- ping("10.0.0.1", "10.0.0.2")
	wait(t, "the packet is dropped", func() bool { return guard.Dropped()[filter.NotAllowed.String()] > stopped })
	select {
	case got := <-b.tun.Inbound:
		t.Errorf("got a packet of %d bytes, want none", len(got))
	default:
	}

	// What leaves is answered at once by "administratively prohibited".
	b.tun.Outbound <- ping("10.0.0.2", "10.0.0.1")
	select {
	case got := <-b.tun.Inbound:
		if got[9] != 1 || got[20] != 3 || got[21] != 13 || netip.AddrFrom4([4]byte(got[12:16])) != netip.MustParseAddr("10.0.0.1") {
			t.Errorf("got %x, want ICMP type 3, code 13 of 10.0.0.1", got)
		}
	case <-time.After(patience):
		t.Fatal("the sender is not told")
	}
	guard.SetRules(allowed)
	carries(t, a, b, "10.0.0.1", "10.0.0.2")
}
