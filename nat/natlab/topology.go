//go:build linux

package natlab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// The addresses of the lab, in the ranges kept for documentation where the
// Internet is meant, so that every program takes them for public ones:
//
//	203.0.113.0/24, 198.51.100.0/24   a /30 per link to the core, core first
//	192.0.2.0/24                      a /28 per public router, for its LAN
//	192.168.N.0/24, 10.N.0.0/24       LANs of homes, and of carriers
//	2001:db8:0:L::/64                 link L, core fe80::1
//	2001:db8:H::/48                   delegated over link L, H = 100h + L
const (
	maxPlugs   = 128
	maxHomes   = 254
	maxPublics = 16
)

// cable is one veth pair. near is its end in a router or host, far the one in
// the core or in the router above.
type cable struct {
	near, far     *space
	nearIf, farIf string
	addr4, addr6  netip.Prefix // of the near end; zero: none
	gate4         netip.Addr
	number        int // of the link, at the core only
	line          int // whose IPv4 addresses the link has: its own, until a Rebind
	isolated      bool
}

// Router is a home router, a carrier's NAT, or a firewall; its LAN is a bridge.
type Router struct {
	Name string
	Kind Kind

	lab    *Lab
	space  *space
	wan    cable
	behind *Router // nil: it is plugged into the Internet
	lan4   netip.Prefix
	lan6   netip.Prefix
	ports  int // of the LAN, used so far
	// leases are the addresses that hosts of the LAN had last, by namespace: whoever comes back gets its own again, as from a
	// DHCP server.
	leases map[string]lease

	isolated bool // a Switch
}

// lease is what a router remembers of a host.
type lease struct {
	last  int // byte of its addresses
	addr4 netip.Prefix
}

// RouterOptions say how to make a router.
type RouterOptions struct {
	Name   string
	Kind   Kind
	Behind *Router      // nil: the Internet; else a router that has IPv4
	LAN    netip.Prefix // IPv4 /24; zero: one of its own. Two homes may have the same
	MTU    int          // of its line; 0: 1500
}

// Host is a machine with one network card, eth0.
type Host struct {
	Name string

	lab   *Lab
	space *space
	card  cable
	route *Router // nil: it is plugged into the Internet
	only  Family
}

// Family restricts a host to one family of addresses.
type Family int

// The families of a host: what its network offers, or only one of both.
const (
	AnyFamily Family = iota
	Only4
	Only6
)

// HostOptions say how to make a host.
type HostOptions struct {
	Name   string
	Behind *Router // nil: the Internet
	Only   Family  // of what its network offers: on the Internet, and behind a router with both, Only6
}

// Attached is what hangs on a cable: a host or a router.
type Attached interface {
	plug() *cable
	top() *cable // where its site is plugged into the core
}

func (h *Host) plug() *cable   { return &h.card }
func (r *Router) plug() *cable { return &r.wan }

func (h *Host) top() *cable {
	if h.route != nil {
		return h.route.top()
	}
	return &h.card
}

func (r *Router) top() *cable {
	if r.behind != nil {
		return r.behind.top()
	}
	return &r.wan
}

// Router plugs a router of the kind into the Internet.
func (l *Lab) Router(name string, kind Kind) *Router {
	return l.AddRouter(RouterOptions{Name: name, Kind: kind})
}

// AddRouter makes a router. A DoubleNAT and a SymmetricCarrier are two:
// NAME-carrier on the Internet, and NAME, which is returned, behind it.
func (l *Lab) AddRouter(o RouterOptions) *Router {
	if carrier := o.Kind.carrier(); carrier != 0 && o.Behind == nil {
		o.Behind = l.AddRouter(RouterOptions{Name: o.Name + "-carrier", Kind: carrier, LAN: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(l.homes + 1), 0, 0}), 24)})
	}
	if o.Behind != nil && (o.Kind.has6() || !o.Behind.Kind.has4()) {
		l.fatal(fmt.Errorf("make router %s: %s behind %s is not supported", o.Name, o.Kind, o.Behind.Kind))
	}
	r := &Router{Name: o.Name, Kind: o.Kind, lab: l, behind: o.Behind, lan4: o.LAN}
	r.space = l.space(o.Name, true)
	l.must(r.space.ip("link add lan type bridge forward_delay 0 mcast_snooping 0", "link set lan up"))
	if o.Behind != nil {
		r.wan = o.Behind.connect(r.space, "wan")
	} else {
		r.wan = l.connect(r.space, "wan", o.Kind.has4(), o.Kind.has6(), o.MTU)
	}
	r.numberLAN()
	l.must(r.space.nft(routerRules(r.Kind, r.wan.addr4.Addr())))
	return r
}

// numberLAN gives the router its prefixes and its addresses in them.
func (r *Router) numberLAN() {
	l := r.lab
	l.homes++
	if l.homes > maxHomes {
		l.fatal(fmt.Errorf("make router %s: the lab has no prefix left", r.Name))
	}
	if !r.lan4.IsValid() && r.Kind.has4() {
		r.lan4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(l.homes), 0}), 24)
	}
	var lines []string
	if r.Kind == Public {
		if l.publics == maxPublics {
			l.fatal(fmt.Errorf("make router %s: the lab has no public prefix left", r.Name))
		}
		r.lan4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(l.publics) << 4}), 28)
		l.publics++
		l.must(l.core.ip(fmt.Sprintf("route add %s via %s", r.lan4, r.wan.addr4.Addr())))
	}
	if r.Kind.has4() {
		lines = append(lines, fmt.Sprintf("addr add %s dev lan", r.lanHost4(1)))
	}
	if r.Kind.has6() {
		whole := netip.PrefixFrom(addr6(0x100+r.wan.number, 0, 0), 48)
		r.lan6 = netip.PrefixFrom(addr6(0x100+r.wan.number, 1, 0), 64)
		lines = append(lines, "addr add fe80::1/64 dev lan nodad", fmt.Sprintf("addr add %s dev lan nodad", netip.PrefixFrom(addr6(0x100+r.wan.number, 1, 1), 64)))
		l.must(l.core.ip(fmt.Sprintf("route add %s via fe80::2 dev %s", whole, r.wan.farIf)))
	}
	l.must(r.space.ip(lines...))
}

// lanHost4 is the nth address of the LAN, with the LAN's length.
func (r *Router) lanHost4(n int) netip.Prefix {
	b := r.lan4.Addr().As4()
	b[3] += byte(n)
	return netip.PrefixFrom(netip.AddrFrom4(b), r.lan4.Bits())
}

// addr6 is 2001:db8:A:B::C.
func addr6(a, b, c int) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, byte(a >> 8), byte(a), byte(b >> 8), byte(b), 14: byte(c >> 8), 15: byte(c)})
}

// link4 is the /30 of link n: the core has its first address, the other end its second.
func link4(n int) (core, end netip.Prefix) {
	base := [4]byte{203, 0, 113, byte(n%64) * 4}
	if n >= 64 {
		base = [4]byte{198, 51, 100, byte(n%64) * 4}
	}
	base[3]++
	core = netip.PrefixFrom(netip.AddrFrom4(base), 30)
	base[3]++
	return core, netip.PrefixFrom(netip.AddrFrom4(base), 30)
}

// nextPlug takes the next number of a link to the core.
func (l *Lab) nextPlug() int {
	if l.plugs == maxPlugs {
		l.fatal(fmt.Errorf("plug in: the lab's Internet is full (%d links)", maxPlugs))
	}
	l.plugs++
	return l.plugs - 1
}

// nextLine takes the number of the IPv4 addresses of a link that gets others: new ones while there are any, then those that
// were given back the longest ago, as providers do.
func (l *Lab) nextLine() int {
	if l.plugs < maxPlugs || len(l.returned) == 0 {
		return l.nextPlug()
	}
	n := l.returned[0]
	l.returned = l.returned[1:]
	return n
}

// connect plugs s into the Internet.
func (l *Lab) connect(s *space, ifname string, v4, v6 bool, mtu int) cable {
	n := l.nextPlug()
	c := cable{near: s, far: l.core, nearIf: ifname, farIf: fmt.Sprintf("c%d", n), number: n, line: n}
	if mtu == 0 {
		mtu = 1500
	}
	core := []string{
		fmt.Sprintf("link add %s mtu %d type veth peer name %s mtu %d netns %s", c.farIf, mtu, ifname, mtu, s.ns),
		fmt.Sprintf("link set %s addrgenmode none", c.farIf),
	}
	if v4 {
		var gate netip.Prefix
		gate, c.addr4 = link4(n)
		c.gate4 = gate.Addr()
		core = append(core, fmt.Sprintf("addr add %s dev %s", gate, c.farIf))
	}
	core = append(core, "link set "+c.farIf+" up")
	if v6 {
		c.addr6 = netip.PrefixFrom(addr6(0, n, 2), 64)
		core = append(core, "addr add fe80::1/64 dev "+c.farIf+" nodad", fmt.Sprintf("route add %s dev %s", c.addr6.Masked(), c.farIf))
	}
	l.must(l.core.ip(core...))
	l.must(s.ip(c.bringUp("addr add fe80::2/64 dev " + ifname + " nodad")...))
	l.must(l.core.settle(c.farIf))
	l.must(s.settle(ifname))
	return c
}

// connect plugs s into the LAN of the router.
func (r *Router) connect(s *space, ifname string) cable { return r.connectOnly(s, ifname, AnyFamily) }

// connectOnly is connect for what takes no other family.
func (r *Router) connectOnly(s *space, ifname string, only Family) cable {
	r.ports++
	c := cable{near: s, far: r.space, nearIf: ifname, farIf: fmt.Sprintf("p%d", r.ports), isolated: r.isolated}
	own, back := r.leases[s.ns]
	if !back {
		own.last = 9 + r.ports
		if r.Kind == Public {
			own.last = 1 + r.ports // of the 14 that a /28 has
		}
		if r.lan4.IsValid() {
			own.addr4 = r.lanHost4(own.last)
		}
		if r.leases == nil {
			r.leases = make(map[string]lease)
		}
		r.leases[s.ns] = own
	}
	if r.lan4.IsValid() && only != Only6 {
		c.addr4, c.gate4 = own.addr4, r.lanHost4(1).Addr()
	}
	if r.lan6.IsValid() {
		base := r.lan6.Addr().As16()
		base[15] = byte(own.last)
		c.addr6 = netip.PrefixFrom(netip.AddrFrom16(base), 64)
	}
	r.lab.must(r.space.ip(
		fmt.Sprintf("link add %s type veth peer name %s netns %s", c.farIf, ifname, s.ns),
		fmt.Sprintf("link set %s master lan", c.farIf),
		fmt.Sprintf("link set %s up", c.farIf),
	))
	r.lab.must(s.ip(c.bringUp()...))
	r.lab.must(r.space.settle(c.farIf))
	r.lab.must(r.space.settle("lan"))
	r.lab.must(s.settle(ifname))
	return c
}

// bringUp are the lines of ip(8) that configure the near end.
func (c *cable) bringUp(more ...string) []string {
	lines := []string{"link set " + c.nearIf + " up"}
	if c.addr4.IsValid() {
		lines = append(lines, fmt.Sprintf("addr add %s dev %s", c.addr4, c.nearIf))
		if !c.isolated {
			lines = append(lines, fmt.Sprintf("route add default via %s", c.gate4))
		}
	}
	if c.addr6.IsValid() {
		lines = append(lines, more...)
		lines = append(lines, fmt.Sprintf("addr add %s dev %s nodad", c.addr6, c.nearIf))
		if !c.isolated {
			lines = append(lines, fmt.Sprintf("route add default via fe80::1 dev %s", c.nearIf))
		}
	}
	return lines
}

// Host plugs a host into the LAN of a router, or into the Internet (nil).
func (l *Lab) Host(name string, behind *Router) *Host {
	return l.AddHost(HostOptions{Name: name, Behind: behind})
}

// AddHost makes a host.
func (l *Lab) AddHost(o HostOptions) *Host {
	h := &Host{Name: o.Name, lab: l, only: o.Only, space: l.space(o.Name, false)}
	h.attach(o.Behind)
	h.furnish()
	return h
}

// furnish gives the host what its programs find as their own: see Command.
func (h *Host) furnish() {
	for _, own := range []string{"run", "lib", "etc"} {
		h.lab.must(os.MkdirAll(filepath.Join(h.Dir(), own), 0o755))
	}
	h.lab.must(os.WriteFile(h.HostsFile(), []byte("127.0.0.1\tlocalhost\n"), 0o644))
}

// HostsFile is what the host's programs have as /etc/hosts: mounted by itself, as in a container.
func (h *Host) HostsFile() string { return filepath.Join(h.Dir(), "hosts") }

// SealHosts has programs that start from now on find /etc/hosts read-only, as on a root that is.
func (h *Host) SealHosts() { h.lab.must(os.WriteFile(h.HostsFile()+".sealed", nil, 0o644)) }

func (h *Host) attach(behind *Router) {
	h.route = behind
	if behind != nil {
		h.card = behind.connectOnly(h.space, "eth0", h.only)
	} else {
		h.card = h.lab.connect(h.space, "eth0", h.only != Only6, h.only != Only4, 0)
	}
}

// Addr4 is the host's IPv4 address, or the zero Addr.
func (h *Host) Addr4() netip.Addr { return h.card.addr4.Addr() }

// Addr6 is the host's IPv6 address, or the zero Addr.
func (h *Host) Addr6() netip.Addr { return h.card.addr6.Addr() }

// Router is the router that the host is behind, or nil.
func (h *Host) Router() *Router { return h.route }

// Outer is the outermost router of those that its packets pass on their way to
// the Internet: the carrier's if there is one, else the router itself.
func (r *Router) Outer() *Router {
	for r.behind != nil {
		r = r.behind
	}
	return r
}

// WAN4 is the router's IPv4 address on the side of the Internet, or the zero Addr.
func (r *Router) WAN4() netip.Addr { return r.wan.addr4.Addr() }

// WAN6 is the router's IPv6 address on the side of the Internet, or the zero Addr.
func (r *Router) WAN6() netip.Addr { return r.wan.addr6.Addr() }

// LAN4 is the IPv4 prefix of its LAN, or the zero Prefix.
func (r *Router) LAN4() netip.Prefix { return r.lan4 }

// LAN6 is the IPv6 prefix of its LAN, or the zero Prefix.
func (r *Router) LAN6() netip.Prefix { return r.lan6 }

// Public is the IPv4 address under which the Internet sees the hosts behind
// this router: that of the outermost NAT.
func (r *Router) Public() netip.Addr { return r.top().addr4.Addr() }

// Alias gives a host on the Internet a second address of each of its families.
func (h *Host) Alias() (v4, v6 netip.Addr) {
	l := h.lab
	if h.route != nil {
		l.fatal(fmt.Errorf("alias host %s: it is not on the Internet", h.Name))
	}
	if h.card.addr4.IsValid() {
		_, second := link4(l.nextPlug())
		v4 = second.Addr()
		l.must(h.space.ip(fmt.Sprintf("addr add %s/32 dev eth0", v4)))
		l.must(l.core.ip(fmt.Sprintf("route add %s via %s", v4, h.Addr4())))
	}
	if h.card.addr6.IsValid() {
		v6 = addr6(0, h.card.number, 3)
		l.must(h.space.ip(fmt.Sprintf("addr add %s/64 dev eth0 nodad", v6)))
	}
	return v4, v6
}

// HostOn is a router as a host: programs can run on it. It has no name of its own in the network, and no other card.
func (l *Lab) HostOn(r *Router) *Host {
	h := &Host{Name: r.Name, lab: l, space: r.space, card: r.wan}
	h.furnish()
	return h
}
