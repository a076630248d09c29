package roster

import (
	"crypto/x509"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// judge reads records and says which of them stand, from the set as it is. It changes nothing there but what an entry knows of itself:
// its issuer, and which of its signatures are right.
type judge struct {
	// constant
	root   *x509.Certificate
	rootID identity.KeyID
	mesh   identity.MeshID
	set    *set

	proven     map[claimID]error // of the batch that is being taken in: what came of its signatures; nil for a right one
	unprepared int               // signatures that had to be verified within a step
}

func newJudge(root *x509.Certificate, mesh identity.MeshID, s *set) *judge {
	return &judge{root: root, rootID: identity.KeyIDOfCert(root), mesh: mesh, set: s}
}

// newEntry is readEntry with a check of the one claim that needs no other record: what a node says of itself.
func (j *judge) newEntry(d record.Decoded) (*entry, *Refusal) {
	e, refusal := j.readEntry(d)
	if refusal != nil {
		return nil, refusal
	}
	if refusal := j.set.full(e); refusal != nil {
		return nil, refusal
	}
	if e.Node == nil {
		return e, nil
	}
	if err := j.prove(j.own(e)); err != nil {
		return nil, refuse(ReasonSignature, "node %s: %v", e.Node.ID.Short(), err)
	}
	return e, nil
}

// own is what a node's record claims by itself: that the node signed it and, unless that is known already, holds its WireGuard key.
func (j *judge) own(e *entry) claim {
	both, known := ownClaim(j.mesh, e.Decoded), j.set.nodes[e.Node.ID]
	_, done := j.proven[both.claimID] // for this batch, in which an earlier record may have made the key known
	if !done && known != nil && known.Node.WireGuardKey == e.Node.WireGuardKey && known.Node.WireGuardProof == e.Node.WireGuardProof {
		return recordClaim(j.mesh, e.Signed, e.Certificate)
	}
	return both
}

// readEntry reads what can be read from the record alone, and checks what can be checked without others and without verifying
// a signature: the times of an admission, say.
func (j *judge) readEntry(d record.Decoded) (*entry, *Refusal) {
	e := &entry{Decoded: d, order: parkedOrder}
	if d.Certificate != nil {
		e.keyID = identity.KeyIDOfCert(d.Certificate)
		e.parent = j.certifiedBy(d.Certificate)
	}
	switch d.Kind {
	case record.KindNode:
		e.ref, e.order = ref(e.keyID), order{time: e.Admitted().Unix(), id: e.Node.ID}
		return e, j.checkNode(e)
	case record.KindCertificate:
		e.ref = inviteRef(e.keyID, d.Certificate.RawSubject)
		if identity.RoleOf(d.Certificate) == identity.RolePromotion {
			break
		}
		terms, err := identity.TermsOf(d.Certificate)
		if err != nil {
			return nil, refuse(ReasonMalformed, "%v", err)
		}
		e.terms = terms
	case record.KindRevocation, record.KindGrant:
		if d.Revocation != nil && d.Revocation.Target == j.rootID {
			return nil, refuse(ReasonNotAllowed, "the root cannot be revoked")
		}
		if d.Signer != j.rootID {
			e.parent = ref(d.Signer)
		}
	}
	return e, nil
}

// certifiedBy is the ref of what a certificate rests on, zero for the root: the name of its issuer tells an admin's node from a promotion of it.
func (j *judge) certifiedBy(cert *x509.Certificate) ref {
	issuer := identity.IssuerOf(cert)
	switch role := identity.RoleOf(cert); {
	case issuer == j.rootID:
		return ref{}
	case (role == identity.RoleInvite || role == identity.RolePromotion) && identity.IsIssuedByNode(cert):
		return ref(issuer)
	}
	return inviteRef(issuer, cert.RawIssuer)
}

func (j *judge) checkNode(e *entry) *Refusal {
	admission := e.Node.Admission
	switch {
	case e.byRoot() && !admission.IsZero():
		return refuse(ReasonAdmission, "node %s is certified by the root and has an admission nevertheless", e.Node.ID.Short())
	case !e.byRoot() && admission.IsZero():
		return refuse(ReasonAdmission, "node %s has not been admitted by a member", e.Node.ID.Short())
	case admission.Signer == e.Node.ID:
		return refuse(ReasonAdmission, "node %s has admitted itself", e.Node.ID.Short())
	}
	if off := e.Admitted().Sub(e.Certificate.NotBefore).Abs(); off > identity.Skew {
		return refuse(ReasonClock, "node %s was admitted %s off the start of its certificate, at most %s is allowed",
			e.Node.ID.Short(), off, identity.Skew)
	}
	return nil
}

// hasBasis reports whether all that a record rests on is in the set.
func (j *judge) hasBasis(d record.Decoded) bool {
	if d.Certificate == nil {
		signer := j.set.nodes[identity.NodeID(d.Signer)]
		return d.Signer == j.rootID || signer != nil && j.set.isAdmin(signer)
	}
	by := j.certifiedBy(d.Certificate)
	switch {
	case d.Node != nil:
		return by == ref{} || j.set.invites.records[by] != nil && j.set.nodes[d.Node.Admission.Signer] != nil
	case by != ref{} && j.set.ground(by) == nil:
		return false
	}
	return identity.RoleOf(d.Certificate) == identity.RoleInvite || j.set.nodes[identity.NodeIDOfCert(d.Certificate)] != nil
}

// place finds the place of a record in the order of judging, anew when that of what it rests on has changed.
func (j *judge) place(e *entry) {
	if e.Node != nil {
		return // its own word
	}
	var basis []order
	for _, on := range [...]ref{e.parent, e.second()} {
		if on == (ref{}) {
			continue
		}
		by := j.set.promotions[on]
		if by == nil {
			by = j.set.nodes[identity.NodeID(on)]
		}
		if by == nil {
			e.order = parkedOrder
			return
		}
		basis = append(basis, by.order)
	}
	e.order = after(basis...)
}

// prove returns what came of a claim when the records of the step under way were verified, or verifies it now.
func (j *judge) prove(c claim) error {
	if err, ok := j.proven[c.claimID]; ok {
		return err
	}
	j.unprepared++
	return c.verify()
}

// verdict is what judge says of a record.
type verdict byte

const (
	stands  verdict = iota // it belongs into the set
	waits                  // what it rests on is not in the set
	refused                // it does not stand, as things are
	forged                 // it can never stand
)

// rule decides whether a record belongs into the set, from the set as it is. It sets e.issuer and e.order. It looks at
// nothing that comes later in the order of compare, and of revocations at the root's only, of which a node of the set bears the marks (see hide):
// an admission stays on record whatever is revoked later. Nor
// does it count the uses of an invite: that binds the members that admit, by what they know (see admissions). Whoever admits against it
// could as well admit through others of its own making; and if too many were put out here, it could choose whom, by dating back.
func (j *judge) rule(e *entry) (verdict, *Refusal) {
	e.issuer = nil
	j.place(e)
	switch e.Kind {
	case record.KindNode:
		return j.node(e)
	case record.KindCertificate:
		return j.certificate(e)
	}
	return j.statement(e)
}

// certificate rules on invites and promotions.
func (j *judge) certificate(e *entry) (verdict, *Refusal) {
	what, issuer := identity.RoleOf(e.Certificate), j.root
	if !e.byRoot() {
		by := j.set.ground(e.parent)
		if by == nil {
			by = j.set.nodes[identity.NodeID(e.parent)] // no admin: the step of the chain does not hold
		}
		if by == nil {
			return waits, nil
		}
		e.issuer, issuer = by, by.Certificate
	}
	if e.isPromotion() && j.set.nodes[identity.NodeID(e.keyID)] == nil {
		return waits, nil
	}
	if err := identity.CheckLink(e.Certificate, issuer); err != nil {
		return refused, refuse(ReasonNotAllowed, "%s %s: %v", what, e.keyID.Short(), err)
	}
	if e.depth() >= identity.MaxChain {
		return refused, refuse(ReasonFull, "%s %s: chain of more than %d certificates", what, e.keyID.Short(), identity.MaxChain)
	}
	if !e.certOK {
		if err := j.prove(certClaim(e.Certificate, issuer)); err != nil {
			return forged, refuse(ReasonSignature, "%s %s: %v", what, e.keyID.Short(), err)
		}
		e.certOK = true
	}
	return stands, nil
}

// statement rules on revocations and grants.
func (j *judge) statement(e *entry) (verdict, *Refusal) {
	signer := j.root
	if !e.byRoot() {
		admin := j.set.nodes[identity.NodeID(e.parent)]
		if admin == nil {
			return waits, nil
		}
		e.issuer, signer = admin, admin.Certificate
		if !j.set.isAdmin(admin) {
			return refused, refuse(ReasonNotAdmin, "%s, who is not an admin", e.statementName(admin.nodeName()))
		}
	}
	if !e.signedOK {
		if err := j.prove(recordClaim(j.mesh, e.Signed, signer)); err != nil {
			return forged, refuse(ReasonSignature, "%s: %v", e.statementName(e.Signer.Short()), err)
		}
		e.signedOK = true
	}
	return stands, nil
}

// statementName is how a revocation or a grant is called in texts.
func (e *entry) statementName(by string) string {
	if e.Grant != nil {
		return "grant for " + e.Grant.Node.Short() + " by " + by
	}
	return "revocation of " + e.Revocation.Target.Short() + " by " + by
}

func (j *judge) node(e *entry) (verdict, *Refusal) {
	id := e.Node.ID.Short()
	if e.byRoot() {
		if err := identity.CheckLink(e.Certificate, j.root); err != nil {
			return forged, refuse(ReasonNotAllowed, "node %s: %v", id, err)
		}
		j.weigh(e)
		return j.signatures(e, nil)
	}
	invite := j.set.invites.records[e.parent]
	signer := j.set.nodes[e.Node.Admission.Signer]
	if invite == nil || signer == nil {
		return waits, nil
	}
	e.issuer = invite
	if err := identity.CheckLink(e.Certificate, invite.Certificate); err != nil {
		return refused, refuse(reasonOf(err), "node %s: %v", id, err)
	}
	admitted := e.Admitted()
	switch {
	case admitted.Before(invite.Certificate.NotBefore) || admitted.After(invite.terms.Expires):
		return refused, refuse(ReasonInviteExpired, "node %s was admitted %s, its invite ended %s", id, textTime(admitted), textTime(invite.terms.Expires))
	case !signer.earlier(e):
		return refused, refuse(ReasonAdmission, "node %s was admitted by %s before that was a member", id, signer.nodeName())
	case admitted.After(signer.Certificate.NotAfter):
		return refused, refuse(ReasonAdmission, "node %s was admitted by %s, whose certificate had expired", id, signer.nodeName())
	case !invite.earlier(e):
		return refused, refuse(ReasonAdmission, "node %s was admitted before %s, by whose word it was invited", id, invite.order.id.Short())
	}
	if verdict, refusal := j.signatures(e, signer); refusal != nil {
		return verdict, refusal
	}
	j.weigh(e)
	return stands, nil
}

// weigh finds what the root's revocations say of a node that stands.
func (j *judge) weigh(e *entry) {
	hits, resting := j.set.rooted.ofNode(e)
	e.hits[layerRoot], e.fallen = hits, len(resting) > 0
}

// signatures checks the signatures of certificate and admission, once.
func (j *judge) signatures(e, signer *entry) (verdict, *Refusal) {
	issuer := j.root
	if e.issuer != nil {
		issuer = e.issuer.Certificate
	}
	if !e.certOK {
		if err := j.prove(certClaim(e.Certificate, issuer)); err != nil {
			return forged, refuse(ReasonSignature, "certificate of node %s: %v", e.Node.ID.Short(), err)
		}
		e.certOK = true
	}
	if signer != nil && !e.signedOK {
		if err := j.prove(admissionClaim(j.mesh, e.Node, signer.Certificate)); err != nil {
			return forged, refuse(ReasonSignature, "node %s: %v", e.Node.ID.Short(), err)
		}
		e.signedOK = true
	}
	return stands, nil
}

// usedBy is the refusal of a node whose invite is used up, with last the latest that got in.
func usedBy(id identity.NodeID, invite, last *entry) *Refusal {
	if invite.terms.Uses == 1 {
		return refuse(ReasonInviteUsed, "node %s: its invite was used by %s at %s", id.Short(), last.nodeName(), textTime(last.Admitted()))
	}
	return refuse(ReasonInviteUsed, "node %s: all %d uses of its invite are taken, the last one by %s at %s", id.Short(), invite.terms.Uses,
		last.nodeName(), textTime(last.Admitted()))
}
