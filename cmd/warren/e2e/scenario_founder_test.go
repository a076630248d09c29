//go:build linux

package e2e

import (
	"slices"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestFounderGone loses the founder for ever: an anchor and an admin are left,
// and new nodes join, hear of changes and connect as before.
func TestFounderGone(t *testing.T) {
	t.Parallel()
	bed := newBed(t, time.Minute)
	founder, gate := bed.node("founder", nil), bed.node("gate", nil)
	alice := bed.node("alice", bed.Router("home-a", natlab.EIMAPDF))
	bob := bed.node("bob", bed.Router("home-b", natlab.EIMAPDF))
	carol := bed.node("carol", bed.Router("home-c", natlab.EIMAPDF))
	bed.must(Found(bed.ctx, "home", founder, gate))
	bed.must(Admit(bed.ctx, founder, alice, "--admin"))
	bed.meshed(founder, gate, alice)
	_, err := alice.Wait(bed.ctx, "gate is an anchor", func(s api.Status) bool {
		p, _ := Peer(s, gate.Name())
		return p.Anchor
	})
	bed.must(err)

	bed.step("the founder is lost")
	bed.kill(founder)
	bed.Cut(founder.Host)
	for _, n := range []*Node{bob, carol} {
		bed.step("%s joins", n.Name())
		bed.must(Admit(bed.ctx, alice, n))
	}
	rest := []*Node{gate, alice, bob, carol}
	bed.meshed(rest...)
	bed.connected(bob, carol, api.PathDirect) // they have met by way of gate alone
	bed.agreed(rest, "alice", "bob", "carol", "founder", "gate")

	bed.step("news goes round")
	before := bed.status(alice)
	_, err = alice.Invite(bed.ctx, "--tag", "late")
	bed.must(err)
	for _, n := range rest {
		_, err := n.Wait(bed.ctx, "the new invite is known", func(s api.Status) bool {
			return slices.ContainsFunc(s.Invites, func(i api.Invited) bool { return i.By == "alice" && slices.Equal(i.Tags, []string{"late"}) })
		})
		bed.must(err)
	}
	bed.step("an agent comes back without it")
	bed.must(bob.Stop())
	bed.must(bob.Start(bed.ctx))
	bed.meshed(rest...)
	if got, want := bed.status(alice).Mesh.Members, before.Mesh.Members; got != want {
		t.Errorf("members: got %d, want %d", got, want)
	}
	bed.step("end")
}
