package roster

import (
	"crypto/x509"
	"net/netip"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// directory lists the members, and what each has: the name and the addresses by which the others know it, its routes.
type directory struct {
	// constant
	mesh     identity.MeshID
	prefix4  netip.Prefix
	standing *standing

	members []Member // nil before the first use
	byID    map[identity.NodeID]int
	as      uint64 // the state of standing that they are of
}

func newDirectory(root *x509.Certificate, mesh identity.MeshID, s *standing) *directory {
	d := &directory{mesh: mesh, standing: s}
	if terms, err := identity.RootTermsOf(root); err == nil {
		d.prefix4 = terms.Prefix4
	}
	return d
}

// all returns all members, those that have left included, in the order of their admission.
func (d *directory) all() []Member {
	if d.members == nil || d.as != d.standing.changes {
		d.read()
		d.as = d.standing.changes
	}
	return d.members
}

func (d *directory) find(id identity.NodeID) (Member, bool) {
	members := d.all()
	i, ok := d.byID[id]
	if !ok {
		return Member{}, false
	}
	return members[i], true
}

// read makes the list anew; the old one is in others' hands.
func (d *directory) read() {
	entries := d.standing.members()
	d.members, d.byID = make([]Member, len(entries)), make(map[identity.NodeID]int, len(entries))
	for i, e := range entries {
		d.members[i] = d.member(e)
		d.byID[e.Node.ID] = i
	}
	give(d.prefix4, d.mesh.Prefix6(), d.members)
}

func (d *directory) member(e *entry) Member {
	m := Member{
		ID: e.Node.ID, Record: *e.Node, Key: e.Key, Admin: d.standing.adminBy(e) != nil, AdmittedBy: e.Node.Admission.Signer,
		Admitted: e.Admitted(), Expires: e.Certificate.NotAfter.In(time.UTC), Addr6: identity.Addr6(d.mesh, e.Node.ID),
	}
	if e.issuer != nil {
		m.Tags, m.Invite = e.issuer.terms.Tags, e.issuer.keyID
	}
	if e.Node.Left {
		m.State = Left
	}
	m.Grant = d.grant(m.ID)
	return m
}

// grant returns the grant for a node that counts, or nil.
func (d *directory) grant(id identity.NodeID) *record.Grant {
	var best *entry
	for _, e := range d.standing.grants(id) {
		if best == nil || outranks(e, best) {
			best = e
		}
	}
	if best == nil {
		return nil
	}
	return best.Grant
}

// outranks reports whether a grant counts rather than one that comes before it in the order of their signers: the root's counts before all
// others, else one of a greater version, which was made knowing the other.
func outranks(e, before *entry) bool {
	return !before.byRoot() && e.Grant.Version > before.Grant.Version
}
