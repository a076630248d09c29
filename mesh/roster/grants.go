package roster

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"warren/mesh/record"
)

// due returns the members whose grant is not as it should be. It does not say what it should be, nor whether that can be had.
func (g *Granter) due(members []Member, now time.Time) (due []*Member) {
	left := leftWithGrant(members)
	wanted := make(map[*Member]bool)
	for i := range members {
		m := &members[i]
		if m.State == Active && g.stale(m, now) {
			due = append(due, m)
			for _, other := range left {
				wanted[other] = wanted[other] || inWay(m, other)
			}
		}
	}
	for _, m := range left {
		if wanted[m] && !g.fixed(m) {
			due = append(due, m)
		}
	}
	return due
}

// leftWithGrant returns the members that have left and still keep what they were granted.
func leftWithGrant(members []Member) (left []*Member) {
	for i := range members {
		if m := &members[i]; m.State == Left && m.Granted() {
			left = append(left, m)
		}
	}
	return left
}

// fixed reports whether no agent is to change a grant.
func (g *Granter) fixed(m *Member) bool {
	return m.Grant != nil && (m.Grant.Signer == g.root || m.Grant.Version == math.MaxUint64)
}

// stale reports whether an active member has, or wants to be called, something else than its grant says.
func (g *Granter) stale(m *Member, now time.Time) bool {
	if g.fixed(m) {
		return false
	}
	return !m.Granted() || m.wishes() || m.Grant.Name != m.Name || m.Grant.Addr4 != m.Addr4 || !slices.Equal(m.Grant.Routes, g.routes(m, now))
}

// routes returns the routes that a member has, and those that it was granted and does not offer just now.
func (g *Granter) routes(m *Member, now time.Time) []netip.Prefix {
	if m.Grant == nil || m.offersAll() || !now.Before(g.members[m.ID].silent.Add(grantDrop)) {
		return m.Routes
	}
	routes := slices.Clone(m.Routes)
	for _, route := range m.Grant.Routes {
		if !slices.Contains(m.Record.Routes, route) {
			routes = append(routes, route)
		}
	}
	slices.SortFunc(routes, netip.Prefix.Compare)
	return routes
}

// offersAll reports whether a member offers all routes that it was granted.
func (m *Member) offersAll() bool {
	return m.Grant == nil || !slices.ContainsFunc(m.Grant.Routes, func(r netip.Prefix) bool { return !slices.Contains(m.Record.Routes, r) })
}

// wishes reports whether a member with a grant wants another name than when it was granted.
func (m *Member) wishes() bool { return m.Granted() && m.Record.Name != m.Grant.Wanted }

// inWay reports whether a member that has left keeps something that an active one has by now, or the name that it wishes for.
func inWay(m, left *Member) bool {
	name := m.Name
	if m.wishes() {
		name = m.Record.Name
	}
	kept := left.Grant
	return kept.Name == name || kept.Addr4 == m.Addr4 && m.Addr4.IsValid() ||
		slices.ContainsFunc(kept.Routes, func(r netip.Prefix) bool {
			return r.Contains(m.Addr4) || slices.ContainsFunc(m.Routes, r.Overlaps)
		}) ||
		slices.ContainsFunc(m.Routes, func(r netip.Prefix) bool { return r.Contains(kept.Addr4) })
}

// basis is what the grants of one step are made upon.
type basis struct {
	g      *Granter
	now    time.Time
	names  takenNames // of active members, and kept for those that have left
	left   []*Member  // those that keep something
	serial uint64     // the greatest
	room   uint64     // addresses of IPv4 that may still be granted as routes
}

func (g *Granter) read(members []Member, now time.Time) *basis {
	b := &basis{g: g, now: now, names: make(takenNames, len(members)), left: leftWithGrant(members)}
	b.room = size4(g.prefix4) / grantedShare
	for i := range members {
		m := &members[i]
		if m.State == Active {
			b.names[m.Name] = 2
		}
		if m.Grant == nil {
			continue
		}
		b.serial = max(b.serial, m.Grant.Serial)
		for _, route := range m.Grant.Routes {
			b.room -= min(b.room, size4(route))
		}
	}
	for _, m := range b.left {
		b.names[m.Grant.Name] = 2
	}
	return b
}

// grant returns what a member is to be granted; false: what it has been, or something is to be taken back from another before.
func (b *basis) grant(m *Member) (record.Grant, bool) {
	grant := record.Grant{Node: m.ID, Version: 1}
	if m.Grant != nil {
		grant.Serial, grant.Version = m.Grant.Serial, m.Grant.Version+1
	}
	if m.State == Left {
		return grant, true // nothing: it is taken back
	}
	if slices.ContainsFunc(b.left, func(left *Member) bool { return inWay(m, left) }) {
		return record.Grant{}, false
	}
	grant.Wanted, grant.Name, grant.Addr4, grant.Routes = m.Record.Name, m.Name, m.Addr4, b.routes(m)
	if m.wishes() {
		grant.Name = b.wish(m)
	}
	if g := m.Grant; g != nil && g.Wanted == grant.Wanted && g.Name == grant.Name && g.Addr4 == grant.Addr4 && slices.Equal(g.Routes, grant.Routes) {
		return record.Grant{}, false
	}
	if grant.Serial == 0 {
		b.serial = min(b.serial+1, record.MaxSerial)
		grant.Serial = b.serial
	}
	return grant, true
}

// wish returns the name that a member gets instead of the one that it has.
func (b *basis) wish(m *Member) string {
	delete(b.names, m.Name)
	name := b.names.take(m.Record.Name, m.ID)
	b.names[m.Name] = max(b.names[m.Name], 2) // until the new one counts, both are taken
	return name
}

// routes returns the routes that a member is to be granted: those that were granted before, and new ones for which there is room.
func (b *basis) routes(m *Member) (routes []netip.Prefix) {
	for _, route := range b.g.routes(m, b.now) {
		if m.Grant == nil || !slices.Contains(m.Grant.Routes, route) {
			if size4(route) > b.room {
				continue
			}
			b.room -= size4(route)
		}
		routes = append(routes, route)
	}
	return routes
}

// size4 returns how many addresses a prefix of IPv4 has; 0 for another.
func size4(p netip.Prefix) uint64 {
	if !p.IsValid() || !p.Addr().Is4() {
		return 0
	}
	return 1 << (32 - p.Bits())
}
