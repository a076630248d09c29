package limit

import (
	"slices"
	"sync"
	"time"
)

// Share is a part of the places that whoever has this key may take. The key is comparable, and of a type of its own where keys of
// several kinds are used.
type Share struct {
	Key  any
	Most int
}

// Places are those of things under way for somebody who has not proven to be worth one. They are bounded in all, and by the
// shares that each falls into. What comes when there is no place for it gets that of another, which gives way:
//
//  1. of the first shares that are crowded more than its own would be, the most crowded gives up its oldest, at once: however
//     many places one source takes, another source finds one;
//  2. else the one that has got on least lately goes, if that is the quiet time ago or more: what is honest has got on by then.
//
// So nobody who holds places only waits them out, and one that has just come is left in peace, but by its own crowd.
//
// The methods may be called concurrently. Nothing is called under the lock.
type Places[V comparable] struct {
	most  int           // constant
	quiet time.Duration // constant

	mu    sync.Mutex // guards the rest
	all   []place[V] // the one that has not got on for the longest time first
	taken map[any]int
}

// place is one that was taken.
type place[V comparable] struct {
	value  V
	shares []Share
	since  time.Time // when it came, or got on
}

// NewPlaces returns so many places, of which one that has not got on for the quiet time may have to give way.
func NewPlaces[V comparable](most int, quiet time.Duration) *Places[V] {
	return &Places[V]{most: most, quiet: quiet, taken: make(map[any]int)}
}

// Enter takes a place for v, which has none yet, in shares of which the first is its source. It reports whether there was one. out
// are those that had to give way to it: their places are given back already, and the caller ends what they stand for.
func (p *Places[V]) Enter(now time.Time, v V, shares ...Share) (out []V, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range len(shares) + 1 {
		bound := Share{Key: nil, Most: p.most} // of all
		if i < len(shares) {
			bound = shares[i]
		}
		if p.count(bound.Key, out) < bound.Most {
			continue
		}
		yields, found := p.yielding(now, bound.Key, shares, out)
		if !found {
			return nil, false
		}
		out = append(out, yields)
	}
	for _, gone := range out {
		p.leave(gone)
	}
	p.all = append(p.all, place[V]{value: v, shares: slices.Clone(shares), since: now})
	for _, s := range shares {
		p.taken[s.Key]++
	}
	return out, true
}

// count returns how many places of a share are taken, of all for nil, but for those that go. The caller holds mu.
func (p *Places[V]) count(key any, gone []V) (n int) {
	for _, q := range p.all {
		if q.in(key) && !slices.Contains(gone, q.value) {
			n++
		}
	}
	return n
}

// yielding returns who, in a share, gives way to one more in these shares. The caller holds mu.
func (p *Places[V]) yielding(now time.Time, among any, shares []Share, gone []V) (v V, found bool) {
	crowd := 1
	if len(shares) > 0 {
		crowd += p.taken[shares[0].Key]
	}
	var oldest, crowded *place[V]
	for i := range p.all {
		q := &p.all[i]
		if !q.in(among) || slices.Contains(gone, q.value) {
			continue
		}
		if oldest == nil {
			oldest = q
		}
		if len(q.shares) > 0 && p.taken[q.shares[0].Key] > crowd {
			crowded, crowd = q, p.taken[q.shares[0].Key]
		}
	}
	switch {
	case crowded != nil:
		return crowded.value, true
	case oldest != nil && now.Sub(oldest.since) >= p.quiet:
		return oldest.value, true
	}
	return v, false
}

func (q place[V]) in(key any) bool {
	return key == nil || slices.ContainsFunc(q.shares, func(s Share) bool { return s.Key == key })
}

// find returns where the place of v stands, -1 when it has none. The caller holds mu.
func (p *Places[V]) find(v V) int {
	return slices.IndexFunc(p.all, func(q place[V]) bool { return q.value == v })
}

// Renew notes that v, if it has a place still, has got on.
func (p *Places[V]) Renew(now time.Time, v V) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := p.find(v); i >= 0 {
		q := p.all[i]
		q.since = now
		p.all = append(slices.Delete(p.all, i, i+1), q)
	}
}

// Leave gives the place of v back, if it has one.
func (p *Places[V]) Leave(v V) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leave(v)
}

// leave is Leave; the caller holds mu.
func (p *Places[V]) leave(v V) {
	i := p.find(v)
	if i < 0 {
		return
	}
	for _, s := range p.all[i].shares {
		if p.taken[s.Key]--; p.taken[s.Key] == 0 {
			delete(p.taken, s.Key)
		}
	}
	p.all = slices.Delete(p.all, i, i+1)
}

// Values returns what has a place, the one that has not got on for the longest time first.
func (p *Places[V]) Values() []V {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]V, len(p.all))
	for i, q := range p.all {
		out[i] = q.value
	}
	return out
}

// Taken returns how many places of a share are taken; of all for nil.
func (p *Places[V]) Taken(key any) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if key == nil {
		return len(p.all)
	}
	return p.taken[key]
}
