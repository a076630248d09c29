package netwatch

import (
	"net"
	"net/netip"
	"slices"
)

// Link is an interface of the underlay on which packets to a group reach the neighbours.
type Link struct {
	Index int
	Name  string
	// Prefixes are its addresses with the lengths of their subnets, link-local ones included.
	Prefixes []netip.Prefix
}

// Links returns the interfaces that are up, can multicast, and are no tunnel, no container's and no other VPN's; skip is
// as for Addresses. When the system cannot be asked there are none.
func Links(skip func(ifname string) bool) []Link {
	found, _, err := query()
	if err != nil {
		return nil
	}
	var out []Link
	for _, l := range found {
		if l.virtual || skip != nil && skip(l.name) {
			continue
		}
		i, err := net.InterfaceByName(l.name)
		if err != nil || i.Flags&net.FlagMulticast == 0 || i.Flags&net.FlagPointToPoint != 0 {
			continue
		}
		if prefixes := prefixesOf(i, l.addrs); len(prefixes) > 0 {
			out = append(out, Link{Index: i.Index, Name: i.Name, Prefixes: prefixes})
		}
	}
	return out
}

// prefixesOf returns the addresses of an interface with their lengths, as far as they are among the usable ones.
func prefixesOf(i *net.Interface, usable []netip.Addr) (out []netip.Prefix) {
	addrs, err := i.Addrs()
	if err != nil {
		return nil // the interface has just gone
	}
	for _, a := range addrs {
		ipNet, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		addr, _ := netip.AddrFromSlice(ipNet.IP)
		addr = addr.Unmap()
		ones, _ := ipNet.Mask.Size()
		if prefix := netip.PrefixFrom(addr, ones); prefix.IsValid() && slices.Contains(usable, addr) {
			out = append(out, prefix)
		}
	}
	return out
}
