package osnet

import (
	"fmt"
	"net"
	"net/netip"
)

// interfaceRoutes returns the names of the interfaces by their indices, "" for that with the index except and for loopbacks, and the
// networks of the addresses of all others.
func interfaceRoutes(except int) (names map[int]string, list []Route, err error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, nil, fmt.Errorf("list interfaces: %w", err)
	}
	names = make(map[int]string)
	for _, i := range interfaces {
		if i.Index == except || i.Flags&net.FlagLoopback != 0 {
			names[i.Index] = ""
			continue
		}
		names[i.Index] = i.Name
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil {
				list = append(list, Route{p.Masked(), i.Name})
			}
		}
	}
	return names, list, nil
}
