package node

import (
	"net/netip"
	"slices"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
	"warren/nat/ranges"
)

// Bounds of what a node says and keeps of itself.
const (
	maxEndpoints = 6 // in its record
)

// updateRecord publishes what has changed about this node. A change costs every member a record, so that what
// flickers (which sessions are up) is only said when what was said before is no longer true.
func (m *member) updateRecord(f facts) error {
	view := m.mesh.View()
	self, ok := view.Member(m.self)
	if !ok {
		return nil // mesh is about to say why
	}
	endpoints := m.ownEndpoints(f)
	anchors := m.ownAnchors(self.Record.Anchors)
	routes := sharedRoutes(f)
	addr4 := m.ownAddr4(view.Prefix4, self, view.Members)
	streams := m.ownStreams(endpoints)
	return m.mesh.Update(func(r *record.Node) {
		r.Streams = streams
		r.Endpoints, r.Anchors, r.Routes, r.Addr4 = endpoints, anchors, routes, addr4
	})
}

// ownEndpoints returns where strangers can reach this node. An anchor by setting says so of all its addresses; else those
// count that another member has reached from a socket of its own, and until one could be asked, those that look public.
func (m *member) ownEndpoints(f facts) []netip.AddrPort {
	mode := f.settings.Anchor
	if mode == AnchorNever {
		return nil
	}
	candidates := slices.Clone(f.endpoints)
	for _, addr := range m.hostAddresses() {
		if ranges.IsPublic(addr) || mode == AnchorAlways && len(f.endpoints) == 0 {
			candidates = append(candidates, netip.AddrPortFrom(addr, m.socket.Port()))
		}
	}
	candidates = append(candidates, m.external()...)
	m.testReach(candidates)
	out := m.back.machine.Usable()
	if mode == AnchorAlways {
		out = candidates
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	out = slices.Compact(out)
	return out[:min(len(out), maxEndpoints)]
}

// external lists where routers map the shared port to, as far as the Internet can reach it.
func (m *member) external() (out []netip.AddrPort) {
	for _, mapping := range m.mapper.Mappings() {
		if mapping.Public() {
			out = append(out, mapping.External)
		}
	}
	return out
}

func (m *member) hostAddresses() []netip.Addr { return m.hosted.addresses() }

// ownAnchors returns the members through which this node can be reached: those said before as far as their sessions
// are up, then others, anchors first.
func (m *member) ownAnchors(before []identity.NodeID) []identity.NodeID {
	table := m.routes.Load()
	var out []identity.NodeID
	for _, id := range before {
		if table.sessions[id] {
			out = append(out, id)
		}
	}
	for _, id := range table.preferred {
		if len(out) < wantedAnchors && !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	if len(out) == 0 {
		return before // nobody could be told otherwise, and it is where this node will come back
	}
	return out[:min(len(out), wantedAnchors)]
}

// sharedRoutes are the addresses of the static peers that other members may reach through this node.
func sharedRoutes(f facts) (out []netip.Prefix) {
	for _, s := range f.settings.Static {
		if !s.Share {
			continue
		}
		for _, prefix := range s.AllowedIPs {
			if routable(prefix, f) {
				out = append(out, prefix)
			}
		}
	}
	slices.SortFunc(out, comparePrefixes)
	return slices.Compact(out)
}

func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// maxProbes bounds the search for a free address: in a /16 that is half full it fails once in 2^64.
const maxProbes = 64

// ownAddr4 returns the IPv4 address to claim: the one claimed before, unless an earlier member has it.
func (m *member) ownAddr4(prefix netip.Prefix, self roster.Member, members []roster.Member) netip.Addr {
	if !prefix.IsValid() {
		return netip.Addr{}
	}
	if self.Addr4.IsValid() {
		return self.Addr4
	}
	taken := make(map[netip.Addr]bool, len(members))
	for _, other := range members {
		if other.ID != m.self {
			taken[other.Addr4] = true
		}
	}
	for probe := range maxProbes {
		if addr := identity.Addr4(prefix, m.self, probe); !taken[addr] {
			return addr
		}
	}
	return netip.Addr{}
}
