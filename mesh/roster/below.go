package roster

import (
	"slices"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// below is who rests on a key: who would be hit by a revocation of it that keeps nobody.
type below struct {
	set  *set
	seen map[*entry]bool
	hit  []*entry // nodes
}

// find looks from the target down.
func (b *below) find(target identity.KeyID, scope record.Scope) {
	if e := b.set.nodes[identity.NodeID(target)]; e != nil {
		b.seen[e] = true
		for other := range b.set.rests[e.ref] {
			if other.Kind == record.KindCertificate || other.Node != nil && scope == record.ScopeWhole {
				b.take(other)
			}
		}
	}
	for _, e := range b.set.invites.records {
		if e.keyID == target && scope == record.ScopeWhole {
			b.take(e)
		}
	}
}

// take takes what is hit, and what rests on it.
func (b *below) take(first *entry) {
	stack := []*entry{first}
	for len(stack) > 0 {
		e := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if b.seen[e] || !e.in || e.hidden {
			continue
		}
		b.seen[e] = true
		if e.Node != nil {
			b.hit = append(b.hit, e)
		}
		if e.ref != (ref{}) {
			for other := range b.set.rests[e.ref] {
				stack = append(stack, other)
			}
		}
	}
}

// nodes returns those that are hit, in the order of their admission.
func (b *below) nodes() []identity.NodeID {
	slices.SortFunc(b.hit, (*entry).compare)
	ids := make([]identity.NodeID, len(b.hit))
	for i, e := range b.hit {
		ids[i] = e.Node.ID
	}
	return ids
}
