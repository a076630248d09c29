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
	rules  tunnel.Rules
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
	conflicts  []Conflict
	held       map[wgtypes.Key]identity.NodeID // the members that have a tunnel, by their keys
	noIPv4     bool                            // the overlay has none on this machine
	relaying   bool                            // for others: whoever can be reached does, unless told not to
	relayLimit int                             // bytes a second; 0: no limit
	move       move                            // of the shared port
}

// plan computes the state that the owners should have. It touches nothing.
func plan(f facts) desired {
	f, swallowing := f.withoutSwallowing()
	out := desired{names: f.wantedNames(), relaying: f.settings.Anchor != AnchorNever, relayLimit: f.settings.RelayLimit}
	told := f // what this node says of itself does not change with the network that it is on
	wanted, overlap := f.ipv4()
	if out.noIPv4 = !wanted || overlap != ""; out.noIPv4 {
		f = f.withoutIPv4()
	}
	if !wanted {
		told = f
	}
	self, found := f.view.Member(f.self)
	out.planPeers(self, f)
	out.conflicts = append(out.conflicts, swallowing...)
	if overlap != "" {
		out.conflicts = append(out.conflicts, Conflict{Text: overlap})
	}
	out.rules = planRules(self, f)
	out.link = planLink(self, f, out.tunnel)
	if !f.view.Prefix6.IsValid() {
		return out // no mesh
	}
	for _, prefix := range ownPrefixes(self) {
		out.echo = append(out.echo, prefix.Addr())
	}
	out.targets = planTargets(f)
	out.local, out.follow = planLocal(f)
	if out.move = planMove(f); out.move == f.here.move && f.standing.Taken.Port != 0 && f.standing.Taken.Port == f.port {
		out.conflicts = append(out.conflicts, Conflict{Text: f.portTaken()})
	}
	out.standing, out.streams, out.neighbours = planStanding(self, f), planStreams(self, f), planNeighbourhood(f)
	if found {
		self, _ = told.view.Member(f.self)
		out.own = planOwn(self, told)
	}
	return out
}

// planPeers says who has a tunnel: static peers first, then the members that have a key for themselves.
func (d *desired) planPeers(self mesh.Member, f facts) {
	c := newClaims(self, f)
	c.self(self)
	for _, s := range f.settings.Static {
		if c.staticPeer(s) {
			d.tunnel = append(d.tunnel, tunnel.Peer{
				PublicKey: s.PublicKey, PresharedKey: s.PresharedKey, AllowedIPs: s.AllowedIPs,
				Endpoint: f.names[s.Endpoint], Keepalive: s.Keepalive, Hosted: s.Device,
			})
		}
	}
	d.ways, d.held = make(map[identity.NodeID]way, len(f.peers)), make(map[wgtypes.Key]identity.NodeID, len(f.peers))
	for _, m := range f.view.Members {
		if m.ID == f.self || m.State != mesh.Active || !c.member(m) {
			continue
		}
		// The tunnel's view of a member: its own addresses, and the routes of it that count.
		p := tunnel.Peer{ID: m.ID, PublicKey: wgtypes.Key(m.Record.WireGuardKey), Answers: m.Addr6, Controlling: f.self.Compare(m.ID) < 0}
		p.AllowedIPs = c.allowed(m, append(ownPrefixes(m), m.Routes...))
		d.tunnel, d.reach, d.held[p.PublicKey] = append(d.tunnel, p), append(d.reach, m.ID), m.ID
		d.ways[m.ID] = planWay(m.ID, f.peers[m.ID].path, f.underlay())
	}
	d.conflicts = c.conflicts
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
