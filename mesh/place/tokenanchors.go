package place

import (
	"net"
	"net/netip"
	"slices"
	"strconv"

	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/nat/ranges"
)

// maxTokenAnchors is how many addresses a token has room for.
const maxTokenAnchors = 4

// TokenFacts is what the anchors of a token are chosen from.
type TokenFacts struct {
	Self      identity.NodeID
	Endpoints []string                 // where this node is to be reached, as configured: host:port, the host a name or an address
	Local     []netip.AddrPort         // this host's own addresses, best first
	Members   []roster.Member          // all that are known
	Up        map[identity.NodeID]bool // those with a session
}

// TokenAnchors chooses where a joiner will ask: at most the four addresses that a token has room for. They are this node if it is an anchor, up to two anchors that answer now, one of this node's own addresses for
// a joiner on the same LAN, then whatever anchors there are. A joiner may have one address family only, so both are in it as
// far as they are known, and one of the other family comes second, because IPv6 addresses of several nodes do not leave room for
// more. Of each other anchor it is IPv4 that counts: a joiner that has nothing else must not depend on a single member.
//
// A name of this node comes before all of them, beside its addresses: those may be others by the time of the join.
func TokenAnchors(f TokenFacts) (out []identity.TokenAnchor) {
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
		for _, other := range f.Members {
			if len(out) < upTo && other.State == roster.Active && wanted(other) {
				add(other.ID, other.Record.Endpoints, addresses, better)
			}
		}
	}
	each(func(o roster.Member) bool { return o.ID == f.Self }, 2, maxTokenAnchors, isNew)
	each(func(o roster.Member) bool { return o.ID != f.Self && f.Up[o.ID] }, 1, 2, is4)
	add(f.Self, f.Local, 1, isNew)
	each(func(o roster.Member) bool { return o.ID != f.Self && slices.ContainsFunc(o.Record.Endpoints, isNew) }, 1, maxTokenAnchors, isNew)
	each(func(o roster.Member) bool { return o.ID != f.Self }, 1, maxTokenAnchors, is4)
	if len(out) > 2 {
		advance(out)
	}
	return append(ownName(f), out...)
}

// ownName returns the first name among this node's endpoints, none if there is none.
func ownName(f TokenFacts) []identity.TokenAnchor {
	for _, text := range f.Endpoints {
		host, service, err := net.SplitHostPort(text)
		if err != nil {
			continue
		}
		if _, err := netip.ParseAddr(host); err == nil {
			continue
		}
		if port, err := strconv.ParseUint(service, 10, 16); err == nil && port != 0 {
			return []identity.TokenAnchor{{Name: host, Addr: netip.AddrPortFrom(netip.Addr{}, uint16(port)), ID: [8]byte(f.Self[:8])}}
		}
	}
	return nil
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
