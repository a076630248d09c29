//go:build linux

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestManyJoinsAtOnce has twelve machines join at once with an invite for three, six on each side of a partition. On each side three get in and the
// others are told why not; admissions bind whoever gave them, so that all six are members once the sides meet, the invite is shown as used too
// often, all agree, and no machine is a member that was told otherwise.
func TestManyJoinsAtOnce(t *testing.T) {
	t.Parallel()
	b := bedWith(t, buildPlain, 2*time.Minute)
	left, right := b.node("left", nil), b.node("right", nil)
	b.must(Found(b.ctx, "home", left, right))
	invite, err := left.NewInvite(b.ctx, "--uses", "3")
	b.must(err)
	for _, n := range []*Node{left, right} {
		_, err = n.Wait(b.ctx, "the invite is known", func(s api.Status) bool {
			return slices.ContainsFunc(s.Invites, func(i api.Invited) bool { return i.ID == invite.ID })
		})
		b.must(err)
	}
	homes := []*natlab.Router{b.Router("left-home", natlab.EIMAPDF), b.Router("right-home", natlab.EIMAPDF)}
	var joiners []*Node
	for i := range 12 {
		joiners = append(joiners, b.node(fmt.Sprintf("%s%d", []string{"l", "r"}[i%2], i/2), homes[i%2]))
	}
	b.Partition([]natlab.Attached{left.Host, homes[0]}, []natlab.Attached{right.Host, homes[1]})
	b.step("twelve join")
	var all sync.WaitGroup
	outcomes := make([]error, len(joiners))
	for i, n := range joiners {
		all.Go(func() { outcomes[i] = n.Join(b.ctx, invite.Token) })
	}
	all.Wait()
	usedUp := func(err error) bool { // a use may be taken by a machine that joins at this moment
		return err != nil && (strings.Contains(err.Error(), "all 3 uses of its invite are taken") || strings.Contains(err.Error(), "the invite was used by node"))
	}
	in := []string{"left", "right"}
	sides := make(map[byte]int)
	for i, n := range joiners {
		if outcomes[i] == nil {
			in = append(in, n.Name())
			sides[n.Name()[0]]++
		} else if !usedUp(outcomes[i]) {
			t.Errorf("%s: got %v, want it told that the invite is used up", n.Name(), outcomes[i])
		}
	}
	b.step("members now: %v", in)
	if sides['l'] != 3 || sides['r'] != 3 {
		t.Errorf("got %v let in, want three on each side", sides)
	}
	b.Heal()
	gates := []*Node{left, right}
	b.agreed(gates, in...)
	for _, n := range gates {
		_, err := n.Wait(b.ctx, "the invite is shown as used six times", func(s api.Status) bool {
			return slices.ContainsFunc(s.Invites, func(i api.Invited) bool { return i.ID == invite.ID && i.Uses == 3 && i.Used == 6 })
		})
		b.must(err)
	}
	b.step("both agree")
	for i, n := range joiners {
		if outcomes[i] == nil {
			b.must(n.Start(b.ctx))
			b.agreed([]*Node{left, n}, in...)
			break // the others are no different
		}
	}
	for i, n := range joiners {
		if outcomes[i] != nil {
			if err := n.Join(b.ctx, invite.Token); !usedUp(err) {
				t.Errorf("%s once more: got %v, want it told that the invite is used up", n.Name(), err)
			}
			if left, err := n.stateLeft(); err != nil || slices.ContainsFunc(left, func(s string) bool { return !strings.HasPrefix(s, ".") }) {
				t.Errorf("%s, which is no member, has %v, %v", n.Name(), left, err)
			}
			break
		}
	}
	b.agreed(gates, in...)
}
