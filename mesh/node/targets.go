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

// How many control sessions a node wants. Three anchors survive two failures; anchors keep to those next to them in the rings, which is a
// graph so dense that two forwarding members lead from each to each; neighbours keep gossip and introductions going when all anchors are
// gone.
const (
	WantedAnchors    = 3
	ringSteps        = 4 // in each of eight directions, while none there answers
	maxDetours       = 8
	wantedNeighbours = 3 // on each side of the ring of IDs
	smallMesh        = 8 // up to so many direct peers a session to each costs less than choosing

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
	behind := make(map[identity.NodeID]identity.NodeID)
	for _, a := range anchors {
		add(a.member.ID, f.dialable(a.member.Record.Endpoints)...)
		behind[a.member.ID] = a.behind
	}
	for _, id := range append(planDetours(f), f.relays...) {
		if m, ok := f.view.Member(id); ok && m.State == mesh.Active {
			add(m.ID, f.dialable(m.Record.Endpoints)...)
			delete(behind, id)
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
		out = append(out, session.Target{ID: id, Addrs: addrs, Behind: behind[id]})
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

// anchorTarget is an anchor to dial, and in whose place: see session.Target.
type anchorTarget struct {
	member mesh.Member
	behind identity.NodeID
}

// planAnchors returns the anchors to dial, and how many answer now. An anchor keeps to those next to it in the rings of anchors, so that
// each has few sessions and any two are near. Any other node keeps the nearest of those that answer, once it has as many as it wants; one
// that has not dials many, for ever, each where the rings put it: a healed partition always merges.
func planAnchors(f facts) (anchors []anchorTarget, up int) {
	var answer []mesh.Member
	for _, m := range f.view.Members {
		if _, ok := f.sessions[m.ID]; ok && isAnchor(m) && m.ID != f.self {
			answer = append(answer, m)
		}
	}
	all := f.view.Rings()
	if !all.Has(f.self) && len(answer) >= WantedAnchors {
		slices.SortFunc(answer, func(a, b mesh.Member) int {
			return cmp.Or(cmp.Compare(f.sessions[a.ID].rtt, f.sessions[b.ID].rtt), a.ID.Compare(b.ID))
		})
		for _, m := range answer[:WantedAnchors] {
			anchors = append(anchors, anchorTarget{member: m})
		}
		return anchors, len(answer)
	}
	at := make(map[identity.NodeID]int)
	add := func(id, behind identity.NodeID) {
		m, ok := f.view.Member(id)
		i, twice := at[id]
		switch {
		case !ok || id == f.self:
		case !twice:
			at[id] = len(anchors)
			anchors = append(anchors, anchorTarget{m, behind})
		case behind.IsZero():
			anchors[i].behind = behind
		}
	}
	for _, walk := range all.Walks(f.self, ringSteps) {
		behind := identity.NodeID{}
		for _, id := range walk {
			add(id, behind)
			if _, ok := f.sessions[id]; ok {
				break // it stands in for those before it, which are dialled all the same
			}
			behind = id
		}
	}
	if self, ok := f.view.Member(f.self); ok && all.Has(f.self) {
		// One more, by chance, that nobody can foresee: whoever makes up members can surround a node in all rings.
		if id, ok := all.Chance(f.self, self.Record.Instance[:]); ok {
			add(id, identity.NodeID{})
		}
	}
	// Those that answer first, the nearest of them before the others.
	slices.SortStableFunc(anchors, func(a, b anchorTarget) int {
		sa, upA := f.sessions[a.member.ID]
		sb, upB := f.sessions[b.member.ID]
		switch {
		case upA && !upB:
			return -1
		case upB && !upA:
			return 1
		}
		return cmp.Compare(sa.rtt, sb.rtt)
	})
	return anchors, len(answer)
}

// endsOf returns the anchors that keep a session with a member, as far as the records tell, and last the member itself if it is one.
func (f facts) endsOf(m mesh.Member) []identity.NodeID {
	all := f.view.Rings()
	if !all.Has(m.ID) {
		return slices.Clone(m.Record.Anchors)
	}
	return append(slices.Clone(all.Neighbours(m.ID)), m.ID)
}

// led returns the peers to which sessions that have just come up lead: their far sides, and the peers without a path that these keep sessions with,
// if none that was there before does. What was said to those may lie with somebody who does not reach them.
func (f facts) led(came []identity.NodeID) []identity.NodeID {
	out := slices.Clone(came)
	for id, p := range f.peers {
		m, ok := f.view.Member(id)
		if !ok || p.path.Path.Kind != nat.None || slices.Contains(came, id) {
			continue
		}
		now, before := false, false
		for _, end := range f.endsOf(m) {
			if _, up := f.sessions[end]; slices.Contains(came, end) {
				now = true
			} else if up {
				before = true
			}
		}
		if now && !before {
			out = append(out, id)
		}
	}
	return out
}

// planDetours returns anchors to dial for peers that have no path, and to which no way of two forwarding members is known: each offers
// first where this node has to, so it is this node that has to reach somebody who has a session with the peer.
func planDetours(f facts) (out []identity.NodeID) {
	all := f.view.Rings()
	if len(f.sessions) == 0 {
		return nil // what is nearer has to come first
	}
	reached := make(map[identity.NodeID]bool) // with one or two sessions
	for id := range f.sessions {
		m, _ := f.view.Member(id)
		reached[id] = true
		for _, next := range f.endsOf(m) {
			reached[next] = true
		}
	}
	// Each begins elsewhere, so that not all dial the same.
	start := max(0, slices.IndexFunc(f.view.Members, func(m mesh.Member) bool { return m.ID == f.self }))
	for i := range f.view.Members {
		m := f.view.Members[(start+i)%len(f.view.Members)]
		if m.State != mesh.Active || f.self.Compare(m.ID) >= 0 || reached[m.ID] || f.peers[m.ID].path.Path.Kind != nat.None {
			continue
		}
		ends := f.endsOf(m)
		if slices.ContainsFunc(ends, func(id identity.NodeID) bool { return reached[id] }) {
			continue
		}
		slices.Reverse(ends) // the peer itself, if it is an anchor
		for _, id := range ends {
			if all.Has(id) && id != f.self && len(out) < maxDetours {
				out = append(out, id)
				break
			}
		}
	}
	return out
}

// planNeighbours returns the direct peers to keep a control session with: all of them while no anchor answers or there are few, else
// those that stand next to this node in the ring of IDs. Both ends of a pair agree. Between anchors the rings decide.
func planNeighbours(f facts, anchorsUp int) []identity.NodeID {
	var direct, ring []identity.NodeID
	for _, m := range f.view.Members {
		if m.State == mesh.Active {
			ring = append(ring, m.ID)
		}
	}
	anchors := f.view.Rings()
	for id, p := range f.peers {
		if p.direct().IsValid() && !(anchors.Has(f.self) && anchors.Has(id)) {
			direct = append(direct, id)
		}
	}
	slices.SortFunc(direct, identity.NodeID.Compare)
	if anchorsUp == 0 || len(direct) <= smallMesh {
		return direct
	}
	slices.SortFunc(ring, identity.NodeID.Compare)
	at := slices.Index(ring, f.self)
	return slices.DeleteFunc(direct, func(id identity.NodeID) bool {
		i, _ := slices.BinarySearchFunc(ring, id, identity.NodeID.Compare)
		distance := (i - at + len(ring)) % len(ring)
		return distance > wantedNeighbours && len(ring)-distance > wantedNeighbours
	})
}
