//go:build linux

package e2e

import (
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestRoams asserts that a host that changes its network, and one whose router gets another address, keep their sessions and
// come back to direct tunnels by themselves.
func TestRoams(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	first, second := bed.Router("first", natlab.EIMAPDF), bed.Router("second", natlab.EIMEIF)
	founder := bed.node("founder", nil)
	laptop := bed.node("laptop", first)
	other := bed.node("other", bed.Router("other-home", natlab.EIMAPDF))
	bed.must(Found(bed.ctx, "home", founder, laptop, other))
	bed.meshed(founder, laptop, other)

	bed.step("the laptop moves to another network")
	laptop.Host.Move(second)
	bed.must(other.WaitPing(bed.ctx, laptop))
	bed.step("it is reached again")
	bed.connected(laptop, other, api.PathDirect)
	bed.connected(laptop, founder, api.PathDirect)

	bed.step("its router gets another address")
	second.Rebind()
	bed.must(other.WaitPing(bed.ctx, laptop))
	bed.step("it is reached again")
	bed.connected(laptop, other, api.PathDirect)

	bed.step("its router forgets its mappings")
	second.Flush()
	bed.must(laptop.WaitPing(bed.ctx, other))
	bed.must(other.WaitPing(bed.ctx, laptop))
	bed.connected(laptop, other, api.PathDirect)
	bed.step("end")
}
