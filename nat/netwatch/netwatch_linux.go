package netwatch

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// again repeats a dump that a change in the kernel has interrupted.
func again[T any](dump func() ([]T, error)) ([]T, error) {
	for range 5 {
		list, err := dump()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return list, err
		}
	}
	return dump()
}

// query asks the kernel for links with addresses, and for the default routes.
func query() ([]link, []string, error) {
	found, err := again(netlink.LinkList)
	if err != nil {
		return nil, nil, fmt.Errorf("list links: %w", err)
	}
	addrs, err := again(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, nil, fmt.Errorf("list addresses: %w", err)
	}
	routes, gateways, err := defaultRoutes()
	if err != nil {
		return nil, nil, err
	}
	var links []link
	for _, l := range found {
		a := l.Attrs()
		if a.Flags&net.FlagUp == 0 || a.Flags&net.FlagLoopback != 0 {
			continue
		}
		gateway := slices.Contains(gateways, a.Index)
		one := link{name: a.Name, virtual: isVirtual(l, found, gateway), gateway: gateway}
		for _, addr := range addrs {
			if addr.LinkIndex == a.Index && addr.IPNet != nil && usable(addr) {
				if ip, ok := netip.AddrFromSlice(addr.IP); ok {
					one.addrs = append(one.addrs, ip.Unmap())
				}
			}
		}
		links = append(links, one)
	}
	return links, routes, nil
}

// usable leaves out addresses that cannot be, or will soon no longer be, sent from.
func usable(a netlink.Addr) bool {
	return a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED|unix.IFA_F_DEPRECATED) == 0
}
