//go:build linux

package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// TestSwapsOfPeers replaces all static peers by others, again and again. What was there for those that are gone goes with them.
func TestSwapsOfPeers(t *testing.T) {
	t.Parallel()
	bed := bedWith(t, buildPlain, time.Minute)
	a := bed.node("a", nil)
	private, err := wgtypes.GeneratePrivateKey()
	bed.must(err)
	config := func(round int) string {
		var text strings.Builder
		fmt.Fprintf(&text, "[interface]\nprivate_key_file = %q\naddresses = [\"10.98.0.1/16\"]\n", bed.secret(a, "private.key", private))
		for i := range 150 {
			key, err := wgtypes.GeneratePrivateKey()
			bed.must(err)
			fmt.Fprintf(&text, "[[peer]]\nname = \"p%d-%d\"\npublic_key = %q\nendpoint = \"203.0.113.200:%d\"\npersistent_keepalive = \"25s\"\nallowed_ips = [\"10.98.%d.%d/32\"]\n",
				round, i, key.PublicKey(), 10000+i, 1+round, i+1)
		}
		return bed.configure(a, text.String())
	}
	a.Mesh = "static"
	bed.must(a.Start(bed.ctx, "--config", config(0)))
	first := bed.rss(a)
	bed.step("150 peers: %d MiB", first>>20)
	for round := 1; round <= 14; round++ {
		config(round)
		bed.must(a.Agent().Signal(syscall.SIGHUP))
		last := fmt.Sprintf("p%d-149", round)
		bed.eventually("the swap", func() bool { _, there := Peer(bed.status(a), last); return there })
	}
	bed.step("after 14 swaps: %d MiB", bed.rss(a)>>20)
	bed.eventually("memory as before", func() bool { return bed.rss(a) < first+first/2 })
	bed.step("a moment later: %d MiB", bed.rss(a)>>20)
}

// rss is how much of the node's agent is in memory.
func (b *bed) rss(n *Node) int {
	b.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", n.Agent().PID()))
	b.must(err)
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	b.must(err)
	return pages * os.Getpagesize()
}
