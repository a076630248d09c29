package node

import (
	"net/netip"

	"warren/mesh/identity"
	"warren/mesh/neighbours"
)

// planNeighbourhood says what is told on the local networks, and how much this node wants to hear there.
func planNeighbourhood(f facts) neighbours.Desired {
	want := neighbours.Desired{
		Off: f.settings.NoLAN, Port: f.port, Network: f.standing.Network, Overlay: f.overlays(), Members: f.view.Members,
		Sessions: make(map[identity.NodeID]netip.AddrPort, len(f.sessions)), Contacts: len(f.contacts) > 0,
	}
	for id, s := range f.sessions {
		want.Sessions[id] = s.remote
	}
	for _, invite := range f.view.Invites {
		want.Invites = append(want.Invites, neighbours.Invite{
			ID: invite.ID, Uses: invite.Terms.Uses, Used: len(invite.Used), Expires: invite.Terms.Expires, Revoked: invite.Revoked,
		})
	}
	return want
}
