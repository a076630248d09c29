package mesh

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// split grows a mesh of n nodes and cuts it into two halves that hold an invite each can use.
func split(t *testing.T, w *world, n, uses int) (left, right []*peer, seed [32]byte, invite identity.KeyID) {
	t.Helper()
	peers := w.grow(n)
	seed, invite = peers[0].invite(uses)
	agree(t, 30*time.Second, peers...)
	time.Sleep(time.Minute)
	left, right = slices.Clone(peers[:n/2]), slices.Clone(peers[n/2:])
	w.net.Partition(ids(left)...)
	return left, right, seed, invite
}

func TestPartitionWithJoinsOnBothSidesHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 15*time.Millisecond)
		left, right, seed, _ := split(t, w, 6, 10)
		time.Sleep(10 * time.Minute)
		for i := range 2 {
			l := w.mustJoin(fmt.Sprintf("left%d", i), left[i], seed).start()
			w.net.LinkAll(append(ids(left), l.id)...)
			left = append(left, l)
			r := w.mustJoin(fmt.Sprintf("right%d", i), right[i], seed).start()
			w.net.LinkAll(append(ids(right), r.id)...)
			right = append(right, r)
		}
		time.Sleep(10 * time.Minute)
		if got := activeMembers(left[0].Mesh); got != 8 {
			t.Errorf("members on the left: got %d, want 8", got)
		}
		if state, _ := left[0].Alive(right[0].id); state != Dead {
			t.Errorf("a node across: got %s, want dead", state)
		}

		// A single link, between two nodes that have never heard of each other.
		all := append(append([]*peer(nil), left...), right...)
		w.net.Link(left[len(left)-1].id, right[len(right)-1].id)
		took := agree(t, 60*time.Second, all...)
		t.Logf("10 nodes agree %s after one link came up, %+v", took, w.net.Traffic())
		for _, p := range all {
			if got := activeMembers(p.Mesh); got != 10 {
				t.Errorf("%s: got %d members, want 10", p.name, got)
			}
			if fatal := fatalOf(p); fatal != nil {
				t.Errorf("%s: got %v, want it to go on", p.name, fatal)
			}
		}
		eventually(t, 5*time.Minute, "everyone to seem alive again", func() bool {
			for _, p := range all {
				for _, other := range all {
					if state, _ := p.Alive(other.id); state != Alive {
						return false
					}
				}
			}
			return true
		})
	})
}

// One use, two joiners, two partitions: nobody is put out by what others did, and everybody sees that the invite was used twice.
func TestSingleUseInviteInBothPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 15*time.Millisecond)
		left, right, seed, invite := split(t, w, 6, 1)
		first := w.mustJoin("first", right[0], seed).start()
		w.net.LinkAll(append(ids(right), first.id)...)
		time.Sleep(30 * time.Second)
		second := w.mustJoin("second", left[0], seed).start()
		w.net.LinkAll(append(ids(left), second.id)...)
		time.Sleep(time.Minute)
		if got := activeMembers(left[1].Mesh); got != 7 {
			t.Fatalf("members on the left before: got %d, want 7", got)
		}
		all := append(append([]*peer{first, second}, left...), right...)
		w.net.Link(left[2].id, right[2].id)
		took := agree(t, 60*time.Second, all...)
		t.Logf("agreed after %s", took)
		for _, p := range all {
			if got := activeMembers(p.Mesh); got != 8 {
				t.Errorf("%s: got %d members, want 8", p.name, got)
			}
			for _, i := range p.View().Invites {
				if i.ID == invite && (len(i.Used) != 2 || i.Used[0] != first.id || i.Used[1] != second.id) {
					t.Errorf("%s: invite used by %v, want both", p.name, i.Used)
				}
			}
			if fatal := fatalOf(p); fatal != nil {
				t.Errorf("%s: got %v, want it to go on", p.name, fatal)
			}
		}
		if _, err := w.join("third", left[0], seed); err == nil {
			t.Error("a third joiner: got no error, want the invite used")
		}
	})
}

func TestRevocationSpreadsAndStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 20*time.Millisecond)
		peers := w.grow(12)
		agree(t, 30*time.Second, peers...)
		// A star: all hang on three anchors, the revoking admin too.
		anchors, rest := peers[1:4], append([]*peer{peers[0]}, peers[4:]...)
		for _, a := range anchors {
			if err := a.Update(func(own *record.Node) { own.Endpoints = endpoints("192.0.2.1:9277") }); err != nil {
				t.Fatal(err)
			}
		}
		for i, a := range rest {
			for _, b := range rest[:i] {
				w.net.Cut(a.id, b.id)
			}
		}
		time.Sleep(time.Minute)
		target := rest[len(rest)-1]
		key, err := peers[0].Revoke(identity.KeyID(target.id), "laptop stolen", false)
		if err != nil {
			t.Fatal(err)
		}
		took := eventually(t, 5*time.Second, "the revocation everywhere", func() bool {
			for _, p := range peers {
				if _, ok := p.View().Member(target.id); ok {
					return false
				}
			}
			return true
		})
		if took > gossipEvery {
			t.Errorf("revocation: got %s, want within a gossip round", took)
		}
		t.Logf("revoked everywhere after %s", took)
		fatal := fatalOf(target)
		if fatal == nil || fatal.Reason != roster.ReasonRevoked || !strings.Contains(fatal.Text, "laptop stolen") {
			t.Errorf("the revoked node: got %v, want the reason", fatal)
		}
		confirmed := peers[0].Confirmed(t.Context(), key)
		if len(confirmed) != 10 {
			t.Errorf("confirmed: got %d answers, want 10", len(confirmed))
		}
		for id, has := range confirmed {
			if !has {
				t.Errorf("%s has not confirmed", id.Short())
			}
		}

		if _, err := peers[5].VerifyChain(target.chain); roster.ReasonOf(err) != roster.ReasonRevoked {
			t.Errorf("handshake of the revoked: got %v, want revoked", err)
		}
		peers[5].stop()
		peers[5].start()
		if _, err := peers[5].VerifyChain(target.chain); roster.ReasonOf(err) != roster.ReasonRevoked {
			t.Errorf("after a restart: got %v, want revoked", err)
		}
		r, ok := peers[5].View().RevokedNode(target.id)
		if !ok || !strings.Contains(r.Text(), "revoked by n0") || !strings.Contains(r.Text(), "laptop stolen") {
			t.Errorf("view: got %q, want who revoked and why", r.Text())
		}
	})
}
