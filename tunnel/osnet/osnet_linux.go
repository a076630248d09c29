package osnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// DefaultName is the interface name used when the configuration has none.
const DefaultName = "warren0"

// addrGenModeNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h: the kernel makes no link-local address. One would have
// it solicit routers through the tunnel, where no peer may carry that.
const addrGenModeNone = 1

// kernelLink is an interface seen through rtnetlink. It remembers the index, so that another interface that later takes
// the name is never touched.
type kernelLink struct {
	h     *netlink.Handle
	index int
	name  string
}

// Open returns the Link of the interface called ifname, whose present addresses and routes count as ours from then on.
// The error wraps os.ErrNotExist when there is none, os.ErrPermission when the process may not change it.
func Open(ifname string) (Link, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open interface %s: %w", ifname, err)
	}
	l, err := h.LinkByName(ifname)
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("open interface %s: %w", ifname, standard(err))
	}
	// Refused on a system without IPv6 and by kernels before 4.5: there the only loss is a link-local address.
	_ = h.LinkSetIP6AddrGenMode(l, addrGenModeNone)
	return newLink(ifname, &kernelLink{h: h, index: l.Attrs().Index, name: ifname})
}

// Claim reports whether a TUN device called name can be made, or taken over because it is a persistent one that
// nobody may be holding. Its errors wrap ErrBusy or ErrForeign, or say what is wrong with the name.
func Claim(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		if errors.Is(standard(err), os.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("look for interface %s: %w", name, err)
	}
	tuntap, ok := l.(*netlink.Tuntap)
	switch {
	case !ok:
		return fmt.Errorf("interface %s: %w: a %s interface has this name", name, ErrForeign, kind(l))
	case tuntap.Mode != netlink.TUNTAP_MODE_TUN:
		return fmt.Errorf("interface %s: %w: a TAP device has this name", name, ErrForeign)
	case tuntap.Flags&netlink.TUNTAP_MULTI_QUEUE != 0:
		return fmt.Errorf("interface %s: %w: a multi-queue TUN device has this name", name, ErrForeign)
	case tuntap.NonPersist:
		return fmt.Errorf("interface %s: %w", name, ErrBusy) // or it would be gone
	}
	return nil
}

// kind names the type of a link; physical ones have none of their own.
func kind(l netlink.Link) string {
	if t := l.Type(); t != "device" {
		return t
	}
	return "network card's"
}

// checkName applies the kernel's rule for interface names (dev_valid_name), and refuses %, which it takes for a pattern.
func checkName(name string) error {
	if name == "" || len(name) >= unix.IFNAMSIZ || name == "." || name == ".." || strings.ContainsAny(name, "/:% \t\r\n\v\f") {
		return fmt.Errorf("interface name %q: want 1 to %d characters without space, slash, colon or percent sign", name, unix.IFNAMSIZ-1)
	}
	return nil
}

// standard turns the ways in which netlink says "no such interface" into os.ErrNotExist.
func standard(err error) error {
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) || errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("no such interface: %w", os.ErrNotExist)
	}
	return err
}

func (k *kernelLink) close() error {
	k.h.Close()
	return nil
}

// read implements system.
func (k *kernelLink) read() (state, error) {
	l, err := k.h.LinkByIndex(k.index)
	if err != nil {
		return state{}, standard(err)
	}
	have := state{mtu: l.Attrs().MTU, up: l.Attrs().Flags&net.FlagUp != 0, ipv6: ipv6On(k.name)}
	addrs, err := k.h.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return state{}, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet); ok && !p.Addr().IsLinkLocalUnicast() {
			have.addrs = append(have.addrs, p)
		}
	}
	routes, err := k.h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: k.index, Table: unix.RT_TABLE_MAIN},
		netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	if err != nil {
		return state{}, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if p, ok := prefixOf(r.Dst); ok && r.Protocol != unix.RTPROT_KERNEL && r.Type == unix.RTN_UNICAST && p.Bits() > 0 {
			have.routes = append(have.routes, p)
		}
	}
	return have, nil
}

// ipv6On reports whether the interface can have IPv6 addresses: the kernel has IPv6, and it is not switched off for this
// interface (as it is for all new ones in most containers).
func ipv6On(name string) bool {
	text, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6")
	return err == nil && strings.TrimSpace(string(text)) == "0"
}

// apply implements system.
func (k *kernelLink) apply(s step) error {
	dev := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: k.index, Name: k.name}}
	var err error
	switch s.verb {
	case setMTU:
		err = k.h.LinkSetMTU(dev, s.mtu)
	case bringUp:
		err = k.h.LinkSetUp(dev)
	case bringDown:
		err = k.h.LinkSetDown(dev)
	case addAddr:
		err = k.h.AddrAdd(dev, addrOf(s.prefix))
	case removeAddr:
		err = ifThere(k.h.AddrDel(dev, &netlink.Addr{IPNet: ipNet(s.prefix)}), unix.EADDRNOTAVAIL)
	case addRoute:
		err = k.h.RouteAdd(k.route(s.prefix))
		if errors.Is(err, unix.EEXIST) {
			err = fmt.Errorf("%w, it leads to %s", os.ErrExist, k.routeOwner(s.prefix))
		}
	case removeRoute:
		err = ifThere(k.h.RouteDel(k.route(s.prefix)), unix.ESRCH)
	}
	return standard(err)
}

// ifThere takes the error that says that what was to be removed is not there for success.
func ifThere(err error, notThere unix.Errno) error {
	if errors.Is(err, notThere) {
		return nil
	}
	return err
}

// addrOf is an address from which no route follows, which has no broadcast address, and whose duplicates need
// not be looked for (the tunnel has no neighbours to ask, and asking would delay its use by a second).
func addrOf(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NOPREFIXROUTE, Broadcast: net.IPv4zero}
	if is6(p) {
		a.Flags |= unix.IFA_F_NODAD
	}
	return a
}

func (k *kernelLink) route(p netip.Prefix) *netlink.Route {
	r := &netlink.Route{LinkIndex: k.index, Dst: ipNet(p), Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_STATIC}
	if !is6(p) {
		r.Scope = netlink.SCOPE_LINK
	}
	return r
}

// routeOwner names the interface that a route of somebody else leads to.
func (k *kernelLink) routeOwner(p netip.Prefix) string {
	routes, err := k.h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Dst: ipNet(p)}, netlink.RT_FILTER_DST)
	if err != nil {
		return "another interface"
	}
	for _, r := range routes {
		if l, err := k.h.LinkByIndex(r.LinkIndex); err == nil && r.LinkIndex != k.index {
			return "interface " + l.Attrs().Name
		}
	}
	return "another interface"
}

// ipNet converts p, whose host bits it keeps.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefixOf is the reverse of ipNet; false for nil, which netlink has for a default route.
func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits), ok
}

// routes looks at the routes of all tables, because other VPNs keep theirs in tables of their own.
func routes(except []string) ([]Route, error) {
	names, list, err := interfaceRoutes(except)
	if err != nil {
		return nil, err
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if p, ok := prefixOf(r.Dst); ok && r.Type == unix.RTN_UNICAST && r.Table != unix.RT_TABLE_LOCAL {
			name, known := names[r.LinkIndex]
			if !known {
				name = "several interfaces" // a route of many ways has none of its own
			}
			list = append(list, Route{p, name})
		}
	}
	return list, nil
}
