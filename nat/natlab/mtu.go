//go:build linux

package natlab

import "fmt"

// MTU gives the cable of a host or router another MTU, at both ends. A LAN carries jumbo frames between those
// of its hosts that have them.
func (l *Lab) MTU(a Attached, mtu int) {
	c := a.plug()
	for _, end := range []struct {
		s      *space
		ifname string
	}{{c.near, c.nearIf}, {c.far, c.farIf}} {
		l.must(end.s.ip(fmt.Sprintf("link set %s mtu %d", end.ifname, mtu)))
	}
}

// silentRules drop what a router says about packets that are too large.
const silentRules = `add table inet silent
delete table inet silent
table inet silent {
	chain output {
		type filter hook output priority filter; policy accept;
		icmp type destination-unreachable icmp code frag-needed drop
		icmpv6 type packet-too-big drop
	}
}
`

// Silence has the Internet's core and these routers tell nobody that a packet was too large. A Flush, Rule or Rebind
// of a router undoes it there, a Partition or Heal in the core.
func (l *Lab) Silence(routers ...*Router) {
	l.must(l.core.nft(silentRules))
	for _, r := range routers {
		l.must(r.space.nft(silentRules))
	}
}
