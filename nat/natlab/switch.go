//go:build linux

package natlab

import "net/netip"

// Switch makes a LAN that leads nowhere: no router, no default route, no DHCP. Hosts behind it have addresses in
// the prefixes, an IPv4 /24 and an IPv6 /64; a zero one leaves the family out (of IPv6 then link-local addresses are left).
// What is done to routers has no meaning for it.
func (l *Lab) Switch(name string, lan4, lan6 netip.Prefix) *Router {
	r := &Router{Name: name, lab: l, lan4: lan4, lan6: lan6, isolated: true}
	r.space = l.space(name, false)
	l.must(r.space.ip("link add lan type bridge forward_delay 0 mcast_snooping 0", "link set lan up"))
	return r
}
