package mesh

import (
	"context"
	"crypto/x509"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// book is the set of records behind its lock. The lock is held for what takes microseconds, or with a changed view of a thousand members
// two milliseconds: never across a write, a send or the verification of signatures, which take up to 0.2 ms for each record. Who writes in it
// (writer, and Admission for its own part) takes the lock, has what came of it noted, and unlocks; then digest and view are published too.
type book struct {
	// constant after newBook
	root   *x509.Certificate
	saver  *saver
	chains *roster.Chains
	public *published
	log    *slog.Logger
	verify func(*roster.Batch) // Batch.Verify

	unsaved atomic.Bool // the last write failed

	dirty chan struct{} // of capacity 1, for keeper: something is to be written

	// guarded by mu
	mu       sync.Mutex
	roster   *roster.Roster
	conflict string          // for the view, in words: something is wrong with this node's own place in the mesh
	doubted  []record.Signed // revocations that put this node out when it started, and were not heard since: see writer.doubt
	stale    bool            // the set has changed since it was published
}

func newBook(root *x509.Certificate, s *saver, log *slog.Logger) (*book, error) {
	public, err := newPublished(root)
	if err != nil {
		return nil, err
	}
	b := &book{
		root: root, saver: s, public: public, log: log, verify: (*roster.Batch).Verify,
		roster: roster.New(root), dirty: make(chan struct{}, 1),
	}
	b.chains = b.roster.Chains()
	b.public.publish(b.roster, "")
	return b, nil
}

// unlock ends a change.
func (b *book) unlock() {
	if b.stale {
		b.public.publish(b.roster, b.conflict)
		b.stale = false
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

// note keeps saver, digest and view in step with the roster. It reports whether there was a change.
func (b *book) note(out roster.Outcome) bool {
	b.saver.mark(out.Added...)
	b.saver.mark(out.Removed...)
	if len(out.Added)+len(out.Removed)+len(out.Changed)+len(out.Dropped) == 0 {
		return false
	}
	b.stale = true
	return true
}

// save returns when all that has changed is on disk. Its error is logged too, since most callers have nobody to tell: once, until a write succeeds.
func (b *book) save() error {
	err := b.saver.flush(context.Background(), b.encoded)
	b.tell(err)
	return err
}

// keep has what has changed written soon, and waits for no disk: for whoever has others waiting. What a crash loses in between the other
// members have, and a later number of the own record too: see own.meet.
func (b *book) keep() {
	select {
	case b.dirty <- struct{}{}:
	default:
	}
}

// keeper writes what keep has asked for, until ctx ends.
func (b *book) keeper(ctx context.Context) {
	for {
		select {
		case <-b.dirty:
			_ = b.save() // it is logged, and in the store's Trouble
		case <-ctx.Done():
			return
		}
	}
}

// retry writes once more when the last write has failed. It reports whether that one has too.
func (b *book) retry() (failed bool) {
	if !b.unsaved.Load() {
		return false
	}
	err := b.saver.flush(context.Background(), b.encoded)
	if err == nil {
		err = b.saver.store.Retry() // where nothing had to be written
	}
	b.tell(err)
	return err != nil
}

// tell logs that writes fail, and that they do no more.
func (b *book) tell(err error) {
	switch failed := err != nil; {
	case b.unsaved.Swap(failed) == failed:
	case failed:
		b.log.Error("records not saved", "error", err)
	default:
		b.log.Info("records saved again")
	}
}

// verifyChain returns whose chain it is, or why it is no member's.
func (b *book) verifyChain(chain []*x509.Certificate, now time.Time) (identity.NodeID, error) {
	if err := b.chains.Check(chain); err != nil {
		return identity.NodeID{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	id, err := b.roster.JudgeChain(chain, now)
	if roster.ReasonOf(err) == roster.ReasonUnproven {
		return id, nil // a stranger, as others of which there is no record
	}
	return id, err
}

// standing returns nil for a member, else why the node is none.
func (b *book) standing(id identity.NodeID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.roster.Standing(id)
}

// chain returns the certificates from a node or an invite up to the root, nil when the set does not have it.
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
