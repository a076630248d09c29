//go:build linux

package e2e

import (
	"testing"
	"time"

	"warren/nat/natlab"
)

// TestConfirmationLost loses WireGuard's keepalives through a relay while two nodes meet: the one that answered the
// handshake then does not know that it was done, and nobody has anything to say. It must not stay so.
func TestConfirmationLost(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	founder := bed.node("founder", nil)
	x, y := bed.node("x", bed.Router("r-x", natlab.Symmetric)), bed.node("y", bed.Router("r-y", natlab.Symmetric))
	// Of 32 bytes, of WireGuard's type 4, behind a header of ChannelData.
	const keepalives = "udp length 44 @th,96,32 0x04000000 drop"
	for _, n := range []*Node{x, y} {
		bed.fence(n, keepalives)
	}
	bed.must(Found(bed.ctx, "home", founder, x, y))
	up := func(n, peer *Node) bool { return route(bed.status(n), peer) == routeRelay }
	bed.eventually("one of the two is up", func() bool { return up(x, y) || up(y, x) })
	bed.step("one of the two is up")
	if up(x, y) && up(y, x) {
		t.Fatal("both are up: no keepalive was lost")
	}
	for _, n := range []*Node{x, y} {
		if out, err := n.Host.Run(bed.ctx, "nft", "delete", "table", "netdev", "fence"); err != nil {
			t.Fatalf("lift the fence of %s: %v: %s", n.Name(), err, out)
		}
	}
	bed.eventually("both are up", func() bool { return up(x, y) && up(y, x) })
	bed.step("both are up")
}
