//go:build linux

package e2e

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestRestart stops and starts each agent in turn: it takes its interface with
// it, and comes back as the same node with tunnels to all.
func TestRestart(t *testing.T) {
	t.Parallel()
	bed := newBed(t, time.Minute)
	founder := bed.node("founder", nil)
	a := bed.node("a", bed.Router("home-a", natlab.EIMAPDF))
	b := bed.node("b", bed.Router("home-b", natlab.EIMAPDF))
	nodes := []*Node{founder, a, b}
	bed.step("found")
	bed.must(Found(bed.ctx, "home", founder, a, b))
	bed.meshed(nodes...)
	_, err := founder.Invite(bed.ctx)
	bed.must(err)
	for _, n := range nodes {
		before, err := n.Wait(bed.ctx, "the invite is known", func(s api.Status) bool { return len(s.Invites) == 1 })
		bed.must(err)
		bed.step("restart %s", n.Name())
		bed.must(n.Stop())
		if bed.hasLink(n, before.Self.Interface) {
			t.Errorf("%s: %s is there without the agent", n.Name(), before.Self.Interface)
		}
		bed.must(n.Start(bed.ctx))
		after := bed.status(n)
		if got, want := lasting(after), lasting(before); !reflect.DeepEqual(got, want) {
			t.Errorf("%s after its restart: got %+v, want %+v", n.Name(), got, want)
		}
		if after.Mesh.Records < before.Mesh.Records {
			t.Errorf("%s after its restart: %d records, %d before", n.Name(), after.Mesh.Records, before.Mesh.Records)
		}
		bed.meshed(nodes...)
	}
	bed.step("end")
}

// lasting is what of a status has to be the same after a restart. Records are
// not in it: those of others may come at any moment, as a grant by an admin does.
func lasting(s api.Status) any {
	type place struct{ id, name, key string }
	self := s.Self
	slices.Sort(self.Tags)
	all := []place{{self.ID, self.Name, self.PublicKey}}
	for _, p := range s.Peers {
		all = append(all, place{p.ID, p.Name, p.PublicKey})
	}
	mesh := *s.Mesh
	mesh.Records, mesh.Syncing = 0, 0
	return []any{mesh, all, self.Addresses, self.Admin, self.Tags, self.Port, s.Invites, s.Revoked}
}
