package mesh

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/mesh/join"
	"warren/mesh/record"
	"warren/mesh/roster"
	"warren/mesh/store"
)

// mesh is the member that join.Serve asks.
var _ join.Member = (*Mesh)(nil)

// metaPending is the store's entry with the admissions given here whose node has not yet shown its record.
const metaPending = "admissions"

// maxPending bounds them: a joiner shows its record within the same conversation, unless that breaks off.
const maxPending = 200

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

// admit checks a joiner's certificate and countersigns it, or repeats the admission given for it before.
func (b *book) admit(cert *x509.Certificate, now time.Time) (record.Admission, error) {
	if err := b.checkJoiner(cert); err != nil {
		return record.Admission{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	node, invite, name := identity.NodeIDOfCert(cert), identity.IssuerOf(cert), cert.Issuer.CommonName
	if _, ok := b.roster.Member(b.self); !ok {
		return record.Admission{}, join.Refuse(join.CodeBusy, "the member that was asked has not yet caught up with its mesh: try again in a minute")
	}
	b.pending = slices.DeleteFunc(b.pending, func(p pending) bool {
		known, ok := b.roster.Member(p.Node)
		return ok && known.Invite == p.Invite || now.Unix() > p.Expires
	})
	again := slices.IndexFunc(b.pending, func(p pending) bool { return p.Node == node && string(p.Cert) == string(cert.Raw) })
	if again >= 0 && b.roster.CheckAdmission(cert, time.Unix(b.pending[again].Time, 0)) == nil {
		return record.SignAdmission(b.meshID, cert.Raw, time.Unix(b.pending[again].Time, 0), b.key), nil
	}
	terms, err := b.checkPending(node, invite, name)
	if err != nil {
		return record.Admission{}, err
	}
	admission, err := b.roster.Admit(cert, b.key, now)
	if err != nil {
		return record.Admission{}, err
	}
	b.pending = append(b.pending, pending{Node: node, Invite: invite, Name: name, Cert: cert.Raw, Time: admission.Time, Expires: terms.Expires.Unix()})
	return admission, b.pending.save(b.saver)
}

// checkJoiner verifies, without the lock, that a certificate was made with its invite. What else is wrong with it, and that the invite is not
// known, is found later.
func (b *book) checkJoiner(cert *x509.Certificate) error {
	if identity.CheckForm(cert) != nil {
		return nil
	}
	b.mu.Lock()
	invite := b.roster.InviteOf(cert)
	b.mu.Unlock()
	if invite == nil {
		return nil
	}
	return b.chains.CheckJoiner(cert, invite)
}

// checkPending counts the uses of an invite that the set does not show yet.
func (b *book) checkPending(node identity.NodeID, invite identity.KeyID, name string) (identity.InviteTerms, error) {
	var status roster.InviteStatus
	for _, s := range b.roster.Invites() {
		if s.KeyID == invite && s.Name == name {
			status = s
		}
	}
	taken := make(map[identity.NodeID]bool)
	for _, id := range status.Used {
		taken[id] = true
	}
	var last pending
	for _, p := range b.pending {
		if p.Invite == invite && p.Name == name && p.Node != node {
			taken[p.Node], last = true, p
		}
	}
	delete(taken, node)
	switch {
	case last.Time != 0 && len(taken) >= status.Terms.Uses:
		return status.Terms, join.Refuse(join.CodeUsed, "the invite was used by node %s at %s, which has not finished joining yet: ask for a new invite",
			last.Node.Short(), time.Unix(last.Time, 0).UTC().Format("2006-01-02 15:04:05 UTC"))
	case len(b.pending) >= maxPending:
		return status.Terms, join.Refuse(join.CodeBusy, "the member that was asked has %d unfinished admissions: try again later, or another member", len(b.pending))
	}
	return status.Terms, nil
}

// Admit checks the certificate that a joiner made with an invite, and countersigns it. The admission is on disk when Admit returns, so that
// the invite cannot be used twice here. Repeated with one certificate it gives one answer. Refusals are *join.Refusal.
func (m *Mesh) Admit(cert *x509.Certificate) (record.Admission, error) {
	admission, err := m.book.admit(cert, time.Now())
	if err != nil {
		m.drops.add("join: " + roster.ReasonOf(err).String())
		return record.Admission{}, joinRefusal(err)
	}
	if err := m.flush(); err != nil {
		return record.Admission{}, fmt.Errorf("keep admission: %w", err)
	}
	m.log.Info("node admitted", "id", identity.NodeIDOfCert(cert).Short(), "invite", identity.IssuerOf(cert).Short())
	return admission, nil
}

// InviteChain returns the certificates from an invite to the root, for join.
func (m *Mesh) InviteChain(id identity.KeyID) ([]*x509.Certificate, error) {
	chain := m.book.chain(id)
	if chain == nil || identity.RoleOf(chain[0]) != identity.RoleInvite {
		return nil, join.Refuse(join.CodeUnknownInvite, "the member that was asked does not know this invite: it may not have reached that member yet, or is of another mesh")
	}
	return chain, nil
}

// AddNode takes in the first record of a node that was just admitted, for join.
func (m *Mesh) AddNode(first record.Signed) error {
	return joinRefusal(m.add(first))
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

// Bundle returns the records that a new member is given at once, at most so many bytes: first what proves the invite and this
// member, then the anchors, then others; and the number of all records.
func (m *Mesh) Bundle(invite identity.KeyID, maxBytes int) (records []record.Signed, total int) {
	all := m.book.all()
	b := newBundle(all, maxBytes)
	for _, d := range all {
		if d.Kind == record.KindCertificate && identity.KeyIDOfCert(d.Certificate) == invite {
			b.withBasis(inviteOf(d.Certificate))
		}
	}
	b.withBasis(nodeOf(identity.KeyID(m.self)))
	for _, d := range all {
		if d.Kind == record.KindRevocation {
			b.withBasis(nodeOf(d.Signer))
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

// certified names a node, or one certificate of an invite's key.
type certified struct {
	key  identity.KeyID
	name string // of an invite; empty for a node
}

func nodeOf(id identity.KeyID) certified { return certified{key: id} }

func inviteOf(cert *x509.Certificate) certified {
	return certified{key: identity.KeyIDOfCert(cert), name: cert.Subject.CommonName}
}

// bundle gathers records that fit, each after what it rests on.
type bundle struct {
	room    int
	by      map[certified]record.Decoded
	in      map[record.Key]bool
	records []record.Signed
}

func newBundle(all []record.Decoded, maxBytes int) *bundle {
	b := &bundle{room: maxBytes, by: make(map[certified]record.Decoded, len(all)), in: make(map[record.Key]bool)}
	for _, d := range all {
		switch d.Kind {
		case record.KindNode:
			b.by[nodeOf(identity.KeyID(d.Node.ID))] = d
		case record.KindCertificate:
			b.by[inviteOf(d.Certificate)] = d
		}
	}
	return b
}

// ownBasis returns the records on which this node's membership rests, its own included. It is looked up once for each state of
// the set: strangers can ask for it.
func (m *Mesh) ownBasis() map[record.Key]roster.Entry {
	digest := *m.book.digest.Load()
	if cached := m.basis.Load(); cached != nil && cached.digest == digest {
		return cached.entries
	}
	b := newBundle(m.book.all(), maxEntries*record.MaxSize)
	b.withBasis(nodeOf(identity.KeyID(m.self)))
	entries := make(map[record.Key]roster.Entry)
	for _, d := range decodeAll(b.records) {
		entries[d.Key] = roster.Entry{Key: d.Key, Version: d.Version}
	}
	m.basis.Store(&basis{digest: digest, entries: entries})
	return entries
}

// basis is what ownBasis found for one state of the set.
type basis struct {
	digest  [16]byte
	entries map[record.Key]roster.Entry
}

func (b *bundle) put(d record.Decoded) {
	size := len(d.Body) + len(d.Signature) + len(d.Signer) + 32 // the rest of its encoding, and its place in the message
	if b.in[d.Key] || size > b.room {
		return
	}
	b.in[d.Key] = true
	b.room -= size
	b.records = append(b.records, d.Signed)
}

// withBasis puts the record of what is certified, after the chain above it and the chains of those who admitted. Chains of
// admissions can be long, so it keeps its own stack.
func (b *bundle) withBasis(first certified) {
	stack := []certified{first}
	seen := map[certified]bool{first: true}
	var found []record.Decoded
	for len(stack) > 0 {
		next := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		d, ok := b.by[next]
		if !ok || b.in[d.Key] {
			continue
		}
		found = append(found, d)
		basis := []certified{nodeOf(identity.IssuerOf(d.Certificate))}
		if d.Node != nil {
			basis = []certified{
				{key: identity.IssuerOf(d.Certificate), name: d.Certificate.Issuer.CommonName}, nodeOf(identity.KeyID(d.Node.Admission.Signer)),
			}
		}
		for _, on := range basis {
			if !seen[on] {
				seen[on] = true
				stack = append(stack, on)
			}
		}
	}
	sortForVerification(found)
	for _, d := range found {
		b.put(d)
	}
}

// sortForVerification puts records into an order in which, but for equal times, each comes after those it rests on.
func sortForVerification(records []record.Decoded) {
	at := func(d record.Decoded) time.Time {
		switch {
		case d.Node != nil:
			return d.Admitted()
		case d.Certificate != nil:
			return d.Certificate.NotBefore.Add(identity.Skew) // an invite starts so much before it is made
		}
		return d.Revocation.At()
	}
	slices.SortStableFunc(records, func(a, b record.Decoded) int {
		return cmp.Or(at(a).Compare(at(b)), cmp.Compare(a.Kind, b.Kind))
	})
}
