// Package roster keeps the verified set of a mesh's records and says what follows from it: who is a member, which invites
// are used up, what has been revoked. What follows depends on the set of records alone, never on the order in
// which they came, so members that hold the same records agree.
//
// It does no I/O and starts no goroutine. Fetching, storing and passing on records is left to package mesh; so is
// ending sessions and tunnels of those it reports as dropped.
//
// A Roster is not safe for concurrent use: package mesh owns it.
package roster

import (
	"crypto/ed25519"
	"crypto/x509"
	"iter"
	"net/netip"
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
	Name       string      // unique in the mesh: the earlier admission keeps the name that both want
	Record     record.Node // as the node signed it
	Key        record.Key
	Admin      bool
	Tags       []string        // of its invite
	Invite     identity.KeyID  // that it came by; zero for the founder
	AdmittedBy identity.NodeID // zero for the founder
	Admitted   time.Time
	Expires    time.Time  // of its certificate
	Addr6      netip.Addr // always
	Addr4      netip.Addr // zero when it claims none in the mesh's network, or an earlier admission has it
	State      State
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
	Revoked bool              // itself, or its issuer
}

// Entry is one record in a bucket.
type Entry struct {
	_       struct{} `cbor:",toarray"`
	Key     record.Key
	Version record.Version
}

// maxRecords bounds the set, maxAside what is kept beside it, and maxPending the admissions whose node is not heard of yet.
const (
	maxRecords = 100_000
	maxAside   = 256
	maxPending = 1024
)

// Roster is the verified set of one mesh's records.
type Roster struct {
	// constant after New
	root   *x509.Certificate
	rootID identity.KeyID
	mesh   identity.MeshID
	chains *Chains

	// the set, and what is kept beside it
	set     map[record.Key]*entry
	nodes   map[identity.NodeID]*entry // of the set
	invites map[ref]*entry             // of the set
	uses    map[ref]int                // nodes of the set, by invite
	aside   []*entry                   // parked and refused records, oldest first
	rests   map[ref]map[*entry]bool    // what rests on a key or an invite, in the set and beside it
	buckets [256]bucket

	// what follows from the set
	revoked    map[identity.KeyID]revokedKey
	reported   map[identity.NodeID]bool // members as last told in an Outcome
	nextExpiry time.Time                // of a member, or zero
	members    []Member                 // nil when to be computed again
	byID       map[identity.NodeID]int

	now        time.Time                            // as last told
	pending    map[identity.NodeID]pendingAdmission // given here, not in the set yet
	step       *Batch                               // of the AddBatch under way
	unprepared int                                  // signatures that had to be verified within a step
}

// New returns an empty roster. The root must have passed identity.CheckRoot.
func New(root *x509.Certificate) *Roster {
	public, _ := root.PublicKey.(ed25519.PublicKey)
	return &Roster{
		root:     root,
		rootID:   identity.KeyIDOfCert(root),
		mesh:     identity.MeshIDOf(public),
		set:      make(map[record.Key]*entry),
		nodes:    make(map[identity.NodeID]*entry),
		invites:  make(map[ref]*entry),
		uses:     make(map[ref]int),
		rests:    make(map[ref]map[*entry]bool),
		revoked:  make(map[identity.KeyID]revokedKey),
		reported: make(map[identity.NodeID]bool),
		pending:  make(map[identity.NodeID]pendingAdmission),
		chains:   NewChains(root),
	}
}

// Mesh returns the mesh ID.
func (r *Roster) Mesh() identity.MeshID { return r.mesh }

// Root returns the root certificate.
func (r *Roster) Root() *x509.Certificate { return r.root }

// Len returns the number of records in the set.
func (r *Roster) Len() int { return len(r.set) }

// Get returns a record of the set.
func (r *Roster) Get(key record.Key) (record.Signed, bool) {
	e, ok := r.set[key]
	if !ok {
		return record.Signed{}, false
	}
	return e.Signed, true
}

// All returns the records of the set in no order.
func (r *Roster) All() iter.Seq2[record.Key, record.Signed] {
	return func(yield func(record.Key, record.Signed) bool) {
		for key, e := range r.set {
			if !yield(key, e.Signed) {
				return
			}
		}
	}
}

// Chain returns the certificates from a node or an invite up to the root, or nil when the set does not have it.
func (r *Roster) Chain(id identity.KeyID) []*x509.Certificate {
	e := r.nodes[identity.NodeID(id)]
	if e == nil {
		e = r.inviteOf(id)
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

// inviteOf returns the invite of a key. Should one key have been certified several times, the certificate that sorts first is
// taken, for want of a name.
func (r *Roster) inviteOf(id identity.KeyID) *entry {
	var found *entry
	for _, e := range r.invites {
		if e.keyID == id && (found == nil || e.compare(found) < 0) {
			found = e
		}
	}
	return found
}
