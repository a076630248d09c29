package mesh

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"warren/mesh/record"
)

// How often a new version of one record is taken in that comes in messages. A node has something new to say of itself a few times an hour,
// and in a burst when its network changes; whoever signs more makes work for all members.
const (
	versionEvery = 2 * time.Second
	versionBurst = 10

	maxPaced       = 16 << 10 // records whose versions are counted: above what any mesh has in which so many change at one time
	maxWaiting     = 1024     // records of which a version waits
	maxWaitingEach = 4        // senders of one record
)

// pace bounds the new versions of each record, by whatever way they come: were it otherwise with syncs, each member would take in another
// version, and all get those of all. What comes too soon waits for its turn, the newest of each sender: so what is signed last comes in, at
// the latest one turn later. A version counts only once it was taken in: forged ones use nothing up.
//
// hot, turn and took may be called concurrently; the rest is the run loop's.
type pace struct {
	mu    sync.Mutex
	taken map[record.Key]turns

	// owned by the run loop
	waiting map[record.Key][]waiting
	claimed map[record.Key]int // looked at in this batch, so far
}

// turns is how many versions of a record may be taken in at once, at a time: less than one after a burst.
type turns struct {
	left float64
	at   time.Time
}

// now returns how many there are at another time.
func (t turns) now(now time.Time) float64 {
	return min(t.left+float64(now.Sub(t.at))/float64(versionEvery), versionBurst)
}

// waiting is a version that waits, by its sender.
type waiting struct {
	arrival
	version record.Version
}

func newPace() *pace {
	return &pace{taken: make(map[record.Key]turns), waiting: make(map[record.Key][]waiting), claimed: make(map[record.Key]int)}
}

// left returns how many versions of a record may be taken in now.
func (p *pace) left(key record.Key, now time.Time) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t, ok := p.taken[key]; ok {
		return t.now(now)
	}
	return versionBurst
}

// hot reports whether no version of a record is to be taken in now.
func (p *pace) hot(key record.Key, now time.Time) bool { return p.left(key, now) < 1 }

// took counts a version that was taken in.
func (p *pace) took(key record.Key, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, ok := p.taken[key]
	if !ok {
		p.prune(now)
		t = turns{left: versionBurst, at: now}
	}
	p.taken[key] = turns{left: max(t.now(now)-1, 0), at: now}
}

// prune forgets those that have all their turns again. The lock is held.
func (p *pace) prune(now time.Time) {
	if len(p.taken) < maxPaced {
		return
	}
	for key, t := range p.taken {
		if t.now(now) >= versionBurst {
			delete(p.taken, key)
		}
	}
	if len(p.taken) >= maxPaced {
		clear(p.taken)
	}
}

// begin starts a batch: what is claimed in it is judged together.
func (p *pace) begin() { clear(p.claimed) }

// claim reports whether a version of a record may be looked at now.
func (p *pace) claim(key record.Key, now time.Time) bool {
	if p.left(key, now) < float64(p.claimed[key]+1) {
		return false
	}
	p.claimed[key]++
	return true
}

// wait keeps a version until its turn, and reports whether there was room.
func (p *pace) wait(key record.Key, w waiting) bool {
	list := p.waiting[key]
	at := slices.IndexFunc(list, func(other waiting) bool { return other.from == w.from })
	switch {
	case at >= 0 && !w.version.Newer(list[at].version):
		return true // what its sender sent later has come already
	case at >= 0:
		list[at] = w
	case len(list) >= maxWaitingEach || list == nil && len(p.waiting) >= maxWaiting:
		return false
	default:
		p.waiting[key] = append(list, w)
	}
	return true
}

// due takes out what has its turn now, of each record the newest first, and returns when the next has; zero: nothing waits.
func (p *pace) due(now time.Time) (ready []arrival, next time.Time) {
	for key, list := range p.waiting {
		if at := p.turn(key, now); at.After(now) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
			continue
		}
		delete(p.waiting, key)
		slices.SortFunc(list, func(a, b waiting) int {
			return cmp.Or(b.version.Compare(a.version), a.from.Compare(b.from))
		})
		for _, w := range list {
			ready = append(ready, w.arrival)
		}
	}
	return ready, next
}

// turn is when a version of a record may be looked at.
func (p *pace) turn(key record.Key, now time.Time) time.Time {
	missing := 1 - p.left(key, now)
	if missing <= 0 {
		return now
	}
	return now.Add(time.Duration(missing*float64(versionEvery)) + time.Millisecond) // the turns are floating-point numbers
}
