package portmap

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// gateways returns the routers of the system's default routes, those of the lowest metric first.
func gateways() []netip.Addr {
	var found []netlink.Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		for range 5 {
			routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
			if errors.Is(err, netlink.ErrDumpInterrupted) {
				continue
			}
			if err == nil {
				found = append(found, routes...)
			}
			break
		}
	}
	slices.SortStableFunc(found, func(a, b netlink.Route) int { return cmp.Compare(a.Priority, b.Priority) })
	var all []netip.Addr
	add := func(gw net.IP, link int) {
		i, err := net.InterfaceByIndex(link)
		if err != nil || i.Flags&net.FlagPointToPoint != 0 {
			return // a tunnel's other end is no router of ours
		}
		addr, ok := netip.AddrFromSlice(gw)
		if addr = addr.Unmap(); !ok || addr.IsUnspecified() {
			return
		}
		if addr.IsLinkLocalUnicast() && addr.Is6() {
			addr = addr.WithZone(i.Name)
		}
		if !slices.Contains(all, addr) {
			all = append(all, addr)
		}
	}
	for _, r := range found {
		if r.Dst != nil {
			if ones, _ := r.Dst.Mask.Size(); ones != 0 || !r.Dst.IP.IsUnspecified() {
				continue
			}
		}
		add(r.Gw, r.LinkIndex)
		for _, hop := range r.MultiPath {
			add(hop.Gw, hop.LinkIndex)
		}
	}
	return all
}
