package filter

import (
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the table. A flow takes about 150 bytes, all of them 10 MB.
const (
	maxFlows = 1 << 16
	maxPeer  = 1 << 14 // that one peer has begun
	maxOwn   = 1 << 15 // that were begun here, whatever peers do
	shards   = 64      // so that the directions, and several peers, do not wait for each other
	sampled  = 64      // flows of which one may have to go for another
	sweeping = time.Second
)

// How long a flow lasts without a packet. RFC 5382 has at least 2 h 4 min for a connection, four for one that opens; RFC 4787 at least two for
// UDP. One that nobody has answered may go sooner: it begins again with its next packet.
const (
	lastsTCP     = 2*time.Hour + 5*time.Minute
	lastsUDP     = 3 * time.Minute
	lastsICMP    = 30 * time.Second
	lastsOpening = 30 * time.Second
	lastsClosing = 4 * time.Minute
)

// flow is one flow. It is guarded by the lock of its shard.
type flow struct {
	expires    time.Duration
	generation uint64 // of the rules by which it was judged
	owner      *owner
	began      Direction // In: by the far side
	answered   bool
	closing    bool
}

// owner is who begins flows: a peer, this machine, or nobody known.
type owner struct {
	limit     int64
	count     atomic.Int64
	fragments fragments
}

// peerTable is immutable once stored.
type peerTable struct {
	owners map[[32]byte]*owner
	routes prefixes[*owner]
}

// flows is the table.
type flows struct {
	shard [shards]shard
	count atomic.Int64
	swept atomic.Int64 // when, in nanoseconds
}

type shard struct {
	mu    sync.Mutex
	flows map[key]*flow
	_     [48]byte // the next one is on another line of the cache
}

func (t *flows) setup() {
	for i := range t.shard {
		t.shard[i].flows = make(map[key]*flow)
	}
}

// of returns where a flow is. Who floods one shard on purpose slows down its own flows, and a 64th of the others.
func (t *flows) of(k key) *shard {
	h := uint32(k.far[15])<<16 ^ uint32(k.near[15])<<8 ^ uint32(k.farPort)<<4 ^ uint32(k.nearPort) ^ uint32(k.far[14])
	return &t.shard[h*2654435761>>26]
}

// goesOn reports whether a packet belongs to a flow that may go on, and has the flow last longer.
func (t *flows) goesOn(r *compiled, k key, dir Direction, p *packet, now time.Duration) bool {
	s := t.of(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	f := t.current(s, r, k, now)
	if f == nil {
		return false
	}
	if p.protocol == protoTCP && p.flags&(flagSYN|flagACK) == flagSYN && (dir != f.began || f.closing) {
		// Another connection between the same ports: whoever opens it has to be allowed to.
		t.remove(s, k, f)
		return false
	}
	f.seen(dir, p, now)
	return true
}

// known reports whether there is such a flow.
func (t *flows) known(r *compiled, k key, now time.Duration) bool {
	s := t.of(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.current(s, r, k, now) != nil
}

// current returns a flow unless it is over: by its time, or by rules that have come since. The caller holds the lock.
func (t *flows) current(s *shard, r *compiled, k key, now time.Duration) *flow {
	f := s.flows[k]
	if f == nil {
		return nil
	}
	if f.expires <= now {
		t.remove(s, k, f)
		return nil
	}
	if f.generation != r.generation {
		// Flows that were there before this machine took no more of them stay.
		if why := r.mayBegin(k, f.began); why == NotAllowed || why == IncomingOff && !r.allowsKey(k, f.began) {
			t.remove(s, k, f)
			return nil
		}
		f.generation = r.generation
	}
	return f
}

// allowsKey is allows for a flow.
func (c *compiled) allowsKey(k key, began Direction) bool {
	if began == In {
		return c.allows(k.far, k.near, k.protocol, k.nearPort)
	}
	return c.allows(k.near, k.far, k.protocol, k.farPort)
}

// seen takes in a packet of the flow.
func (f *flow) seen(dir Direction, p *packet, now time.Duration) {
	if dir != f.began {
		f.answered = true
	}
	if p.flags&(flagFIN|flagRST) != 0 {
		f.closing = true
	}
	f.expires = now + f.lasts(p.protocol)
}

func (f *flow) lasts(protocol uint16) time.Duration {
	switch {
	case f.closing:
		return lastsClosing
	case protocol == protoICMP, protocol == protoICMPv6:
		return lastsICMP
	case !f.answered:
		return lastsOpening
	case protocol == protoTCP:
		return lastsTCP
	}
	return lastsUDP
}

// begin enters a flow; false: there is no room. A connection that was there before this process is as good as answered.
func (t *flows) begin(r *compiled, k key, began, dir Direction, o *owner, p *packet, now time.Duration) bool {
	s := t.of(k)
	if !t.reserve(s, o, now) {
		return false
	}
	f := &flow{generation: r.generation, owner: o, began: began, answered: began != dir}
	f.closing = p.flags&(flagFIN|flagRST) != 0
	f.expires = now + f.lasts(p.protocol)
	s.mu.Lock()
	defer s.mu.Unlock()
	if there := s.flows[k]; there != nil {
		t.remove(s, k, there)
	}
	s.flows[k] = f
	return true
}

// reserve counts a flow that is to be entered into a shard. When there are too many, one that was not answered, or is at its end, has to
// go. One that goes on never does, so that nobody's new flows end those of others.
func (t *flows) reserve(s *shard, o *owner, now time.Duration) bool {
	if t.take(o) {
		return true
	}
	if last := t.swept.Load(); now-time.Duration(last) >= sweeping && t.swept.CompareAndSwap(last, int64(now)) {
		t.sweep(now)
		if t.take(o) {
			return true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	looked, full := 0, o.count.Load() >= o.limit
	for k, f := range s.flows { // begins anywhere
		if looked++; looked > sampled {
			return false
		}
		if full && f.owner != o || f.answered && !f.closing && f.expires > now {
			continue
		}
		t.remove(s, k, f)
		return t.take(o)
	}
	return false
}

func (t *flows) take(o *owner) bool {
	if o.count.Add(1) > o.limit {
		o.count.Add(-1)
		return false
	}
	if t.count.Add(1) > maxFlows {
		t.count.Add(-1)
		o.count.Add(-1)
		return false
	}
	return true
}

// remove is called with the lock of the shard.
func (t *flows) remove(s *shard, k key, f *flow) {
	delete(s.flows, k)
	f.owner.count.Add(-1)
	t.count.Add(-1)
}

// sweep takes out what is over.
func (t *flows) sweep(now time.Duration) {
	for i := range t.shard {
		s := &t.shard[i]
		s.mu.Lock()
		for k, f := range s.flows {
			if f.expires <= now {
				t.remove(s, k, f)
			}
		}
		s.mu.Unlock()
	}
}
