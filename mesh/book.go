package mesh

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// book is the set of records with what follows from it at once: the own record, the admissions given, the view. Its lock is
// held for computing only (a verification costs about 0.2 ms), never across a write or a send; what is to be done
// after a change leaves as news.
type book struct {
	// constant after newBook
	key     ed25519.PrivateKey
	self    identity.NodeID
	meshID  identity.MeshID
	rootID  identity.KeyID
	prefix4 netip.Prefix
	saver   *saver

	// guarded by mu
	mu      sync.Mutex
	roster  *roster.Roster
	own     own
	pending pendings
	refused *recent[roster.Entry]     // records that did not pass, so that nobody has to send them again at once
	names   map[identity.KeyID]string // last names of nodes, those that are gone included

	// atomic
	view   atomic.Pointer[View] // nil: to be made anew
	digest atomic.Pointer[[16]byte]
}

// news is what came of a change and is to be done without the lock.
type news struct {
	fresh   []record.Signed // new here: to be passed on
	dropped []roster.Drop
	refused []error
	own     bool        // fresh ends with a new own record
	fatal   *FatalError // nil: none
	changed bool
}

func newBook(o Options, self identity.NodeID, s *saver) (*book, error) {
	terms, err := identity.RootTermsOf(o.Root)
	if err != nil {
		return nil, err
	}
	b := &book{
		key: o.Key, self: self, meshID: identity.MeshIDOf(o.Root.PublicKey.(ed25519.PublicKey)), rootID: identity.KeyIDOfCert(o.Root),
		prefix4: terms.Prefix4, saver: s, roster: roster.New(o.Root),
		refused: newRecent[roster.Entry](4096, 10*time.Minute), names: make(map[identity.KeyID]string),
	}
	b.setDigest()
	b.own.node = o.Own
	b.own.node.ID, b.own.node.Certificate, b.own.node.Left = self, o.Chain[0].Raw, false
	b.own.node.Started = time.Now().Unix()
	if b.own.node.Instance == ([8]byte{}) {
		if _, err := rand.Read(b.own.node.Instance[:]); err != nil {
			return nil, err
		}
	}
	if err := b.own.restore(s.store); err != nil {
		return nil, err
	}
	return b, b.pending.restore(s.store)
}

// load takes the records of an earlier run and returns how many are in the set. Those that do not belong there, and rest on nothing
// unknown, are deleted.
func (b *book) load(records []record.Signed) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, errs := b.roster.AddAll(records, time.Now())
	for i, err := range errs {
		if err == nil {
			continue
		}
		if key, err := records[i].Key(); err == nil {
			b.saver.mark(key)
		}
	}
	b.setDigest()
	return b.roster.Len()
}

// start signs the record of this start. The error is a *FatalError when the records on disk put this node out.
func (b *book) start() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if fatal := b.expelled(); fatal != nil {
		return fatal
	}
	if before, ok := b.roster.Member(b.self); ok {
		b.own.node.Seq = max(b.own.node.Seq, before.Record.Seq)
		b.own.adopt(before.Record)
	}
	_, err := b.signOwn(time.Now())
	if fatal := b.expelled(); fatal != nil {
		return fatal
	}
	return err
}

// noteChange keeps saver, digest and view in step with the roster.
func (b *book) noteChange(out roster.Outcome) bool {
	b.saver.mark(out.Added...)
	b.saver.mark(out.Removed...)
	if len(out.Added)+len(out.Removed)+len(out.Changed)+len(out.Dropped) == 0 {
		return false
	}
	b.setDigest()
	b.view.Store(nil)
	return true
}

func (b *book) setDigest() {
	digest := b.roster.Digest()
	b.digest.Store(&digest)
}

// add verifies records and takes in those that hold.
func (b *book) add(records []record.Signed, now time.Time) news {
	b.mu.Lock()
	defer b.mu.Unlock()
	var n news
	for _, signed := range records {
		out, err := b.roster.Add(signed, now)
		if err != nil {
			n.refused = append(n.refused, err)
			b.refuse(signed, now)
		}
		b.collect(&n, out)
	}
	b.afterChange(&n, now)
	return n
}

// refuse remembers a record that did not pass.
func (b *book) refuse(signed record.Signed, now time.Time) {
	if d, err := signed.Decode(); err == nil {
		b.refused.add(roster.Entry{Key: d.Key, Version: d.Version}, now)
	}
}

// collect adds one outcome to the news. A record may bring in others that were parked for it; they are fresh too.
func (b *book) collect(n *news, out roster.Outcome) {
	n.changed = b.noteChange(out) || n.changed
	for _, key := range out.Added {
		if signed, ok := b.roster.Get(key); ok {
			n.fresh = append(n.fresh, signed)
		}
	}
	n.dropped = append(n.dropped, out.Dropped...)
}

// afterChange draws the consequences for this node itself.
func (b *book) afterChange(n *news, now time.Time) {
	if n.fatal = b.expelled(); n.fatal != nil || !n.changed {
		return
	}
	current, ok := b.roster.Get(b.own.key)
	if !ok {
		return
	}
	other, err := current.Node()
	if err != nil || other.Instance == b.own.node.Instance {
		return
	}
	b.own.adopt(other)
	answer, fatal := b.own.meet(other, now)
	n.fatal = fatal
	b.view.Store(nil)
	if !answer {
		return
	}
	if signed, err := b.signOwn(now); err == nil {
		n.fresh, n.own = append(n.fresh, signed), true
	}
}

// expelled says why this node is no member any more, nil while it is one or its place is not known yet.
func (b *book) expelled() *FatalError {
	err := b.roster.Standing(b.self)
	switch reason := roster.ReasonOf(err); reason {
	case roster.ReasonRevoked, roster.ReasonIssuerRevoked, roster.ReasonInviteRevoked, roster.ReasonInviteUsed, roster.ReasonInviteExpired,
		roster.ReasonExpired, roster.ReasonAdmission, roster.ReasonNotAllowed:
		return &FatalError{Reason: reason, Text: err.Error()}
	}
	return nil
}

// advance lets time pass: certificates expire.
func (b *book) advance(now time.Time) news {
	b.mu.Lock()
	defer b.mu.Unlock()
	var n news
	b.collect(&n, b.roster.Advance(now))
	b.afterChange(&n, now)
	return n
}

// signOwn signs the own record with the next sequence number and takes it in. It may be parked, when the record of the
// member that admitted this node is still to be fetched.
func (b *book) signOwn(now time.Time) (record.Signed, error) {
	node := b.own.node
	node.Seq, node.Updated = node.Seq+1, now.Unix()
	signed, err := record.SignNode(b.meshID, node, b.key)
	if err != nil {
		return record.Signed{}, err
	}
	out, err := b.roster.Add(signed, now)
	if err != nil {
		return record.Signed{}, err
	}
	b.own.set(node, signed, b.saver)
	b.noteChange(out)
	b.view.Store(nil)
	return signed, nil
}

// update changes the own record with f. It returns false when nothing has changed.
func (b *book) update(f func(*record.Node), now time.Time) (record.Signed, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.own.node
	node := before
	f(&node)
	node.ID, node.Seq, node.Certificate, node.Admission = before.ID, before.Seq, before.Certificate, before.Admission
	node.Instance, node.Epoch, node.Started, node.Updated = before.Instance, before.Epoch, before.Started, before.Updated
	same, err := record.SignNode(b.meshID, node, b.key)
	if err != nil || string(same.Body) == string(b.own.signed.Body) {
		return record.Signed{}, false, err
	}
	b.own.node = node
	signed, err := b.signOwn(now)
	if err != nil {
		b.own.node = before
	}
	return signed, err == nil, err
}

func (b *book) ownNode() record.Node {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.own.node
}

func (b *book) ownKey() record.Key {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.own.key
}

func (b *book) ownSigned() record.Signed {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.own.signed
}

func (b *book) currentView() *View {
	if v := b.view.Load(); v != nil {
		return v
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	v := b.view.Load()
	if v == nil {
		v = b.newView()
		b.view.Store(v)
	}
	return v
}

func (b *book) verifyChain(chain []*x509.Certificate, now time.Time) (identity.NodeID, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.roster.VerifyChain(chain, now)
}

func (b *book) standing(id identity.NodeID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.roster.Standing(id)
}

func (b *book) chain(id identity.KeyID) []*x509.Certificate {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.roster.Chain(id)
}

// encoded returns a record as it is stored, nil when it is not in the set.
func (b *book) encoded(key record.Key) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	signed, ok := b.roster.Get(key)
	if !ok {
		return nil
	}
	encoded, err := signed.Marshal()
	if err != nil {
		return nil // it was decoded from this very form
	}
	return encoded
}

// addAll is add for the records of a sync, in one go.
func (b *book) addAll(records []record.Signed, now time.Time) news {
	b.mu.Lock()
	defer b.mu.Unlock()
	var n news
	out, errs := b.roster.AddAll(records, now)
	for i, err := range errs {
		if err != nil {
			n.refused = append(n.refused, err)
			b.refuse(records[i], now)
		}
	}
	b.collect(&n, out)
	b.afterChange(&n, now)
	return n
}
