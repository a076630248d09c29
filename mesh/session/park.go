package session

import (
	"slices"
	"sync"
	"time"

	"warren/mesh/identity"
)

// Bounds of the parking place: two nodes that start at once find each other's signals waiting, and a member that parks
// rubbish fills only its own share.
const (
	parkTime       = 5 * time.Second
	maxParked      = 1024
	maxParkedFor   = 8  // per destination
	maxParkedBy    = 64 // per member that handed them in
	maxParkedFrame = 8 << 10
	// largeParked is above an ask or candidates and below an offer or an answer: of either, what comes later from the same node makes what
	// waits superfluous.
	largeParked = 1400
)

// parking holds forwarded signals for destinations that have no session yet. It needs no timer: what is too old is
// thrown out when the next frame comes in or is asked for, and until then it is bounded anyway.
type parking struct {
	mu     sync.Mutex // guards the rest
	frames map[identity.NodeID][]parked
	by     map[identity.NodeID]int
	count  int
}

type parked struct {
	frame    []byte
	from, by identity.NodeID
	until    time.Time
}

// replaces reports whether f makes another one for the same destination superfluous. What is from whom is the word of who has handed it in.
func (f parked) replaces(waiting parked) bool {
	return f.from == waiting.from && f.by == waiting.by && len(f.frame) >= largeParked == (len(waiting.frame) >= largeParked)
}

func newParking() *parking {
	return &parking{frames: make(map[identity.NodeID][]parked), by: make(map[identity.NodeID]int)}
}

// put keeps a frame of from for dst that the member by handed in. It reports false when there is no room.
func (p *parking) put(now time.Time, dst, from, by identity.NodeID, frame []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(frame) > maxParkedFrame {
		return false
	}
	f := parked{frame, from, by, now.Add(parkTime)}
	if p.count >= maxParked || p.by[by] >= maxParkedBy {
		for id := range p.frames {
			p.sweep(now, id)
		}
	}
	p.sweep(now, dst)
	if i := slices.IndexFunc(p.frames[dst], f.replaces); i >= 0 {
		p.frames[dst] = append(slices.Delete(p.frames[dst], i, i+1), f)
		return true
	}
	if p.count >= maxParked || p.by[by] >= maxParkedBy {
		return false
	}
	if waiting := p.frames[dst]; len(waiting) >= maxParkedFor {
		p.forget(waiting[0]) // the newest signals are the ones that still count
		p.frames[dst] = waiting[1:]
	}
	p.frames[dst] = append(p.frames[dst], f)
	p.by[by]++
	p.count++
	return true
}

// take returns the frames for dst, oldest first, and forgets them.
func (p *parking) take(now time.Time, dst identity.NodeID) [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep(now, dst)
	var frames [][]byte
	for _, f := range p.frames[dst] {
		p.forget(f)
		frames = append(frames, f.frame)
	}
	delete(p.frames, dst)
	return frames
}

// sweep throws out what is too old for dst; mu is held.
func (p *parking) sweep(now time.Time, dst identity.NodeID) {
	waiting := p.frames[dst]
	for len(waiting) > 0 && !waiting[0].until.After(now) {
		p.forget(waiting[0])
		waiting = waiting[1:]
	}
	if len(waiting) == 0 {
		delete(p.frames, dst)
	} else {
		p.frames[dst] = waiting
	}
}

// forget gives back the room of f; mu is held.
func (p *parking) forget(f parked) {
	p.count--
	if p.by[f.by]--; p.by[f.by] == 0 {
		delete(p.by, f.by)
	}
}
