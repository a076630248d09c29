package node

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/nat"
	"warren/nat/standing"
	"warren/nat/streams"
	"warren/tunnel/bind"
)

// maxIntroducers bounds the members that are asked for the own address and offered as relays.
const maxIntroducers = 8

// planLocal is what nat is told of this node and of those that can say where it is, and the anchors whose relays may be used.
func planLocal(f facts) (local nat.Local, follow []identity.NodeID) {
	local = nat.Local{
		Network: f.standing.Network, Port: f.port, Hosts: f.standing.Hosts, External: f.standing.External, Overlay: f.overlays(),
		NAT64: f.standing.NAT64.IsValid(), NoUDP: f.streams.Forlorn, Mapping: f.standing.Mapping(), Dialable: make(map[identity.NodeID]bool),
	}
	anchors := make(map[identity.NodeID]bool)
	for _, m := range f.view.Members {
		anchors[m.ID] = isAnchor(m)
	}
	if !f.streams.Forlorn {
		local.Dialable = anchors
	}
	for _, id := range f.preferred[:min(len(f.preferred), maxIntroducers)] {
		s, up := f.sessions[id]
		switch {
		case !up, bind.IsStream(s.remote.Addr()) && f.streams.Ends[id].Accepted: // it came by a stream: it has no UDP to ask by
		case f.streams.State == streams.Blocked && f.byUDP(id): // not seen yet that it is dead
		default:
			local.Anchors = append(local.Anchors, nat.Anchor{
				ID: id, Addr: s.remote, RTT: s.rtt.Round(time.Millisecond), Since: s.since, Load: f.loads[id], Private: !anchors[id],
			})
			follow = append(follow, id)
		}
	}
	for _, addr := range f.streams.Ask {
		local.Anchors = append(local.Anchors, nat.Anchor{Addr: addr})
	}
	return local, follow
}

// streamAnchors lists the members to which streams may lead, best first: those whose sessions are kept, as far as the
// Internet can reach them. Where it reaches none, addresses of private networks are as good (private).
func streamAnchors(f facts) (ids []identity.NodeID, private bool) {
	anchors, up := planAnchors(f)
	known := make(map[identity.NodeID]bool)
	for _, m := range f.view.Members {
		known[m.ID] = true
	}
	list := func(private bool) (ids []identity.NodeID) {
		for _, a := range anchors {
			if slices.ContainsFunc(f.dialable(a.member.Record.Endpoints), func(a netip.AddrPort) bool { return streams.Counts(a.Addr(), private) }) {
				ids = append(ids, a.member.ID)
			}
		}
		if up > 0 {
			return ids
		}
		for _, c := range f.contacts {
			// Who is known and names no endpoint accepts no streams.
			if !known[c.ID] && c.ID != f.self && streams.Counts(c.Addr.Addr(), private) && !slices.Contains(ids, c.ID) {
				ids = append(ids, c.ID)
			}
		}
		return ids
	}
	if ids = list(false); len(ids) > 0 {
		return ids, false
	}
	return list(true), true
}

// planStreams says to whom streams may lead, what is known of UDP, and where streams are accepted.
func planStreams(self mesh.Member, f facts) streams.Desired {
	ids, private := streamAnchors(f)
	want := streams.Desired{
		Network: f.standing.Network, Private: private, Sessions: make(map[identity.NodeID]streams.Session, len(f.sessions)),
		Targets: f.streams.Targets, Paths: make(map[identity.NodeID]nat.Path, len(f.peers)), Listen: listenPorts(self, f),
	}
	for _, id := range ids {
		want.Anchors = append(want.Anchors, streamAnchor(id, private, f))
	}
	for id, s := range f.sessions {
		want.Sessions[id] = streams.Session{Remote: s.remote, Since: s.since}
	}
	for id, p := range f.peers {
		want.Paths[id] = p.path.Path
	}
	return want
}

// streamAnchor says where an anchor is asked by UDP (its endpoints, and where it was met before), and where it accepts streams.
func streamAnchor(id identity.NodeID, private bool, f facts) streams.Anchor {
	a := streams.Anchor{ID: id}
	add := func(to *[]netip.AddrPort, addr netip.AddrPort) {
		if streams.Counts(addr.Addr(), private) && !slices.Contains(*to, addr) {
			*to = append(*to, addr)
		}
	}
	if i := slices.IndexFunc(f.view.Members, func(m mesh.Member) bool { return m.ID == id }); i >= 0 {
		for _, addr := range f.dialable(f.view.Members[i].Record.Endpoints) {
			add(&a.UDP, addr)
		}
		for _, addr := range f.dialable(f.view.Members[i].Record.Streams) {
			add(&a.TCP, addr)
		}
	}
	for _, c := range f.contacts {
		if c.ID == id {
			add(&a.UDP, c.Addr)
		}
	}
	return a
}

// listenPorts are where streams are accepted: as an anchor, on the number of the UDP port and where the settings say.
func listenPorts(self mesh.Member, f facts) []uint16 {
	if !isAnchor(self) || f.port == 0 {
		return nil
	}
	ports := []uint16{f.port}
	for _, port := range f.settings.StreamPorts {
		if !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	return ports
}

// voice is who answers for a member: who let it in, or who let that one in, and so on as far as these are no admins, whose invites
// anybody could give away, and not this node. Members can make up members.
func (f facts) voice(id identity.NodeID) identity.NodeID {
	for range f.view.Members { // however they are chained
		m, _ := f.view.Member(id)
		by, ok := f.view.Member(m.AdmittedBy)
		if !ok || by.Admin || by.ID == f.self {
			break
		}
		id = by.ID
	}
	return id
}

// planStanding says what standing may ask and whom.
func planStanding(self mesh.Member, f facts) standing.Desired {
	want := standing.Desired{
		Mode: f.settings.Anchor, Port: f.port, Overlay: f.overlays(), UDPBlocked: f.streams.Forlorn,
		MapTCP: listenPorts(self, f) != nil,
	}
	for _, name := range f.ownEndpoints() {
		if addr, ok := f.names[name]; ok {
			want.Endpoints = append(want.Endpoints, addr)
		}
	}
	rank := make(map[identity.NodeID]int, len(f.preferred))
	for i, id := range f.preferred {
		rank[id] = i - len(f.preferred)
		// UDP from a network that blocks it proves nothing.
		if s, up := f.sessions[id]; up && !bind.IsVirtual(s.remote.Addr()) {
			want.Helpers = append(want.Helpers, standing.Helper{ID: id, Addr: s.remote.Addr(), Voice: f.voice(id)})
		}
	}
	slices.SortFunc(want.Helpers, func(a, b standing.Helper) int { return a.ID.Compare(b.ID) })
	for _, m := range f.view.Members {
		if m.ID == f.self || !isAnchor(m) {
			continue
		}
		for _, addr := range f.dialable(m.Record.Endpoints) {
			if streams.Counts(addr.Addr(), false) {
				want.Servers = append(want.Servers, standing.Server{ID: m.ID, Addr: addr, Helps: len(f.preferred) > 0})
			}
		}
	}
	slices.SortStableFunc(want.Servers, func(a, b standing.Server) int { return cmp.Compare(rank[a.ID], rank[b.ID]) })
	return want
}
