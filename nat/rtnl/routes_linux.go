package rtnl

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Hop is one way out of a default route.
type Hop struct {
	Family int        // AF_INET or AF_INET6
	Via    netip.Addr // the router, without a zone; invalid: on the link itself
	Link   int        // index of the interface
	Metric uint32
}

// few is how many IPv6 routes are read in search of the default ones. The kernel lists these last; where there are more, it is asked by
// which links one leaves.
const few = 2000

// nowhere is an address of IPv6 that has not been given to anybody (RFC 4291, section 2.4, and IANA's registry): the only routes to it
// are those to everywhere.
var nowhere = netip.MustParseAddr("4000::1").As16()

// DefaultHops returns the ways out of the default routes of the main table: IPv4 before IPv6, each in the kernel's order, which is by
// metric. On a system without IPv4 or IPv6 that has none. On a machine with more IPv6 routes than few it has of each link only the best
// default route, and takes the system's rules into account.
func DefaultHops() ([]Hop, error) {
	four, _, err := defaultHops(unix.AF_INET)
	if err != nil {
		return nil, err
	}
	six, others, err := defaultHops(unix.AF_INET6)
	if err == nil && others > few {
		six, err = hopsByLink()
	}
	return append(four, six...), err
}

// defaultHops reads the main table from its beginning. IPv4's is listed by address, so that its default routes come first, and the rest
// need not be read. others is how many other routes were looked at; with more than few the search was given up.
func defaultHops(family int) (hops []Hop, others int, err error) {
	body := routeMessage(unix.RtMsg{Family: uint8(family), Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST})
	err = ask(request{unix.RTM_GETROUTE, true, body}, func(strict bool) func([]byte) bool {
		hops, others = nil, 0
		return func(m []byte) bool {
			if isDefault(m) {
				hops = append(hops, readHops(m)...)
				return true
			}
			if !strict { // other tables too, in any order
				return true
			}
			others++
			return family == unix.AF_INET && startsWithZero(m) || family == unix.AF_INET6 && others <= few
		}
	})
	return hops, others, ifThere(err)
}

// ifThere takes it for an empty table that there is none, or no such family.
func ifThere(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// startsWithZero reports whether a route of IPv4 is to a prefix at 0.0.0.0.
func startsWithZero(m []byte) bool {
	if len(m) < unix.SizeofRtMsg {
		return false
	}
	for kind, value := range attributes(m[unix.SizeofRtMsg:]) {
		if kind == unix.RTA_DST {
			return number(value) == 0
		}
	}
	return true
}

// hopsByLink asks of each link that is up whether a default route of IPv6 leaves by it.
func hopsByLink() (hops []Hop, err error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if l.Flags&net.FlagUp == 0 || l.Flags&net.FlagLoopback != 0 {
			continue
		}
		body := routeMessage(unix.RtMsg{Family: unix.AF_INET6, Dst_len: 128, Flags: unix.RTM_F_FIB_MATCH})
		body = appendAttribute(body, unix.RTA_DST, nowhere[:])
		body = appendAttribute(body, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(l.Index)))
		// An error is the kernel's no.
		_ = ask(request{unix.RTM_GETROUTE, false, body}, func(bool) func([]byte) bool {
			return func(m []byte) bool {
				if len(m) >= unix.SizeofRtMsg && m[1] == 0 && m[7] == unix.RTN_UNICAST {
					hops = append(hops, slices.DeleteFunc(readHops(m), func(h Hop) bool { return h.Link != l.Index })...)
				}
				return false
			}
		})
	}
	return hops, nil
}

// routeMessage is the fixed part of a message about routes (struct rtmsg).
func routeMessage(r unix.RtMsg) []byte {
	b := []byte{r.Family, r.Dst_len, r.Src_len, r.Tos, r.Table, r.Protocol, r.Scope, r.Type}
	return binary.NativeEndian.AppendUint32(b, r.Flags)
}

// isDefault looks at a routing message: a unicast route of the main table to everywhere.
func isDefault(m []byte) bool {
	if len(m) < unix.SizeofRtMsg {
		return false
	}
	dstLen, table, kind := m[1], m[4], m[7]
	cloned := binary.NativeEndian.Uint32(m[8:])&unix.RTM_F_CLONED != 0
	return dstLen == 0 && table == unix.RT_TABLE_MAIN && kind == unix.RTN_UNICAST && !cloned
}

// readHops reads where a route leads.
func readHops(m []byte) (hops []Hop) {
	one := Hop{Family: int(m[0])}
	var many []byte
	for kind, value := range attributes(m[unix.SizeofRtMsg:]) {
		switch kind {
		case unix.RTA_GATEWAY, unix.RTA_VIA:
			one.Via = router(kind, value)
		case unix.RTA_OIF:
			one.Link = int(number(value))
		case unix.RTA_PRIORITY:
			one.Metric = number(value)
		case unix.RTA_MULTIPATH:
			many = value
		}
	}
	if many == nil {
		return []Hop{one}
	}
	for len(many) >= unix.SizeofRtNexthop {
		size := int(binary.NativeEndian.Uint16(many))
		if size < unix.SizeofRtNexthop || size > len(many) {
			break
		}
		next := Hop{Family: one.Family, Link: int(binary.NativeEndian.Uint32(many[4:])), Metric: one.Metric}
		for kind, value := range attributes(many[unix.SizeofRtNexthop:size]) {
			if kind == unix.RTA_GATEWAY || kind == unix.RTA_VIA {
				next.Via = router(kind, value)
			}
		}
		hops = append(hops, next)
		many = many[min(align(size), len(many)):]
	}
	return hops
}

// router reads the address of one. RTA_VIA has its family before it: an IPv4 route by an IPv6 router (RFC 5549).
func router(kind uint16, value []byte) netip.Addr {
	if kind == unix.RTA_VIA {
		if len(value) <= 2 {
			return netip.Addr{}
		}
		value = value[2:]
	}
	via, _ := netip.AddrFromSlice(value)
	return via
}

// Route is a unicast route that is no default route.
type Route struct {
	Prefix   netip.Prefix
	Link     int // index of the interface; 0: several
	Table    uint32
	Protocol uint8 // RTPROT_KERNEL and the like
}

// RoutesBy returns the unicast routes of the main table that leave by a link.
func RoutesBy(link int) ([]Route, error) {
	return routes(unix.RtMsg{Table: unix.RT_TABLE_MAIN}, link, func(r Route) bool { return r.Table == unix.RT_TABLE_MAIN && r.Link == link })
}

// RoutesOverlapping returns the unicast routes of all tables but the local one that share addresses with one of the prefixes.
func RoutesOverlapping(prefixes []netip.Prefix) ([]Route, error) {
	return routes(unix.RtMsg{}, 0, func(r Route) bool {
		return r.Table != unix.RT_TABLE_LOCAL && slices.ContainsFunc(prefixes, r.Prefix.Overlaps)
	})
}

// routes lists those of both families that wanted takes.
func routes(like unix.RtMsg, link int, wanted func(Route) bool) (all []Route, err error) {
	like.Type = unix.RTN_UNICAST
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		like.Family = uint8(family)
		body := routeMessage(like)
		if link != 0 {
			body = appendAttribute(body, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(link)))
		}
		var found []Route
		err := ask(request{unix.RTM_GETROUTE, true, body}, func(bool) func([]byte) bool {
			found = nil
			return func(m []byte) bool {
				if r, ok := readRoute(m); ok && wanted(r) {
					found = append(found, r)
				}
				return true
			}
		})
		if err = ifThere(err); err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// readRoute reads what a Route says. It allocates nothing: it is called for each route of a table.
func readRoute(m []byte) (r Route, ok bool) {
	if len(m) < unix.SizeofRtMsg || m[1] == 0 || m[7] != unix.RTN_UNICAST || binary.NativeEndian.Uint32(m[8:])&unix.RTM_F_CLONED != 0 {
		return Route{}, false
	}
	r.Table, r.Protocol = uint32(m[4]), m[5]
	for b := m[unix.SizeofRtMsg:]; len(b) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return Route{}, false
		}
		switch value := b[unix.SizeofRtAttr:size]; binary.NativeEndian.Uint16(b[2:]) {
		case unix.RTA_DST:
			addr, _ := netip.AddrFromSlice(value)
			r.Prefix = netip.PrefixFrom(addr, int(m[1]))
		case unix.RTA_OIF:
			r.Link = int(number(value))
		case unix.RTA_TABLE:
			r.Table = number(value)
		}
		b = b[min(align(size), len(b)):]
	}
	return r, r.Prefix.IsValid()
}
