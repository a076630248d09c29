package report

import (
	"maps"
	"net/netip"
	"slices"

	"warren/mesh/api"
)

// show is what status says of names.
func (n Naming) show() *api.Names {
	out := &api.Names{Using: n.Using, Why: n.Why, Served: append([]netip.Addr{}, n.Served...)}
	for _, addr := range slices.SortedFunc(maps.Keys(n.Trouble), netip.Addr.Compare) {
		out.Trouble = append(out.Trouble, n.Trouble[addr])
	}
	return out
}
