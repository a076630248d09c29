package mesh

import (
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/mesh/roster"
)

// asks collects reasons to sync with members, from goroutines that must not wait. Those for one member are one; the run loop takes them.
type asks struct {
	wake chan struct{} // has a value when there is something to take

	mu     sync.Mutex
	asks   map[identity.NodeID]ask
	again  identity.NodeID               // one that has a version of a record whose turn has not come; zero: none
	synced map[identity.NodeID]time.Time // end of the last sync that was certainly with that member, whoever opened it
}

// ask is why to sync with a member.
type ask struct {
	up     bool           // a session came up: also meet in memberlist
	must   bool           // whatever the digests say
	lacks  []roster.Entry // records that the member says it has, and that were not here
	theirs *[16]byte      // the member's digest, when it is the only reason
	delay  time.Duration  // from now on
}

func newAsks() *asks {
	return &asks{wake: make(chan struct{}, 1), asks: make(map[identity.NodeID]ask), synced: make(map[identity.NodeID]time.Time)}
}

const (
	// maxAsks is above the number of members with which there can be news at one time.
	maxAsks = 4096
	// maxLacks is how many records are kept in mind that a member says it has: each is reason enough.
	maxLacks = 4 * maxNoticed
)

// wish is one reason to sync.
type wish struct {
	up     bool           // a session came up
	sync   bool           // a sync is wanted, after delay at the latest
	lacks  []roster.Entry // likewise, if one of these is still not here then
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
	case len(w.lacks) > 0:
		k.lacks = append(k.lacks, w.lacks...)
		k.lacks = k.lacks[:min(len(k.lacks), maxLacks)]
	case w.theirs != nil:
		k.theirs = w.theirs
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
	a.asks[id] = one.with(w)
	a.rouse()
}

// up asks for a sync because a session came up.
func (a *asks) up(id identity.NodeID) { a.put(id, wish{up: true}) }

// sync asks for a sync.
func (a *asks) sync(id identity.NodeID, delay time.Duration) {
	a.put(id, wish{sync: true, delay: delay})
}

// noticed tells that a member says it has records that are not here.
func (a *asks) noticed(id identity.NodeID, lacks []roster.Entry) { a.put(id, wish{lacks: lacks}) }

// digest tells the digest that a member has just shown.
func (a *asks) digest(id identity.NodeID, theirs [16]byte) { a.put(id, wish{theirs: &theirs}) }

// later tells that a member has a version of a record whose turn has not come. One such member is kept in mind: it stands for all.
func (a *asks) later(id identity.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.again = id
	a.rouse()
}

// rouse wakes the run loop.
func (a *asks) rouse() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *asks) take() (taken map[identity.NodeID]ask, again identity.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	taken, again = a.asks, a.again
	a.asks, a.again = make(map[identity.NodeID]ask), identity.NodeID{}
	return taken, again
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
