package netwatch

import (
	"context"
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

// defaultRoutes returns a text of each default route of the main table, sorted, and the links that they leave by.
func defaultRoutes() (texts []string, links []int, err error) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := again(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst != nil {
				if ones, _ := r.Dst.Mask.Size(); ones != 0 || !r.Dst.IP.IsUnspecified() {
					continue
				}
			}
			texts = append(texts, fmt.Sprintf("%d via %s dev %d metric %d", family, r.Gw, r.LinkIndex, r.Priority))
			links = append(links, r.LinkIndex)
			for _, hop := range r.MultiPath {
				texts = append(texts, fmt.Sprintf("%d via %s dev %d", family, hop.Gw, hop.LinkIndex))
				links = append(links, hop.LinkIndex)
			}
		}
	}
	slices.Sort(texts)
	return texts, links, nil
}

// subscribe returns a channel that gets a value, coalesced, at each change of links, addresses or routes.
func subscribe(ctx context.Context) (<-chan struct{}, error) {
	done := make(chan struct{})
	links, addrs, routes := make(chan netlink.LinkUpdate), make(chan netlink.AddrUpdate), make(chan netlink.RouteUpdate)
	err := netlink.LinkSubscribe(links, done)
	if err == nil {
		err = netlink.AddrSubscribe(addrs, done)
	}
	if err == nil {
		err = netlink.RouteSubscribe(routes, done)
	}
	if err != nil {
		close(done)
		return nil, fmt.Errorf("subscribe to network changes: %w", err)
	}
	notices := make(chan struct{}, 1)
	go func() {
		// The library sends to its channels unconditionally, until it has seen done and closes them:
		// they are read to their ends, or its goroutines would stay.
		stop := ctx.Done()
		for links != nil || addrs != nil || routes != nil {
			open := true
			select {
			case <-stop:
				close(done)
				stop = nil
				continue
			case _, open = <-links:
				if !open {
					links = nil
				}
			case _, open = <-addrs:
				if !open {
					addrs = nil
				}
			case _, open = <-routes:
				if !open {
					routes = nil
				}
			}
			if open {
				notify(notices)
			}
		}
	}()
	return notices, nil
}

func notify(notices chan<- struct{}) {
	select {
	case notices <- struct{}{}:
	default:
	}
}
