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

// records answers session's questions about members. The sessions are made before the mesh, and ask only when they run.
type records struct{ member *member }

var _ session.Roster = records{}

func (r records) Member(id identity.NodeID) bool                 { return r.member.mesh.Member(id) }
func (r records) Anchor(id identity.NodeID) bool                 { return r.member.mesh.Anchor(id) }
func (r records) AnchorsOf(id identity.NodeID) []identity.NodeID { return r.member.mesh.AnchorsOf(id) }

func (g gossipLane) SendGossip(to identity.NodeID, payload []byte) error {
	return g.member.sessions.Send(to, session.ProtoGossip, payload)
}

func (g gossipLane) OpenGossip(ctx context.Context, to identity.NodeID) (net.Conn, error) {
	return g.member.sessions.Open(ctx, to, session.ProtoGossipStream)
}

func (g gossipLane) OpenSync(ctx context.Context, to identity.NodeID) (net.Conn, error) {
	return g.member.sessions.Open(ctx, to, session.ProtoSync)
}

func (g gossipLane) Neighbours() []identity.NodeID { return g.member.sessions.Preferred() }
