package nat

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	"warren/mesh/identity"
	"warren/nat/natkind"
	"warren/nat/path"
)

// board is what the run loop last published. Others read it.
type board struct {
	mu    sync.Mutex // guards the rest
	peers map[identity.NodeID]shown
	place sight
}

// shown is what there is to see of a peer. It is replaced, never written to.
type shown struct {
	view   *path.View
	trials []*trial // the latest attempts, oldest first
}

// sight is how others see this node. It is replaced, never written to.
type sight struct {
	mapped    []netip.AddrPort
	sightings []natkind.Sighting
	ports     natkind.Ports
}

func (b *board) show(p *peer) {
	s := shown{view: p.machine.View(), trials: p.trials}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.peers[p.id] = s
}

func (b *board) hide(id identity.NodeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.peers, id)
}

func (b *board) see(s sight) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.place = s
}

func (b *board) peer(id identity.NodeID) (s shown, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, known = b.peers[id]
	return s, known
}

func (b *board) all() map[identity.NodeID]shown {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.peers)
}

// seen returns copies.
func (b *board) seen() sight {
	b.mu.Lock()
	defer b.mu.Unlock()
	return sight{mapped: slices.Clone(b.place.mapped), sightings: slices.Clone(b.place.sightings), ports: b.place.ports}
}
