package portmap

import (
	"net"
	"net/netip"
	"slices"

	"golang.org/x/net/route"
	"golang.org/x/sys/unix"
)

// gateways returns the routers of the system's default routes, the one in use first.
func gateways() []netip.Addr {
	raw, err := route.FetchRIB(unix.AF_UNSPEC, route.RIBTypeRoute, 0)
	if err != nil {
		return nil
	}
	messages, err := route.ParseRIB(route.RIBTypeRoute, raw)
	if err != nil {
		return nil
	}
	var first, scoped []netip.Addr
	for _, m := range messages {
		r, ok := m.(*route.RouteMessage)
		if !ok || r.Flags&unix.RTF_GATEWAY == 0 || len(r.Addrs) <= unix.RTAX_NETMASK || !isDefault(r.Addrs) {
			continue
		}
		i, err := net.InterfaceByIndex(r.Index)
		if err != nil || i.Flags&net.FlagPointToPoint != 0 {
			continue // a tunnel's other end is no router of ours
		}
		var addr netip.Addr
		switch a := r.Addrs[unix.RTAX_GATEWAY].(type) {
		case *route.Inet4Addr:
			addr = netip.AddrFrom4(a.IP)
		case *route.Inet6Addr:
			addr = netip.AddrFrom16(a.IP)
		}
		if !addr.IsValid() || addr.IsUnspecified() {
			continue
		}
		if addr.Is6() && addr.IsLinkLocalUnicast() {
			addr = addr.WithZone(i.Name)
		}
		// The routes of the interfaces that are not the preferred one are scoped to them.
		if r.Flags&unix.RTF_IFSCOPE != 0 {
			scoped = append(scoped, addr)
		} else {
			first = append(first, addr)
		}
	}
	var all []netip.Addr
	for _, addr := range slices.Concat(first, scoped) {
		if !slices.Contains(all, addr) {
			all = append(all, addr)
		}
	}
	return all
}

func isDefault(addrs []route.Addr) bool {
	switch dst := addrs[unix.RTAX_DST].(type) {
	case *route.Inet4Addr:
		mask, ok := addrs[unix.RTAX_NETMASK].(*route.Inet4Addr)
		return dst.IP == [4]byte{} && (!ok || mask.IP == [4]byte{})
	case *route.Inet6Addr:
		mask, ok := addrs[unix.RTAX_NETMASK].(*route.Inet6Addr)
		return dst.IP == [16]byte{} && (!ok || mask.IP == [16]byte{})
	}
	return false
}
