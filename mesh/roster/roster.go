// Package roster keeps the verified set of a mesh's records and says what follows from it: who is a member and who an admin, which invites
// are used up, what has been revoked. What follows depends on the set of records alone, never on the order in
// which they came, so members that hold the same records agree.
//
// It does no I/O and starts no goroutine. Fetching, storing and passing on records is left to package mesh; so is
// ending sessions and tunnels of those it reports as dropped.
//
// A Roster is not safe for concurrent use: package mesh owns it.
package roster

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/x509"
	"iter"
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// State is what a member is to the others.
type State byte

// The states of members. Nodes that are revoked, expired or lost their invite to an earlier use are no members at all: see Standing.
const (
	Active State = iota
	Left         // by its own word
)

// String returns the state's name in lower case.
func (s State) String() string {
	if s == Left {
		return "left"
	}
	return "active"
}

// Member is one member of the mesh. It is a copy; its slices are not to be changed.
type Member struct {
	ID         identity.NodeID
	Name       string      // unique in the mesh: see give
	Record     record.Node // as the node signed it
	Key        record.Key
	Admin      bool
	Tags       []string        // of its invite
	Invite     identity.KeyID  // that it came by; zero for the founder
	AdmittedBy identity.NodeID // zero for the founder
	Admitted   time.Time
	Expires    time.Time       // of its certificate
	Addr6      netip.Addr      // always
	Addr4      netip.Addr      // zero: none, for want of a claim, or since another has what it claims
	Routes     []netip.Prefix  // of those that it claims: they count, and no two members' overlap
	KeyTakenBy identity.NodeID // another member that has the WireGuard key of its record: it gets no tunnel; zero: the key is its own
	State      State
	Grant      *record.Grant // that counts; nil: none
}

// Granted reports whether the member has a grant that gives it something: one that gives nothing takes back what was granted before.
func (m *Member) Granted() bool {
	return m.Grant != nil && (m.Grant.Name != "" || m.Grant.Addr4.IsValid() || len(m.Grant.Routes) > 0)
}

// Outcome is what became of a record, and what changed with it.
type Outcome struct {
	Key     record.Key
	Stored  bool              // it is in the set, and was not before in this version: pass it on
	Parked  bool              // it is kept aside until what it rests on is known
	Changed []identity.NodeID // members that are new or have a new record
	Dropped []Drop            // nodes that were members until now
	Added   []record.Key      // records that entered the set or were replaced, parked ones included: store them
	Removed []record.Key      // records that left the set: delete them
}

// Drop tells why a node is no longer a member.
type Drop struct {
	ID     identity.NodeID
	Reason Reason
	Text   string
}

// Revoked is one revocation that counts.
type Revoked struct {
	record.Revocation
	Key record.Key
}

// InviteStatus is one invite and what has become of it.
type InviteStatus struct {
	KeyID   identity.KeyID
	Name    string // of its certificate: a key that was certified twice is two invites
	Terms   identity.InviteTerms
	Issuer  identity.KeyID
	Created time.Time
	Used    []identity.NodeID // in the order of their admission
	Over    int               // how many of them are more than it allows: members that did not know of each other have admitted them
	Revoked bool              // itself, or what it rests on: it admits nobody any more
}

// Entry is one record in a bucket.
type Entry struct {
	_       struct{} `cbor:",toarray"`
	Key     record.Key
	Version record.Version
}

// Roster is the verified set of one mesh's records. Each part of it knows one thing; those further down rest on those above.
type Roster struct {
	// constant after New
	root   *x509.Certificate
	mesh   identity.MeshID
	chains *Chains

	set        *set        // which records there are
	judge      *judge      // which of them stand
	standing   *standing   // who is a member by them
	directory  *directory  // the members' names and addresses
	admissions *admissions // who may become one
}

// New returns an empty roster. The root must have passed identity.CheckRoot.
func New(root *x509.Certificate) *Roster {
	public, _ := root.PublicKey.(ed25519.PublicKey)
	r := &Roster{root: root, mesh: identity.MeshIDOf(public), chains: NewChains(root), set: newSet(identity.KeyIDOfCert(root))}
	r.judge = newJudge(root, r.mesh, r.set)
	r.standing = newStanding(r.set)
	r.directory = newDirectory(root, r.mesh, r.standing)
	r.admissions = newAdmissions(r.mesh, r.set, r.standing, r.chains)
	return r
}

// Mesh returns the mesh ID.
func (r *Roster) Mesh() identity.MeshID { return r.mesh }

// Len returns the number of records in the set.
func (r *Roster) Len() int { return r.set.size() }

// Get returns a record of the set.
func (r *Roster) Get(key record.Key) (record.Signed, bool) {
	e := r.set.get(key)
	if e == nil {
		return record.Signed{}, false
	}
	return e.Signed, true
}

// All returns the records of the set in no order.
func (r *Roster) All() iter.Seq2[record.Key, record.Signed] {
	return func(yield func(record.Key, record.Signed) bool) {
		for key, e := range r.set.records {
			if !e.hidden && !yield(key, e.Signed) {
				return
			}
		}
	}
}

// Chain returns the certificates from a node or an invite up to the root, through the promotion of an admin that was not one from the start, or nil when the set does not have it. Should one key of an
// invite have been certified several times, the certificate that sorts first is taken, for want of a name.
func (r *Roster) Chain(id identity.KeyID) []*x509.Certificate {
	e := r.set.nodes[identity.NodeID(id)]
	if e == nil {
		e = r.set.invites.first(id)
	}
	if e == nil {
		return nil
	}
	chain := []*x509.Certificate{e.Certificate}
	for above := range e.above() {
		chain = append(chain, above.Certificate)
	}
	return append(chain, r.root)
}

// Add takes in one record, verifying it first: at most three signatures for a record that is new, one for a newer version
// of a known node. The error is a *Refusal. A record that is known already, or older than the known one, is no
// error.
//
// What rests on a record that is not known, or is refused because of others, is kept aside, up to a bound, and looked at again when
// that changes; so a refused record may still turn up later among Outcome.Added.
func (r *Roster) Add(rec record.Signed, now time.Time) (Outcome, error) {
	out, errs := r.AddAll([]record.Signed{rec}, now)
	return out, errs[0]
}

// AddAll takes in many records in any order, as from the store or a sync, and is much faster than Add for each. The errors
// belong to the records one by one, nil for those that are fine. Outcome.Key, Stored and Parked are those of the last record.
func (r *Roster) AddAll(recs []record.Signed, now time.Time) (Outcome, []error) {
	return r.AddBatch(Read(recs), now)
}

// AddOne takes in the record i of a batch as Add does.
func (r *Roster) AddOne(b *Batch, i int, now time.Time) (Outcome, error) {
	out, errs := r.AddBatch(b.one(i), now)
	return out, errs[0]
}

// AddBatch takes in the records of a batch as AddAll does.
func (r *Roster) AddBatch(b *Batch, now time.Time) (Outcome, []error) {
	r.judge.proven = b.results
	defer func() { r.judge.proven = nil }()
	s := &step{set: r.set, judge: r.judge, change: newChange()}
	r.standing.advance(now, s.change)
	placed, errs := s.placeAll(b)
	out := r.standing.report(s.change)
	r.admissions.heardOf(s.change.fresh)
	for i, e := range placed {
		if e != nil && (!e.in || e.hidden) && e.refusal != nil {
			errs[i] = e.refusal
		}
	}
	if last := len(placed) - 1; last >= 0 {
		out.Key = b.records[last].Key
		e := placed[last]
		out.Stored = e != nil && e.in && !e.hidden && r.set.records[out.Key] == e && e.Version == b.records[last].Version
		out.Parked = e != nil && !e.in && e.refusal == nil
	}
	return out, errs
}

// Advance moves the clock: members whose certificates have expired are dropped. Add does the same.
func (r *Roster) Advance(now time.Time) Outcome {
	c := newChange()
	r.standing.advance(now, c)
	return r.standing.report(c)
}

// Digest sums up the whole set: two rosters with equal digests hold the same records.
func (r *Roster) Digest() [16]byte { return r.set.buckets.digest() }

// Buckets sums up the records by the first byte of their key. An empty bucket is all zeros.
func (r *Roster) Buckets() [256][8]byte { return r.set.buckets.digests() }

// Bucket lists the records whose key starts with byte i, sorted by key.
func (r *Roster) Bucket(i int) []Entry { return slices.Clone(r.set.buckets[i].entries) }

// Members returns all members, those that have left included, in the order of their admission. The slice is not to be
// changed; it stays as it is when the roster changes.
func (r *Roster) Members() []Member { return r.directory.all() }

// Member returns one member; false for nodes that are none (see Standing).
func (r *Roster) Member(id identity.NodeID) (Member, bool) { return r.directory.find(id) }

// Standing returns nil for a member, else a *Refusal that says why the node is none.
func (r *Roster) Standing(id identity.NodeID) error {
	if refusal := r.standing.of(id); refusal != nil {
		return refusal
	}
	return nil
}

// Revoked returns the revocations that count, by time.
func (r *Roster) Revoked() []Revoked { return r.standing.revoked.list() }

// Invites returns all invites of the set, by the time of their making.
func (r *Roster) Invites() []InviteStatus {
	var list []InviteStatus
	for _, e := range r.set.invites.records {
		if e.hidden {
			continue
		}
		used := r.set.users(e.ref)
		list = append(list, InviteStatus{
			KeyID: e.keyID, Name: e.Certificate.Subject.CommonName, Terms: e.terms, Issuer: identity.IssuerOf(e.Certificate), Created: e.Certificate.NotBefore,
			Used: used, Over: max(0, len(used)-e.terms.Uses), Revoked: r.standing.ofInvite(e) != nil,
		})
	}
	slices.SortFunc(list, func(a, b InviteStatus) int {
		return cmp.Or(a.Created.Compare(b.Created), bytes.Compare(a.KeyID[:], b.KeyID[:]), bytes.Compare(a.Issuer[:], b.Issuer[:]), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// Below returns the nodes that rest on a key, that of a node or an invite: those that a revocation of this scope would put out beside
// the target if it kept nobody. They come in the order of their admission, whatever other revocations say of them.
func (r *Roster) Below(target identity.KeyID, scope record.Scope) []identity.NodeID {
	b := &below{set: r.set, seen: make(map[*entry]bool)}
	b.find(target, scope)
	return b.nodes()
}

// AdminCert returns the certificate under which a node signs invites and promotions, its own or a promotion; nil when it is no admin.
func (r *Roster) AdminCert(id identity.NodeID) *x509.Certificate {
	e := r.set.nodes[id]
	if e == nil {
		return nil
	}
	if ground := r.standing.adminBy(e); ground != nil {
		return ground.Certificate
	}
	return nil
}

// InviteOf returns the certificate of the invite with which a joiner's was made, nil when the set does not have it.
func (r *Roster) InviteOf(cert *x509.Certificate) *x509.Certificate {
	invite := r.set.invites.of(cert)
	if invite == nil {
		return nil
	}
	return invite.Certificate
}

// CheckAdmission decides whether a joiner may be let in with this certificate, by what is known here. It returns nil or
// a *Refusal that can be shown to the joiner.
func (r *Roster) CheckAdmission(cert *x509.Certificate, now time.Time) error {
	if refusal := r.admissions.check(cert, now); refusal != nil {
		return refusal
	}
	return nil
}

// Admit is CheckAdmission with the countersignature of the node whose key is given, which must be a member. It remembers the
// use until the node's record comes, so that two joiners cannot use up one use here. For a certificate that it admitted
// before, it returns the same admission again: a joiner that lost the answer may ask once more.
func (r *Roster) Admit(cert *x509.Certificate, key ed25519.PrivateKey, now time.Time) (record.Admission, error) {
	admission, refusal := r.admissions.admit(cert, key, now)
	if refusal != nil {
		return record.Admission{}, refusal
	}
	return admission, nil
}

// Chains returns what checks the chains of this roster's mesh.
func (r *Roster) Chains() *Chains { return r.chains }

// JudgeChain decides on a chain that Chains.Check has passed, by the records. It returns the ID of the node, or a *Refusal.
//
// A node of which there is no record here passes if nothing in its chain is revoked: otherwise two
// members that have never heard of each other could not meet. Its chain alone does not prove an admission, so
// until its record is in (see Member) it is to be given nothing and asked for that. If its invite is known here to be used up or expired, the ID
// comes with a *Refusal of ReasonUnproven: its record is to be seen before anything else.
func (r *Roster) JudgeChain(chain []*x509.Certificate, now time.Time) (identity.NodeID, error) {
	switch refusal := r.standing.ofChain(r.chains.below(chain), now); {
	case refusal == nil:
		return identity.NodeIDOfCert(chain[0]), nil
	case refusal.Reason == ReasonUnproven:
		return identity.NodeIDOfCert(chain[0]), refusal
	default:
		return identity.NodeID{}, refusal
	}
}
