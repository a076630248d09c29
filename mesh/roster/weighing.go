package roster

import (
	"maps"
	"slices"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// weighing decides once, for the set as it is, which revocations count. An admin may be one on several grounds, by its certificate and by
// promotions, each with admins above it; what it signs counts if it does so on one of them. All that is asked of a ground is about those
// above it, and those are ever fewer.
type weighing struct {
	set *set

	counts map[*entry][]*entry        // by ground: revocations of its holder that count on it
	hits   map[*entry]map[*entry]bool // by revocation: whether it hits a node
}

func newWeighing(s *set) *weighing {
	return &weighing{set: s, counts: make(map[*entry][]*entry), hits: make(map[*entry]map[*entry]bool)}
}

// of returns the revocations by a signer that count, some of them more than once.
func (w *weighing) of(signer identity.KeyID) []*entry {
	if signer == w.set.root {
		return w.signed(signer)
	}
	var all []*entry
	for _, ground := range w.set.grounds(identity.NodeID(signer)) {
		all = append(all, w.on(ground)...)
	}
	return all
}

func (w *weighing) signed(by identity.KeyID) []*entry {
	return slices.Collect(maps.Keys(w.set.revocations[by]))
}

// on returns the revocations that count on one ground of their signer: none of those above it has hit the ground, except
// in revocations that let them stand.
func (w *weighing) on(ground *entry) []*entry {
	if known, ok := w.counts[ground]; ok {
		return known
	}
	signed := w.signed(ground.keyID)
	if len(signed) > 0 {
		for _, above := range w.above(ground) {
			if w.hitsGround(above, ground) {
				signed = slices.DeleteFunc(signed, func(e *entry) bool {
					return !above.Revocation.KeepRevoked.Has(record.PrefixOf(e.Revocation.Target))
				})
			}
		}
	}
	w.counts[ground] = signed
	return signed
}

// above returns the revocations of the root, and of the admins above a ground as far as they count on the ground by which they are above it.
func (w *weighing) above(ground *entry) []*entry {
	all := w.signed(w.set.root)
	for up := range ground.above() {
		if !up.isInvite() {
			all = append(all, w.on(up)...)
		}
	}
	return all
}

// hitsGround reports whether a revocation hits what makes a node an admin: see revocations.
func (w *weighing) hitsGround(r, ground *entry) bool {
	switch {
	case ground == nil:
		return false
	case r.Revocation.Target == ground.keyID, w.hitsNode(r, w.set.nodes[identity.NodeID(ground.keyID)]):
		return true
	}
	return ground.isPromotion() && w.hitsGround(r, ground.issuer)
}

// hitsNode walks up what a node rests on, each node once.
func (w *weighing) hitsNode(r, e *entry) bool {
	known := w.hits[r]
	if known == nil {
		known = make(map[*entry]bool)
		w.hits[r] = known
	}
	hit, ok := known[e]
	if !ok {
		hit = r.isOf(e) || !e.byRoot() && !r.Revocation.Keep.Has(record.PrefixOf(e.Node.ID)) &&
			(r.isOf(e.issuer) || w.hitsGround(r, e.issuer.issuer) || w.hitsNode(r, w.set.admitter(e)))
		known[e] = hit
	}
	return hit
}

// isOf reports whether a revocation is of the key of a node or an invite, as a whole.
func (e *entry) isOf(other *entry) bool {
	return e.Revocation.Target == other.keyID && e.Revocation.Scope == record.ScopeWhole
}
