package osnet

import (
	"fmt"
	"net"
	"net/netip"
)

// LinkMTU returns the MTU of the interface by which packets leave for an underlay address now.
func LinkMTU(to netip.Addr) (int, error) {
	// Connecting a UDP socket sends nothing and has the system choose the way.
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
	if err != nil {
		return 0, fmt.Errorf("find way to %s: %w", to, err)
	}
	defer c.Close()
	local := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")
	interfaces, err := net.Interfaces()
	if err != nil {
		return 0, fmt.Errorf("list interfaces: %w", err)
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().WithZone("") == local {
				return i.MTU, nil
			}
		}
	}
	return 0, fmt.Errorf("find way to %s: no interface has %s", to, local)
}
