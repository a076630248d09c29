package mesh

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
	"warren/mesh/store"
)

// writer writes the book: it takes records in, and after each change draws the consequences for this node itself, whose own record it
// keeps. What is to be done after a change leaves as news.
type writer struct {
	// constant
	book   *book
	key    ed25519.PrivateKey
	self   identity.NodeID
	meshID identity.MeshID
	secret [16]byte // LAN secret

	own own // guarded by the book's lock
}

// news is what came of a change and is to be done without the lock.
type news struct {
	fresh   []record.Signed // new here: to be passed on
	dropped []roster.Drop
	refused []error
	own     bool        // fresh ends with a new own record
	rival   string      // in words: another holder of this node's key has proved to be alive; "" when that is not news
	fatal   *FatalError // nil: none
	changed bool
}

func newWriter(o Options, self identity.NodeID, b *book) (*writer, error) {
	w := &writer{book: b, key: o.Key, self: self, meshID: identity.MeshIDOf(o.Root.PublicKey.(ed25519.PublicKey)), secret: o.LANSecret}
	w.own.node = o.Own
	w.own.node.ID, w.own.node.Certificate, w.own.node.Left = self, o.Chain[0].Raw, false
	w.own.node.Started = time.Now().Unix()
	if w.own.node.Instance == ([8]byte{}) {
		if _, err := rand.Read(w.own.node.Instance[:]); err != nil {
			return nil, err
		}
	}
	return w, w.own.restore(o.Store)
}

// load takes the records of an earlier run, and the invites and promotions of the node's own chain, and returns how many are in the set. Stored ones
// that do not belong there, and rest on nothing unknown, are deleted.
func (w *writer) load(items []store.Item, chain []*x509.Certificate, d *drops) int {
	var records []record.Signed
	for _, cert := range chain {
		if role := identity.RoleOf(cert); role == identity.RoleInvite || role == identity.RolePromotion {
			records = append(records, record.NewCertificate(cert))
		}
	}
	for _, item := range items {
		signed, err := record.Unmarshal(item.Value)
		if err != nil {
			d.add("store: malformed record")
			w.book.saver.mark(item.Key)
			continue
		}
		records = append(records, signed)
	}
	w.book.mu.Lock()
	defer w.book.unlock()
	w.book.stale = true
	_, errs := w.book.roster.AddAll(records, time.Now())
	for i, err := range errs {
		if err == nil {
			continue
		}
		if key, err := records[i].Key(); err == nil {
			w.book.saver.mark(key)
		}
	}
	return w.book.roster.Len()
}

// start signs the record of this start. The error is a *FatalError when the records on disk put this node out, and hearing them anew cannot
// change that.
func (w *writer) start() error {
	w.book.mu.Lock()
	defer w.book.unlock()
	if fatal := w.expelled(); fatal != nil && !w.doubt(fatal) {
		return fatal
	}
	if before, ok := w.book.roster.Member(w.self); ok {
		w.own.node.Seq = max(w.own.node.Seq, before.Record.Seq)
		w.own.adopt(before.Record)
		// For the moment: nobody else is to have its addresses and routes meanwhile, and the others go on looking for it where they would anyway.
		w.own.node.Addr4, w.own.node.Routes = before.Record.Addr4, before.Record.Routes
		w.own.node.Endpoints, w.own.node.Streams, w.own.node.Anchors = before.Record.Endpoints, before.Record.Streams, before.Record.Anchors
	}
	_, err := w.sign(time.Now())
	if fatal := w.expelled(); fatal != nil {
		return fatal
	}
	return err
}

// add verifies records and takes in those that hold, one after the other. It says of each what came of it; all are in the
// view by then.
func (w *writer) add(records []record.Signed, now time.Time) []news {
	batch, all := roster.Read(records), make([]news, len(records))
	w.book.lockFor(batch)
	defer w.book.unlock()
	for i := range records {
		n := &all[i]
		out, err := w.book.roster.AddOne(batch, i, now)
		if err != nil {
			n.refused = append(n.refused, err)
		}
		w.collect(n, out)
		w.follow(n, now)
	}
	return all
}

// addAll is add for the records of a sync, in one go.
func (w *writer) addAll(records []record.Signed, now time.Time) news {
	batch := roster.Read(records)
	w.book.lockFor(batch)
	defer w.book.unlock()
	var n news
	out, errs := w.book.roster.AddBatch(batch, now)
	for _, err := range errs {
		if err != nil {
			n.refused = append(n.refused, err)
		}
	}
	w.collect(&n, out)
	w.follow(&n, now)
	return n
}

// collect adds one outcome to the news. A record may bring in others that were parked for it; they are fresh too.
func (w *writer) collect(n *news, out roster.Outcome) {
	n.changed = w.book.note(out) || n.changed
	for _, key := range out.Added {
		if signed, ok := w.book.roster.Get(key); ok {
			n.fresh = append(n.fresh, signed)
		}
	}
	n.dropped = append(n.dropped, out.Dropped...)
}

// follow draws the consequences for this node itself.
func (w *writer) follow(n *news, now time.Time) {
	if n.fatal = w.expelled(); n.fatal == nil && n.changed {
		w.settle(n)
		w.defend(n, now)
	}
}

// defend answers another holder of this node's key whose record has taken the place of ours, when it is time.
func (w *writer) defend(n *news, now time.Time) {
	current, ok := w.book.roster.Get(w.own.key)
	if !ok {
		return
	}
	other, err := current.Node()
	if err != nil || other.Instance == w.own.node.Instance {
		if err == nil && other.LANSecret != w.lanSecret() { // it has become an admin, or is none any more
			w.answer(n, now)
		}
		return
	}
	w.own.adopt(other)
	answer := w.own.meet(other, now)
	if w.book.doubted == nil && w.book.conflict != w.own.conflict {
		n.rival, n.changed = w.own.conflict, true
		w.book.conflict, w.book.stale = w.own.conflict, true
	}
	if answer {
		w.answer(n, now)
	}
}

// answer signs the own record anew, to be passed on.
func (w *writer) answer(n *news, now time.Time) {
	if signed, err := w.sign(now); err == nil {
		n.fresh, n.own = append(n.fresh, signed), true
	}
}

// expelled says why this node is no member any more, nil while it is one or its place is not known yet.
func (w *writer) expelled() *FatalError {
	return outBy(w.book.roster.Standing(w.self))
}

// outBy is the end of a node that is no member for this reason, nil for a reason that a record still to come may cure.
func outBy(err error) *FatalError {
	switch reason := roster.ReasonOf(err); reason {
	case roster.ReasonRevoked, roster.ReasonIssuerRevoked, roster.ReasonInviteRevoked, roster.ReasonInviteUsed, roster.ReasonInviteExpired,
		roster.ReasonExpired, roster.ReasonAdmission, roster.ReasonNotAllowed:
		return &FatalError{Reason: reason, Text: err.Error()}
	}
	return nil
}

// advance lets time pass: certificates expire, and answers fall due.
func (w *writer) advance(now time.Time) news {
	w.book.mu.Lock()
	defer w.book.unlock()
	var n news
	w.collect(&n, w.book.roster.Advance(now))
	if n.fatal = w.expelled(); n.fatal == nil {
		w.defend(&n, now)
	}
	if w.own.settle(now) && w.book.doubted == nil {
		w.book.conflict, w.book.stale, n.changed = "", true, true
	}
	return n
}

// lanSecret is the secret that the own record shows: an admin's.
func (w *writer) lanSecret() [16]byte {
	member, ok := w.book.roster.Member(w.self)
	if !ok {
		cert, err := identity.ParseCert(w.own.node.Certificate)
		member.Admin = err == nil && identity.IsAdmin(cert)
	}
	if !member.Admin {
		return [16]byte{}
	}
	return w.secret
}

// sign signs the own record with the next sequence number and takes it in. It may be parked, when the record of the
// member that admitted this node is still to be fetched.
func (w *writer) sign(now time.Time) (record.Signed, error) {
	node := w.own.node
	node.Seq, node.Updated, node.LANSecret = node.Seq+1, now.Unix(), w.lanSecret()
	signed, err := record.SignNode(w.meshID, node, w.key)
	if err != nil {
		return record.Signed{}, err
	}
	batch := roster.Read([]record.Signed{signed})
	batch.Trust()
	out, err := w.book.roster.AddOne(batch, 0, now)
	if err != nil {
		return record.Signed{}, err
	}
	w.own.set(node, signed, w.book.saver)
	w.book.note(out)
	w.book.stale = true
	return signed, nil
}

// update changes the own record with f, which is called without a lock, and again when the record has changed meanwhile. It returns
// false when nothing has changed.
func (w *writer) update(f func(*record.Node), now time.Time) (signed record.Signed, changed bool, err error) {
	for {
		node, body := w.ownBody()
		f(&node)
		signed, changed, overtaken, err := w.replace(body, node, now)
		if !overtaken {
			return signed, changed, err
		}
	}
}

// ownBody returns the own record and the body that it was last signed with.
func (w *writer) ownBody() (record.Node, []byte) {
	w.book.mu.Lock()
	defer w.book.mu.Unlock()
	return w.own.node, w.own.signed.Body
}

// replace takes node for the own record, as far as a node says it of itself. overtaken: the record is not the one any more that had
// this body.
func (w *writer) replace(body []byte, node record.Node, now time.Time) (signed record.Signed, changed, overtaken bool, err error) {
	w.book.mu.Lock()
	defer w.book.unlock()
	before := w.own.node
	if !bytes.Equal(body, w.own.signed.Body) {
		return record.Signed{}, false, true, nil
	}
	node.ID, node.Seq, node.Certificate, node.Admission = before.ID, before.Seq, before.Certificate, before.Admission
	node.Instance, node.Epoch, node.Started, node.Updated = before.Instance, before.Epoch, before.Started, before.Updated
	same, err := record.SignNode(w.meshID, node, w.key)
	if err != nil || bytes.Equal(same.Body, w.own.signed.Body) {
		return record.Signed{}, false, false, err
	}
	w.own.node = node
	if signed, err = w.sign(now); err != nil {
		w.own.node = before
	}
	return signed, err == nil, false, err
}

// ownNode returns the own record as it stands.
func (w *writer) ownNode() record.Node {
	w.book.mu.Lock()
	defer w.book.mu.Unlock()
	return w.own.node
}

// ownKey returns the key of the own record.
func (w *writer) ownKey() record.Key {
	w.book.mu.Lock()
	defer w.book.mu.Unlock()
	return w.own.key
}

// ownSigned returns the own record as it was last signed.
func (w *writer) ownSigned() record.Signed {
	w.book.mu.Lock()
	defer w.book.mu.Unlock()
	return w.own.signed
}
