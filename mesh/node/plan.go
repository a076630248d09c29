package node

import (
	"net/netip"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/neighbours"
	"warren/mesh/session"
	"warren/nat"
	"warren/nat/standing"
	"warren/nat/streams"
	"warren/tunnel"
	"warren/tunnel/osnet"
)

// desired is what the owners are told. Everything in it is sorted, so that equal plans compare equal.
type desired struct {
	names []string // to be resolved

	link   osnet.Config
	tunnel []tunnel.Peer
	ways   map[identity.NodeID]way

	echo       []netip.Addr      // on which pings are answered
	targets    []session.Target  // control sessions to keep
	reach      []identity.NodeID // peers that nat should find a path to
	local      nat.Local
	follow     []identity.NodeID // relays that may be used
	standing   standing.Desired
	streams    streams.Desired
	neighbours neighbours.Desired
	own        *mesh.Own // what this node says of itself; nil while it is no member by its own records
	relaying   bool      // for others: whoever can be reached does, unless told not to
	relayLimit int       // bytes a second; 0: no limit
}

// plan computes the state that the owners should have. It touches nothing.
func plan(f facts) desired {
	out := desired{names: f.wantedNames(), relaying: f.settings.Anchor != AnchorNever, relayLimit: f.settings.RelayLimit}
	var self mesh.Member
	found := false
	out.ways = make(map[identity.NodeID]way, len(f.peers))
	for _, m := range f.view.Members {
		switch {
		case m.ID == f.self:
			self, found = m, true
		case m.State == mesh.Active:
			out.tunnel = append(out.tunnel, memberPeer(m, f))
			out.reach = append(out.reach, m.ID)
			out.ways[m.ID] = planWay(m.ID, f.peers[m.ID].path, f.underlay())
		}
	}
	for _, s := range f.settings.Static {
		out.tunnel = append(out.tunnel, tunnel.Peer{
			PublicKey: s.PublicKey, PresharedKey: s.PresharedKey, AllowedIPs: s.AllowedIPs,
			Endpoint: f.names[s.Endpoint], Keepalive: s.Keepalive,
		})
	}
	out.link = planLink(self, f, out.tunnel)
	if !f.view.Prefix6.IsValid() {
		return out // no mesh
	}
	for _, prefix := range ownPrefixes(self) {
		out.echo = append(out.echo, prefix.Addr())
	}
	out.targets = planTargets(f)
	out.local, out.follow = planLocal(f)
	out.standing, out.streams, out.neighbours = planStanding(self, f), planStreams(self, f), planNeighbourhood(f)
	if found {
		out.own = planOwn(self, f)
	}
	return out
}

// memberPeer is the tunnel's view of a member: its own addresses, and the routes that it advertises.
func memberPeer(m mesh.Member, f facts) tunnel.Peer {
	p := tunnel.Peer{ID: m.ID, PublicKey: wgtypes.Key(m.Record.WireGuardKey), Answers: m.Addr6, Controlling: f.self.Compare(m.ID) < 0}
	p.AllowedIPs = append(p.AllowedIPs, ownPrefixes(m)...)
	for _, route := range m.Record.Routes {
		if routable(route, f) {
			p.AllowedIPs = append(p.AllowedIPs, route)
		}
	}
	return p
}

// ownPrefixes are a member's own addresses, IPv4 first.
func ownPrefixes(m mesh.Member) (out []netip.Prefix) {
	for _, addr := range []netip.Addr{m.Addr4, m.Addr6} {
		if addr.IsValid() {
			out = append(out, netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
	return out
}

// overlays are the mesh's own networks.
func (f facts) overlays() (out []netip.Prefix) {
	for _, p := range []netip.Prefix{f.view.Prefix4, f.view.Prefix6} {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

// routable reports whether a member may announce a prefix: it must lie inside the overlay (a static peer that it
// shares), and be no address that a member has by itself. Anything else could draw traffic away from others.
func routable(route netip.Prefix, f facts) bool {
	for _, overlay := range f.overlays() {
		if !overlay.Contains(route.Addr()) || route.Bits() < overlay.Bits()+8 {
			continue
		}
		return !slices.ContainsFunc(f.view.Members, func(m mesh.Member) bool {
			return m.Addr4.IsValid() && route.Contains(m.Addr4) || m.Addr6.IsValid() && route.Contains(m.Addr6)
		})
	}
	return false
}

// planLink gives the interface this node's addresses, and routes to the overlay and to what lies behind static peers.
func planLink(self mesh.Member, f facts, peers []tunnel.Peer) osnet.Config {
	link := osnet.Config{MTU: f.settings.Interface.MTU, Up: true, Routes: f.overlays()}
	link.Addrs = append(ownPrefixes(self), f.settings.Interface.Addresses...)
	within := func(route netip.Prefix) bool {
		return slices.ContainsFunc(link.Routes, func(r netip.Prefix) bool { return r.Bits() <= route.Bits() && r.Contains(route.Addr()) })
	}
	for _, peer := range peers {
		for _, prefix := range peer.AllowedIPs {
			if !within(prefix) {
				link.Routes = append(link.Routes, prefix)
			}
		}
	}
	return link
}
