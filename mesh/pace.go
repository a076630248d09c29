package mesh

import (
	"cmp"
	"slices"
	"time"

	"golang.org/x/time/rate"

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

// pace bounds the new versions of each record. What comes too soon waits for its turn, the newest of each sender: so what is signed
// last comes in, at the latest one turn later. A version counts only once it was taken in: forged ones use nothing up. It is owned by
// the run loop.
type pace struct {
	taken   map[record.Key]*rate.Limiter
	waiting map[record.Key][]waiting
	claimed map[record.Key]int // looked at in this batch, so far
}

// waiting is a version that waits, by its sender.
type waiting struct {
	arrival
	version record.Version
}

func newPace() *pace {
	return &pace{taken: make(map[record.Key]*rate.Limiter), waiting: make(map[record.Key][]waiting), claimed: make(map[record.Key]int)}
}

// begin starts a batch: what is claimed in it is judged together.
func (p *pace) begin() { clear(p.claimed) }

// claim reports whether a version of a record may be looked at now.
func (p *pace) claim(key record.Key, now time.Time) bool {
	if l := p.taken[key]; l != nil && l.TokensAt(now) < float64(p.claimed[key]+1) {
		return false
	}
	if p.claimed[key] >= versionBurst {
		return false
	}
	p.claimed[key]++
	return true
}

// took counts a version that was taken in.
func (p *pace) took(key record.Key, now time.Time) {
	l := p.taken[key]
	if l == nil {
		p.prune(now)
		l = rate.NewLimiter(rate.Every(versionEvery), versionBurst)
		p.taken[key] = l
	}
	l.AllowN(now, 1)
}

// prune forgets those that have all their tokens again.
func (p *pace) prune(now time.Time) {
	if len(p.taken) < maxPaced {
		return
	}
	for key, l := range p.taken {
		if l.TokensAt(now) >= versionBurst {
			delete(p.taken, key)
		}
	}
	if len(p.taken) >= maxPaced {
		clear(p.taken)
	}
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
	l := p.taken[key]
	if l == nil {
		return now
	}
	missing := 1 - l.TokensAt(now)
	if missing <= 0 {
		return now
	}
	return now.Add(time.Duration(missing*float64(versionEvery)) + time.Millisecond) // tokens are floating-point numbers
}
