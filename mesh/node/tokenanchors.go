package node

import (
	"net/netip"
	"slices"

	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/nat/ranges"
)

// maxTokenAnchors is how many addresses a token has room for.
const maxTokenAnchors = 4

// tokenFacts is what the anchors of a token are chosen from.
type tokenFacts struct {
	self    identity.NodeID
	local   []netip.AddrPort // this host's own addresses, best first
	members []roster.Member
	up      map[identity.NodeID]bool // members with a session
}

// tokenAnchors chooses where a joiner will ask.
func (m *member) tokenAnchors() []identity.TokenAnchor {
	f := tokenFacts{self: m.self, members: m.mesh.View().Members, up: m.routes.Load().sessions}
	for _, addr := range m.hostAddresses() {
		f.local = append(f.local, netip.AddrPortFrom(addr, m.socket.Port()))
	}
	return chooseTokenAnchors(f)
}

// chooseTokenAnchors returns this node if it is an anchor, up to two anchors that answer now, one of this node's own addresses for
// a joiner on the same LAN, then whatever anchors there are. A joiner may have one address family only, so both are in it as
// far as they are known, and one of the other family comes second, because IPv6 addresses of several nodes do not leave room for
// more. Of each other anchor it is IPv4 that counts: a joiner that has nothing else must not depend on a single member.
func chooseTokenAnchors(f tokenFacts) (out []identity.TokenAnchor) {
	knows := func(v4 bool) bool {
		return slices.ContainsFunc(out, func(a identity.TokenAnchor) bool { return a.Addr.Addr().Is4() == v4 && ranges.IsPublic(a.Addr.Addr()) })
	}
	isNew := func(a netip.AddrPort) bool { return !knows(a.Addr().Is4()) }
	is4 := func(a netip.AddrPort) bool { return a.Addr().Is4() }
	add := func(id identity.NodeID, addrs []netip.AddrPort, most int, better func(netip.AddrPort) bool) {
		for addrs = slices.Clone(addrs); most > 0 && len(addrs) > 0 && len(out) < maxTokenAnchors; {
			i := max(0, slices.IndexFunc(addrs, better))
			a := identity.TokenAnchor{Addr: addrs[i], ID: [8]byte(id[:8])}
			addrs = slices.Delete(addrs, i, i+1)
			if !slices.Contains(out, a) {
				out = append(out, a)
				most--
			}
		}
	}
	each := func(wanted func(roster.Member) bool, addresses, upTo int, better func(netip.AddrPort) bool) {
		for _, other := range f.members {
			if len(out) < upTo && other.State == roster.Active && wanted(other) {
				add(other.ID, other.Record.Endpoints, addresses, better)
			}
		}
	}
	each(func(o roster.Member) bool { return o.ID == f.self }, 2, maxTokenAnchors, isNew)
	each(func(o roster.Member) bool { return o.ID != f.self && f.up[o.ID] }, 1, 2, is4)
	add(f.self, f.local, 1, isNew)
	each(func(o roster.Member) bool { return o.ID != f.self && slices.ContainsFunc(o.Record.Endpoints, isNew) }, 1, maxTokenAnchors, isNew)
	each(func(o roster.Member) bool { return o.ID != f.self }, 1, maxTokenAnchors, is4)
	if len(out) > 2 {
		advance(out)
	}
	return out
}

// advance makes the first anchor of another family than the first one the second, one that the Internet can reach if there is one.
func advance(anchors []identity.TokenAnchor) {
	for _, wanted := range []func(netip.Addr) bool{ranges.IsPublic, netip.Addr.IsValid} {
		for i, a := range anchors {
			if a.Addr.Addr().Is4() != anchors[0].Addr.Addr().Is4() && wanted(a.Addr.Addr()) {
				copy(anchors[2:i+1], anchors[1:i])
				anchors[1] = a
				return
			}
		}
	}
}
