package roster

import (
	"bytes"
	"cmp"
	"slices"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// reach is what some revocations of a set hit.
//
// A revocation acts along what a node rests on: the member that admitted it, its invite, and what makes the maker of that an admin, up to
// the root. It hits its target, and what rests on something that it hits, except for those that it lists. It acts for good and whatever any
// times say, for these are the word of whoever signs.
//
//	root ─▶ founder ─▶ invite ─▶ admin ─▶ invite ─▶ node      certified
//	           ╰──────────────────▶╰───────────────▶╯         admitted
//	member ─▶ promotion (by an admin) ─▶ invite ─▶ node       what makes a member an admin is a ground of its own
type reach struct {
	set     *set                        // constant
	layer   layer                       // constant: where the entries of nodes have what hits them
	targets map[identity.KeyID][]*entry // by target, in no order
}

// layer tells two reaches apart, of which the entries of nodes keep the results.
type layer int

const (
	layerRoot layer = iota // the root's revocations: they decide on what is in the set
	layerAll               // all that count
	layers
)

func newReach(s *set, l layer) *reach {
	return &reach{set: s, layer: l, targets: make(map[identity.KeyID][]*entry)}
}

func (r *reach) add(e *entry) {
	r.targets[e.Revocation.Target] = append(r.targets[e.Revocation.Target], e)
}

func (r *reach) drop(e *entry) {
	target := e.Revocation.Target
	r.targets[target] = slices.DeleteFunc(slices.Clone(r.targets[target]), func(other *entry) bool { return other == e })
	if len(r.targets[target]) == 0 {
		delete(r.targets, target)
	}
}

// The three that follow return which of the revocations hit something: a node, as one that admits; an invite; what makes a node an admin. Those
// of nodes are kept in the entries, and must have been decided on before for what a node rests on. Lists are shared.

// ofNode says it of a node, and which of them do so by what it rests on rather than by being of the node itself.
func (r *reach) ofNode(e *entry) (hits, resting []*entry) {
	if !e.byRoot() {
		resting = join(r.ofInvite(e.issuer), r.kept(identity.KeyID(e.Node.Admission.Signer)))
		resting = unlessKept(resting, record.PrefixOf(e.Node.ID))
	}
	return reduce(join(r.whole(e.keyID), resting)), resting
}

func (r *reach) ofInvite(e *entry) []*entry {
	return reduce(join(r.whole(e.keyID), r.ofGround(e.issuer)))
}

// ofGround says it of a node with an admin's certificate, as far as that goes, or of a promotion; of nil, the root.
func (r *reach) ofGround(e *entry) []*entry {
	if e == nil {
		return nil
	}
	hits := join(r.power(e.keyID), r.kept(e.keyID))
	if e.isPromotion() {
		hits = join(hits, r.ofGround(e.issuer))
	}
	return reduce(hits)
}

// kept returns what was decided on a node.
func (r *reach) kept(id identity.KeyID) []*entry {
	if e := r.set.nodes[identity.NodeID(id)]; e != nil {
		return e.hits[r.layer]
	}
	return nil
}

// whole and power return the revocations of a key itself, and those of what makes a node an admin.
func (r *reach) whole(id identity.KeyID) []*entry { return r.ofScope(id, record.ScopeWhole) }
func (r *reach) power(id identity.KeyID) []*entry { return r.ofScope(id, record.ScopePower) }

func (r *reach) ofScope(id identity.KeyID, scope record.Scope) []*entry {
	all := r.targets[id]
	if !slices.ContainsFunc(all, func(e *entry) bool { return e.Revocation.Scope != scope }) {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(e *entry) bool { return e.Revocation.Scope != scope })
}

// join returns what is in either list, once. It makes no new list when one of them says it all.
func join(a, b []*entry) []*entry {
	if len(a) < len(b) {
		a, b = b, a
	}
	if len(b) == 0 {
		return a
	}
	seen := make(map[*entry]bool, len(a))
	for _, e := range a {
		seen[e] = true
	}
	more := slices.DeleteFunc(slices.Clone(b), func(e *entry) bool { return seen[e] })
	if len(more) == 0 {
		return a
	}
	return append(slices.Clone(a), more...)
}

// unlessKept leaves out the revocations that list who stays.
func unlessKept(hits []*entry, who record.Prefix) []*entry {
	kept := func(e *entry) bool { return e.Revocation.Keep.Has(who) }
	if !slices.ContainsFunc(hits, kept) {
		return hits
	}
	return slices.DeleteFunc(slices.Clone(hits), kept)
}

// reduce leaves out what says nothing more: below a revocation that keeps nobody all are out, however many others hit them. Of the root's one stays
// in any case, and the ones that it keeps somebody by, for what these hit is hidden.
func reduce(hits []*entry) []*entry {
	if len(hits) < 2 {
		return hits
	}
	var none, rootNone *entry
	for _, e := range hits {
		switch {
		case e.Revocation.Keep != nil:
		case e.byRoot() && (rootNone == nil || byTime(e, rootNone) < 0):
			rootNone = e
		case !e.byRoot() && (none == nil || byTime(e, none) < 0):
			none = e
		}
	}
	switch {
	case rootNone != nil:
		return []*entry{rootNone}
	case none != nil:
		return append(slices.DeleteFunc(slices.Clone(hits), func(e *entry) bool { return !e.byRoot() }), none)
	}
	return hits
}

// sameHits reports whether two lists have the same revocations.
func sameHits(a, b []*entry) bool { return len(a) == len(b) && len(join(a, b)) == len(a) }

func byTime(a, b *entry) int {
	return cmp.Or(cmp.Compare(a.Revocation.Time, b.Revocation.Time), bytes.Compare(a.Key[:], b.Key[:]))
}

// revocations are those of a set that count, and what they hit.
//
// A revocation by an admin is void if the root, or an admin above that admin, has hit its signer, and does not list it as one that
// goes on counting. Nobody is above who is above him, so this is decided from the root down. Whoever else revokes an
// admin puts it out as a member; but its revocations go on counting. So a stolen key cannot undo its own revocation by revoking whoever
// signed that, and two admins that revoke each other are both out.
type revocations struct {
	*reach
	counting map[*entry]bool
}

func newRevocations(s *set) *revocations {
	return &revocations{reach: newReach(s, layerAll), counting: make(map[*entry]bool)}
}

// read gathers them anew.
func (r *revocations) read() {
	r.reach, r.counting = newReach(r.set, layerAll), make(map[*entry]bool)
	w := newWeighing(r.set)
	for signer := range r.set.revocations {
		for _, e := range w.of(signer) {
			if !r.counting[e] {
				r.counting[e] = true
				r.add(e)
			}
		}
	}
}

// list returns those that count, by time.
func (r *revocations) list() []Revoked {
	var list []Revoked
	for e := range r.counting {
		list = append(list, Revoked{Revocation: *e.Revocation, Key: e.Key})
	}
	slices.SortFunc(list, func(a, b Revoked) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), bytes.Compare(a.Key[:], b.Key[:]))
	})
	return list
}

// refusal returns why a key is no good by itself, nil when it is not revoked.
func (r *revocations) refusal(id identity.KeyID) *Refusal {
	all := r.whole(id)
	if len(all) == 0 {
		return nil
	}
	return refuse(ReasonRevoked, "%s: %s", id.Short(), slices.MinFunc(all, byTime).revokedText())
}

// revokedText says who has revoked what, and why.
func (e *entry) revokedText() string {
	what := "revoked"
	if e.Revocation.Scope == record.ScopePower {
		what = "demoted"
	}
	by := "the root"
	if e.issuer != nil {
		by = e.issuer.nodeName()
	}
	text := what + " by " + by + " at " + textTime(e.Revocation.At())
	if e.Revocation.Reason != "" {
		text += ": " + e.Revocation.Reason
	}
	return text
}
