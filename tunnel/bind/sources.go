package bind

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
)

// rank orders claims to one source address: the address a peer is spoken to at beats one at which it was merely
// seen, and what the config says beats both.
type rank uint8

const (
	rankPast   rank = iota + 1 // a former path: packets still under way
	rankSource                 // proved by an authenticated check
	rankPath                   // the current path
	rankStatic                 // a static peer's: no endpoint of ours
)

const (
	sourceShards = 128
	maxSources   = 32 // per peer; ICE checks no more pairs than that at once
	maxPast      = 4
)

// sources maps the source address of a WireGuard packet to the endpoint object of its peer.
//
// Readers take no lock: each shard is an immutable map that is replaced on change, and there are enough
// shards that thousands of peers coming up one after the other do not copy thousands of entries each time. The
// claims behind the table make the outcome independent of the order in which two peers claim and release
// one address.
type sources struct {
	// atomic
	generation atomic.Uint64 // changes with the table, so that readers can keep what they found
	shards     [sourceShards]atomic.Pointer[map[netip.AddrPort]*Endpoint]

	// guarded by mu
	mu     sync.Mutex
	serial uint64
	claims map[netip.AddrPort][]claim
	held   map[*Endpoint]map[netip.AddrPort]rank // nil key: static peers
}

type claim struct {
	endpoint *Endpoint
	rank     rank
	serial   uint64
}

func newSources() *sources {
	return &sources{
		claims: make(map[netip.AddrPort][]claim),
		held:   make(map[*Endpoint]map[netip.AddrPort]rank),
	}
}

// lookup returns whose packets come from a. A nil endpoint that is known is a static peer's.
func (s *sources) lookup(a netip.AddrPort) (e *Endpoint, known bool) {
	shard := s.shards[shardOf(a)].Load()
	if shard == nil {
		return nil, false
	}
	e, known = (*shard)[a]
	return e, known
}

// set replaces everything that e (nil: the static peers) claims.
func (s *sources) set(e *Endpoint, want map[netip.AddrPort]rank) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.held[e]
	for a := range have {
		if _, keep := want[a]; !keep {
			s.withdraw(e, a)
		}
	}
	for a, r := range want {
		if have[a] != r {
			s.withdraw(e, a)
			s.serial++
			s.claims[a] = append(s.claims[a], claim{e, r, s.serial})
			s.publish(a)
		}
	}
	if len(want) == 0 {
		delete(s.held, e)
		return
	}
	s.held[e] = want
}

// withdraw removes the claim of e to a. The caller holds mu.
func (s *sources) withdraw(e *Endpoint, a netip.AddrPort) {
	old := s.claims[a]
	rest := make([]claim, 0, len(old))
	for _, c := range old {
		if c.endpoint != e {
			rest = append(rest, c)
		}
	}
	if len(rest) == len(old) {
		return
	}
	if len(rest) == 0 {
		delete(s.claims, a)
	} else {
		s.claims[a] = rest
	}
	s.publish(a)
}

// publish puts the strongest claim to a, the latest among equals, into the table. The caller holds mu.
func (s *sources) publish(a netip.AddrPort) {
	var best claim
	for _, c := range s.claims[a] {
		if c.rank > best.rank || c.rank == best.rank && c.serial > best.serial {
			best = c
		}
	}
	shard := &s.shards[shardOf(a)]
	next := make(map[netip.AddrPort]*Endpoint)
	if old := shard.Load(); old != nil {
		maps.Copy(next, *old)
	}
	if best.rank == 0 {
		delete(next, a)
	} else {
		next[a] = best.endpoint
	}
	shard.Store(&next)
	s.generation.Add(1)
}

// shardOf mixes the bits in which addresses of peers differ: the last eight bytes and the port. Only addresses that
// we chose to enter are in the table, so nobody gains by making them collide.
func shardOf(a netip.AddrPort) int {
	b := a.Addr().As16()
	h := binary.BigEndian.Uint64(b[8:]) ^ binary.BigEndian.Uint64(b[:8])*31 ^ uint64(a.Port())<<17
	h *= 0x9E3779B97F4A7C15 // 2^64 divided by the golden ratio (Knuth, volume 3, section 6.4)
	return int(h >> (64 - 7))
}
