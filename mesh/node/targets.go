package node

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/nat"
	"warren/nat/ranges"
	"warren/tunnel/bind"
)

// How many control sessions a node wants. Three anchors survive two failures; anchors know each other, so that any
// two nodes are at most two hops apart; neighbours keep gossip and introductions going when all anchors are gone.
const (
	WantedAnchors    = 3
	dialledAnchors   = 32 // when fewer than WantedAnchors answer
	wantedNeighbours = 3  // on each side of the ring of IDs
	smallMesh        = 8  // up to so many direct peers a session to each costs less than choosing

	// youngSession is how long a session stays wanted once it is up: it may just have been named as a relay, or be
	// wanted again in a moment.
	youngSession = 30 * time.Second
)

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
	for id, addr := range f.streams.Targets {
		add(id, addr)
	}
	for _, m := range anchors {
		add(m.ID, f.dialable(m.Record.Endpoints)...)
	}
	for _, m := range f.view.Members {
		if m.State == mesh.Active && slices.Contains(f.relays, m.ID) {
			add(m.ID, f.dialable(m.Record.Endpoints)...)
		}
	}
	if anchorsUp == 0 {
		gone := make(map[identity.NodeID]bool)
		for _, m := range f.view.Members {
			gone[m.ID] = m.State != mesh.Active
		}
		// Whom no record is known of may still be one: a node whose store was lost has nothing but its contacts.
		for _, c := range f.neighbours.Contacts {
			if !gone[c.ID] {
				add(c.ID, c.Addr)
			}
		}
		for _, c := range f.contacts {
			if !gone[c.ID] {
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
			add(id, f.peers[id].direct())
		}
	}
	var out []session.Target
	for id, addrs := range targets {
		out = append(out, session.Target{ID: id, Addrs: addrs})
	}
	slices.SortFunc(out, func(a, b session.Target) int { return a.ID.Compare(b.ID) })
	return out
}

// dialable returns those of the addresses in a member's record that are dialled: a member may name any.
func (f facts) dialable(addrs []netip.AddrPort) (out []netip.AddrPort) {
	overlays := f.overlays()
	for _, addr := range addrs {
		if ranges.Dialable(addr.Addr(), overlays...) {
			out = append(out, addr)
		}
	}
	return out
}

// direct is the path in use if it is direct.
func (p peerFacts) direct() netip.AddrPort {
	if p.path.Path.Kind == nat.Direct {
		return p.path.Path.Addr
	}
	return netip.AddrPort{}
}

// isAnchor reports whether strangers reach a member, as it says.
func isAnchor(m mesh.Member) bool { return m.State == mesh.Active && len(m.Record.Endpoints) > 0 }

// planAnchors returns the anchors to dial, and how many answer now. A node that has as many as it wants keeps the
// nearest of those; one that has not dials them all, for ever: a healed partition always merges. Anchors dial each
// other, so that they need at most one hop between them.
func planAnchors(f facts) (anchors []mesh.Member, up int) {
	var all []mesh.Member
	selfIsAnchor := false
	for _, m := range f.view.Members {
		switch _, ok := f.sessions[m.ID]; {
		case !isAnchor(m):
			continue
		case m.ID == f.self:
			selfIsAnchor = true
			continue
		case ok:
			up++
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b mesh.Member) int {
		sa, upA := f.sessions[a.ID]
		sb, upB := f.sessions[b.ID]
		switch {
		case upA && !upB:
			return -1
		case upB && !upA:
			return 1
		}
		return cmp.Or(cmp.Compare(sa.rtt, sb.rtt), a.ID.Compare(b.ID))
	})
	limit := dialledAnchors
	if up >= WantedAnchors && !selfIsAnchor {
		limit = WantedAnchors
	}
	return all[:min(limit, len(all))], up
}

// planNeighbours returns the direct peers to keep a control session with: all of them while no anchor answers or
// there are few, else those that stand next to this node in the ring of IDs. Both ends of a pair agree.
func planNeighbours(f facts, anchorsUp int) []identity.NodeID {
	var direct []identity.NodeID
	for id, p := range f.peers {
		if p.direct().IsValid() {
			direct = append(direct, id)
		}
	}
	slices.SortFunc(direct, identity.NodeID.Compare)
	if anchorsUp == 0 || len(direct) <= smallMesh {
		return direct
	}
	ring := []identity.NodeID{}
	for _, m := range f.view.Members {
		if m.State == mesh.Active {
			ring = append(ring, m.ID)
		}
	}
	slices.SortFunc(ring, identity.NodeID.Compare)
	at := slices.Index(ring, f.self)
	return slices.DeleteFunc(direct, func(id identity.NodeID) bool {
		i, _ := slices.BinarySearchFunc(ring, id, identity.NodeID.Compare)
		distance := (i - at + len(ring)) % len(ring)
		return distance > wantedNeighbours && len(ring)-distance > wantedNeighbours
	})
}
