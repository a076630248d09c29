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
	ref      ref                  // what others know a node, an invite or a promotion by
	parent   ref                  // what certified it, or the signer of a revocation or a grant; zero for the root
	order    order                // the place in which it is judged
	certOK   bool                 // the certificate's signature is right; keys are found by their hash, so that stays so
	signedOK bool                 // so is that of a node's admission, of a revocation or of a grant
	in       bool                 // it is in the set
	queued   bool                 // it waits in the work list of settle
	issuer   *entry               // parent when it was last judged; nil for the root
	refusal  *Refusal             // why it is not in the set, or hidden; nil when parked
	hits     [layers][]*entry     // of a node of the set: the revocations by which it is out
	out      *Refusal             // and what that comes to; nil: none
	fallen   bool                 // it rests on what the root has revoked
	hidden   bool                 // it is fallen, and nothing that stands rests on it: it is in the set for nobody to see
}

func publicOf(cert *x509.Certificate) ed25519.PublicKey {
	public, _ := cert.PublicKey.(ed25519.PublicKey)
	return public
}

// byRoot reports whether the root itself issued or signed it.
func (e *entry) byRoot() bool { return e.parent == ref{} }

// second is the ref of what a record rests on beside its parent: the member that admitted a node, the node that was promoted. Zero: nothing.
func (e *entry) second() ref {
	switch {
	case e.Node != nil:
		return ref(e.Node.Admission.Signer)
	case e.isPromotion():
		return ref(e.keyID)
	}
	return ref{}
}

// isInvite and isPromotion tell the certificates that are records of their own apart.
func (e *entry) isInvite() bool { return e.Kind == record.KindCertificate && e.terms.Uses > 0 }

func (e *entry) isPromotion() bool { return e.Kind == record.KindCertificate && e.terms.Uses == 0 }

// signedBy is the key that stands for a record: it signed it, or the admission of its node. Zero for a node of the root.
func (e *entry) signedBy() identity.KeyID {
	switch e.Kind {
	case record.KindNode:
		return identity.KeyID(e.Node.Admission.Signer)
	case record.KindCertificate:
		return identity.IssuerOf(e.Certificate)
	}
	return e.Signer
}

// above iterates over what stands above e in its chain: invite, admin or promotion, invite … without the root.
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

// compare gives the order in which records are judged: nodes by their admission, ties by ID, and after the last of the nodes that it
// rests on what these signed. A record rests on earlier ones only, so judging in this order settles everything in
// one pass, and no circle of nodes can vouch for each other.
func (e *entry) compare(other *entry) int {
	return cmp.Or(e.order.compare(other.order), bytes.Compare(e.Key[:], other.Key[:]), other.Version.Compare(e.Version))
}

// order is the place of a record: the admission of the last node that it rests on, its own if it is one, and the steps after that.
type order struct {
	time int64
	id   identity.NodeID
	step int
}

var (
	rootOrder   = order{time: math.MinInt64} // of what rests on the root alone
	parkedOrder = order{time: math.MaxInt64} // it changes nothing
)

func (o order) compare(other order) int {
	return cmp.Or(o.compareNode(other), cmp.Compare(o.step, other.step))
}

// compareNode leaves the steps out.
func (o order) compareNode(other order) int {
	return cmp.Or(cmp.Compare(o.time, other.time), bytes.Compare(o.id[:], other.id[:]))
}

// after returns the next place after all of these.
func after(those ...order) order {
	last := rootOrder
	for _, o := range those {
		if o.compare(last) > 0 {
			last = o
		}
	}
	last.step++
	return last
}

// earlier reports whether all the nodes that e rests on, itself included, were admitted before the node other: strictly, ties by ID.
func (e *entry) earlier(other *entry) bool { return e.order.compareNode(other.order) < 0 }

// outranks reports whether of two records with one key that both stand this one is in the set. Of a node with several admissions that is the newest
// one, but rather one that has not fallen: what is hidden here others need not have, and so it must not be in the way of what they show.
func (e *entry) outranks(other *entry) bool {
	if e.Node != nil && e.fallen != other.fallen {
		return other.fallen
	}
	return e.Version.Newer(other.Version)
}

// mayYieldTo reports whether a record of the set may have to give way to an older one: see outranks.
func (e *entry) mayYieldTo(d record.Decoded) bool {
	return e.Node != nil && e.fallen && !e.sameAdmission(d)
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
