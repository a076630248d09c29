package report

import (
	"slices"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/nat/ranges"
)

// TokenReach says from where the addresses in a token are reached. What a member announces was tried by others, or configured by a person;
// an address of this host on the Internet that it does not announce stands most likely behind a firewall.
func TokenReach(anchors []identity.TokenAnchor, members []roster.Member) string {
	if len(anchors) == 0 {
		return api.ReachNone
	}
	reach := api.ReachLocal
	for _, a := range anchors {
		if !ranges.IsPublic(a.Addr.Addr()) {
			continue
		}
		reach = api.ReachUnproven
		for _, m := range members {
			if m.State == roster.Active && [8]byte(m.ID[:8]) == a.ID && slices.Contains(m.Record.Endpoints, a.Addr) {
				return api.ReachAnywhere
			}
		}
	}
	return reach
}
