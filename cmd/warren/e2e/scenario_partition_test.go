//go:build linux

package e2e

import (
	"slices"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestPartition parts a mesh into three and three, each with an anchor and an
// admin. Nodes join on both sides, two of them with one invite for one. When
// the sides meet again all agree: both are in, since times are stated by
// who admits; the invite is shown as used too often, and an admin throws
// one of them out without touching the other.
func TestPartition(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	leftHome, rightHome := bed.Router("left-home", natlab.EIMAPDF), bed.Router("right-home", natlab.EIMAPDF)
	leftGate, leftAdmin, leftUser := bed.node("left-gate", nil), bed.node("left-admin", leftHome), bed.node("left-user", leftHome)
	rightGate, rightAdmin, rightUser := bed.node("right-gate", nil), bed.node("right-admin", rightHome), bed.node("right-user", rightHome)
	leftNew, rightNew := bed.node("left-new", leftHome), bed.node("right-new", rightHome)
	early, late := bed.node("early", leftHome), bed.node("late", rightHome)
	left, right := []*Node{leftGate, leftAdmin, leftUser}, []*Node{rightGate, rightAdmin, rightUser}
	founders := slices.Concat(left, right)

	bed.must(Found(bed.ctx, "home", leftGate, leftUser, rightGate, rightUser))
	for _, n := range []*Node{leftAdmin, rightAdmin} {
		bed.must(Admit(bed.ctx, leftGate, n, "--admin"))
	}
	bed.meshed(founders...)
	shared, err := leftGate.NewInvite(bed.ctx) // for one machine
	bed.must(err)
	_, err = rightGate.Wait(bed.ctx, "the shared invite is known", func(s api.Status) bool {
		return slices.ContainsFunc(s.Invites, func(i api.Invited) bool { return i.ID == shared.ID })
	})
	bed.must(err)

	bed.step("partition")
	bed.Partition([]natlab.Attached{leftGate.Host, leftHome}, []natlab.Attached{rightGate.Host, rightHome})
	join := func(n *Node, token string) {
		bed.must(n.Join(bed.ctx, token))
		bed.must(n.Start(bed.ctx))
	}
	join(early, shared.Token)
	bed.must(Admit(bed.ctx, leftAdmin, leftNew))
	bed.must(Admit(bed.ctx, rightAdmin, rightNew))
	join(late, shared.Token)
	left, right = append(left, leftNew, early), append(right, rightNew, late)
	bed.step("both sides have grown")
	before := names(founders)
	bed.agreed(left, append(slices.Clone(before), "left-new", "early")...)
	bed.agreed(right, append(slices.Clone(before), "right-new", "late")...)
	bed.meshed(left...)
	bed.meshed(right...)

	bed.step("heal")
	bed.Heal()
	all := slices.Concat(left, right)
	bed.agreed(all, names(all)...)
	bed.step("all agree")
	bed.meshed(all...)
	for _, n := range all {
		_, err := n.Wait(bed.ctx, "the invite is shown as used twice", func(s api.Status) bool {
			return slices.ContainsFunc(s.Invites, func(i api.Invited) bool { return i.ID == shared.ID && i.Uses == 1 && i.Used == 2 })
		})
		bed.must(err)
	}
	bed.step("one of them is thrown out")
	_, err = leftAdmin.Warren(bed.ctx, "", "revoke", "late", "--reason", "invite used twice")
	bed.must(err)
	bed.endsWith(late, 2, "invite used twice")
	all = slices.DeleteFunc(all, func(n *Node) bool { return n == late })
	bed.agreed(all, names(all)...)
	bed.meshed(all...)
	bed.step("end")
}
