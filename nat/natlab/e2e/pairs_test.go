//go:build linux

package e2e

import (
	"fmt"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestPairs connects two homes of every pair of kinds, with a public founder
// as the only anchor, and asserts the way that their packets take.
func TestPairs(t *testing.T) {
	const direct, relay = api.PathDirect, api.PathRelay
	tests := []struct {
		a, b natlab.Kind
		want string
	}{
		{natlab.Public, natlab.Public, direct},
		{natlab.Public, natlab.EIMEIF, direct},
		{natlab.Public, natlab.EIMAPDF, direct},
		{natlab.Public, natlab.DoubleNAT, direct},
		{natlab.Public, natlab.Symmetric, direct},
		{natlab.EIMEIF, natlab.EIMEIF, direct},
		{natlab.EIMEIF, natlab.EIMAPDF, direct},
		{natlab.EIMEIF, natlab.DoubleNAT, direct},
		{natlab.EIMAPDF, natlab.EIMAPDF, direct},
		{natlab.EIMAPDF, natlab.DoubleNAT, direct},
		{natlab.DoubleNAT, natlab.DoubleNAT, direct},
		{natlab.IPv6Only, natlab.IPv6Only, direct},
		{natlab.DualStack, natlab.IPv6Only, direct},
		{natlab.Symmetric, natlab.EIMADF, direct},
		{natlab.Symmetric, natlab.Symmetric, relay},
		{natlab.Symmetric, natlab.EIMAPDF, relay},
		{natlab.IPv6Only, natlab.EIMAPDF, relay}, // no family in common
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s and %s", tt.a, tt.b), func(t *testing.T) {
			t.Parallel()
			bed := newBed(t, 2*time.Minute)
			founder := bed.node("founder", nil)
			a := bed.node("a", bed.Router("home-a", tt.a))
			b := bed.node("b", bed.Router("home-b", tt.b))
			bed.must(Found(bed.ctx, "home", founder, a, b))
			bed.connected(a, b, tt.want)
			bed.connected(founder, a, direct)
			bed.connected(founder, b, direct)
		})
	}
}

// TestSameLAN asserts that two hosts of one home use each other's own
// addresses, and go on when the home's line is cut.
func TestSameLAN(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	home := bed.Router("home", natlab.EIMAPDF)
	founder, a, b := bed.node("founder", nil), bed.node("a", home), bed.node("b", home)
	bed.must(Found(bed.ctx, "home", founder, a, b))
	bed.connected(a, b, api.PathDirect)
	p, err := a.WaitPath(bed.ctx, b, api.PathDirect)
	bed.must(err)
	if p.Path.Address.Addr() != b.Host.Addr4() {
		t.Errorf("got path %v, want the LAN address %v", p.Path.Address, b.Host.Addr4())
	}
	if s, err := a.StatusJSON(bed.ctx); err != nil || len(s.Peers) != 2 {
		t.Errorf("warren status --json: got %v, %v, want two peers", s, err)
	}
	bed.Cut(home)
	bed.must(a.WaitPing(bed.ctx, b))
}
