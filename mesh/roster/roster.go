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

// API is listed here while the bodies are being written.
type apiStub interface {
	Mesh() identity.MeshID
	Root() *x509.Certificate
	Add(rec record.Signed, now time.Time) (Outcome, error)
	AddAll(recs []record.Signed, now time.Time) (Outcome, []error)
	Advance(now time.Time) Outcome
	NextExpiry() time.Time
	Members() []Member
	Member(id identity.NodeID) (Member, bool)
	Standing(id identity.NodeID) error
	Revoked() []Revoked
	Invites() []InviteStatus
	Chain(id identity.KeyID) []*x509.Certificate
	VerifyChain(chain []*x509.Certificate, now time.Time) (identity.NodeID, error)
	CheckAdmission(cert *x509.Certificate, now time.Time) error
	Admit(cert *x509.Certificate, key ed25519.PrivateKey, now time.Time) (record.Admission, error)
	Digest() [16]byte
	Buckets() [256][8]byte
	Bucket(i int) []Entry
	Get(key record.Key) (record.Signed, bool)
	All() iter.Seq2[record.Key, record.Signed]
	Len() int
}
