package roster

import (
	"slices"
	"testing"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// twin says what revocations come to straight from the rules of PROTOCOL.md, section 6.2: slowly, by asking of each revocation and each
// record anew, with nothing remembered, nothing shared and no lists made shorter. It takes from a roster only which records stand by
// themselves.
type twin struct {
	r    *Roster
	root identity.KeyID

	// the records, by how they name one another
	nodes       map[identity.NodeID]*entry
	certified   map[string]*entry // by key and subject
	grounds     map[identity.KeyID][]*entry
	revocations []*entry

	counting []*entry
}

func newTwin(r *Roster) *twin {
	w := &twin{
		r: r, root: identity.KeyIDOfCert(r.root), nodes: make(map[identity.NodeID]*entry), certified: make(map[string]*entry),
		grounds: make(map[identity.KeyID][]*entry),
	}
	for _, e := range r.set.records {
		if e.Revocation != nil {
			w.revocations = append(w.revocations, e)
		}
		if e.Certificate == nil {
			continue
		}
		if e.Node != nil {
			w.nodes[e.Node.ID] = e
		}
		w.certified[string(e.keyID[:])+string(e.Certificate.RawSubject)] = e
		if role := identity.RoleOf(e.Certificate); role == identity.RoleAdmin || role == identity.RolePromotion {
			w.grounds[e.keyID] = append(w.grounds[e.keyID], e)
		}
	}
	for _, e := range w.revocations {
		if w.counts(e) {
			w.counting = append(w.counting, e)
		}
	}
	return w
}

// issuerOf finds what certified something: nil for the root.
func (w *twin) issuerOf(e *entry) *entry {
	issuer := identity.IssuerOf(e.Certificate)
	return w.certified[string(issuer[:])+string(e.Certificate.RawIssuer)]
}

func (w *twin) node(id identity.NodeID) *entry { return w.nodes[id] }

func (w *twin) hitsNode(r record.Revocation, e *entry) bool {
	switch {
	case r.Target == e.keyID && r.Scope == record.ScopeWhole:
		return true
	case identity.IssuerOf(e.Certificate) == w.root || slices.Contains(r.Keep, record.PrefixOf(e.Node.ID)):
		return false
	}
	return w.hitsInvite(r, w.issuerOf(e)) || w.hitsNode(r, w.node(e.Node.Admission.Signer))
}

func (w *twin) hitsInvite(r record.Revocation, e *entry) bool {
	return r.Target == e.keyID && r.Scope == record.ScopeWhole || w.hitsGround(r, w.issuerOf(e))
}

func (w *twin) hitsGround(r record.Revocation, e *entry) bool {
	switch {
	case e == nil:
		return false
	case r.Target == e.keyID || w.hitsNode(r, w.node(identity.NodeID(e.keyID))):
		return true
	}
	return e.Node == nil && w.hitsGround(r, w.issuerOf(e))
}

// counts says it of a revocation on any ground of its signer, and countsOn of one.
func (w *twin) counts(e *entry) bool {
	if e.Signer == w.root {
		return true
	}
	return slices.ContainsFunc(w.grounds[e.Signer], func(ground *entry) bool { return w.countsOn(e, ground) })
}

func (w *twin) countsOn(e, ground *entry) bool {
	for _, other := range w.revocations {
		if !w.hitsGround(*other.Revocation, ground) || slices.Contains(other.Revocation.KeepRevoked, record.PrefixOf(e.Revocation.Target)) {
			continue
		}
		if other.Signer == w.root {
			return false
		}
		for up := w.issuerOf(ground); up != nil; up = w.issuerOf(up) {
			if up.terms.Uses == 0 && up.keyID == other.Signer && w.countsOn(other, up) {
				return false
			}
		}
	}
	return true
}

func (w *twin) isHit(hits func(record.Revocation) bool, byRoot bool) bool {
	return slices.ContainsFunc(w.counting, func(e *entry) bool { return (!byRoot || e.Signer == w.root) && hits(*e.Revocation) })
}

// fallen: it rests on what the root has revoked.
func (w *twin) fallen(e *entry) bool {
	switch {
	case e.Node != nil:
		return identity.IssuerOf(e.Certificate) != w.root && w.isHit(func(r record.Revocation) bool {
			return !slices.Contains(r.Keep, record.PrefixOf(e.Node.ID)) && (w.hitsInvite(r, w.issuerOf(e)) || w.hitsNode(r, w.node(e.Node.Admission.Signer)))
		}, true)
	case e.isInvite():
		return w.isHit(func(r record.Revocation) bool { return w.hitsGround(r, w.issuerOf(e)) }, true)
	case e.isPromotion():
		return w.isHit(func(r record.Revocation) bool { return w.hitsGround(r, e) }, true)
	case e.Signer == w.root || e.Revocation != nil && w.counts(e):
		return false
	}
	return !slices.ContainsFunc(w.grounds[e.Signer], func(ground *entry) bool {
		return !w.isHit(func(r record.Revocation) bool { return w.hitsGround(r, ground) }, true)
	})
}

// shows are the records that have not fallen, and all that these rest on.
func (w *twin) shows() map[*entry]bool {
	shown := make(map[*entry]bool)
	var show func(e *entry)
	show = func(e *entry) {
		if e == nil || shown[e] {
			return
		}
		shown[e] = true
		if e.Certificate == nil {
			if e.Signer != w.root {
				show(w.node(identity.NodeID(e.Signer)))
				for _, ground := range w.grounds[e.Signer] {
					show(ground)
				}
			}
			return
		}
		show(w.issuerOf(e))
		if e.isPromotion() {
			show(w.node(identity.NodeID(e.keyID)))
		}
		if e.Node != nil && !e.Node.Admission.IsZero() {
			show(w.node(e.Node.Admission.Signer))
		}
	}
	for _, e := range w.r.set.records {
		if !w.fallen(e) {
			show(e)
		}
	}
	return shown
}

// check holds a roster against its twin.
func (w *twin) check(t testing.TB) {
	t.Helper()
	counts := 0
	for _, e := range w.r.set.records {
		if e.Revocation != nil && w.r.standing.revoked.counting[e] {
			counts++
		}
	}
	if counts != len(w.counting) || len(w.r.Revoked()) != counts {
		t.Fatalf("%d revocations count, twin says %d", counts, len(w.counting))
	}
	shows := w.shows()
	for _, e := range w.r.set.records {
		if e.Revocation != nil && w.r.standing.revoked.counting[e] != w.counts(e) {
			t.Fatalf("revocation of %s by %s: counts=%v, twin says otherwise", e.Revocation.Target.Short(), e.Signer.Short(), !w.counts(e))
		}
		if e.hidden == shows[e] {
			t.Fatalf("%s by %s: hidden=%v, twin says otherwise", e.Kind, e.signedBy().Short(), e.hidden)
		}
		if e.isInvite() {
			if hit := w.isHit(func(r record.Revocation) bool { return w.hitsInvite(r, e) }, false); hit != (w.r.standing.ofInvite(e) != nil) {
				t.Fatalf("invite %s: ended=%v, twin says otherwise", e.keyID.Short(), !hit)
			}
		}
		if e.Node == nil {
			continue
		}
		if hit := w.isHit(func(r record.Revocation) bool { return w.hitsNode(r, e) }, false); hit != (e.out != nil) {
			t.Fatalf("node %s: out=%v, twin says otherwise", e.nodeName(), e.out)
		}
		signs := e.out == nil && slices.ContainsFunc(w.grounds[e.keyID], func(ground *entry) bool {
			return !w.isHit(func(r record.Revocation) bool { return w.hitsGround(r, ground) }, false)
		})
		if signs != w.r.standing.signs(e) {
			t.Fatalf("node %s: an admin=%v, twin says otherwise", e.nodeName(), !signs)
		}
	}
}
