package mesh

import (
	"net/netip"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// Member is a member as the records have it.
type Member = roster.Member

// Device is a plain WireGuard device that a node hosts.
type Device = record.Device

// The states of a member.
const (
	Active = roster.Active
	Left   = roster.Left
)

// Routable reports whether a prefix has the form of a route that a member may offer (roster.Routable).
func (v *View) Routable(route netip.Prefix) bool { return roster.Routable(route, v.Prefix4, v.Prefix6) }

// Own is what a node says of itself in its record, beside its name and keys.
type Own struct {
	Endpoints []netip.AddrPort // where strangers reach it by UDP
	Streams   []netip.AddrPort // and by TCP
	Anchors   []identity.NodeID
	Routes    []netip.Prefix // a record holds record.MaxRoutes of them; the others are left out
	Addr4     netip.Addr
	Devices   []Device // hosted here; a record holds record.MaxDevices of them
}

// Announce has the own record say this. When it says so already nothing happens.
func (m *Mesh) Announce(own Own) error {
	routes := own.Routes[:min(len(own.Routes), record.MaxRoutes)]
	return m.Update(func(r *record.Node) {
		r.Endpoints, r.Streams, r.Anchors, r.Routes, r.Addr4 = own.Endpoints, own.Streams, own.Anchors, routes, own.Addr4
		r.Devices = own.Devices[:min(len(own.Devices), record.MaxDevices)]
	})
}

// Curable reports whether time, or a clock set right, may make a member of this node again, so that a restart is worth its while.
func (e *FatalError) Curable() bool { return e.Reason == roster.ReasonExpired }
