package roster

import (
	"warren/mesh/identity"
	"warren/mesh/record"
)

// verdict is what judge says of a record.
type verdict byte

const (
	stands  verdict = iota // it belongs into the set
	waits                  // what it rests on is not in the set
	refused                // it does not stand, as things are
	forged                 // it can never stand
)

// judge decides whether a record belongs into the set, from the set as it is. It sets e.issuer. It looks at
// nothing that comes later in the order of compare, and not at revocations: a use of an invite stays consumed and an
// admission stays on record whatever is revoked later.
func (r *Roster) judge(e *entry) (verdict, *Refusal) {
	e.issuer = nil
	switch e.Kind {
	case record.KindNode:
		return r.judgeNode(e)
	case record.KindCertificate:
		return r.judgeInvite(e)
	}
	return r.judgeRevocation(e)
}

func (r *Roster) judgeInvite(e *entry) (verdict, *Refusal) {
	issuer := r.root
	if !e.byRoot() {
		admin := r.nodes[identity.NodeID(e.parent)]
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
		if err := r.prove(certClaim(e.Certificate, issuer)); err != nil {
			return forged, refuse(ReasonSignature, "invite %s: %v", e.keyID.Short(), err)
		}
		e.certOK = true
	}
	return stands, nil
}

func (r *Roster) judgeRevocation(e *entry) (verdict, *Refusal) {
	signer := r.root
	if !e.byRoot() {
		admin := r.nodes[identity.NodeID(e.parent)]
		if admin == nil {
			return waits, nil
		}
		e.issuer, signer = admin, admin.Certificate
		if !identity.IsAdmin(signer) {
			return refused, refuse(ReasonNotAdmin, "revocation of %s by %s, who is not an admin", e.Revocation.Target.Short(), admin.nodeName())
		}
	}
	if !e.signedOK {
		if err := r.prove(recordClaim(r.mesh, e.Signed, signer)); err != nil {
			return forged, refuse(ReasonSignature, "revocation of %s: %v", e.Revocation.Target.Short(), err)
		}
		e.signedOK = true
	}
	return stands, nil
}

func (r *Roster) judgeNode(e *entry) (verdict, *Refusal) {
	id := e.Node.ID.Short()
	if e.byRoot() {
		if err := identity.CheckLink(e.Certificate, r.root); err != nil {
			return forged, refuse(ReasonNotAllowed, "node %s: %v", id, err)
		}
		return r.judgeNodeSignature(e, nil)
	}
	invite := r.invites[e.parent]
	signer := r.nodes[e.Node.Admission.Signer]
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
	if verdict, refusal := r.judgeNodeSignature(e, signer); refusal != nil {
		return verdict, refusal
	}
	if refusal := r.checkUses(e, invite); refusal != nil {
		return refused, refusal
	}
	return stands, nil
}

// judgeNodeSignature checks the signatures of certificate and admission, once.
func (r *Roster) judgeNodeSignature(e, signer *entry) (verdict, *Refusal) {
	issuer := r.root
	if e.issuer != nil {
		issuer = e.issuer.Certificate
	}
	if !e.certOK {
		if err := r.prove(certClaim(e.Certificate, issuer)); err != nil {
			return forged, refuse(ReasonSignature, "certificate of node %s: %v", e.Node.ID.Short(), err)
		}
		e.certOK = true
	}
	if signer != nil && !e.signedOK {
		if err := r.prove(admissionClaim(r.mesh, e.Node, signer.Certificate)); err != nil {
			return forged, refuse(ReasonSignature, "node %s: %v", e.Node.ID.Short(), err)
		}
		e.signedOK = true
	}
	return stands, nil
}

// checkUses holds e against the uses of its invite: the earliest admissions win.
func (r *Roster) checkUses(e, invite *entry) *Refusal {
	if r.usesBeside(e.Node.ID, e.parent) < invite.terms.Uses {
		return nil // nobody has to give way
	}
	earlier := 0
	var last *entry
	for other := range r.rests[e.parent] {
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

// usesBeside counts the nodes of the set, other than id, that came by an invite.
func (r *Roster) usesBeside(id identity.NodeID, invite ref) int {
	uses := r.uses[invite]
	if own := r.nodes[id]; own != nil && own.parent == invite {
		uses--
	}
	return uses
}

// usedBy is the refusal of a node whose invite is used up, with last the latest that got in.
func usedBy(id identity.NodeID, invite, last *entry) *Refusal {
	if invite.terms.Uses == 1 {
		return refuse(ReasonInviteUsed, "node %s: its invite was used by %s at %s", id.Short(), last.nodeName(), textTime(last.Admitted()))
	}
	return refuse(ReasonInviteUsed, "node %s: all %d uses of its invite are taken, the last one by %s at %s", id.Short(), invite.terms.Uses,
		last.nodeName(), textTime(last.Admitted()))
}
