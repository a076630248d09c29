package bind

import (
	"net/netip"
	"sync"
)

// peers holds the endpoint objects of the mesh peers.
type peers struct {
	handed chan handed // constant: what others than sockets have brought of them, see carried.go

	// guarded by mu
	mu      sync.Mutex
	serial  uint64
	handles map[netip.Addr]*Endpoint
}

func newPeers() *peers {
	return &peers{handed: make(chan handed, handedQueue), handles: make(map[netip.Addr]*Endpoint)}
}

// add makes the object of a peer.
func (p *peers) add(b *Bind, key [32]byte) *Endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serial++
	e := &Endpoint{bind: b, handle: virtualAddr(virtualHandle, p.serial)}
	e.handleBytes, _ = e.handle.MarshalBinary() // cannot fail
	e.checker.Init(key)
	e.carried.queue, e.carried.peer, e.carried.drops = p.handed, e, &b.drops
	p.handles[e.handle.Addr()] = e
	return e
}

// forget takes a peer's object out.
func (p *peers) forget(e *Endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.handles, e.handle.Addr())
}

// byHandle returns the object with this handle, or nil.
func (p *peers) byHandle(a netip.Addr) *Endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.handles[a]
}

// addressee returns the endpoint, other than not, of the peer that the handshake message m is meant for; nil if
// it is none's. It tries all peers: a microsecond each, in a case that needs two of them to trade addresses.
func (p *peers) addressee(m []byte, not *Endpoint) *Endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.handles {
		if e != not && e.checker.CheckMAC1(m) {
			return e
		}
	}
	return nil
}
