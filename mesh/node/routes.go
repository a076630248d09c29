package node

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/nat"
	"warren/nat/reach"
	"warren/nat/streams"
	"warren/tunnel/bind"
)

// maxIntroducers bounds the members that are asked for the own address, offered as relays, or tried as next hops.
const maxIntroducers = 8

// routes is what the owners' goroutines read of the loop's knowledge: an immutable table, replaced as a whole.
type routes struct {
	sessions  map[identity.NodeID]bool
	preferred []identity.NodeID // the sessions that are up, anchors first, nearest first
	anchorsOf map[identity.NodeID][]identity.NodeID
	anchors   []nat.Anchor
	endpoints map[identity.NodeID]*bind.Endpoint
	byHandle  map[netip.AddrPort]identity.NodeID // of endpoints
	relaying  bool
	refused   map[identity.NodeID]refusal
	streams   map[identity.NodeID]streamEnd
	blocked   string // why streams are used; empty: they are not
	cutOff    string // why none is up although they are wanted
	udp       udpFacts
	forlorn   bool                     // UDP gets no answer from the Internet, as far as it looks
	dialable  map[identity.NodeID]bool // anchors that could be had a session with
	reach     []reach.Candidate
}

// udpFacts is what is believed of UDP, as the loop last published it.
type udpFacts struct {
	state  streams.State
	since  time.Time
	reason string
}

// any reports whether there is a session at all.
func (r *routes) any() bool { return len(r.preferred) > 0 }

// towards lists the members that may lead to dst: first its own anchors with which there is a session, then
// whoever else there is a session with, anchors first.
func (r *routes) towards(dst identity.NodeID) []identity.NodeID {
	var hops []identity.NodeID
	for _, id := range r.anchorsOf[dst] {
		if r.sessions[id] && id != dst {
			hops = append(hops, id)
		}
	}
	for _, id := range r.preferred {
		if id != dst && !slices.Contains(hops, id) {
			hops = append(hops, id)
		}
	}
	return hops[:min(len(hops), maxIntroducers)]
}

// publishRoutes makes the table anew from the loop's state.
func (m *member) publishRoutes() {
	view := m.mesh.View()
	r := &routes{
		sessions: make(map[identity.NodeID]bool, len(m.up)), anchorsOf: make(map[identity.NodeID][]identity.NodeID),
		endpoints: make(map[identity.NodeID]*bind.Endpoint, len(m.peers)), byHandle: make(map[netip.AddrPort]identity.NodeID, len(m.peers)), relaying: m.settings().Anchor != AnchorNever, refused: maps.Clone(m.refused),
		streams: m.streams.ends(),
	}
	state, since, reason := m.streams.machine.State()
	r.udp, r.reach = udpFacts{state, since, reason}, m.back.machine.Snapshot()
	r.forlorn = state == streams.Blocked || state == streams.Trying && len(m.streams.udp) == 0 && len(m.streams.targets()) > 0
	isAnchor := make(map[identity.NodeID]bool)
	for _, other := range view.Members {
		if other.State != roster.Active {
			continue
		}
		isAnchor[other.ID] = len(other.Record.Endpoints) > 0
		r.anchorsOf[other.ID] = other.Record.Anchors
	}
	for id := range m.up {
		if !m.active(id) {
			continue // a chain proves an invite: who has no record yet gives its record, and gets nothing
		}
		r.sessions[id] = true
		r.preferred = append(r.preferred, id)
	}
	slices.SortFunc(r.preferred, func(a, b identity.NodeID) int {
		if isAnchor[a] != isAnchor[b] {
			if isAnchor[a] {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(m.up[a].rtt, m.up[b].rtt), a.Compare(b))
	})
	var followed []identity.NodeID
	for _, id := range r.preferred[:min(len(r.preferred), maxIntroducers)] {
		remote, ok := m.sessions.Remote(id)
		switch {
		case !ok, bind.IsStream(remote.Addr()) && m.streams.dialled[id] == nil:
		case state == streams.Blocked && m.byUDP(id): // not seen yet that it is dead
		default:
			r.anchors = append(r.anchors, m.relayAnchor(id, remote, !isAnchor[id]))
			followed = append(followed, id)
		}
	}
	m.channels.Follow(followed)
	for id, p := range m.peers {
		r.endpoints[id] = p.endpoint
		r.byHandle[p.endpoint.Handle()] = id
	}
	if state != streams.Open {
		// Whether UDP works is asked of all, also of those to whom a stream leads, or nothing.
		for _, id := range m.streams.anchors[:min(len(m.streams.anchors), maxIntroducers)] {
			for _, addr := range m.udpAddrs(id) {
				r.anchors = append(r.anchors, nat.Anchor{Addr: addr})
			}
		}
		switch {
		case state == streams.Trying:
		case len(m.streams.targets()) > 0:
			r.blocked = reason
		default:
			r.cutOff = m.streams.trouble
		}
	}
	if !r.forlorn {
		r.dialable = isAnchor
	}
	m.routes.Store(r)
}

// dialable reports whether a session with an anchor could be had, if there is none.
func (m *member) dialable(anchor identity.NodeID) bool { return m.routes.Load().dialable[anchor] }
