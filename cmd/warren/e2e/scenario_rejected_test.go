//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
)

// TestFirewallRejects asserts that status, why and netcheck name this machine's own firewall where it rejects the UDP to the anchor,
// and that everything goes by UDP again once it does not. Both ends take UDP to be blocked meanwhile, and have a stream to each other.
func TestFirewallRejects(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	founder, x := bed.node("founder", nil), bed.node("x", nil)
	bed.must(founder.Create(bed.ctx, "home"))
	bed.must(founder.Start(bed.ctx))
	token, err := founder.Invite(bed.ctx)
	bed.must(err)
	bed.must(x.Join(bed.ctx, token))
	bed.must(x.Start(bed.ctx, "--log-level", "debug"))
	bed.meshed(founder, x)

	bed.step("the firewall of x rejects UDP")
	bed.nft(x, fmt.Sprintf("table inet fw { chain out { type filter hook output priority 0; ip daddr %s meta l4proto udp reject; ip6 daddr %s meta l4proto udp reject; }; }",
		founder.Host.Addr4(), founder.Host.Addr6()))
	bed.byTransport(x, founder, api.PathDirect, api.TransportTCP)
	bed.byTransport(founder, x, api.PathDirect, api.TransportTCP)
	const says = "this machine's firewall refuses UDP to "
	_, err = x.Wait(bed.ctx, "its status names the firewall", func(s api.Status) bool {
		all := strings.Join(s.Warnings, "\n")
		return strings.Contains(all, says) && !strings.Contains(all, "on this network")
	})
	bed.must(err)
	bed.why(x, founder, "firewall-here", says, "this machine's own firewall")
	bed.netcheck(x, nil, says, "let UDP out to port 9277")
	bed.must(x.WaitPing(bed.ctx, founder))

	bed.step("and lets it out again")
	bed.nft(x, "delete table inet fw")
	bed.byTransport(x, founder, api.PathDirect, "")
	bed.byTransport(founder, x, api.PathDirect, "")
	bed.must(x.WaitPing(bed.ctx, founder))
	_, err = x.Wait(bed.ctx, "nothing is said of streams", func(s api.Status) bool { return !strings.Contains(strings.Join(s.Warnings, "\n"), "TCP") })
	bed.must(err)
	// Each stream may have the device roam to it once; it was once a second.
	if n := strings.Count(x.Agent().Output(), "peer roamed"); n > 3 {
		t.Errorf("got %d lines of a peer that roamed, want one for a stream at most", n)
	}
}

// nft has a host's nftables do what the text says.
func (b *bed) nft(n *Node, text string) {
	b.t.Helper()
	cmd := n.Host.Command(b.ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("nft on %s: %v: %s", n.Name(), err, out)
	}
}
