package mesh

import (
	"sync"
	"time"

	"warren/mesh/identity"
)

// asks collects reasons to sync with members, from goroutines that must not wait. Those for one member are one; the run loop takes them.
type asks struct {
	wake chan struct{} // has a value when there is something to take

	mu     sync.Mutex
	asks   map[identity.NodeID]ask
	no     map[identity.NodeID]string    // who has refused this node since its last session, and why
	synced map[identity.NodeID]time.Time // end of the last sync, whoever opened it
}

// ask is why to sync with a member.
type ask struct {
	up     bool          // a session came up: also meet in memberlist
	must   bool          // whatever the digests say
	theirs [16]byte      // the member's digest, when not must
	delay  time.Duration // from now on
}

func newAsks() *asks {
	return &asks{
		wake: make(chan struct{}, 1), asks: make(map[identity.NodeID]ask), no: make(map[identity.NodeID]string), synced: make(map[identity.NodeID]time.Time),
	}
}

// maxAsks is above the number of members with which there can be news at one time.
const maxAsks = 4096

// wish is one reason to sync, or what is to be kept in mind for that.
type wish struct {
	up     bool // a session came up
	sync   bool // a sync is wanted, after delay at the latest
	delay  time.Duration
	theirs *[16]byte // the member's digest; nil: not told
}

// with adds a wish to what is asked for already.
func (k ask) with(w wish) ask {
	switch {
	case w.up:
		k.up, k.must, k.delay = true, true, 0
	case w.sync && (!k.must || w.delay < k.delay):
		k.must, k.delay = true, w.delay
	case w.theirs != nil:
		k.theirs = *w.theirs
	}
	return k
}

func (a *asks) put(id identity.NodeID, w wish) {
	a.mu.Lock()
	defer a.mu.Unlock()
	one, ok := a.asks[id]
	if !ok && len(a.asks) >= maxAsks {
		return // the digests will bring it up again
	}
	if w.up {
		delete(a.no, id) // who has a session does not refuse it
	}
	a.asks[id] = one.with(w)
	a.rouse()
}

func (a *asks) rouse() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// up asks for a sync because a session came up. Who has one does not refuse it.
func (a *asks) up(id identity.NodeID) { a.put(id, wish{up: true}) }

// refused tells that a node wants no session.
func (a *asks) refused(id identity.NodeID, reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.no) < maxAsks {
		a.no[id] = reason
		a.rouse()
	}
}

// sync asks for a sync.
func (a *asks) sync(id identity.NodeID, delay time.Duration) {
	a.put(id, wish{sync: true, delay: delay})
}

// digest tells the digest that a member has just shown.
func (a *asks) digest(id identity.NodeID, theirs [16]byte) { a.put(id, wish{theirs: &theirs}) }

func (a *asks) take() (taken map[identity.NodeID]ask, no map[identity.NodeID]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	taken, no = a.asks, a.no
	a.asks, a.no = make(map[identity.NodeID]ask), make(map[identity.NodeID]string)
	return taken, no
}

// done notes that a sync has succeeded.
func (a *asks) done(id identity.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.synced[id] = time.Now()
}

// lastDone returns when the last sync with a member succeeded.
func (a *asks) lastDone(id identity.NodeID) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.synced[id]
}

// forget drops what is kept of a node.
func (a *asks) forget(id identity.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.synced, id)
}
