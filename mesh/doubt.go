package mesh

import (
	"crypto/x509"
	"slices"
	"time"

	"warren/mesh/record"
	"warren/mesh/roster"
)

// A node that is out by the word of admins alone asks the others when it is started: the root may have undone that word, and a node that is out
// hears nothing. Until then it goes without the revocations that it doubts.

// doubt has this node start without the revocations of admins, when it is these that put it out: the root may have undone them since, and a node
// that is out hears nothing any more. Whoever refuses it hands them over again, and then they count. They stay on disk. It returns false
// when the node is out by other records too. The book's lock is held.
func (w *writer) doubt(fatal *FatalError) bool {
	var sure, doubted []record.Signed
	for _, signed := range w.book.roster.All() {
		if signed.Kind == record.KindRevocation && signed.Signer != w.book.public.rootID {
			doubted = append(doubted, signed)
		} else {
			sure = append(sure, signed)
		}
	}
	without := reread(w.book.root, sure)
	if len(doubted) == 0 || outBy(without.Standing(w.self)) != nil {
		return false
	}
	w.book.roster, w.book.doubted, w.book.stale = without, doubted, true
	w.book.conflict = "the records on this machine say that this node is out, and it asks the others whether that still holds: " + fatal.Text
	return true
}

// reread makes another roster of records that were verified before.
func reread(root *x509.Certificate, records []record.Signed) *roster.Roster {
	r, batch := roster.New(root), roster.Read(records)
	batch.Trust()
	r.AddBatch(batch, time.Now())
	return r
}

// settle ends the doubt when a revocation has come, most likely the root's, with which the doubted ones do not put this node out any more.
// The book's lock is held.
func (w *writer) settle(n *news) {
	revokes := func(signed record.Signed) bool { return signed.Kind == record.KindRevocation }
	if w.book.doubted == nil || !slices.ContainsFunc(n.fresh, revokes) {
		return
	}
	all := slices.Clone(w.book.doubted)
	for _, signed := range w.book.roster.All() {
		all = append(all, signed)
	}
	if with := reread(w.book.root, all); outBy(with.Standing(w.self)) == nil {
		w.book.doubted, w.book.conflict, w.book.stale = nil, w.own.conflict, true
	}
}

// doubts are the doubted revocations that were not heard since.
func (b *book) doubts() (out []roster.Revoked) {
	for _, signed := range b.doubted {
		d, err := signed.Decode()
		if err != nil || d.Revocation == nil {
			continue
		}
		if _, heard := b.roster.Get(d.Key); !heard {
			out = append(out, roster.Revoked{Revocation: *d.Revocation, Key: d.Key})
		}
	}
	return out
}
