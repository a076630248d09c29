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
	if refusal != nil || e.Node == nil {
		return e, refusal
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
	e := &entry{Decoded: d}
	if d.Certificate != nil {
		e.keyID = identity.KeyIDOfCert(d.Certificate)
	}
	switch d.Kind {
	case record.KindNode:
		e.ref = ref(e.keyID)
		if issuer := identity.IssuerOf(d.Certificate); issuer != j.rootID {
			e.parent = inviteRef(issuer, d.Certificate.RawIssuer)
		}
		return e, j.checkNode(e)
	case record.KindCertificate:
		e.ref = inviteRef(e.keyID, d.Certificate.RawSubject)
		if issuer := identity.IssuerOf(d.Certificate); issuer != j.rootID {
			e.parent = ref(issuer)
		}
		terms, err := identity.TermsOf(d.Certificate)
		if err != nil {
			return nil, refuse(ReasonMalformed, "%v", err)
		}
		e.terms = terms
	case record.KindRevocation:
		if d.Revocation.Target == j.rootID {
			return nil, refuse(ReasonNotAllowed, "the root cannot be revoked")
		}
		if d.Signer != j.rootID {
			e.parent = ref(d.Signer)
		}
	}
	return e, nil
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
	if d.Kind == record.KindRevocation {
		return d.Signer == j.rootID || j.set.nodes[identity.NodeID(d.Signer)] != nil
	}
	issuer := identity.IssuerOf(d.Certificate)
	if issuer == j.rootID {
		return true
	}
	if d.Kind == record.KindCertificate {
		return j.set.nodes[identity.NodeID(issuer)] != nil
	}
	return j.set.invites.of(d.Certificate) != nil && j.set.nodes[d.Node.Admission.Signer] != nil
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

// rule decides whether a record belongs into the set, from the set as it is. It sets e.issuer. It looks at
// nothing that comes later in the order of compare, and not at revocations: a use of an invite stays consumed and an
// admission stays on record whatever is revoked later.
func (j *judge) rule(e *entry) (verdict, *Refusal) {
	e.issuer = nil
	switch e.Kind {
	case record.KindNode:
		return j.node(e)
	case record.KindCertificate:
		return j.invite(e)
	}
	return j.revocation(e)
}

func (j *judge) invite(e *entry) (verdict, *Refusal) {
	issuer := j.root
	if !e.byRoot() {
		admin := j.set.nodes[identity.NodeID(e.parent)]
		if admin == nil {
			return waits, nil
		}
		e.issuer, issuer = admin, admin.Certificate
	}
	if err := identity.CheckLink(e.Certificate, issuer); err != nil {
		return refused, refuse(ReasonNotAllowed, "invite %s: %v", e.keyID.Short(), err)
	}
	if e.depth() >= identity.MaxChain {
		return refused, refuse(ReasonFull, "invite %s: chain of more than %d certificates", e.keyID.Short(), identity.MaxChain)
	}
	if !e.certOK {
		if err := j.prove(certClaim(e.Certificate, issuer)); err != nil {
			return forged, refuse(ReasonSignature, "invite %s: %v", e.keyID.Short(), err)
		}
		e.certOK = true
	}
	return stands, nil
}

func (j *judge) revocation(e *entry) (verdict, *Refusal) {
	signer := j.root
	if !e.byRoot() {
		admin := j.set.nodes[identity.NodeID(e.parent)]
		if admin == nil {
			return waits, nil
		}
		e.issuer, signer = admin, admin.Certificate
		if !identity.IsAdmin(signer) {
			return refused, refuse(ReasonNotAdmin, "revocation of %s by %s, who is not an admin", e.Revocation.Target.Short(), admin.nodeName())
		}
	}
	if !e.signedOK {
		if err := j.prove(recordClaim(j.mesh, e.Signed, signer)); err != nil {
			return forged, refuse(ReasonSignature, "revocation of %s: %v", e.Revocation.Target.Short(), err)
		}
		e.signedOK = true
	}
	return stands, nil
}

func (j *judge) node(e *entry) (verdict, *Refusal) {
	id := e.Node.ID.Short()
	if e.byRoot() {
		if err := identity.CheckLink(e.Certificate, j.root); err != nil {
			return forged, refuse(ReasonNotAllowed, "node %s: %v", id, err)
		}
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
	case invite.issuer != nil && !invite.issuer.earlier(e):
		return refused, refuse(ReasonAdmission, "node %s was admitted before %s, who made its invite", id, invite.issuer.nodeName())
	}
	if verdict, refusal := j.signatures(e, signer); refusal != nil {
		return verdict, refusal
	}
	if refusal := j.checkUses(e, invite); refusal != nil {
		return refused, refusal
	}
	return stands, nil
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

// checkUses holds e against the uses of its invite: the earliest admissions win.
func (j *judge) checkUses(e, invite *entry) *Refusal {
	if j.set.usesBeside(e.Node.ID, e.parent) < invite.terms.Uses {
		return nil // nobody has to give way
	}
	earlier := 0
	var last *entry
	for other := range j.set.rests[e.parent] {
		if !other.in || other.Node.ID == e.Node.ID || !other.earlier(e) {
			continue
		}
		earlier++
		if last == nil || last.earlier(other) {
			last = other
		}
	}
	if earlier < invite.terms.Uses {
		return nil
	}
	return usedBy(e.Node.ID, invite, last)
}

// usedBy is the refusal of a node whose invite is used up, with last the latest that got in.
func usedBy(id identity.NodeID, invite, last *entry) *Refusal {
	if invite.terms.Uses == 1 {
		return refuse(ReasonInviteUsed, "node %s: its invite was used by %s at %s", id.Short(), last.nodeName(), textTime(last.Admitted()))
	}
	return refuse(ReasonInviteUsed, "node %s: all %d uses of its invite are taken, the last one by %s at %s", id.Short(), invite.terms.Uses,
		last.nodeName(), textTime(last.Admitted()))
}
