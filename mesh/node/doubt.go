package node

import (
	"context"
	"net/netip"
	"slices"

	"warren/mesh/identity"
	"warren/mesh/roster"
)

// doubtful is told by nat that the path to a peer, perhaps by a relay, answers no checks. What broke it may have broken the
// sessions too, and the way back leads over them.
func (m *member) doubtful(id, via identity.NodeID) {
	m.sessions.Doubt(id, via)
	m.streams.signs.pathSilent(id)
}

// whereabouts is what a peer's record says of where it can be reached.
type whereabouts struct {
	instance  [8]byte
	endpoints []netip.AddrPort
}

// heardOf tells nat of a peer whose record says that it is elsewhere now, or runs anew.
func (m *member) heardOf(p *peer, other roster.Member) {
	before := p.said
	p.said = whereabouts{instance: other.Record.Instance, endpoints: other.Record.Endpoints}
	if before.instance == p.said.instance && slices.Equal(before.endpoints, p.said.endpoints) || before.instance == [8]byte{} {
		return
	}
	m.nat.PeerChanged(other.ID)
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
