package session

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"warren/mesh/identity"
)

// Roster is what the records say of members, as far as sessions have to know. It is asked for each message, from many goroutines, so
// it must not wait.
type Roster interface {
	// Member reports whether a node is an active member, which its chain alone does not prove. Others may speak for themselves, but
	// forward nothing, and nothing is forwarded by them.
	Member(id identity.NodeID) bool
	// Anchor reports whether strangers can reach a node: many others have sessions with it then.
	Anchor(id identity.NodeID) bool
	// AnchorsOf returns the members that dst keeps sessions with, best first: those that it says, and those that it ought to.
	AnchorsOf(dst identity.NodeID) []identity.NodeID
	// Spent reports whether all uses of an invite are taken, as far as the records tell.
	Spent(invite identity.KeyID) bool
}

// everybody is the roster of those who are not told one: all are members, and nothing more is known of them.
type everybody struct{}

func (everybody) Member(identity.NodeID) bool                 { return true }
func (everybody) Anchor(identity.NodeID) bool                 { return false }
func (everybody) AnchorsOf(identity.NodeID) []identity.NodeID { return nil }
func (everybody) Spent(identity.KeyID) bool                   { return false }

// maxHopsTried bounds the members among which a way is looked for.
const maxHopsTried = 8

// Preferred returns the active members with which there is a session now: anchors first, nearest first.
func (s *Sessions) Preferred() []identity.NodeID {
	links := s.router.preferred()
	ids := make([]identity.NodeID, len(links))
	for i, l := range links {
		ids[i] = l.id
	}
	return ids
}

// Await returns the underlay address of the far side of the session with a node as soon as there is one. It does not make anybody
// dial: that is for SetTargets. The error wraps ErrNoRoute when ctx ended before.
func (s *Sessions) Await(ctx context.Context, id identity.NodeID) (netip.AddrPort, error) {
	for {
		came := s.table.nextCame()
		if remote, ok := s.Remote(id); ok {
			return remote, nil
		}
		select {
		case <-came:
		case <-ctx.Done():
			return netip.AddrPort{}, fmt.Errorf("await session with %s: %w: %w", id.Short(), ErrNoRoute, context.Cause(ctx))
		}
	}
}

// preferred returns the links with active members, in the order of Preferred.
func (r *router) preferred() []*link {
	links := slices.DeleteFunc(r.table.current(), func(l *link) bool { return !r.roster.Member(l.id) })
	anchors := make(map[*link]bool, len(links))
	for _, l := range links {
		anchors[l] = r.roster.Anchor(l.id)
	}
	slices.SortFunc(links, func(a, b *link) int {
		if anchors[a] != anchors[b] {
			if anchors[a] {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.near, b.near), a.id.Compare(b.id))
	})
	return links
}

// hops iterates over the links by which dst may be reached, best first: those to its own anchors, then those to members that have
// one of these among theirs, then to others as preferred says; first those that no check is under way of. Those to dst itself and to the members in not are left out. They are taken from the live
// table, so that whoever has just come can be answered by the way on which it came.
//
// At the source of a message, where nobody else would find a way, the fastest session serves as a last resort, even with a node that
// is not known as a member: who has lost its records knows nobody.
func (r *router) hops(dst identity.NodeID, source bool, not ...identity.NodeID) iter.Seq[*link] {
	return func(yield func(*link) bool) {
		taken := append([]identity.NodeID{dst, r.self}, not...)
		left := maxHopsTried
		var doubtful []*link
		try := func(l *link) bool {
			if l == nil || left == 0 || slices.Contains(taken, l.id) {
				return true
			}
			taken, left = append(taken, l.id), left-1
			if l.pulse.doubtful() {
				doubtful = append(doubtful, l)
				return true
			}
			return yield(l)
		}
		near := r.roster.AnchorsOf(dst)
		for _, id := range near {
			if r.roster.Member(id) && !try(r.table.link(id)) {
				return
			}
		}
		links := r.preferred()
		if source {
			for _, l := range links {
				leads := slices.ContainsFunc(r.roster.AnchorsOf(l.id), func(id identity.NodeID) bool { return slices.Contains(near, id) })
				if leads && !try(l) {
					return
				}
			}
		}
		for _, l := range links {
			if !try(l) {
				return
			}
		}
		for _, l := range doubtful {
			if !yield(l) {
				return
			}
		}
		if left == maxHopsTried && source {
			if l := r.lastResort(dst); l != nil {
				yield(l)
			}
		}
	}
}

// lastResort returns the fastest link that there is, but for that to dst.
func (r *router) lastResort(dst identity.NodeID) (best *link) {
	for _, l := range r.table.links(identity.NodeID{}) {
		if l.id != dst && (best == nil || l.better(best)) {
			best = l
		}
	}
	return best
}
