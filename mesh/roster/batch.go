package roster

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"slices"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// Batch is records on their way into a Roster. Reading and verifying them, which takes nearly all of the time, needs no roster; so
// whoever guards one with a lock holds it for Due and AddBatch only:
//
//	read ─▶ Due: is a signature to be verified? ── no ──▶ AddBatch
//	         ▲                                │ yes
//	         └── (the lock is free) Verify ◀──┘
//
// Due is asked until it has nothing more: records that came in meanwhile may have made further signatures matter, and of a
// record the next one is listed only when those before it are right, so that a forged one costs one verification. What is not
// verified by then is verified within AddBatch.
//
// A Batch is not safe for concurrent use.
type Batch struct {
	records []record.Decoded
	errs    []error           // of reading, by record
	due     []claim           // listed by Due, not yet verified
	results map[claimID]error // what came of those that were; nil for a right one
}

// claim is one signature that a decision rests on.
type claim struct {
	claimID
	verify func() error // touches no roster
}

// claimID says what is signed, with the signature itself, and whose signature it should be.
type claimID struct {
	what   [32]byte
	signer identity.KeyID
}

// Read reads records. Those that are malformed get their error from AddBatch.
func Read(recs []record.Signed) *Batch {
	b := &Batch{records: make([]record.Decoded, len(recs)), errs: make([]error, len(recs)), results: make(map[claimID]error)}
	for i, rec := range recs {
		d, err := rec.Decode()
		if err != nil {
			b.errs[i] = refuse(ReasonMalformed, "%v", err)
			continue
		}
		b.records[i] = d
	}
	return b
}

// Verify verifies the signatures that Due has listed.
func (b *Batch) Verify() {
	for _, c := range b.due {
		b.results[c.claimID] = c.verify()
	}
	b.due = nil
}

// Trust says that the records were just signed here, so that nobody need verify what the nodes themselves have signed.
func (b *Batch) Trust() {
	for i, d := range b.records {
		if b.errs[i] == nil && d.Node != nil {
			b.results[recordClaim(identity.MeshID{}, d.Signed, d.Certificate).claimID] = nil
			b.results[ownClaim(identity.MeshID{}, d).claimID] = nil
		}
	}
}

// one returns the record i as a batch of its own. It shares what was verified.
func (b *Batch) one(i int) *Batch {
	return &Batch{records: b.records[i : i+1], errs: b.errs[i : i+1], results: b.results}
}

// certClaim is that a certificate was issued by the key of another.
func certClaim(cert, issuer *x509.Certificate) claim {
	return claim{
		claimID: claimID{sha256.Sum256(append([]byte("certificate"), cert.Raw...)), identity.KeyIDOfCert(issuer)},
		verify:  func() error { return identity.CheckSignature(cert, issuer) },
	}
}

// recordClaim is that a record was signed by the key of a certificate.
func recordClaim(mesh identity.MeshID, rec record.Signed, signer *x509.Certificate) claim {
	what := append([]byte("record"), byte(rec.Kind))
	what = append(append(what, rec.Signature...), rec.Body...)
	return claim{
		claimID: claimID{sha256.Sum256(what), identity.KeyIDOfCert(signer)},
		verify:  func() error { return rec.Verify(mesh, publicOf(signer)) },
	}
}

// ownClaim is that a node's record was signed by the node, and that the node holds its WireGuard key: the two at once, for both stand in
// each record that is new.
func ownClaim(mesh identity.MeshID, d record.Decoded) claim {
	c := recordClaim(mesh, d.Signed, d.Certificate)
	c.what = sha256.Sum256(append([]byte("own"), c.what[:]...))
	signed, node := c.verify, d.Node
	c.verify = func() error {
		if err := signed(); err != nil {
			return err
		}
		return identity.CheckKey(mesh, node.ID, node.WireGuardKey, node.WireGuardProof)
	}
	return c
}

// admissionClaim is that a node was admitted by the node of another certificate.
func admissionClaim(mesh identity.MeshID, node *record.Node, signer *x509.Certificate) claim {
	what := binary.BigEndian.AppendUint64([]byte("admission"), uint64(node.Admission.Time))
	what = append(append(append(what, node.Admission.Signer[:]...), node.Admission.Signature...), node.Certificate...)
	return claim{
		claimID: claimID{sha256.Sum256(what), identity.KeyIDOfCert(signer)},
		verify: func() error {
			return node.Admission.Verify(mesh, node.Certificate, signer.PublicKey.(ed25519.PublicKey))
		},
	}
}

// Due lists the signatures that AddBatch would verify now, and reports whether there are any. It changes nothing in the roster.
func (b *Batch) Due(r *Roster) bool {
	newOutlook(r.set, r.judge, b).list()
	return len(b.due) > 0
}

// outlook is one look at what a batch will bring about.
type outlook struct {
	set    *set
	judge  *judge
	b      *Batch
	stands map[*entry]bool           // of what is coming or aside: all that it rests on is in the set, or stands too
	certs  map[ref]*x509.Certificate // of those; all of one ref have the same key
	listed map[claimID]bool
	seen   map[*entry]bool
	mixed  map[record.Key]bool // nodes of which more than one admission is known
}

func newOutlook(s *set, j *judge, b *Batch) *outlook {
	return &outlook{
		set: s, judge: j, b: b, stands: make(map[*entry]bool), certs: make(map[ref]*x509.Certificate),
		listed: make(map[claimID]bool), seen: make(map[*entry]bool), mixed: make(map[record.Key]bool),
	}
}

// list lists the signatures that are due.
func (w *outlook) list() {
	coming := w.coming()
	w.findStanding(append(slices.Clone(coming), w.set.aside...))
	for _, e := range coming {
		w.look(e)
	}
}

// coming reads the records of the batch that may bring something new.
func (w *outlook) coming() []*entry {
	var coming []*entry
	for i, d := range w.b.records {
		if w.b.errs[i] != nil || w.isOld(d) {
			continue
		}
		e, refusal := w.judge.readEntry(d)
		if refusal != nil || w.set.full(e) != nil {
			continue
		}
		in := w.set.records[d.Key]
		w.mixed[d.Key] = w.mixed[d.Key] || in != nil && !in.sameAdmission(d)
		for _, other := range w.set.aside {
			if other.sameAdmission(d) {
				e.certOK, e.signedOK = other.certOK, other.signedOK
			} else if other.Key == d.Key {
				w.mixed[d.Key] = true
			}
		}
		coming = append(coming, e)
	}
	return coming
}

// isOld reports whether a record will bring nothing new, whatever else comes in with it: what is known may lose its place.
func (w *outlook) isOld(d record.Decoded) bool {
	if in := w.set.records[d.Key]; in != nil && !d.Version.Newer(in.Version) && (d.Node == nil || in.sameAdmission(d)) {
		return true
	}
	return slices.ContainsFunc(w.set.aside, func(e *entry) bool {
		return e.Key == d.Key && e.Version == d.Version && bytes.Equal(e.Signature, d.Signature)
	})
}

// findStanding finds out which of the records may get into the set, signatures aside. Circles stand on nothing.
func (w *outlook) findStanding(records []*entry) {
	waiting := make(map[ref][]*entry)
	for _, e := range records {
		waiting[e.parent] = append(waiting[e.parent], e)
		if e.second() != (ref{}) {
			waiting[e.second()] = append(waiting[e.second()], e)
		}
	}
	for len(records) > 0 {
		e := records[len(records)-1]
		records = records[:len(records)-1]
		if w.stands[e] || !w.holds(e.parent) || !w.holds(e.second()) {
			continue
		}
		w.stands[e] = true
		if e.ref != (ref{}) && w.certs[e.ref] == nil {
			w.certs[e.ref] = e.Certificate
			records = append(records, waiting[e.ref]...)
		}
	}
}

// holds reports whether what is known by a ref is in the set or may get there. The root, which has none, is there.
func (w *outlook) holds(on ref) bool { return on == (ref{}) || w.cert(on) != nil }

// look lists what a record on its way in needs, and what rests on it and waits.
func (w *outlook) look(first *entry) {
	stack := []*entry{first}
	for len(stack) > 0 {
		e := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if w.seen[e] {
			continue
		}
		w.seen[e] = true
		if known := w.set.records[e.Key]; known != nil && known != e && known.sameAdmission(e.Decoded) && !w.mixed[e.Key] {
			w.need(w.judge.own(e)) // only what the node says of itself is new
			continue
		}
		if !e.in && !w.listNext(e, first == e) || e.ref == (ref{}) {
			continue
		}
		for other := range w.set.rests[e.ref] {
			stack = append(stack, other)
		}
		if e.isPromotion() {
			for other := range w.set.rests[ref(e.keyID)] {
				if other.Certificate == nil { // what it signed, when it was no admin yet
					stack = append(stack, other)
				}
			}
		}
	}
}

// listNext lists what is due of a record, and reports whether to look at what rests on it. Of a fresh one that is the next signature, and the
// rest waits for all of them: who sends forgeries, or what must wait itself, shall not make us verify what hangs on that.
func (w *outlook) listNext(e *entry, fresh bool) bool {
	for _, c := range w.claims(e, fresh) {
		switch right, done := w.need(c); {
		case done && !right, fresh && !done:
			return false
		}
	}
	return w.stands[e]
}

// need returns what came of a claim, and lists one that is not done.
func (w *outlook) need(c claim) (right, done bool) {
	err, done := w.b.results[c.claimID]
	if !done && !w.listed[c.claimID] {
		w.listed[c.claimID] = true
		w.b.due = append(w.b.due, c)
	}
	return err == nil, done
}

// cert finds the certificate of a node, an invite or a promotion, in the set or on its way there.
func (w *outlook) cert(on ref) *x509.Certificate {
	if e := w.set.nodes[identity.NodeID(on)]; e != nil {
		return e.Certificate
	}
	if e := w.set.invites.records[on]; e != nil {
		return e.Certificate
	}
	if e := w.set.promotions[on]; e != nil {
		return e.Certificate
	}
	return w.certs[on]
}

// claims returns the signatures of a record that are still to be verified, in the order in which newEntry and judge do that. While it has
// to wait for what it rests on, those of others are not among them.
func (w *outlook) claims(e *entry, fresh bool) (claims []claim) {
	if e.Node != nil && fresh {
		claims = append(claims, w.judge.own(e))
	}
	if !w.stands[e] {
		return claims
	}
	issuer := w.judge.root
	if !e.byRoot() {
		issuer = w.cert(e.parent)
	}
	switch {
	case e.Certificate == nil && !e.signedOK:
		claims = append(claims, recordClaim(w.judge.mesh, e.Signed, issuer))
	case e.Certificate != nil && !e.certOK:
		claims = append(claims, certClaim(e.Certificate, issuer))
	}
	if e.Node != nil && !e.byRoot() && !e.signedOK {
		claims = append(claims, admissionClaim(w.judge.mesh, e.Node, w.cert(e.second())))
	}
	return claims
}
