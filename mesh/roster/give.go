package roster

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// routeBits is how much longer than the overlay network a route must be: nobody gets more than a 256th of it by one.
const routeBits = 8

// Routable reports whether a prefix has the form of a route that a member may offer: it lies in one of the overlay's networks, and is
// at least 8 bits longer.
func Routable(route netip.Prefix, overlays ...netip.Prefix) bool {
	return slices.ContainsFunc(overlays, func(o netip.Prefix) bool {
		return o.IsValid() && route.IsValid() && route == route.Masked() && route.Bits() >= o.Bits()+routeBits && o.Contains(route.Addr())
	})
}

// giving gives the members what they have: names, addresses, routes, and the sole use of their WireGuard keys. Whoever is before
// another keeps what it has. So nobody can take a thing from a member that was granted it:
//
//  1. what admins have granted to active members, in the order in which admins saw them come. Granted routes are kept for their member
//     also while it does not offer them, or it could have them back when they are another's by then.
//  2. what active members claim beyond that, in the order of their admission, which is their own word: first names and
//     addresses, so that no claim of a route stands in the way of a newcomer's address, then routes.
//  3. what those that have left had, if nobody has it now.
//
// When a member is granted what it has, nothing changes for anybody.
type giving struct {
	members []Member
	names   takenNames
	v4, v6  *space
	routes  bool // somebody offers some: else the addresses of IPv6 stand in nobody's way
}

// give decides on the members, which come in the order of their admission, with record, grant and state.
func give(prefix4, prefix6 netip.Prefix, members []Member) {
	g := &giving{members: members, names: make(takenNames, len(members)), v4: newSpace(prefix4), v6: newSpace(prefix6)}
	granted, active, left := g.order()
	g.routes = slices.ContainsFunc(active, func(m *Member) bool { return len(m.Record.Routes) > 0 })
	for _, m := range granted {
		g.grantedName(m)
		g.addr4(m, m.Grant.Addr4)
		g.grantedRoutes(m)
	}
	for _, m := range active {
		g.name(m)
		g.claimed4(m)
	}
	for i := range members {
		g.addr6(&members[i])
	}
	for _, m := range active {
		g.claimedRoutes(m)
	}
	for _, m := range left {
		if m.Granted() {
			g.grantedName(m)
			g.addr4(m, m.Grant.Addr4)
		}
		g.name(m)
		g.claimed4(m)
	}
	giveKeys(slices.Concat(granted, active, left))
}

// order returns the active members with a grant by its serial, all active ones, and those that have left.
func (g *giving) order() (granted, active, left []*Member) {
	for i := range g.members {
		m := &g.members[i]
		if m.State != Active {
			left = append(left, m)
			continue
		}
		active = append(active, m)
		if m.Granted() {
			granted = append(granted, m)
		}
	}
	slices.SortFunc(granted, bySerial)
	return granted, active, left
}

func bySerial(a, b *Member) int {
	return cmp.Or(cmp.Compare(a.Grant.Serial, b.Grant.Serial), a.ID.Compare(b.ID))
}

// grantedName gives a member the name of its grant, unless one before it has that.
func (g *giving) grantedName(m *Member) {
	if name := m.Grant.Name; name != "" && g.names[name] == 0 {
		m.Name, g.names[name] = name, 2
	}
}

// name gives a member that has no name yet the one that it wants, or with a number.
func (g *giving) name(m *Member) {
	if m.Name == "" {
		m.Name = g.names.take(m.Record.Name, m.ID)
	}
}

// addr4 gives a member an address, if it is one and free.
func (g *giving) addr4(m *Member, addr netip.Addr) {
	if host := netip.PrefixFrom(addr, addr.BitLen()); isHost(g.v4.base, addr) && g.v4.free(host) {
		m.Addr4 = addr
		g.v4.take(host)
	}
}

// claimed4 gives a member that has no address yet the one that it claims, if that is among the few that it may claim.
func (g *giving) claimed4(m *Member) {
	claim := m.Record.Addr4
	if m.Addr4.IsValid() || !claim.IsValid() {
		return
	}
	if probe, ok := identity.ProbeOf4(g.v4.base, m.ID, claim); ok && probe < identity.MaxProbes {
		g.addr4(m, claim)
	}
}

// addr6 takes a member's address of IPv6, which is its own in any case, so that nobody gets a route that covers it. A route granted before the member
// came stays: the address is the more specific, and a key can be made for which it lies in the route.
func (g *giving) addr6(m *Member) {
	if host := netip.PrefixFrom(m.Addr6, m.Addr6.BitLen()); g.routes && g.v6.covers(host) {
		g.v6.take(host)
	}
}

// grantedRoutes keeps for a member the routes of its grant, and gives it those that it offers too.
func (g *giving) grantedRoutes(m *Member) {
	for _, route := range m.Grant.Routes {
		if g.takeRoute(route) && slices.Contains(m.Record.Routes, route) {
			m.Routes = append(m.Routes, route)
		}
	}
}

// claimedRoutes gives a member the routes that it offers and that are free.
func (g *giving) claimedRoutes(m *Member) {
	for _, route := range m.Record.Routes {
		if g.takeRoute(route) {
			m.Routes = append(m.Routes, route)
		}
	}
	slices.SortFunc(m.Routes, netip.Prefix.Compare)
}

func (g *giving) takeRoute(route netip.Prefix) bool {
	for _, in := range [...]*space{g.v4, g.v6} {
		if Routable(route, in.base) && in.free(route) {
			in.take(route)
			return true
		}
	}
	return false
}

// giveKeys says whose WireGuard keys are whose. All of them are proven, so two members with one key have shared it.
func giveKeys(members []*Member) {
	holders := make(map[[32]byte]identity.NodeID, len(members))
	for _, m := range members {
		key := m.Record.WireGuardKey
		if holder, taken := holders[key]; !taken {
			holders[key] = m.ID
		} else if holder != m.ID {
			m.KeyTakenBy = holder
		}
	}
}

// takenNames are the names that somebody has, each with the number to go on with when somebody else wants it, so that a thousand
// nodes of one name cost no more than others.
type takenNames map[string]int

// take returns the wanted name, or with the first of -2, -3 … that nobody has, and takes it. A node that
// wants no name is called after its ID.
func (n takenNames) take(wanted string, id identity.NodeID) string {
	if wanted == "" {
		wanted = "node-" + id.Short()[:6]
	}
	name, next := wanted, max(n[wanted], 2)
	for ; n[name] > 0; next++ {
		suffix := "-" + strconv.Itoa(next)
		name = wanted[:min(len(wanted), record.MaxName-len(suffix))] + suffix
	}
	n[wanted] = next
	n[name] = max(n[name], 2)
	return name
}

// isHost reports whether addr is one that a node may have in prefix: not its first or last.
func isHost(prefix netip.Prefix, addr netip.Addr) bool {
	if !prefix.IsValid() || !addr.IsValid() || !prefix.Contains(addr) || addr == prefix.Masked().Addr() {
		return false
	}
	return prefix.Contains(addr.Next())
}
