package mesh

import (
	"sync"
	"time"

	"warren/mesh/identity"
)

// sides remembers which side dialled the sessions that are up. Towards a stranger, who has proved a chain and no membership, the side that
// dialled shows its record first: it wants something, and one of the two has to begin.
type sides struct {
	mu      sync.Mutex
	dialled map[identity.NodeID]bool // by this node
	greeted map[identity.NodeID]time.Time
}

// greetedFor is how long a hello may wait for its answer: what went with it is not sent again when that comes.
const greetedFor = 10 * time.Second

func newSides() *sides {
	return &sides{dialled: make(map[identity.NodeID]bool), greeted: make(map[identity.NodeID]time.Time)}
}

// greets notes that this node's record has gone with its hello.
func (s *sides) greets(id identity.NodeID, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.greeted[id] = now
}

// met reports whether it has, to the session that has come up, once.
func (s *sides) met(id identity.NodeID, dialled bool, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, is := s.greeted[id]
	delete(s.greeted, id)
	return is && dialled && now.Sub(at) < greetedFor
}

// up notes a session.
func (s *sides) up(id identity.NodeID, dialled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if dialled {
		s.dialled[id] = true
	} else {
		delete(s.dialled, id)
	}
}

// begins reports whether this node shows itself first towards a stranger.
func (s *sides) begins(id identity.NodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dialled[id]
}

// keep forgets those with which there is no session.
func (s *sides) keep(up []identity.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.greeted)
	before := s.dialled
	s.dialled = make(map[identity.NodeID]bool)
	for _, id := range up {
		if before[id] {
			s.dialled[id] = true
		}
	}
}
