//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
)

// TestHandshakeBeforePath keeps all checks between two nodes from passing, direct or by the relay: their introductions pass, and the WireGuard
// handshake is done with these while there is no path, as the status says. The first path then carries packets.
func TestHandshakeBeforePath(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	founder, x, y := bed.node("founder", nil), bed.node("x", nil), bed.node("y", nil)
	// STUN by its cookie: to each other as it is, to the founder behind a header of ChannelData.
	for _, pair := range [][2]*Node{{x, y}, {y, x}} {
		bed.fence(pair[0], fmt.Sprintf("ip daddr %s meta l4proto udp @th,96,32 0x2112a442 drop; ip6 daddr %s meta l4proto udp @th,96,32 0x2112a442 drop; meta l4proto udp @th,128,32 0x2112a442 drop",
			pair[1].Host.Addr4(), pair[1].Host.Addr6()))
	}
	bed.must(founder.Create(bed.ctx, "home"))
	bed.must(founder.Start(bed.ctx))
	for _, n := range []*Node{x, y} {
		token, err := founder.Invite(bed.ctx)
		bed.must(err)
		bed.must(n.Join(bed.ctx, token))
		bed.must(n.Start(bed.ctx))
	}
	var said []string
	keyed := func(n, peer *Node) bool {
		p, ok := Peer(bed.status(n), peer.Name())
		if !ok || p.LastHandshake == nil || p.Path.Kind != api.PathNone {
			return false
		}
		said = append(said, fmt.Sprintf("%s says of %s: %s, %s", n.Name(), peer.Name(), p.State, p.Reason))
		return p.State != api.PeerUp && strings.HasSuffix(p.Reason, "; the WireGuard handshake is done")
	}
	// Who has the first word knows that it is done; the other one hears it with the first packet.
	// A machine that is busy takes the founder to be far, and so a channel that is not proven yet for the first path: then the handshake goes by that.
	begun := time.Now()
	bed.eventually("the handshake is done, and there is no path", func() bool {
		if time.Since(begun) > 10*time.Second {
			begun = time.Now()
			bed.kill(y)
			bed.must(y.Start(bed.ctx))
		}
		return keyed(x, y) || keyed(y, x)
	})
	bed.step("the handshake is done, and there is no path: %s", said)
	for _, n := range []*Node{x, y} {
		if out, err := n.Host.Run(bed.ctx, "nft", "delete", "table", "netdev", "fence"); err != nil {
			t.Fatalf("lift the fence of %s: %v: %s", n.Name(), err, out)
		}
	}
	bed.must(x.WaitPing(bed.ctx, y))
	bed.must(y.WaitPing(bed.ctx, x))
	bed.step("packets pass")
}
