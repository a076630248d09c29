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

// Swallow has a router drop all packets above so many bytes that come from its LAN (out) or go there (in), without a word and whatever
// they allow: a tunnel on the way that cuts nothing up. The hosts are those of its LAN, whose cards do no work for others from
// then on: what they leave to be cut in segments would be looked at in one piece. A Flush, Rule or Rebind undoes it.
func (l *Lab) Swallow(r *Router, out, in int, hosts ...*Host) {
	l.must(r.space.nft(fmt.Sprintf("insert rule inet lab forward iifname lan meta length gt %d drop", out)))
	l.must(r.space.nft(fmt.Sprintf("insert rule inet lab forward iifname wan meta length gt %d drop", in)))
	l.must(r.wan.far.ip("link set " + r.wan.farIf + " gso_max_segs 1"))
	for _, h := range hosts {
		l.must(h.space.ip("link set eth0 gso_max_segs 1"))
	}
}
