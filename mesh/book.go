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
// held for what takes microseconds, or with a changed view of a thousand members two milliseconds: never across a write, a send or the verification
// of signatures, which take up to 0.2 ms for each record. Whoever changes the set publishes digest and view before it lets the
// lock go, so that those are read without it. What is to be done after a change leaves as news.
type book struct {
	// constant after newBook
	key     ed25519.PrivateKey
	self    identity.NodeID
	meshID  identity.MeshID
	rootID  identity.KeyID
	prefix4 netip.Prefix
	saver   *saver
	chains  *roster.Chains
	verify  func(*roster.Batch) // Batch.Verify

	// guarded by mu
	mu      sync.Mutex
	stale   bool // the set has changed since view and digest were published
	roster  *roster.Roster
	own     own
	pending pendings
	refused *recent[roster.Entry]     // records that did not pass, so that nobody has to send them again at once
	names   map[identity.KeyID]string // last names of nodes, those that are gone included

	// atomic
	view   atomic.Pointer[View]
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
		prefix4: terms.Prefix4, saver: s, verify: (*roster.Batch).Verify, roster: roster.New(o.Root),
		refused: newRecent[roster.Entry](4096, 10*time.Minute), names: make(map[identity.KeyID]string),
	}
	b.chains = b.roster.Chains()
	b.publish()
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

// publish makes what is read without the lock. The lock is held, or nobody else knows the book yet.
func (b *book) publish() {
	digest := b.roster.Digest()
	b.digest.Store(&digest)
	b.view.Store(b.newView())
	b.stale = false
}

// unlock ends a change.
func (b *book) unlock() {
	if b.stale {
		b.publish()
	}
	b.mu.Unlock()
}

// lockFor returns with the lock, once nothing is left to verify of what a batch brings about.
func (b *book) lockFor(batch *roster.Batch) {
	b.mu.Lock()
	for batch.Due(b.roster) {
		b.mu.Unlock()
		b.verify(batch)
		b.mu.Lock()
	}
}

// load takes the records of an earlier run and returns how many are in the set. Those that do not belong there, and rest on nothing
// unknown, are deleted.
func (b *book) load(records []record.Signed) int {
	b.mu.Lock()
	defer b.unlock()
	b.stale = true
	_, errs := b.roster.AddAll(records, time.Now())
	for i, err := range errs {
		if err == nil {
			continue
		}
		if key, err := records[i].Key(); err == nil {
			b.saver.mark(key)
		}
	}
	return b.roster.Len()
}

// start signs the record of this start. The error is a *FatalError when the records on disk put this node out.
func (b *book) start() error {
	b.mu.Lock()
	defer b.unlock()
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
	b.stale = true
	return true
}

// add verifies records and takes in those that hold, one after the other. It says of each what came of it; all are in the
// view by then.
func (b *book) add(records []record.Signed, now time.Time) []news {
	batch, all := roster.Read(records), make([]news, len(records))
	b.lockFor(batch)
	defer b.unlock()
	for i, signed := range records {
		n := &all[i]
		out, err := b.roster.AddOne(batch, i, now)
		if err != nil {
			n.refused = append(n.refused, err)
			b.refuse(signed, now)
		}
		b.collect(n, out)
		b.afterChange(n, now)
	}
	return all
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
	b.stale = true
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
	defer b.unlock()
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
	batch := roster.Read([]record.Signed{signed})
	batch.Trust()
	out, err := b.roster.AddOne(batch, 0, now)
	if err != nil {
		return record.Signed{}, err
	}
	b.own.set(node, signed, b.saver)
	b.noteChange(out)
	b.stale = true
	return signed, nil
}

// update changes the own record with f. It returns false when nothing has changed.
func (b *book) update(f func(*record.Node), now time.Time) (record.Signed, bool, error) {
	b.mu.Lock()
	defer b.unlock()
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

func (b *book) verifyChain(chain []*x509.Certificate, now time.Time) (identity.NodeID, error) {
	if err := b.chains.Check(chain); err != nil {
		return identity.NodeID{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.roster.JudgeChain(chain, now)
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
	batch := roster.Read(records)
	b.lockFor(batch)
	defer b.unlock()
	var n news
	out, errs := b.roster.AddBatch(batch, now)
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
