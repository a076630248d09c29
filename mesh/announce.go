package mesh

import (
	"net/netip"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// The words of package roster in which a View speaks.
type (
	// Member is a member as the records have it.
	Member = roster.Member
	// MemberState is Member.State.
	MemberState = roster.State
)

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

// Expired returns the error for a certificate that is not valid at this time.
func Expired(text string) *FatalError { return &FatalError{Reason: roster.ReasonExpired, Text: text} }

// NewView returns a view of these members alone.
func NewView(prefix4, prefix6 netip.Prefix, members ...Member) *View {
	v := &View{Members: members, Prefix4: prefix4, Prefix6: prefix6, members: make(map[identity.NodeID]int, len(members))}
	for i, m := range members {
		v.members[m.ID] = i
	}
	return v
}
