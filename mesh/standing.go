package mesh

import "warren/mesh/identity"

// Standing returns nil for a member, else a roster refusal that says why the node is none.
func (m *Mesh) Standing(id identity.NodeID) error {
	m.book.mu.Lock()
	defer m.book.mu.Unlock()
	return m.book.roster.Standing(id)
}
