package roster

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"iter"
	"math"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// ref names something that records rest on: a node by its key ID, or an invite by inviteRef.
type ref [32]byte

// inviteRef names an invite by its key and its name. The name covers the issuer and the terms, so that a node rests on
// one certificate of the invite's key: nobody can slip in a second one, and each has its own uses.
func inviteRef(key identity.KeyID, name []byte) ref {
	return sha256.Sum256(append(key[:], name...))
}

// entry is one record in the set or beside it.
type entry struct {
	record.Decoded
	keyID    identity.KeyID       // of the certified key
	terms    identity.InviteTerms // of an invite
	ref      ref                  // what others know a node or an invite by
	parent   ref                  // the invite of a node, the admin of an invite or a revocation; zero for the root
	certOK   bool                 // the certificate's signature is right; keys are found by their hash, so that stays so
	signedOK bool                 // so is that of a node's admission, or of a revocation
	in       bool                 // it is in the set
	queued   bool                 // it waits in the work list of settle
	issuer   *entry               // parent when it was last judged; nil for the root
	refusal  *Refusal             // why it is not in the set; nil when parked
	out      *Refusal             // why a node of the set is no member, by revocations
	outSince int64                // admissions that it gave then or later do not count
}

func publicOf(cert *x509.Certificate) ed25519.PublicKey {
	public, _ := cert.PublicKey.(ed25519.PublicKey)
	return public
}

// byRoot reports whether the root itself issued or signed it.
func (e *entry) byRoot() bool { return e.parent == ref{} }

// signer is the ref of the member that admitted a node, else zero.
func (e *entry) signer() ref {
	if e.Node == nil {
		return ref{}
	}
	return ref(e.Node.Admission.Signer)
}

// above iterates over what stands above e in its chain: invite, admin, invite … without the root.
func (e *entry) above() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for up := e.issuer; up != nil; up = up.issuer {
			if !yield(up) {
				return
			}
		}
	}
}

// depth returns the number of certificates in the chain, the root's included.
func (e *entry) depth() int {
	depth := 2
	for range e.above() {
		depth++
	}
	return depth
}

// compare gives the order in which records are judged: nodes by their admission, ties by ID, and right
// after a node what it signed. A record rests on earlier ones only, so judging in this order settles everything in
// one pass, and no circle of nodes can vouch for each other.
func (e *entry) compare(other *entry) int {
	a, b := e.order(), other.order()
	return cmp.Or(cmp.Compare(a.time, b.time), bytes.Compare(a.id[:], b.id[:]), cmp.Compare(a.step, b.step), bytes.Compare(e.Key[:], other.Key[:]),
		other.Version.Compare(e.Version))
}

type order struct {
	time int64
	id   identity.NodeID
	step int
}

func (e *entry) order() order {
	switch {
	case e.Node != nil:
		return order{time: e.Admitted().Unix(), id: e.Node.ID}
	case e.issuer != nil:
		return order{time: e.issuer.Admitted().Unix(), id: e.issuer.Node.ID, step: 1}
	case e.byRoot():
		return order{time: math.MinInt64}
	}
	return order{time: math.MaxInt64} // parked: it changes nothing
}

// earlier reports whether e was admitted before other: strictly, ties by ID.
func (e *entry) earlier(other *entry) bool {
	a, b := e.order(), other.order()
	return cmp.Or(cmp.Compare(a.time, b.time), bytes.Compare(a.id[:], b.id[:])) < 0
}

// sameAdmission reports whether two records of a node differ in nothing that decides on its membership.
func (e *entry) sameAdmission(d record.Decoded) bool {
	return e.Node != nil && d.Node != nil && bytes.Equal(e.Node.Certificate, d.Node.Certificate) &&
		e.Node.Admission.Time == d.Node.Admission.Time && e.Node.Admission.Signer == d.Node.Admission.Signer &&
		bytes.Equal(e.Node.Admission.Signature, d.Node.Admission.Signature)
}

// whyAside returns why a node that is not in the set is none of the members.
func (e *entry) whyAside() *Refusal {
	if e.refusal != nil {
		return e.refusal
	}
	return refuse(ReasonUnknownIssuer, "node %s: its invite, or the member that admitted it, is not known", e.Node.ID.Short())
}

// nodeName is how a node is called in texts.
func (e *entry) nodeName() string {
	if e.Node.Name == "" {
		return e.Node.ID.Short()
	}
	return e.Node.Name + " (" + e.Node.ID.Short() + ")"
}

func textTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
