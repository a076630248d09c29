package mesh

import (
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/mesh/join"
	"warren/mesh/record"
	"warren/mesh/roster"
	"warren/mesh/store"
	"warren/nat/limit"
)

// Admission lets joiners in; package join asks it. It keeps the admissions given here on disk until their nodes are heard of. All methods
// may be called concurrently.
type Admission struct {
	// constant
	key    ed25519.PrivateKey
	self   identity.NodeID
	meshID identity.MeshID
	book   *book
	intake *intake
	drops  *drops
	log    *slog.Logger

	lines   limit.Lines[identity.NodeID] // of admissions
	pending pendings                     // guarded by the book's lock
}

var _ join.Member = (*Admission)(nil)

// Admit checks the certificate that a joiner made with an invite, and countersigns it. The admission is on disk when Admit returns, so that
// the invite cannot be used twice here. Repeated with one certificate it gives one answer. Refusals are *join.Refusal.
func (a *Admission) Admit(cert *x509.Certificate) (record.Admission, error) {
	admission, err := a.admit(cert, time.Now())
	if err != nil {
		a.drops.add("join: " + roster.ReasonOf(err).String())
		return record.Admission{}, joinRefusal(err)
	}
	if err := a.book.save(); err != nil {
		a.drops.add("join: not kept")
		return record.Admission{}, refuseJoin(join.CodeBusy, "the member that was asked cannot write to its disk, and admits nobody until it can: ask another one")
	}
	node := identity.NodeIDOfCert(cert)
	if skipped, due := a.lines.Due(time.Now(), node); due { // who breaks off may come again and again
		a.log.Info("node admitted", "id", node.Short(), "invite", identity.IssuerOf(cert).Short(), "skipped", skipped)
	}
	return admission, nil
}

// admit checks a joiner's certificate and countersigns it, or repeats the admission given for it before.
func (a *Admission) admit(cert *x509.Certificate, now time.Time) (record.Admission, error) {
	if err := a.checkJoiner(cert); err != nil {
		return record.Admission{}, err
	}
	a.book.mu.Lock()
	defer a.book.mu.Unlock()
	node, invite, name := identity.NodeIDOfCert(cert), identity.IssuerOf(cert), cert.Issuer.CommonName
	if _, ok := a.book.roster.Member(a.self); !ok {
		return record.Admission{}, refuseJoin(join.CodeBusy, "the member that was asked has not yet caught up with its mesh: try again in a minute")
	}
	a.pending = slices.DeleteFunc(a.pending, func(p pending) bool {
		known, ok := a.book.roster.Member(p.Node)
		return ok && known.Invite == p.Invite || now.Unix() > p.Expires
	})
	again := slices.IndexFunc(a.pending, func(p pending) bool { return p.Node == node && string(p.Cert) == string(cert.Raw) })
	if again >= 0 && a.book.roster.CheckAdmission(cert, time.Unix(a.pending[again].Time, 0)) == nil {
		return record.SignAdmission(a.meshID, cert.Raw, time.Unix(a.pending[again].Time, 0), a.key), nil
	}
	terms, err := a.checkPending(node, invite, name)
	if err != nil {
		return record.Admission{}, err
	}
	admission, err := a.book.roster.Admit(cert, a.key, now)
	if err != nil {
		return record.Admission{}, err
	}
	a.pending = append(a.pending, pending{Node: node, Invite: invite, Name: name, Cert: cert.Raw, Time: admission.Time, Expires: terms.Expires.Unix()})
	return admission, a.pending.save(a.book.saver)
}

// checkJoiner verifies, without the lock, that a certificate was made with its invite. What else is wrong with it, and that the invite is not
// known, is found later.
func (a *Admission) checkJoiner(cert *x509.Certificate) error {
	if identity.CheckForm(cert) != nil {
		return nil
	}
	a.book.mu.Lock()
	invite := a.book.roster.InviteOf(cert)
	a.book.mu.Unlock()
	if invite == nil {
		return nil
	}
	return a.book.chains.CheckJoiner(cert, invite)
}

// checkPending counts the uses of an invite that the set does not show yet.
func (a *Admission) checkPending(node identity.NodeID, invite identity.KeyID, name string) (identity.InviteTerms, error) {
	var status roster.InviteStatus
	for _, s := range a.book.roster.Invites() {
		if s.KeyID == invite && s.Name == name {
			status = s
		}
	}
	taken := make(map[identity.NodeID]bool)
	for _, id := range status.Used {
		taken[id] = true
	}
	var last pending
	same := 0
	for _, p := range a.pending {
		if p.Invite == invite && p.Name == name && p.Node != node {
			taken[p.Node], last = true, p
			same++
		}
	}
	delete(taken, node)
	switch {
	case last.Time != 0 && len(taken) >= status.Terms.Uses:
		return status.Terms, refuseJoin(join.CodeUsed, "the invite was used by node %s at %s, which has not finished joining yet: ask for a new invite",
			last.Node.Short(), time.Unix(last.Time, 0).UTC().Format("2006-01-02 15:04:05 UTC"))
	case same >= maxPendingOfOne || len(a.pending) >= maxPending:
		return status.Terms, refuseJoin(join.CodeBusy, "the member that was asked has %d unfinished admissions, %d of them by this invite: try again later, or another member", len(a.pending), same)
	}
	return status.Terms, nil
}

// InviteChain returns the certificates from an invite to the root, for join.
func (a *Admission) InviteChain(id identity.KeyID) ([]*x509.Certificate, error) {
	chain := a.book.chain(id)
	if chain == nil || identity.RoleOf(chain[0]) != identity.RoleInvite {
		return nil, join.Refuse(join.CodeUnknownInvite, "the member that was asked does not know this invite: it may not have reached that member yet, or is of another mesh")
	}
	return chain, nil
}

// Bundle returns the records that a new member is given at once, at most so many bytes: first what proves the invite and this
// member, then the anchors, then others; and the number of all records.
func (a *Admission) Bundle(invite identity.KeyID, maxBytes int) (records []record.Signed, total int) {
	all := a.book.all()
	b := newBundle(all, maxBytes)
	for _, d := range all {
		if d.Kind == record.KindCertificate && identity.KeyIDOfCert(d.Certificate) == invite {
			b.withBasis(inviteOf(d.Certificate))
		}
	}
	b.withBasis(nodeOf(identity.KeyID(a.self)))
	for _, d := range all {
		if d.Kind == record.KindRevocation {
			b.withSigner(d.Signer)
			b.put(d)
		}
	}
	for _, anchors := range []bool{true, false} {
		for _, d := range all {
			if d.Node != nil && (len(d.Node.Endpoints) > 0) == anchors {
				b.withBasis(nodeOf(identity.KeyID(d.Node.ID)))
			}
		}
	}
	return b.records, len(all)
}

// AddNode takes in the first record of a node that was just admitted, for join.
func (a *Admission) AddNode(first record.Signed) error {
	if node, err := first.Node(); err == nil {
		if off := time.Since(time.Unix(node.Updated, 0)).Round(time.Second); off.Abs() > clockBears {
			a.log.Warn("clock of a joiner differs", "id", node.ID.Short(), "reason", off.Abs().String()+map[bool]string{true: " behind", false: " ahead"}[off > 0])
		}
	}
	return joinRefusal(a.intake.put(first))
}

// clockBears is how far a joiner's clock may differ without a word.
const clockBears = 30 * time.Second

// refuseJoin is join.Refuse, which is not called with the book's lock held: it stands among what does I/O.
func refuseJoin(code join.Code, format string, args ...any) error {
	return &join.Refusal{Code: code, Text: fmt.Sprintf(format, args...)}
}

// joinRefusal turns the roster's reasons into those that a joiner is told. The roster's texts are for people already.
func joinRefusal(err error) error {
	code := join.CodeForged
	switch roster.ReasonOf(err) {
	case roster.ReasonNone:
		return err
	case roster.ReasonUnknownIssuer, roster.ReasonUnknownNode:
		code = join.CodeUnknownInvite
	case roster.ReasonClock:
		code = join.CodeClock
	case roster.ReasonInviteExpired, roster.ReasonExpired:
		code = join.CodeExpired
	case roster.ReasonInviteUsed, roster.ReasonAlreadyAdmitted:
		code = join.CodeUsed
	case roster.ReasonInviteRevoked, roster.ReasonRevoked, roster.ReasonIssuerRevoked:
		code = join.CodeRevoked
	case roster.ReasonFull:
		code = join.CodeBusy
	}
	return &join.Refusal{Code: code, Text: err.Error()}
}

// metaPending is the store's entry with the admissions given here whose node has not yet shown its record.
const metaPending = "admissions"

// maxPending bounds them, and maxPendingOfOne those by one invite: a joiner shows its record within the same conversation, unless that
// breaks off. Whoever holds an invite of many uses keeps nobody out who has another one.
const (
	maxPending      = 1024
	maxPendingOfOne = 64
)

var pendingDecoding = record.Strict(maxPending, 16)

// pending is one such admission. roster keeps those of this run; here they survive a restart, for as long as the invite lives:
// the joiner may bring its record at any time, and until then the use is taken, here at least.
type pending struct {
	Node    identity.NodeID `cbor:"1,keyasint"`
	Invite  identity.KeyID  `cbor:"2,keyasint"`
	Cert    []byte          `cbor:"3,keyasint"`
	Time    int64           `cbor:"4,keyasint"`
	Expires int64           `cbor:"5,keyasint"` // of the invite
	Name    string          `cbor:"6,keyasint"` // of the invite's certificate
}

type pendings []pending

// restore reads what an earlier run left. A damaged entry costs only the protection against a second use here.
func (p *pendings) restore(s *store.Store) error {
	raw, err := s.Meta(metaPending)
	if err != nil || raw == nil {
		return err
	}
	if pendingDecoding.Unmarshal(raw, p) != nil {
		*p = nil
	}
	return nil
}

func (p pendings) save(s *saver) error {
	raw, err := record.Deterministic().Marshal(p)
	if err != nil {
		return fmt.Errorf("encode admissions: %w", err)
	}
	s.setMeta(metaPending, raw)
	return nil
}
