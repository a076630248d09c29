package nat

import (
	"maps"
	"sync"

	"warren/mesh/identity"
)

// requests are what the methods asked for since the run loop last looked. They coalesce to the latest.
type requests struct {
	poked chan struct{} // constant: a value when there is something to take

	mu      sync.Mutex // guards the rest
	desired desired
	told    *Local // last, by Set
}

type desired struct {
	local      *Local // nil: as before
	peers      []identity.NodeID
	setPeers   bool
	check      map[identity.NodeID]bool
	checkAll   bool
	probe      bool
	ready      map[identity.NodeID]bool
	everyReady bool
	introduce  map[identity.NodeID]bool
	stirred    map[identity.NodeID]bool
	changed    map[identity.NodeID]bool
	gone       map[identity.NodeID]bool // anchors
}

func noDesire() desired {
	return desired{
		ready: make(map[identity.NodeID]bool), introduce: make(map[identity.NodeID]bool), stirred: make(map[identity.NodeID]bool),
		check: make(map[identity.NodeID]bool), changed: make(map[identity.NodeID]bool),
		gone: make(map[identity.NodeID]bool),
	}
}

func newRequests() *requests { return &requests{poked: make(chan struct{}, 1), desired: noDesire()} }

// only are these peers, as desired has them.
func only(peers ...identity.NodeID) map[identity.NodeID]bool {
	set := make(map[identity.NodeID]bool, len(peers))
	for _, id := range peers {
		set[id] = true
	}
	return set
}

// add asks for more beside what is asked for.
func (d *desired) add(more desired) {
	if more.setPeers {
		d.peers, d.setPeers = more.peers, true
	}
	d.probe = d.probe || more.probe
	d.checkAll = d.checkAll || more.checkAll
	d.everyReady = d.everyReady || more.everyReady
	maps.Copy(d.check, more.check)
	maps.Copy(d.ready, more.ready)
	maps.Copy(d.introduce, more.introduce)
	maps.Copy(d.stirred, more.stirred)
	maps.Copy(d.changed, more.changed)
	maps.Copy(d.gone, more.gone)
}

func (r *requests) ask(more desired) {
	r.mu.Lock()
	r.desired.add(more)
	r.mu.Unlock()
	r.wake()
}

// set asks for nothing when this is what was told last.
func (r *requests) set(l *Local) {
	r.mu.Lock()
	fresh := r.told == nil || !r.told.equal(l)
	if fresh {
		r.told, r.desired.local = l, l
	}
	r.mu.Unlock()
	if fresh {
		r.wake()
	}
}

// wake has the run loop look at what was asked for.
func (r *requests) wake() {
	select {
	case r.poked <- struct{}{}:
	default:
	}
}

func (r *requests) take() desired {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.desired
	r.desired = noDesire()
	return d
}
