package mesh

import (
	"cmp"
	"crypto/x509"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// certified names a node, one certificate of an invite's key, or one promotion of a node's.
type certified struct {
	key  identity.KeyID
	name string // of an invite or a promotion; empty for a node
}

func nodeOf(id identity.KeyID) certified { return certified{key: id} }

func inviteOf(cert *x509.Certificate) certified {
	return certified{key: identity.KeyIDOfCert(cert), name: cert.Subject.CommonName}
}

// bundle gathers records that fit, each after what it rests on.
type bundle struct {
	room    int
	by      map[certified]record.Decoded
	admins  map[identity.KeyID][]certified // promotions, by node
	in      map[record.Key]bool
	records []record.Signed
}

func newBundle(all []record.Decoded, maxBytes int) *bundle {
	b := &bundle{
		room: maxBytes, by: make(map[certified]record.Decoded, len(all)), admins: make(map[identity.KeyID][]certified), in: make(map[record.Key]bool),
	}
	for _, d := range all {
		switch d.Kind {
		case record.KindNode:
			b.by[nodeOf(identity.KeyID(d.Node.ID))] = d
		case record.KindCertificate:
			b.by[inviteOf(d.Certificate)] = d
			if identity.RoleOf(d.Certificate) == identity.RolePromotion {
				id := identity.KeyIDOfCert(d.Certificate)
				b.admins[id] = append(b.admins[id], inviteOf(d.Certificate))
			}
		}
	}
	return b
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
		for _, on := range basisOf(d) {
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

// basisOf names what a node or a certificate rests on.
func basisOf(d record.Decoded) []certified {
	issuer := identity.IssuerOf(d.Certificate)
	basis := []certified{{key: issuer, name: d.Certificate.Issuer.CommonName}, nodeOf(issuer)} // an invite, or a promotion; or a node
	if d.Node != nil {
		return append(basis, nodeOf(identity.KeyID(d.Node.Admission.Signer)))
	}
	return append(basis, nodeOf(identity.KeyIDOfCert(d.Certificate))) // the node that is promoted
}

// withSigner puts what makes the signer of a revocation or a grant an admin.
func (b *bundle) withSigner(id identity.KeyID) {
	b.withBasis(nodeOf(id))
	for _, promotion := range b.admins[id] {
		b.withBasis(promotion)
	}
}

// sortForVerification puts records into an order in which, but for equal times, each comes after those it rests on.
func sortForVerification(records []record.Decoded) {
	slices.SortStableFunc(records, func(a, b record.Decoded) int {
		return cmp.Or(verifiedAt(a).Compare(verifiedAt(b)), cmp.Compare(a.Kind, b.Kind))
	})
}

// verifiedAt is the time by which records are sorted for verification.
func verifiedAt(d record.Decoded) time.Time {
	switch {
	case d.Node != nil:
		return d.Admitted()
	case d.Certificate != nil:
		return d.Certificate.NotBefore.Add(identity.Skew) // an invite starts so much before it is made
	case d.Revocation != nil:
		return d.Revocation.At()
	}
	return time.Unix(math.MaxUint32, 0) // a grant, on which nothing rests
}

// inOrder is sortForVerification for many records: it keeps none of them decoded.
func inOrder(records []record.Signed) []record.Signed {
	type timed struct {
		record.Signed
		at time.Time
	}
	list := make([]timed, 0, len(records))
	for _, signed := range records {
		if d, err := signed.Decode(); err == nil {
			list = append(list, timed{signed, verifiedAt(d)})
		}
	}
	slices.SortStableFunc(list, func(a, b timed) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.Kind, b.Kind)) })
	for i, one := range list {
		records[i] = one.Signed
	}
	return records[:len(list)]
}

// proof is the records on which this node's membership rests, its own included.
type proof struct {
	// constant
	book  *book
	self  identity.NodeID
	sides *sides

	found atomic.Pointer[basis]
}

// basis is what proof found for one state of the set: at most maxBasis entries, in an order in which they can be verified, this node's own
// last.
type basis struct {
	digest [16]byte
	all    []roster.Entry      // for a member that lacks them
	list   []roster.Entry      // for a stranger: without the records that bear a LAN secret
	in     map[record.Key]bool // what is in list
}

// shown is what a stranger gets to see now: nothing from the side that was dialled, before it has proved its membership.
func (p *proof) shown(stranger identity.NodeID) *basis {
	if !p.sides.begins(stranger) {
		return &basis{}
	}
	return p.basis()
}

// basis looks the records up once for each state of the set: strangers can ask for them. A stranger that is a member all the same has the
// admins' records, which bear LAN secrets, and can verify this node without being shown those.
func (p *proof) basis() *basis {
	digest := *p.book.public.digest.Load()
	if found := p.found.Load(); found != nil && found.digest == digest {
		return found
	}
	b := newBundle(p.book.all(), maxEntries*record.MaxSize)
	b.withBasis(nodeOf(identity.KeyID(p.self)))
	found := &basis{digest: digest, in: make(map[record.Key]bool)}
	all := decodeAll(b.records)
	for _, d := range all[max(0, len(all)-maxBasis):] { // members know the older ones
		e := roster.Entry{Key: d.Key, Version: d.Version}
		found.all = append(found.all, e)
		if !bearsSecret(d) {
			found.list, found.in[e.Key] = append(found.list, e), true
		}
	}
	p.found.Store(found)
	return found
}

// bearsSecret reports whether a record is for members only.
func bearsSecret(d record.Decoded) bool { return d.Node != nil && d.Node.LANSecret != [16]byte{} }
