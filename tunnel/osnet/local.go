package osnet

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// interfacePrefixes returns the indices of the interfaces that are named in except or are loopbacks, and the prefixes of
// the addresses of all others.
func interfacePrefixes(except []string) (skip map[int]bool, list []netip.Prefix, err error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, nil, fmt.Errorf("list interfaces: %w", err)
	}
	skip = make(map[int]bool)
	for _, i := range interfaces {
		if slices.Contains(except, i.Name) || i.Flags&net.FlagLoopback != 0 {
			skip[i.Index] = true
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil {
				list = append(list, p.Masked())
			}
		}
	}
	return skip, list, nil
}
