// Package rings says which of many members keep sessions with each other, so that each has few and any two are near: it puts them in
// several orders that all compute alike, and neighbours in any of these belong together.
//
// The orders have nothing to do with each other, so that the graph is as good as a random one of the same degree: from each member
// (degree)³ others are at most three sessions away, and who comes or goes changes nothing but the places next to it.
//
// Who is among them, who dials whom and what is done when one does not answer is for the user. A Rings is not changed once it is made, and
// may be used concurrently.
package rings

import (
	"crypto/sha256"
	"slices"

	"warren/mesh/identity"
)

const (
	// Count is the number of orders; each gives two neighbours.
	Count = 4
	// Few members have sessions each with each: choosing would cost more.
	Few = 9
)

// Rings is a set of members in several orders.
type Rings struct {
	members []identity.NodeID // by ID
	orders  [Count][]placed
	next    map[identity.NodeID][]identity.NodeID // of each member, if there are more than few
}

// placed is a member with what its place in one order follows from.
type placed struct {
	key [sha256.Size]byte
	id  identity.NodeID
}

func (p placed) compare(other placed) int {
	if c := slices.Compare(p.key[:], other.key[:]); c != 0 {
		return c
	}
	return p.id.Compare(other.id)
}

// place returns where a member stands in one order. The first is that of the IDs.
func place(order int, id identity.NodeID) placed {
	if order == 0 {
		return placed{id, id}
	}
	return placed{sha256.Sum256(append([]byte{byte(order)}, id[:]...)), id}
}

// New puts members in order, each once.
func New(ids []identity.NodeID) *Rings {
	r := &Rings{members: slices.Clone(ids)}
	slices.SortFunc(r.members, identity.NodeID.Compare)
	r.members = slices.Compact(r.members)
	if len(r.members) <= Few {
		return r
	}
	for i := range r.orders {
		for _, id := range r.members {
			r.orders[i] = append(r.orders[i], place(i, id))
		}
		slices.SortFunc(r.orders[i], placed.compare)
	}
	next := make(map[identity.NodeID][]identity.NodeID, len(r.members))
	for _, order := range r.orders {
		for i, p := range order {
			for _, other := range [...]identity.NodeID{order[(i+1)%len(order)].id, order[(i+len(order)-1)%len(order)].id} {
				if !slices.Contains(next[p.id], other) {
					next[p.id] = append(next[p.id], other)
				}
			}
		}
	}
	r.next = next
	return r
}

// Len returns how many members there are.
func (r *Rings) Len() int { return len(r.members) }

// Has reports whether a node is among the members.
func (r *Rings) Has(id identity.NodeID) bool {
	_, found := slices.BinarySearchFunc(r.members, id, identity.NodeID.Compare)
	return found
}

// Walks returns, for each direction of each order, the members that a node meets there, up to so many. The node need not be a member: then it
// starts from where it would stand. Of few members each has a walk of its own.
func (r *Rings) Walks(from identity.NodeID, steps int) (walks [][]identity.NodeID) {
	if len(r.members) <= Few {
		for _, id := range r.members {
			if id != from {
				walks = append(walks, []identity.NodeID{id})
			}
		}
		return walks
	}
	for i, order := range r.orders {
		after, found := slices.BinarySearchFunc(order, place(i, from), placed.compare)
		before := after - 1
		if found {
			after++
		}
		n := len(order)
		var up, down []identity.NodeID
		for step := range min(steps, (n-1)/2) {
			up = append(up, order[(after+step)%n].id)
			down = append(down, order[(before-step+n)%n].id)
		}
		walks = append(walks, up, down)
	}
	return walks
}

// Neighbours returns the members that a node belongs to, each once. The list may not be changed.
func (r *Rings) Neighbours(of identity.NodeID) (out []identity.NodeID) {
	if list, ok := r.next[of]; ok {
		return list
	}
	for _, walk := range r.Walks(of, 1) {
		for _, id := range walk {
			if !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	}
	return out
}

// Chance returns a member other than the node, which follows from the seed; none if there are but few.
func (r *Rings) Chance(of identity.NodeID, seed []byte) (identity.NodeID, bool) {
	if len(r.members) <= Few {
		return identity.NodeID{}, false
	}
	at := identity.NodeID(sha256.Sum256(append(append([]byte{Count}, of[:]...), seed...)))
	i, _ := slices.BinarySearchFunc(r.members, at, identity.NodeID.Compare)
	id := r.members[i%len(r.members)]
	if id == of {
		id = r.members[(i+1)%len(r.members)]
	}
	return id, true
}
