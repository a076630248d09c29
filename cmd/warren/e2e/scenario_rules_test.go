//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
)

// TestForeignRules has rules of others drop, or take away, what belongs to the mesh, at each end and in each direction: why and ping have to
// say what it is.
func TestForeignRules(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	a, b := bed.node("a", nil), bed.node("b", nil)
	bed.must(Found(bed.ctx, "home", a, b))
	bed.connected(a, b, api.PathDirect)
	ours, err := a.Overlay(bed.ctx)
	bed.must(err)
	far, err := b.Overlay(bed.ctx)
	bed.must(err)
	sh := func(n *Node, line string) {
		_, err := n.Host.Run(bed.ctx, "sh", "-c", line)
		bed.must(err)
	}
	drop := func(hook, match string) string {
		return fmt.Sprintf("nft 'add table inet foreign; add chain inet foreign c { type filter hook %s priority -5; }; add rule inet foreign c %s drop'", hook, match)
	}
	const undrop = "nft delete table inet foreign"
	for _, test := range []struct {
		name     string
		on       *Node
		do, undo string
		says     []string
		bar      bool // whether a ping of IPv4 fails
	}{
		{"a table of another VPN", a, "ip route add 100.64.0.0/10 dev eth0 table 52; ip rule add priority 5270 lookup 52", "ip rule del priority 5270",
			[]string{"out by eth0", "priority 5270", "routing table 52", "ip -4 rule"}, true},
		{"a longer route", a, "ip route add blackhole " + far[0].String(), "ip route del blackhole " + far[0].String(), []string{"sends no packets to " + far[0].String(), "blackhole"}, true},
		{"a filter on the way out", a, drop("output", "ip daddr 100.64.0.0/10"), undrop, []string{"packet filter on this machine", "on their way out"}, true},
		{"a filter on the way in", a, drop("input", "iifname warren0 ip saddr 100.64.0.0/10"), undrop, []string{"answers of b over IPv4", "on this machine drops them"}, true},
		{"a filter there", b, drop("input", "ip saddr 100.64.0.0/10"), undrop, []string{"nothing comes back from b over IPv4", "on b"}, true},
		{"IPv6 on the way in", a, drop("input", "ip6 daddr "+ours[1].String()), undrop, []string{"answers of b over IPv6", "on this machine drops them"}, false},
	} {
		sh(test.on, test.do)
		out, err := a.Warren(bed.ctx, "", "why", "b")
		if err != nil {
			out += err.Error()
		}
		bed.step("%s:\n%s", test.name, out)
		for _, want := range test.says {
			if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
				t.Errorf("%s: why does not say %q", test.name, want)
			}
		}
		if test.name == "a filter on the way in" {
			out, _ := a.Warren(bed.ctx, "", "ping", "-c", "1", "--timeout", "300ms", "b")
			if !strings.Contains(out, "drops them") {
				t.Errorf("%s: ping says %q", test.name, out)
			}
		}
		sh(test.on, test.undo)
	}
	out, err := a.Warren(bed.ctx, "", "why", "b")
	bed.must(err)
	if strings.Contains(out, "cause") {
		t.Errorf("nothing is in the way any more: why says\n%s", out)
	}
	bed.step("all gone")
}
