//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestLeave has a member leave: nothing of the mesh is left on its machine, the
// others list it as gone, and it can come back as a new node.
func TestLeave(t *testing.T) {
	t.Parallel()
	bed := newBed(t, time.Minute)
	founder := bed.node("founder", nil)
	a := bed.node("a", bed.Router("home-a", natlab.EIMAPDF))
	b := bed.node("b", bed.Router("home-b", natlab.EIMAPDF))
	bed.must(Found(bed.ctx, "home", founder, a, b))
	bed.meshed(founder, a, b)
	was := bed.status(a)

	bed.step("the founder may not go with the only root key")
	_, err := founder.Warren(bed.ctx, "", "leave")
	if ExitCode(err) != 1 || !strings.Contains(err.Error(), "root key") {
		t.Errorf("leave of the founder: got %v, want a refusal for the root key's sake", err)
	}

	bed.step("a leaves")
	_, err = a.Warren(bed.ctx, "", "leave")
	bed.must(err)
	bed.endsWith(a, 0)
	if bed.hasLink(a, was.Self.Interface) {
		t.Errorf("%s is still there", was.Self.Interface)
	}
	for _, family := range []string{"-4", "-6"} {
		out, err := a.Host.Run(bed.ctx, "ip", family, "route", "show", "table", "all")
		bed.must(err)
		for _, prefix := range []string{was.Mesh.Prefix4.String(), was.Mesh.Prefix6.String()} {
			if strings.Contains(out, prefix) {
				t.Errorf("routes after leave: got %s, want none to %s", out, prefix)
			}
		}
	}
	left, err := a.stateLeft()
	bed.must(err)
	for _, pattern := range []string{"warren/*", "wireguard/*"} {
		found, _ := filepath.Glob(filepath.Join(a.Host.Dir(), "run", pattern))
		left = append(left, found...)
	}
	if len(left) > 0 {
		t.Errorf("left on the machine: got %q, want nothing", left)
	}
	for _, n := range []*Node{founder, b} {
		_, err := n.Wait(bed.ctx, "a has left", func(s api.Status) bool {
			p, ok := Peer(s, "a")
			return ok && p.ID == was.Self.ID && p.State == api.PeerLeft && p.Reason != ""
		})
		bed.must(err)
		bed.eventually("a is no WireGuard peer", func() bool { return !slices.Contains(bed.wireGuardPeers(n), was.Self.PublicKey) })
	}
	bed.meshed(founder, b)

	bed.step("a comes back")
	bed.must(Admit(bed.ctx, founder, a))
	if now := bed.status(a); now.Self.ID == was.Self.ID {
		t.Errorf("a has its old ID")
	}
	for _, n := range []*Node{founder, b} {
		_, err := n.Wait(bed.ctx, "the new a is up", func(s api.Status) bool {
			return slices.ContainsFunc(s.Peers, func(p api.Peer) bool {
				return p.ID != was.Self.ID && p.Connected() && strings.HasPrefix(p.Name, "a")
			})
		})
		bed.must(err)
	}
	bed.step("end")
}

// TestLeaveOffline leaves when nobody can be told: only with --force, and then
// without the agent.
func TestLeaveOffline(t *testing.T) {
	t.Parallel()
	bed := newBed(t, time.Minute)
	founder, a := bed.node("founder", nil), bed.node("a", bed.Router("home-a", natlab.EIMAPDF))
	bed.must(Found(bed.ctx, "home", founder, a))
	bed.meshed(founder, a)
	bed.must(a.Stop())
	if _, err := a.Warren(bed.ctx, "", "leave"); ExitCode(err) != 1 || !strings.Contains(err.Error(), "not running") {
		t.Errorf("leave without an agent: got %v, want a refusal", err)
	}
	if _, err := os.Stat(a.StateDir()); err != nil {
		t.Errorf("after the refusal: %v", err)
	}
	_, err := a.Warren(bed.ctx, "", "leave", "--force")
	bed.must(err)
	if left, err := a.stateLeft(); err != nil || len(left) > 0 {
		t.Errorf("after leave --force: got %q, %v, want nothing", left, err)
	}
}
