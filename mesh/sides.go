package mesh

import (
	"sync"

	"warren/mesh/identity"
)

// sides remembers which side dialled the sessions that are up. Towards a stranger, who has proved a chain and no membership, the side that
// dialled shows its record first: it wants something, and one of the two has to begin.
type sides struct {
	mu      sync.Mutex
	dialled map[identity.NodeID]bool // by this node
}

func newSides() *sides { return &sides{dialled: make(map[identity.NodeID]bool)} }

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
	before := s.dialled
	s.dialled = make(map[identity.NodeID]bool)
	for _, id := range up {
		if before[id] {
			s.dialled[id] = true
		}
	}
}
