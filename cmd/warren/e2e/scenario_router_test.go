//go:build linux

package e2e

import (
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestRouterIsAMember has a router that is a member itself, and a member behind it that was there first and has the same port. What
// the one behind has mapped is not the router's own any more.
func TestRouterIsAMember(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	gate, home := bed.Router("gate", natlab.EIMAPDF), bed.Router("home", natlab.EIMAPDF)
	founder, inner, far := bed.node("founder", nil), bed.node("inner", gate), bed.node("far", home)
	router := NewNode(bed.HostOn(gate), bed.binary)
	bed.nodes = append(bed.nodes, router)
	bed.must(Found(bed.ctx, "home", founder, far, inner))
	bed.connected(inner, far, api.PathDirect)
	bed.step("the one behind is connected")
	bed.must(Admit(bed.ctx, founder, router))
	bed.step("the router has joined")
	for _, other := range []*Node{founder, inner, far} {
		_, err := router.WaitPath(bed.ctx, other, api.PathDirect)
		bed.must(err)
		bed.step("direct to %s", other.Name())
		bed.must(router.WaitPing(bed.ctx, other))
	}
}
