package mesh

import (
	"cmp"
	"crypto/x509"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// MaxProof bounds what a node that is out is shown, in bytes of records: the largest revocation, the chain of its signer, and as much again.
const MaxProof = 64 << 10

const (
	// How often a node that is turned away is shown why. Whoever has the key of a revoked invite can make as many IDs as it likes.
	proofsPerSecond = 16
	proofsBurst     = 64
	// indexEvery is how often the records are read for those at most.
	indexEvery = time.Second
)

// evidence finds the records that put a node out, for that node to see: by them, and by nothing that anybody says, its agent ends. A node
// that was away when it was revoked is refused by everybody afterwards, and gets no records by gossip or sync.
type evidence struct {
	book  *book         // constant
	limit *rate.Limiter // guarded by itself

	found atomic.Pointer[index]
}

// index is what the records say of each other, at one state of the set.
type index struct {
	digest  [16]byte
	made    time.Time
	records map[certified]exhibit          // of nodes, and of certificates
	of      map[identity.KeyID][]certified // what certifies a key
	against map[identity.KeyID][]exhibit   // revocations that count, by target
}

// exhibit is one record.
type exhibit struct {
	key    record.Key
	kind   record.Kind
	at     time.Time
	size   int
	on     []certified // what it rests on
	secret bool        // for members, and those that were members, only
}

func newEvidence(b *book) *evidence {
	return &evidence{book: b, limit: rate.NewLimiter(proofsPerSecond, proofsBurst)}
}

// shown is against for somebody who shows its chain and is turned away, of which there may be many: nil when there are too many.
func (e *evidence) shown(id identity.NodeID, chain []*x509.Certificate, now time.Time) [][]byte {
	if !e.limit.AllowN(now, 1) {
		return nil
	}
	found := e.found.Load()
	if found == nil || now.Sub(found.made) >= indexEvery {
		found = e.read(now)
	}
	return e.encoded(found.caseAgainst(id, chain, true))
}

// against returns the records that put a node out which was a member until now, encoded.
func (e *evidence) against(id identity.NodeID) [][]byte {
	return e.encoded(e.read(time.Now()).caseAgainst(id, nil, false))
}

func (e *evidence) encoded(keys []record.Key) [][]byte {
	var all [][]byte
	for _, signed := range e.book.get(keys) {
		if encoded, err := signed.Marshal(); err == nil {
			all = append(all, encoded)
		}
	}
	return all
}

// read makes the index of the set as it is, unless the last one is that.
func (e *evidence) read(now time.Time) *index {
	digest := *e.book.public.digest.Load()
	if found := e.found.Load(); found != nil && found.digest == digest {
		return found
	}
	x := &index{
		digest: digest, made: now, records: make(map[certified]exhibit), of: make(map[identity.KeyID][]certified),
		against: make(map[identity.KeyID][]exhibit),
	}
	counting := e.book.counting()
	for _, d := range e.book.all() {
		x.add(d, counting)
	}
	e.found.Store(x)
	return x
}

func (x *index) add(d record.Decoded, counting map[record.Key]bool) {
	one := exhibit{key: d.Key, kind: d.Kind, at: verifiedAt(d), size: len(d.Body) + len(d.Signature) + len(d.Signer) + 32, secret: bearsSecret(d), on: restsOn(d)}
	switch {
	case d.Node != nil:
		x.enter(nodeOf(identity.KeyID(d.Node.ID)), one)
	case d.Certificate != nil:
		x.enter(inviteOf(d.Certificate), one)
	case d.Revocation != nil && counting[d.Key]:
		x.against[d.Revocation.Target] = append(x.against[d.Revocation.Target], one)
	}
}

func (x *index) enter(as certified, one exhibit) {
	x.records[as] = one
	x.of[as.key] = append(x.of[as.key], as)
}

// restsOn names what a record rests on directly. Records of the root rest on nothing here.
func restsOn(d record.Decoded) []certified {
	if d.Certificate != nil {
		return basisOf(d)
	}
	return []certified{nodeOf(d.Signer)}
}

// above returns some certified keys and all that they rest on, the nearest first. What certifies a key in more than one way is named by each.
func (x *index) above(first ...certified) []certified {
	all, seen := []certified(nil), make(map[certified]bool)
	add := func(some ...certified) {
		for _, one := range some {
			for _, as := range append([]certified{one}, x.of[one.key]...) {
				if !seen[as] {
					seen[as] = true
					all = append(all, as)
				}
			}
		}
	}
	add(first...)
	for i := 0; i < len(all); i++ {
		add(x.records[all[i]].on...)
	}
	return all
}

// caseAgainst chooses the records that say why a node is out, of which chain is shown (nil: its record says that), in an order in which they
// can be verified: the revocations of what it rests on, with what makes their signers admins.
// With own, what it rests on itself is among them, for one that has lost its records.
func (x *index) caseAgainst(id identity.NodeID, chain []*x509.Certificate, own bool) []record.Key {
	self := nodeOf(identity.KeyID(id))
	first := []certified{self}
	for _, cert := range chain[min(1, len(chain)):] {
		first = append(first, inviteOf(cert), nodeOf(identity.KeyIDOfCert(cert)))
	}
	_, known := x.records[self]
	c := &brief{room: MaxProof, secrets: known, in: make(map[record.Key]bool)}
	basis := x.above(first...)
	done := make(map[identity.KeyID]bool)
	for _, as := range basis {
		if done[as.key] {
			continue
		}
		done[as.key] = true
		for _, revocation := range x.against[as.key] {
			c.put(revocation)
			c.putAll(x, x.above(revocation.on...))
		}
	}
	if own {
		c.putAll(x, basis)
	}
	return c.keys()
}

// brief gathers exhibits that fit.
type brief struct {
	room    int
	secrets bool
	in      map[record.Key]bool
	list    []exhibit
}

func (b *brief) put(one exhibit) {
	if one.size == 0 || b.in[one.key] || one.size > b.room || one.secret && !b.secrets {
		return
	}
	b.in[one.key] = true
	b.room -= one.size
	b.list = append(b.list, one)
}

func (b *brief) putAll(x *index, some []certified) {
	for _, as := range some {
		b.put(x.records[as])
	}
}

// keys returns what was gathered: revocations last, since they rest on the others.
func (b *brief) keys() []record.Key {
	slices.SortStableFunc(b.list, func(a, b exhibit) int {
		last := func(e exhibit) int {
			if e.kind == record.KindRevocation {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(last(a), last(b)), a.at.Compare(b.at), cmp.Compare(a.kind, b.kind))
	})
	keys := make([]record.Key, len(b.list))
	for i, one := range b.list {
		keys[i] = one.key
	}
	return keys
}
