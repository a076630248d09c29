//go:build linux

package e2e

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestKilledWhileWriting kills each agent in turn with SIGKILL, at random
// moments while it makes and revokes invites: whatever it has confirmed holds
// afterwards, on all nodes.
func TestKilledWhileWriting(t *testing.T) {
	t.Parallel()
	const rounds = 3
	bed := newBed(t, 2*time.Minute)
	founder := bed.node("founder", nil)
	a := bed.node("a", bed.Router("home-a", natlab.EIMAPDF))
	b := bed.node("b", bed.Router("home-b", natlab.EIMAPDF))
	nodes := []*Node{founder, a, b}
	bed.must(founder.Create(bed.ctx, "home"))
	bed.must(founder.Start(bed.ctx))
	for _, n := range []*Node{a, b} {
		bed.must(Admit(bed.ctx, founder, n, "--admin"))
	}
	bed.meshed(nodes...)

	var all ledger
	for _, n := range nodes {
		for range rounds {
			wait := time.Duration(rand.Int64N(int64(time.Second)))
			bed.killAfter(n, wait, &all)
			bed.must(n.Start(bed.ctx))
			all.holdsOn(bed, n)
		}
	}
	bed.step("killed; %d invites and %d revocations were confirmed", len(all.invites), len(all.revoked))
	for _, n := range nodes {
		all.holdsOn(bed, n)
	}
	bed.agreed(nodes, names(nodes)...)
	bed.meshed(nodes...)

	bed.step("join with an invite that a killed agent has made")
	late := bed.node("late", nil)
	bed.must(late.Join(bed.ctx, all.open().Token))
	bed.must(late.Start(bed.ctx))
	nodes = append(nodes, late)
	bed.agreed(nodes, names(nodes)...)
	bed.meshed(nodes...)
}

// ledger is what agents have confirmed.
type ledger struct {
	mu      sync.Mutex
	invites []api.Invite
	revoked map[string]bool // IDs of invites
	doubt   map[string]bool // asked to be revoked, not confirmed: may be or not
}

// open returns an invite that nobody has tried to revoke.
func (l *ledger) open() api.Invite {
	for _, i := range l.invites {
		if !l.revoked[i.ID] && !l.doubt[i.ID] {
			return i
		}
	}
	return api.Invite{}
}

// killAfter has two persons make and revoke invites on the node as fast as
// they can, and kills its agent so long after it has confirmed the first.
func (b *bed) killAfter(n *Node, wait time.Duration, l *ledger) {
	b.t.Helper()
	var people sync.WaitGroup
	begun := make(chan struct{})
	var once sync.Once
	for range 2 {
		people.Go(func() {
			for l.write(b, n) {
				once.Do(func() { close(begun) })
			}
		})
	}
	select {
	case <-begun:
	case <-b.ctx.Done():
	}
	time.Sleep(wait) // the moment is random: there is nothing to wait for
	b.kill(n)
	people.Wait()
}

// write makes two invites and revokes one of them. It returns false when the
// agent does not answer any more.
func (l *ledger) write(b *bed, n *Node) bool {
	for i := range 2 {
		invite, err := n.NewInvite(b.ctx)
		if err != nil {
			return false
		}
		l.mu.Lock()
		l.invites = append(l.invites, invite)
		l.mu.Unlock()
		if i == 0 {
			continue
		}
		_, err = n.Warren(b.ctx, "", "revoke", "--invite", invite.ID)
		l.mu.Lock()
		if l.revoked == nil {
			l.revoked, l.doubt = make(map[string]bool), make(map[string]bool)
		}
		if err == nil {
			l.revoked[invite.ID] = true
		} else {
			l.doubt[invite.ID] = true
		}
		l.mu.Unlock()
		if err != nil {
			return false
		}
	}
	return true
}

// holdsOn waits until the node knows all that was confirmed.
func (l *ledger) holdsOn(b *bed, n *Node) {
	b.t.Helper()
	missing := ""
	_, err := n.Wait(b.ctx, "it knows all invites and revocations", func(s api.Status) bool {
		missing = l.missing(s)
		return missing == ""
	})
	if err != nil {
		b.t.Fatalf("%s: missing %s: %v", n.Name(), missing, err)
	}
}

func (l *ledger) missing(s api.Status) string {
	known := make(map[string]bool)
	for _, i := range s.Invites {
		known[i.ID] = true
	}
	for _, r := range s.Revoked {
		if !l.revoked[r.ID] && !l.doubt[r.ID] {
			return "nothing, but " + r.ID + " is revoked and nobody asked for it"
		}
		known[r.ID] = true
		if l.revoked[r.ID] {
			known["revoked "+r.ID] = true
		}
	}
	for _, i := range l.invites {
		if !known[i.ID] {
			return "invite " + i.ID
		}
	}
	for id := range l.revoked {
		if !known["revoked "+id] {
			return "revocation of " + id
		}
	}
	return ""
}
