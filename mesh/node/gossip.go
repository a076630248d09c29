package node

import (
	"context"
	"net"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/session"
)

// gossipLane is how mesh reaches other members: over the control sessions.
type gossipLane struct{ member *member }

var _ mesh.Sessions = gossipLane{}

func (g gossipLane) SendGossip(to identity.NodeID, payload []byte) error {
	return g.member.sessions.Send(to, session.ProtoGossip, payload)
}

func (g gossipLane) OpenGossip(ctx context.Context, to identity.NodeID) (net.Conn, error) {
	return g.member.sessions.Open(ctx, to, session.ProtoGossipStream)
}

func (g gossipLane) OpenSync(ctx context.Context, to identity.NodeID) (net.Conn, error) {
	return g.member.sessions.Open(ctx, to, session.ProtoSync)
}

func (g gossipLane) Neighbours() []identity.NodeID { return g.member.routes.Load().preferred }
