package netwatch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// hop is one way out of a default route.
type hop struct {
	family int
	via    netip.Addr // invalid: on the link itself
	link   int
	metric uint32
}

// defaultRoutes returns a text of each default route of the main table, sorted, and the links that they leave by.
func defaultRoutes() (texts []string, links []int, err error) {
	hops, err := defaultHops()
	if err != nil {
		return nil, nil, fmt.Errorf("list routes: %w", err)
	}
	for _, h := range hops {
		texts = append(texts, fmt.Sprintf("%d via %s dev %d metric %d", h.family, h.via, h.link, h.metric))
		links = append(links, h.link)
	}
	slices.Sort(texts)
	return texts, links, nil
}

// defaultHops asks for the routes of the main table and keeps the default ones. A router may hold the routes of half the Internet: all
// others are passed over where they lie, after a look at one byte.
func defaultHops() (hops []hop, err error) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		found, err := again(func() (found []hop, err error) {
			dump := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
			dump.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(family), Table: unix.RT_TABLE_MAIN}})
			err = dump.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE, func(m []byte) bool {
				if isDefaultRoute(m) {
					found = append(found, readHops(m)...)
				}
				return true
			})
			return found, err
		})
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, err
		}
		hops = append(hops, found...)
	}
	return hops, nil
}

// isDefaultRoute looks at a routing message (rtnetlink(7), struct rtmsg): a unicast route of the main table to everywhere.
func isDefaultRoute(m []byte) bool {
	if len(m) < unix.SizeofRtMsg {
		return false
	}
	dstLen, table, kind := m[1], m[4], m[7]
	cloned := binary.NativeEndian.Uint32(m[8:])&unix.RTM_F_CLONED != 0
	return dstLen == 0 && table == unix.RT_TABLE_MAIN && kind == unix.RTN_UNICAST && !cloned
}

// readHops reads where a route leads.
func readHops(m []byte) (hops []hop) {
	one := hop{family: int(m[0])}
	attrs, err := nl.ParseRouteAttr(m[unix.SizeofRtMsg:])
	if err != nil {
		return nil
	}
	var many []byte
	for _, a := range attrs {
		switch {
		case a.Attr.Type == unix.RTA_GATEWAY:
			one.via, _ = netip.AddrFromSlice(a.Value)
		case a.Attr.Type == unix.RTA_VIA && len(a.Value) > 2: // an IPv4 route by an IPv6 router (RFC 5549)
			one.via, _ = netip.AddrFromSlice(a.Value[2:])
		case a.Attr.Type == unix.RTA_OIF && len(a.Value) == 4:
			one.link = int(binary.NativeEndian.Uint32(a.Value))
		case a.Attr.Type == unix.RTA_PRIORITY && len(a.Value) == 4:
			one.metric = binary.NativeEndian.Uint32(a.Value)
		case a.Attr.Type == unix.RTA_MULTIPATH:
			many = a.Value
		}
	}
	if many == nil {
		return []hop{one}
	}
	for len(many) >= unix.SizeofRtNexthop {
		size := int(binary.NativeEndian.Uint16(many))
		if size < unix.SizeofRtNexthop || size > len(many) {
			break
		}
		next := hop{family: one.family, link: int(binary.NativeEndian.Uint32(many[4:])), metric: one.metric}
		if attrs, err := nl.ParseRouteAttr(many[unix.SizeofRtNexthop:size]); err == nil {
			for _, a := range attrs {
				if a.Attr.Type == unix.RTA_GATEWAY {
					next.via, _ = netip.AddrFromSlice(a.Value)
				}
			}
		}
		hops = append(hops, next)
		many = many[min((size+3)&^3, len(many)):]
	}
	return hops
}
