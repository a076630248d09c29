//go:build linux

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
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

// TestForeignRefusals has routes and rules of each type that refuse packets stand in the way of the mesh's addresses, and of the underlay's.
func TestForeignRefusals(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	a, b := bed.node("a", nil), bed.nodeOnly("b", nil, natlab.Only4)
	bed.must(Found(bed.ctx, "home", a, b))
	bed.connected(a, b, api.PathDirect)
	far, err := b.Overlay(bed.ctx)
	bed.must(err)
	over, under := far[0].String(), b.Host.Addr4().String()
	for _, test := range []struct {
		to, do, undo string
		says         []string
	}{
		{over, "ip route add unreachable TO", "ip route del unreachable TO", []string{"sends no packets to TO", "say unreachable", "routing table 254"}},
		{over, "ip route add throw TO", "ip route del throw TO", []string{"sends no packets to TO", "say throw", "routing table 254"}},
		{over, "ip rule add priority 99 to TO blackhole", "ip rule del priority 99", []string{"sends no packets to TO", "say blackhole", "ip rule of priority 99"}},
		{under, "ip route add unreachable TO", "ip route del unreachable TO", []string{"this machine's routing refuses UDP to TO", "a route of type unreachable", "routing table 254"}},
		{under, "ip route add prohibit TO table 52; ip rule add priority 98 lookup 52", "ip rule del priority 98", []string{"this machine's routing refuses UDP to TO", "a route of type prohibit", "ip rule of priority 98, routing table 52"}},
	} {
		fill := func(text string) string { return strings.ReplaceAll(text, "TO", test.to) }
		_, err := a.Host.Run(bed.ctx, "sh", "-c", fill(test.do))
		bed.must(err)
		began, out := time.Now(), ""
		bed.eventually(fill(test.do)+" is named", func() bool {
			out, _ = a.Warren(bed.ctx, "", "why", "b")
			said := strings.Join(strings.Fields(out), " ")
			missing := slices.ContainsFunc(test.says, func(want string) bool { return !strings.Contains(said, fill(want)) })
			if missing && time.Since(began) > stretch(20*time.Second) {
				t.Fatalf("%s: why says\n%s", fill(test.do), out)
			}
			return !missing
		})
		bed.step("%s, after %.1f s:\n%s", fill(test.do), time.Since(began).Seconds(), out)
		_, err = a.Host.Run(bed.ctx, "sh", "-c", fill(test.undo))
		bed.must(err)
	}
	bed.must(a.WaitPing(bed.ctx, b))
	bed.step("nothing is in the way any more")
}
