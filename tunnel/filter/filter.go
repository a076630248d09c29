// Package filter decides which packets pass between the tunnel and this machine: those of flows that the rules let begin, what answers
// them, and the ICMP errors about them. What cannot be parsed does not pass. Files in the order of the journey: packet.go and chain.go (a
// packet is read), filter.go (it is judged), flows.go (its flow is found or begun), rules.go (who may begin one), fragments.go, denied.go.
//
// It leaves to package gate where the packets come from and what is said to who sent one that is refused, to the WireGuard device that
// the source of what comes in is its peer's, and to mesh/policy what the rules are.
//
// Nothing here has a clock or a goroutine: the time is an argument. All methods may be called concurrently.
package filter

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// Direction is which way a packet goes.
type Direction uint8

// The directions, as this machine sees them.
const (
	In  Direction = iota // out of the tunnel
	Out                  // into it
)

// Verdict is what becomes of a packet.
type Verdict uint8

// The verdicts.
const (
	Pass   Verdict = iota
	Drop           // in silence
	Refuse         // it leaves this machine and may not: its sender should be told at once
)

// Filter holds the rules, and the flows that go on under them.
type Filter struct {
	born   time.Time
	rules  atomic.Pointer[compiled]
	peers  atomic.Pointer[peerTable]
	self   *owner // whose flows are that begin here
	stray  *owner // whose those are that come from nobody known
	flows  flows
	denied denied
	drops  [reasons]atomic.Uint64
}

// Peer is from where packets may come: what one peer begins is bounded by itself.
type Peer struct {
	Key        [32]byte
	AllowedIPs []netip.Prefix // as the WireGuard device has them
}

// New returns a filter that lets everything pass, until SetRules. born is the moment that its times count from.
func New(born time.Time) *Filter {
	f := &Filter{born: born, self: &owner{limit: maxOwn}, stray: &owner{limit: maxPeer}}
	f.flows.setup()
	f.rules.Store(compile(Rules{Open: true, Incoming: true}, 0))
	f.peers.Store(&peerTable{})
	return f
}

// Born is the moment that all times count from.
func (f *Filter) Born() time.Time { return f.born }

// SetRules says who may begin flows. Flows that go on are judged anew when their next packet comes. It may not be called twice at a time.
func (f *Filter) SetRules(r Rules) {
	f.rules.Store(compile(r, f.rules.Load().generation+1))
}

// SetPeers says which peers there are. It may not be called twice at a time.
func (f *Filter) SetPeers(list []Peer) {
	before, t := f.peers.Load(), &peerTable{owners: make(map[[32]byte]*owner, len(list))}
	for _, p := range list {
		o := before.owners[p.Key]
		if o == nil {
			o = &owner{limit: maxPeer}
		}
		t.owners[p.Key] = o
		for _, prefix := range p.AllowedIPs {
			t.routes.set(prefix, o)
		}
	}
	t.routes.order()
	f.peers.Store(t)
}

// Permits reports whether one address may begin flows of any kind to another.
func (f *Filter) Permits(from, to netip.Addr) bool {
	r := f.rules.Load()
	return r.Open || r.any(from.As16(), to.As16())
}

// Decide judges a packet, an IP packet with all its bytes, and says why when it does not pass. now is the time since Born. It
// keeps nothing of the packet.
func (f *Filter) Decide(dir Direction, raw []byte, now time.Duration) (Verdict, Reason) {
	b := f.Batch(dir, now)
	return b.Decide(raw)
}

// Batch judges packets that come together, as Decide does each of them. Most are of one flow, which is looked for once. It belongs to one
// goroutine.
type Batch struct {
	f     *Filter
	dir   Direction
	now   time.Duration
	rules *compiled // by which the last flow was found; nil: none was
	last  key
}

// Batch begins one.
func (f *Filter) Batch(dir Direction, now time.Duration) Batch {
	return Batch{f: f, dir: dir, now: now}
}

// Decide judges the next packet.
func (b *Batch) Decide(raw []byte) (Verdict, Reason) {
	r := b.f.rules.Load()
	var p packet
	if why := p.parse(raw); why != None {
		return b.f.refuse(r, b.dir, &p, why, b.now)
	}
	plain := p.kind == whole && p.flags&(flagSYN|flagFIN|flagRST) == 0
	if !plain {
		b.rules = nil
		return b.f.decide(r, b.dir, &p, b.now)
	}
	k := p.key(b.dir)
	if b.rules == r && b.last == k {
		return Pass, None // nothing about the flow has changed since
	}
	verdict, why := b.f.decide(r, b.dir, &p, b.now)
	if b.rules = nil; verdict == Pass {
		b.rules, b.last = r, k
	}
	return verdict, why
}

// decide judges a packet that was read.
func (f *Filter) decide(r *compiled, dir Direction, p *packet, now time.Duration) (Verdict, Reason) {
	switch p.kind {
	case quoting:
		return f.decideError(r, dir, p, now)
	case laterFragment:
		if !f.ownerOf(dir, p.src).fragments.follows(dir, p, now) {
			return f.refuse(r, dir, p, FragmentAlone, now)
		}
		return Pass, None
	}
	if why := f.decideFlow(r, dir, p, now); why != None {
		return f.refuse(r, dir, p, why, now)
	}
	if p.kind == firstFragment {
		f.ownerOf(dir, p.src).fragments.first(dir, p, now)
	}
	return Pass, None
}

// refuse is what becomes of a packet for a reason. Without any rule everything passes, as it would with no filter there.
func (f *Filter) refuse(r *compiled, dir Direction, p *packet, why Reason, now time.Duration) (Verdict, Reason) {
	if r.Open && r.Incoming {
		return Pass, None
	}
	f.drops[why].Add(1)
	if why != NotAllowed && why != IncomingOff {
		return Drop, why
	}
	f.denied.note(dir, p, why, now)
	if dir == Out && p.kind == whole && p.flags&flagRST == 0 {
		return Refuse, why
	}
	return Drop, why
}

// ownerOf returns whose a flow is that an address begins.
func (f *Filter) ownerOf(dir Direction, src [16]byte) *owner {
	if dir == Out {
		return f.self
	}
	if o := f.peers.Load().routes.longest(src); o != nil {
		return o
	}
	return f.stray
}

// decideFlow finds the flow of a packet, or begins one.
func (f *Filter) decideFlow(r *compiled, dir Direction, p *packet, now time.Duration) Reason {
	k := p.key(dir)
	if f.flows.goesOn(r, k, dir, p, now) {
		return None
	}
	if p.answer {
		return NoFlow
	}
	began := dir
	if why := r.mayBegin(k, dir); why != None {
		// A connection that is older than this process: the far side has begun it, and may.
		if dir != Out || !p.midway() || r.mayBegin(k, In) != None {
			return why
		}
		began = In
	}
	o := f.self
	if began == In {
		o = f.ownerOf(In, k.far)
	}
	if !f.flows.begin(r, k, began, dir, o, p, now) {
		return TableFull
	}
	return None
}

// decideError judges an ICMP error: it belongs to the flow of the packet that it quotes, which went the other way, and comes from the peer
// that the packet was sent to.
func (f *Filter) decideError(r *compiled, dir Direction, p *packet, now time.Duration) (Verdict, Reason) {
	q := p.quoted
	if q.src != p.dst {
		return f.refuse(r, dir, p, ErrorAlone, now)
	}
	if dir == In && f.ownerOf(In, p.src) != f.ownerOf(In, q.dst) {
		return f.refuse(r, dir, p, ErrorAlone, now)
	}
	k := key{far: q.dst, near: q.src, farPort: q.dstPort, nearPort: q.srcPort, protocol: q.protocol}
	if dir == Out {
		k = key{far: q.src, near: q.dst, farPort: q.srcPort, nearPort: q.dstPort, protocol: q.protocol}
	}
	if !f.flows.known(r, k, now) {
		return f.refuse(r, dir, p, ErrorAlone, now)
	}
	return Pass, None
}
