package node

import (
	"context"

	"warren/mesh/identity"
)

// doubtful is told by nat that the path to a peer answers no checks. What broke it may have broken the sessions too, and
// the way back leads over them.
func (m *member) doubtful(id identity.NodeID) {
	m.sessions.Doubt(id)
	m.streams.signs.pathSilent(id)
}

// watchTraffic tells nat which peers are sent to after a pause, so that it need not look at those that are not.
func (m *member) watchTraffic(ctx context.Context) error {
	for {
		select {
		case handle := <-m.socket.Stirs():
			if id, ok := m.routes.Load().byHandle[handle]; ok {
				m.nat.Stirred(id)
			}
		case <-ctx.Done():
			return nil
		}
	}
}
