package portmap

import (
	"cmp"
	"net"
	"net/netip"
	"slices"

	"warren/nat/rtnl"
)

// gateways returns the routers of the system's default routes, those of the lowest metric first.
func gateways() []netip.Addr {
	hops, err := rtnl.DefaultHops()
	if err != nil {
		return nil
	}
	slices.SortStableFunc(hops, func(a, b rtnl.Hop) int { return cmp.Compare(a.Metric, b.Metric) })
	var all []netip.Addr
	for _, h := range hops {
		i, err := net.InterfaceByIndex(h.Link)
		if err != nil || i.Flags&net.FlagPointToPoint != 0 {
			continue // a tunnel's other end is no router of ours
		}
		addr := h.Via.Unmap()
		if !addr.IsValid() || addr.IsUnspecified() {
			continue
		}
		if addr.IsLinkLocalUnicast() && addr.Is6() {
			addr = addr.WithZone(i.Name)
		}
		if !slices.Contains(all, addr) {
			all = append(all, addr)
		}
	}
	return all
}
