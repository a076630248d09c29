package fit

import (
	"net/netip"
	"slices"
)

// table finds the peer of an address, as WireGuard does: by the longest of the allowed IPs. It is immutable once stored.
type table struct {
	self    netip.Addr
	hosts   bool // some peer is hosted
	routes  map[netip.Prefix]*peer
	lengths [2][]int // of the prefixes, for IPv4 and IPv6, longest first
}

// add enters a prefix.
func (t *table) add(prefix netip.Prefix, p *peer) {
	t.routes[prefix] = p
	list := &t.lengths[family(prefix.Addr())]
	if i, found := slices.BinarySearchFunc(*list, prefix.Bits(), func(a, b int) int { return b - a }); !found {
		*list = slices.Insert(*list, i, prefix.Bits())
	}
}

// lookup returns the peer of an address, or nil.
func (t *table) lookup(a netip.Addr) *peer {
	for _, bits := range t.lengths[family(a)] {
		prefix, err := a.Prefix(bits)
		if err != nil {
			continue
		}
		if p := t.routes[prefix]; p != nil {
			return p
		}
	}
	return nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}
