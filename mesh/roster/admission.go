package roster

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// pendingLife is how long an admission that was given counts as a use although its node has not been heard of. Should
// it turn up later, nothing is lost: the earlier admission wins.
const pendingLife = time.Hour

// pendingAdmission is an admission given here to a node whose record has not come yet.
type pendingAdmission struct {
	cert      [32]byte // hash of the node's certificate
	invite    ref
	admission record.Admission
}

// CheckAdmission decides whether a joiner may be let in with this certificate, by what is known here. It returns nil or
// a *Refusal that can be shown to the joiner.
func (r *Roster) CheckAdmission(cert *x509.Certificate, now time.Time) error {
	if refusal := r.checkAdmission(cert, now); refusal != nil {
		return refusal
	}
	return nil
}

// InviteOf returns the certificate of the invite with which a joiner's was made, nil when the set does not have it.
func (r *Roster) InviteOf(cert *x509.Certificate) *x509.Certificate {
	invite := r.invites[inviteRef(identity.IssuerOf(cert), cert.RawIssuer)]
	if invite == nil {
		return nil
	}
	return invite.Certificate
}

// Admit is CheckAdmission with the countersignature of the node whose key is given, which must be a member. It remembers the
// use until the node's record comes, so that two joiners cannot use up one use here. For a certificate that it admitted
// before, it returns the same admission again: a joiner that lost the answer may ask once more.
func (r *Roster) Admit(cert *x509.Certificate, key ed25519.PrivateKey, now time.Time) (record.Admission, error) {
	id := identity.NodeIDOfCert(cert)
	if admission, ok := r.admittedBefore(cert); ok {
		return admission, nil
	}
	if refusal := r.checkAdmission(cert, now); refusal != nil {
		return record.Admission{}, refusal
	}
	signer := r.nodes[identity.NodeIDOf(key.Public().(ed25519.PublicKey))]
	if signer == nil || r.whyOut(signer) != nil || signer.Node.Left {
		return record.Admission{}, refuse(ReasonAdmission, "the node that was asked is not a member itself")
	}
	invite := r.invites[inviteRef(identity.IssuerOf(cert), cert.RawIssuer)]
	at := r.admissionTime(signer, invite, now)
	if off := at.Sub(cert.NotBefore); off > identity.Skew {
		return record.Admission{}, refuse(ReasonClock, "the joiner's clock is %s behind the time of the mesh, at most %s is allowed",
			off.Round(time.Second), identity.Skew)
	}
	if at.After(invite.terms.Expires) {
		return record.Admission{}, inviteExpired(invite)
	}
	r.dropPending(now)
	if len(r.pending) >= maxPending {
		return record.Admission{}, refuse(ReasonFull, "too many nodes are joining, try again later")
	}
	admission := record.SignAdmission(r.mesh, cert.Raw, at, key)
	r.pending[id] = pendingAdmission{cert: sha256.Sum256(cert.Raw), invite: invite.ref, admission: admission}
	return admission, nil
}

// admissionTime is now, or if clocks differ a second after the admission of whoever it rests on: all members judge
// admissions in the order of their times.
func (r *Roster) admissionTime(signer, invite *entry, now time.Time) time.Time {
	at := now.UTC().Truncate(time.Second)
	for _, on := range [...]*entry{signer, invite.issuer} {
		if on != nil && !on.Admitted().Before(at) {
			at = on.Admitted().Add(time.Second)
		}
	}
	if at.Before(invite.Certificate.NotBefore) {
		at = invite.Certificate.NotBefore
	}
	return at
}

func (r *Roster) admittedBefore(cert *x509.Certificate) (record.Admission, bool) {
	hash := sha256.Sum256(cert.Raw)
	id := identity.NodeIDOfCert(cert)
	if e := r.nodes[id]; e != nil && r.whyOut(e) == nil && sha256.Sum256(e.Node.Certificate) == hash && !e.Node.Admission.IsZero() {
		return e.Node.Admission, true
	}
	if pending, ok := r.pending[id]; ok && pending.cert == hash && r.revokedText(identity.KeyID(id)) == nil {
		return pending.admission, true
	}
	return record.Admission{}, false
}

func (r *Roster) checkAdmission(cert *x509.Certificate, now time.Time) *Refusal {
	if err := identity.CheckForm(cert); err != nil {
		return refuse(ReasonMalformed, "%v", err)
	}
	id := identity.NodeIDOfCert(cert)
	if role := identity.RoleOf(cert); role != identity.RoleMember && role != identity.RoleAdmin {
		return refuse(ReasonMalformed, "certificate of a %s, want a node's", role)
	}
	invite := r.invites[inviteRef(identity.IssuerOf(cert), cert.RawIssuer)]
	if invite == nil {
		return refuse(ReasonUnknownIssuer, "invite %s is not known here: it is of another mesh, or has not reached this member yet",
			identity.IssuerOf(cert).Short())
	}
	if refusal := r.inviteRevoked(invite); refusal != nil {
		return refusal
	}
	if refusal := r.revokedText(identity.KeyID(id)); refusal != nil {
		return refusal
	}
	if now.After(invite.terms.Expires) {
		return inviteExpired(invite)
	}
	if off := now.Sub(cert.NotBefore); off.Abs() > identity.Skew {
		where := "behind"
		if off < 0 {
			where = "ahead of"
		}
		return refuse(ReasonClock, "the joiner's clock is %s %s that of the member it asked, at most %s is allowed",
			off.Abs().Round(time.Second), where, identity.Skew)
	}
	if refusal := r.chains.checkJoiner(cert, invite.Certificate); refusal != nil {
		return refusal
	}
	if now.After(cert.NotAfter) {
		return refuse(ReasonExpired, "node %s: its certificate expired %s", id.Short(), textTime(cert.NotAfter))
	}
	if own := r.nodes[id]; own != nil && sha256.Sum256(own.Node.Certificate) != sha256.Sum256(cert.Raw) {
		return refuse(ReasonAlreadyAdmitted, "node %s was admitted %s already", id.Short(), textTime(own.Admitted()))
	}
	return r.checkRoom(id, invite, now)
}

// checkRoom checks that an invite has a use left, those given here lately counted.
func (r *Roster) checkRoom(id identity.NodeID, invite *entry, now time.Time) *Refusal {
	uses := r.usesBeside(id, invite.ref)
	for other, pending := range r.pending {
		if other == id || pending.invite != invite.ref || pendingOver(pending, now) {
			continue
		}
		if uses++; uses >= invite.terms.Uses {
			return refuse(ReasonInviteUsed, "the invite was used by node %s at %s", other.Short(), textTime(time.Unix(pending.admission.Time, 0)))
		}
	}
	if uses < invite.terms.Uses {
		return nil
	}
	users := r.usersOf(invite.ref)
	return usedBy(id, invite, r.nodes[users[len(users)-1]])
}

func (r *Roster) dropPending(now time.Time) {
	for id, pending := range r.pending {
		if pendingOver(pending, now) {
			delete(r.pending, id)
		}
	}
}

func pendingOver(p pendingAdmission, now time.Time) bool {
	return now.Sub(time.Unix(p.admission.Time, 0)) > pendingLife
}

func inviteExpired(invite *entry) *Refusal {
	return refuse(ReasonInviteExpired, "invite %s expired %s", invite.keyID.Short(), textTime(invite.terms.Expires))
}

// reasonOf tells the errors of package identity apart.
func reasonOf(err error) Reason {
	switch {
	case errors.Is(err, identity.ErrCertificate):
		return ReasonMalformed
	case errors.Is(err, identity.ErrNotAllowed):
		return ReasonNotAllowed
	}
	return ReasonNotOfMesh
}
