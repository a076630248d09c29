package mesh

import (
	"net/netip"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// Member is a member as the records have it.
type Member = roster.Member

// The states of a member.
const (
	Active = roster.Active
	Left   = roster.Left
)

// Own is what a node says of itself in its record, beside its name and keys.
type Own struct {
	Endpoints []netip.AddrPort // where strangers reach it by UDP
	Streams   []netip.AddrPort // and by TCP
	Anchors   []identity.NodeID
	Routes    []netip.Prefix
	Addr4     netip.Addr
}

// Announce has the own record say this. When it says so already nothing happens.
func (m *Mesh) Announce(own Own) error {
	return m.Update(func(r *record.Node) {
		r.Endpoints, r.Streams, r.Anchors, r.Routes, r.Addr4 = own.Endpoints, own.Streams, own.Anchors, own.Routes, own.Addr4
	})
}

// Curable reports whether time, or a clock set right, may make a member of this node again, so that a restart is worth its while.
func (e *FatalError) Curable() bool { return e.Reason == roster.ReasonExpired }
