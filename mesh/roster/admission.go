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

// maxPending bounds the admissions whose node is not heard of yet.
const maxPending = 1024

// admissions decides on joiners, and remembers whom it has let in until they are heard of.
type admissions struct {
	// constant
	mesh     identity.MeshID
	set      *set
	standing *standing
	chains   *Chains

	pending map[identity.NodeID]pendingAdmission // given here, not in the set yet
}

func newAdmissions(mesh identity.MeshID, s *set, st *standing, c *Chains) *admissions {
	return &admissions{mesh: mesh, set: s, standing: st, chains: c, pending: make(map[identity.NodeID]pendingAdmission)}
}

// pendingAdmission is an admission given here to a node whose record has not come yet.
type pendingAdmission struct {
	cert      [32]byte // hash of the node's certificate
	invite    ref
	admission record.Admission
}

// heardOf is told of nodes whose records are in the set.
func (a *admissions) heardOf(nodes map[identity.NodeID]bool) {
	for id := range nodes {
		delete(a.pending, id)
	}
}

// admit countersigns a certificate that passes check, or repeats the admission given for it before.
func (a *admissions) admit(cert *x509.Certificate, key ed25519.PrivateKey, now time.Time) (record.Admission, *Refusal) {
	id := identity.NodeIDOfCert(cert)
	if admission, ok := a.givenBefore(cert); ok {
		return admission, nil
	}
	if refusal := a.check(cert, now); refusal != nil {
		return record.Admission{}, refusal
	}
	signer := a.set.nodes[identity.NodeIDOf(key.Public().(ed25519.PublicKey))]
	if signer == nil || a.standing.whyOut(signer) != nil || signer.Node.Left {
		return record.Admission{}, refuse(ReasonAdmission, "the node that was asked is not a member itself")
	}
	invite := a.set.invites.of(cert)
	at := a.time(signer, invite, now)
	if off := at.Sub(cert.NotBefore); off > identity.Skew {
		return record.Admission{}, refuse(ReasonClock, "the joiner's clock is %s behind the time of the mesh, at most %s is allowed",
			off.Round(time.Second), identity.Skew)
	}
	if at.After(invite.terms.Expires) {
		return record.Admission{}, inviteExpired(invite)
	}
	a.sweep(now)
	if len(a.pending) >= maxPending {
		return record.Admission{}, refuse(ReasonFull, "too many nodes are joining, try again later")
	}
	admission := record.SignAdmission(a.mesh, cert.Raw, at, key)
	a.pending[id] = pendingAdmission{cert: sha256.Sum256(cert.Raw), invite: invite.ref, admission: admission}
	return admission, nil
}

// time is now, or if clocks differ a second after the last admission of those that it rests on: all members judge
// admissions in the order of their times.
func (a *admissions) time(signer, invite *entry, now time.Time) time.Time {
	at := now.UTC().Truncate(time.Second)
	for _, on := range [...]*entry{signer, invite} {
		if last := time.Unix(on.order.time, 0).UTC(); on.order.time > rootOrder.time && !last.Before(at) {
			at = last.Add(time.Second)
		}
	}
	if at.Before(invite.Certificate.NotBefore) {
		at = invite.Certificate.NotBefore
	}
	return at
}

// givenBefore returns the admission that a certificate has already.
func (a *admissions) givenBefore(cert *x509.Certificate) (record.Admission, bool) {
	hash := sha256.Sum256(cert.Raw)
	id := identity.NodeIDOfCert(cert)
	if e := a.set.nodes[id]; e != nil && a.standing.whyOut(e) == nil && sha256.Sum256(e.Node.Certificate) == hash && !e.Node.Admission.IsZero() {
		return e.Node.Admission, true
	}
	if pending, ok := a.pending[id]; ok && pending.cert == hash && a.standing.revoked.refusal(identity.KeyID(id)) == nil {
		return pending.admission, true
	}
	return record.Admission{}, false
}

// check decides whether a joiner may be let in with this certificate, by what is known here.
func (a *admissions) check(cert *x509.Certificate, now time.Time) *Refusal {
	if err := identity.CheckForm(cert); err != nil {
		return refuse(ReasonMalformed, "%v", err)
	}
	id := identity.NodeIDOfCert(cert)
	if role := identity.RoleOf(cert); role != identity.RoleMember && role != identity.RoleAdmin {
		return refuse(ReasonMalformed, "certificate of a %s, want a node's", role)
	}
	invite := a.set.invites.of(cert)
	if invite == nil {
		return refuse(ReasonUnknownIssuer, "invite %s is not known here: it is of another mesh, or has not reached this member yet",
			identity.IssuerOf(cert).Short())
	}
	if refusal := a.standing.ofInvite(invite); refusal != nil {
		return refusal
	}
	if refusal := a.standing.revoked.refusal(identity.KeyID(id)); refusal != nil {
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
	if refusal := a.chains.checkJoiner(cert, invite.Certificate); refusal != nil {
		return refusal
	}
	if now.After(cert.NotAfter) {
		return refuse(ReasonExpired, "node %s: its certificate expired %s", id.Short(), textTime(cert.NotAfter))
	}
	if own := a.set.nodes[id]; own != nil && sha256.Sum256(own.Node.Certificate) != sha256.Sum256(cert.Raw) {
		return refuse(ReasonAlreadyAdmitted, "node %s was admitted %s already", id.Short(), textTime(own.Admitted()))
	}
	return a.checkRoom(id, invite, now)
}

// checkRoom checks that an invite has a use left, those given here lately counted.
func (a *admissions) checkRoom(id identity.NodeID, invite *entry, now time.Time) *Refusal {
	uses := a.set.usesBeside(id, invite.ref)
	for other, pending := range a.pending {
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
	users := a.set.users(invite.ref)
	return usedBy(id, invite, a.set.nodes[users[len(users)-1]])
}

// sweep forgets the admissions whose node has not shown up.
func (a *admissions) sweep(now time.Time) {
	for id, pending := range a.pending {
		if pendingOver(pending, now) {
			delete(a.pending, id)
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
