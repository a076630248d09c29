package node

import (
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/mesh/roster"
	"warren/mesh/session"
	"warren/tunnel"
	"warren/tunnel/bind"
	"warren/tunnel/osnet"
)

// How many control sessions a node wants. Three anchors survive two failures; anchors know each other, so that any
// two nodes are at most two hops apart; neighbours keep gossip and introductions going when all anchors are gone.
const (
	wantedAnchors    = 3
	dialledAnchors   = 32 // when fewer than wantedAnchors answer
	wantedNeighbours = 3  // on each side of the ring of IDs
	smallMesh        = 8  // up to so many direct peers a session to each costs less than choosing

	// youngSession is how long a session stays wanted once it is up: it may just have been named as a relay, or be
	// wanted again in a moment.
	youngSession = 30 * time.Second
)

// facts is all that plan decides from: a snapshot, so that plan is a function.
type facts struct {
	now      time.Time
	self     identity.NodeID
	members  []roster.Member // all known members, this node included
	prefix4  netip.Prefix    // zero: none
	prefix6  netip.Prefix    // zero: no mesh
	settings Settings
	mtu      int // configured; 0: the tunnel chooses it
	// statics are the resolved endpoints of the static peers by name; a missing one is left as it is.
	statics map[string]netip.AddrPort
	// endpoints are the resolved addresses at which this node was said to be reachable.
	endpoints []netip.AddrPort
	// peers holds what is known of the way to each member.
	peers map[identity.NodeID]peerFacts
	// sessions are the control sessions that are up.
	sessions map[identity.NodeID]sessionFacts
	// streams are the addresses of streams by which anchors are to be spoken to.
	streams map[identity.NodeID]netip.AddrPort
	// relays are the anchors on which this node has or wants a channel.
	relays []identity.NodeID
	// contacts are addresses at which members were reached before, from the state directory.
	contacts []place.Contact
	// neighbours are addresses on the local network that members have told by beacons.
	neighbours []place.Contact
}

type peerFacts struct {
	handle netip.AddrPort // the socket's stable endpoint of the peer
	psk    wgtypes.Key
	direct netip.AddrPort // the path in use if it is direct
	size   tunnel.Path
}

type sessionFacts struct {
	rtt    time.Duration
	remote netip.AddrPort
	since  time.Time // of remote
}

// desired is what the owners are told. Everything in it is sorted, so that equal plans compare equal.
type desired struct {
	tunnel  []tunnel.Peer
	link    osnet.Config
	reach   []identity.NodeID // peers that nat should find a path to
	targets []session.Target  // control sessions to keep
}

// plan computes the state that the three owners should have. It touches nothing.
func plan(f facts) desired {
	var out desired
	var self roster.Member
	for _, m := range f.members {
		switch {
		case m.ID == f.self:
			self = m
		case m.State == roster.Active:
			out.tunnel = append(out.tunnel, memberPeer(m, f))
			out.reach = append(out.reach, m.ID)
		}
	}
	for _, s := range f.settings.Static {
		out.tunnel = append(out.tunnel, tunnel.Peer{
			PublicKey: s.PublicKey, PresharedKey: s.PresharedKey, AllowedIPs: s.AllowedIPs,
			Endpoint: f.statics[s.Name], Keepalive: s.Keepalive,
		})
	}
	out.link = planLink(self, f, out.tunnel)
	out.targets = planTargets(f)
	return out
}

// memberPeer is the tunnel's view of a member: its own addresses, and the routes that it advertises.
func memberPeer(m roster.Member, f facts) tunnel.Peer {
	p := tunnel.Peer{PublicKey: wgtypes.Key(m.Record.WireGuardKey), Endpoint: f.peers[m.ID].handle, PresharedKey: f.peers[m.ID].psk, Answers: m.Addr6, Path: f.peers[m.ID].size}
	for _, addr := range []netip.Addr{m.Addr4, m.Addr6} {
		if addr.IsValid() {
			p.AllowedIPs = append(p.AllowedIPs, netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
	for _, route := range m.Record.Routes {
		if routable(route, f) {
			p.AllowedIPs = append(p.AllowedIPs, route)
		}
	}
	return p
}

// routable reports whether a member may announce a prefix: it must lie inside the overlay (a static peer that it
// shares), and be no address that a member has by itself. Anything else could draw traffic away from others.
func routable(route netip.Prefix, f facts) bool {
	for _, overlay := range []netip.Prefix{f.prefix4, f.prefix6} {
		if !overlay.IsValid() || !overlay.Contains(route.Addr()) || route.Bits() < overlay.Bits()+8 {
			continue
		}
		return !slices.ContainsFunc(f.members, func(m roster.Member) bool {
			return m.Addr4.IsValid() && route.Contains(m.Addr4) || m.Addr6.IsValid() && route.Contains(m.Addr6)
		})
	}
	return false
}

// planLink gives the interface this node's addresses, and routes to the overlay and to what lies behind static peers.
func planLink(self roster.Member, f facts, peers []tunnel.Peer) osnet.Config {
	link := osnet.Config{MTU: f.mtu, Up: true}
	for _, addr := range []netip.Addr{self.Addr4, self.Addr6} {
		if addr.IsValid() {
			link.Addrs = append(link.Addrs, netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
	link.Addrs = append(link.Addrs, f.settings.Interface.Addresses...)
	for _, overlay := range []netip.Prefix{f.prefix4, f.prefix6} {
		if overlay.IsValid() {
			link.Routes = append(link.Routes, overlay)
		}
	}
	for _, peer := range peers {
		for _, prefix := range peer.AllowedIPs {
			if !slices.ContainsFunc(link.Routes, func(r netip.Prefix) bool { return r.Bits() <= prefix.Bits() && r.Contains(prefix.Addr()) }) {
				link.Routes = append(link.Routes, prefix)
			}
		}
	}
	return link
}

// planTargets chooses the control sessions to keep dialling.
func planTargets(f facts) []session.Target {
	targets := make(map[identity.NodeID][]netip.AddrPort)
	add := func(id identity.NodeID, addrs ...netip.AddrPort) {
		for _, addr := range addrs {
			if id != f.self && !slices.Contains(targets[id], addr) {
				targets[id] = append(targets[id], addr)
			}
		}
	}
	anchors, anchorsUp := planAnchors(f)
	for id, addr := range f.streams {
		add(id, addr)
	}
	for _, m := range anchors {
		add(m.ID, m.Record.Endpoints...)
	}
	for _, m := range f.members {
		if m.State == roster.Active && slices.Contains(f.relays, m.ID) {
			add(m.ID, m.Record.Endpoints...)
		}
	}
	if anchorsUp == 0 {
		for _, c := range slices.Concat(f.neighbours, f.contacts) {
			// Whom no record is known of may still be one: a node whose store was lost has nothing but its contacts.
			if !slices.ContainsFunc(f.members, func(m roster.Member) bool { return m.ID == c.ID && m.State != roster.Active }) {
				add(c.ID, c.Addr)
			}
		}
	}
	for id, s := range f.sessions {
		if f.now.Sub(s.since) < youngSession && !bind.IsVirtual(s.remote.Addr()) && s.remote.IsValid() {
			add(id, s.remote)
		}
	}
	for _, id := range planNeighbours(f, anchorsUp) {
		if f.self.Compare(id) < 0 { // one side dials
			add(id, f.peers[id].direct)
		}
	}
	var out []session.Target
	for id, addrs := range targets {
		out = append(out, session.Target{ID: id, Addrs: addrs})
	}
	slices.SortFunc(out, func(a, b session.Target) int { return a.ID.Compare(b.ID) })
	return out
}

// planAnchors returns the anchors to dial, and how many answer now. A node that has as many as it wants keeps the
// nearest of those; one that has not dials them all, for ever: a healed partition always merges. Anchors dial each
// other, so that they need at most one hop between them.
func planAnchors(f facts) (anchors []roster.Member, up int) {
	var all []roster.Member
	selfIsAnchor := false
	for _, m := range f.members {
		if len(m.Record.Endpoints) == 0 || m.State != roster.Active {
			continue
		}
		if m.ID == f.self {
			selfIsAnchor = true
			continue
		}
		all = append(all, m)
		if _, ok := f.sessions[m.ID]; ok {
			up++
		}
	}
	slices.SortFunc(all, func(a, b roster.Member) int {
		sa, upA := f.sessions[a.ID]
		sb, upB := f.sessions[b.ID]
		switch {
		case upA != upB:
			if upA {
				return -1
			}
			return 1
		case sa.rtt != sb.rtt:
			return int(sa.rtt - sb.rtt)
		}
		return a.ID.Compare(b.ID)
	})
	limit := dialledAnchors
	if up >= wantedAnchors && !selfIsAnchor {
		limit = wantedAnchors
	}
	return all[:min(limit, len(all))], up
}

// planNeighbours returns the direct peers to keep a control session with: all of them while no anchor answers or
// there are few, else those that stand next to this node in the ring of IDs. Both ends of a pair agree.
func planNeighbours(f facts, anchorsUp int) []identity.NodeID {
	var direct []identity.NodeID
	for id, p := range f.peers {
		if p.direct.IsValid() {
			direct = append(direct, id)
		}
	}
	slices.SortFunc(direct, identity.NodeID.Compare)
	if anchorsUp == 0 || len(direct) <= smallMesh {
		return direct
	}
	ring := []identity.NodeID{}
	for _, m := range f.members {
		if m.State == roster.Active {
			ring = append(ring, m.ID)
		}
	}
	slices.SortFunc(ring, identity.NodeID.Compare)
	at := slices.Index(ring, f.self)
	return slices.DeleteFunc(direct, func(id identity.NodeID) bool {
		distance := (slices.Index(ring, id) - at + len(ring)) % len(ring)
		return distance > wantedNeighbours && len(ring)-distance > wantedNeighbours
	})
}
