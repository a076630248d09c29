package session

import "warren/mesh/identity"

// Dials returns how often dialling a target has failed since the last session with it, and whether nobody answered the last
// time: Status.Attempts and Status.Silent, without the rest.
func (s *Sessions) Dials(id identity.NodeID) (attempts int, silent bool) {
	s.mu.Lock()
	t := s.targets[id]
	s.mu.Unlock()
	if t == nil {
		return 0, false
	}
	status := t.status()
	return status.Attempts, status.Silent
}
