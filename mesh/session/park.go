package session

import (
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
	frame []byte
	by    identity.NodeID
	until time.Time
}

func newParking() *parking {
	return &parking{frames: make(map[identity.NodeID][]parked), by: make(map[identity.NodeID]int)}
}

// put keeps a frame for dst that the member by handed in. It reports false when there is no room.
func (p *parking) put(now time.Time, dst, by identity.NodeID, frame []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(frame) > maxParkedFrame {
		return false
	}
	if p.count >= maxParked || p.by[by] >= maxParkedBy {
		for id := range p.frames {
			p.sweep(now, id)
		}
	}
	p.sweep(now, dst)
	if p.count >= maxParked || p.by[by] >= maxParkedBy {
		return false
	}
	if waiting := p.frames[dst]; len(waiting) >= maxParkedFor {
		p.forget(waiting[0]) // the newest signals are the ones that still count
		p.frames[dst] = waiting[1:]
	}
	p.frames[dst] = append(p.frames[dst], parked{frame, by, now.Add(parkTime)})
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
