package report

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"warren/mesh/roster"
)

// notGiven says in words what this node asks for in its record and does not have, since another member has it. Whose WireGuard keys are
// whose is said by those who plan the tunnel, for all members.
func (m *Mesh) notGiven(names Names) (out []string) {
	self := m.member(m.Self)
	if text := m.nameNotGiven(self); text != "" {
		out = append(out, text)
	}
	if claim := self.Record.Addr4; claim.IsValid() && !self.Addr4.IsValid() && m.Records.Prefix4.Contains(claim) {
		if holder := m.holder(netip.PrefixFrom(claim, 32), names); holder != "" {
			out = append(out, fmt.Sprintf("this node has no IPv4 address in the overlay: %v, which it asks for, is %s", claim, holder))
		}
	}
	for _, route := range self.Record.Routes {
		if slices.Contains(self.Routes, route) {
			continue
		}
		if holder := m.holder(route, names); holder != "" {
			out = append(out, fmt.Sprintf("other members do not reach %v through this node: it is %s", route, holder))
		}
	}
	return out
}

// nameNotGiven says why this node is not called what its settings want.
func (m *Mesh) nameNotGiven(self roster.Member) string {
	wanted := self.Record.Name
	if wanted == "" || wanted == self.Name {
		return ""
	}
	for _, other := range m.Records.Members {
		if other.Name == wanted {
			return fmt.Sprintf("this node is called %s, for another member has the name %s (ID %s)", self.Name, wanted, other.ID.Short())
		}
	}
	if !self.Granted() || self.Grant.Wanted == wanted {
		return "" // the name has become free: it is this node's by the next wish only
	}
	return fmt.Sprintf("this node is called %s until an admin's agent runs that gives it the name %s (%s)", self.Name, wanted, m.admins())
}

// admins names the members that may grant.
func (m *Mesh) admins() string {
	var list []string
	for _, other := range m.Records.Members {
		if other.Admin && other.State == roster.Active {
			list = append(list, other.Name)
		}
	}
	if len(list) == 0 {
		return "the mesh has no admin any more"
	}
	return "admins: " + strings.Join(list, ", ")
}

// holder says in words who has a part of a prefix beside this node; "" when nobody does.
func (m *Mesh) holder(prefix netip.Prefix, names Names) string {
	for _, other := range m.Records.Members {
		for _, addr := range addresses(other) {
			if prefix.Contains(addr) && (other.ID != m.Self || !prefix.IsSingleIP()) {
				return fmt.Sprintf("where %s has its address %v", names.Of(other.ID), addr)
			}
		}
		if other.ID == m.Self {
			continue
		}
		routes := slices.Clone(other.Routes)
		if other.Granted() && other.State == roster.Active {
			routes = append(routes, other.Grant.Routes...)
		}
		if i := slices.IndexFunc(routes, prefix.Overlaps); i >= 0 {
			return fmt.Sprintf("where %s has the route %v", names.Of(other.ID), routes[i])
		}
	}
	return ""
}
