package osnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"warren/nat/rtnl"
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
	index atomic.Int64 // read by the goroutine that watches
	file  *os.File     // of the TUN device; nil: not known
}

// Open returns the Link of the interface called ifname, whose present addresses and routes count as ours from then on. file is that of its TUN
// device, which stays the caller's and knows the interface wherever it is; nil: one that is moved elsewhere counts as gone.
// The error wraps os.ErrNotExist when there is none, os.ErrPermission when the process may not change it.
func Open(ifname string, file *os.File) (Link, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open interface %s: %w", ifname, err)
	}
	l, err := h.LinkByName(ifname)
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("open interface %s: %w", ifname, standard(err))
	}
	k := &kernelLink{h: h, file: file}
	k.index.Store(int64(l.Attrs().Index))
	k.noLinkLocal()
	return newLink(ifname, k)
}

// noLinkLocal keeps the kernel from making a link-local address. The kernel forgets it whenever it takes IPv6 away from the interface.
func (k *kernelLink) noLinkLocal() {
	// Refused on a system without IPv6 and by kernels before 4.5: there the only loss is a link-local address.
	_ = k.h.LinkSetIP6AddrGenMode(k.device(), addrGenModeNone)
}

// device is what netlink knows the interface by.
func (k *kernelLink) device() netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: int(k.index.Load())}}
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
	index := int(k.index.Load())
	l, err := k.h.LinkByIndex(index)
	if err = standard(err); errors.Is(err, os.ErrNotExist) && k.isElsewhere() {
		return state{moved: true}, nil
	}
	if err != nil {
		return state{}, err
	}
	a := l.Attrs()
	have := state{mtu: a.MTU, up: a.Flags&net.FlagUp != 0, name: a.Name, dead: a.Flags&net.FlagUp != 0 && a.RawFlags&unix.IFF_LOWER_UP == 0}
	have.ipv6 = !disabled6(a.Name)
	have.off6 = !have.ipv6 && !disabled6("all") && hasIPv6(a.Name)
	if a.MasterIndex != 0 {
		have.master = "another interface"
		if m, err := k.h.LinkByIndex(a.MasterIndex); err == nil {
			have.master = m.Attrs().Name
		}
	}
	addrs, err := k.h.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return state{}, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet); ok && !p.Addr().IsLinkLocalUnicast() {
			have.addrs = append(have.addrs, p)
		}
	}
	routes, err := rtnl.RoutesBy(index)
	if err != nil {
		return state{}, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Protocol != unix.RTPROT_KERNEL {
			have.routes = append(have.routes, r.Prefix)
		}
	}
	return have, nil
}

const sysctl6 = "/proc/sys/net/ipv6/conf/"

// hasIPv6 reports whether the kernel has IPv6 on an interface, be it switched off.
func hasIPv6(name string) bool {
	_, err := os.Stat(sysctl6 + name)
	return err == nil
}

// disabled6 reports whether an interface can have no IPv6 addresses: the kernel has no IPv6, or it is switched off for this
// interface (as it is for all new ones in most containers), or, as far as all is asked, for all of them.
func disabled6(name string) bool {
	text, err := os.ReadFile(sysctl6 + name + "/disable_ipv6")
	return err != nil || strings.TrimSpace(string(text)) != "0"
}

// apply implements system.
func (k *kernelLink) apply(s step) error {
	dev := k.device()
	var err error
	switch s.verb {
	case fetch:
		err = k.fetch()
	case rename:
		err = k.rename(s.name)
	case release:
		err = k.h.LinkSetNoMaster(dev)
	case revive:
		err = k.revive()
	case enable6:
		err = k.enable6()
	case setMTU:
		err = k.h.LinkSetMTU(dev, s.mtu)
		k.noLinkLocal() // below 1280 there was no IPv6
	case bringUp:
		k.noLinkLocal()
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

// rename gives the interface a name. Kernels before 6.2 rename none that is up.
func (k *kernelLink) rename(name string) error {
	err := k.h.LinkSetName(k.device(), name)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	if err := k.h.LinkSetDown(k.device()); err != nil {
		return err
	}
	return k.h.LinkSetName(k.device(), name)
}

// revive switches the carrier on, which whoever may set interfaces can switch off on a TUN device.
func (k *kernelLink) revive() error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	about := nl.NewIfInfomsg(unix.AF_UNSPEC)
	about.Index = int32(k.index.Load())
	request.AddData(about)
	request.AddData(nl.NewRtAttr(unix.IFLA_CARRIER, []byte{1}))
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// enable6 switches IPv6 on. Where the system keeps the process from its settings (systemd's ProtectKernelTunables=), that is refused.
func (k *kernelLink) enable6() error {
	l, err := k.h.LinkByIndex(int(k.index.Load()))
	if err != nil {
		return err
	}
	if err := os.WriteFile(sysctl6+l.Attrs().Name+"/disable_ipv6", []byte("0"), 0); err != nil {
		return err
	}
	k.noLinkLocal()
	return nil
}

// watch implements system. An interface that was fetched back may have another index.
func (k *kernelLink) watch(ctx context.Context) (<-chan struct{}, error) {
	return rtnl.Subscribe(ctx, func(m rtnl.Message) bool { return int64(m.LinkOf()) == k.index.Load() })
}

// elsewhere implements system.
func (k *kernelLink) elsewhere(within []netip.Prefix) ([]Route, error) {
	return tidied(int(k.index.Load()), within)
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
	r := &netlink.Route{LinkIndex: int(k.index.Load()), Dst: ipNet(p), Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_STATIC}
	if !is6(p) {
		r.Scope = netlink.SCOPE_LINK
	}
	return r
}

// routeOwner names the interface that a route of somebody else leads to.
func (k *kernelLink) routeOwner(p netip.Prefix) string {
	list, err := rtnl.RoutesOverlapping([]netip.Prefix{p})
	if err != nil {
		return "another interface"
	}
	for _, r := range list {
		if l, err := k.h.LinkByIndex(r.Link); err == nil && r.Prefix == p && int64(r.Link) != k.index.Load() {
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
func routes(except int, within []netip.Prefix) ([]Route, error) {
	names, list, err := interfaceRoutes(except)
	if err != nil {
		return nil, err
	}
	found, err := rtnl.RoutesOverlapping(within)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range found {
		name, known := names[r.Link]
		if !known {
			name = "several interfaces" // a route of many ways has none of its own
		}
		list = append(list, Route{r.Prefix, name})
	}
	return list, nil
}
