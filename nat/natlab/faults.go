//go:build linux

package natlab

import (
	"fmt"
	"net/netip"
)

// Cut drops every frame on the cable of a host or router, without a word to
// either end: the carrier stays.
func (l *Lab) Cut(a Attached) { l.Loss(a, 1000) }

// Mend undoes Cut and Loss.
func (l *Lab) Mend(a Attached) { l.Loss(a, 0) }

// Loss drops frames at random in both directions, so many of a thousand.
func (l *Lab) Loss(a Attached, perMille int) {
	c := a.plug()
	l.must(c.far.nft(faultRules(c.farIf, perMille)))
}

// Rate limits the cable of a host or router to so many Mbit/s in each
// direction, with a buffer of 50 ms; 0 lifts the limit.
func (l *Lab) Rate(a Attached, mbit int) {
	c := a.plug()
	ends := []struct {
		s      *space
		ifname string
	}{{c.near, c.nearIf}, {c.far, c.farIf}}
	for _, end := range ends {
		argv := []string{"tc", "-n", end.s.ns, "qdisc"}
		if mbit == 0 {
			argv = append(argv, "del", "dev", end.ifname, "root")
		} else {
			// The burst holds one packet of 64 KB as segmentation offload makes them.
			argv = append(argv, "replace", "dev", end.ifname, "root", "tbf", "rate", fmt.Sprintf("%dmbit", mbit), "burst", "128k", "latency", "50ms")
		}
		_, err := run(nil, argv...)
		l.must(err)
	}
}

// Partition stops all traffic between the sites of the one group and those of
// the other, in the Internet's core. Partitions add up until Heal.
func (l *Lab) Partition(a, b []Attached) {
	for _, x := range a {
		for _, y := range b {
			from, to := x.top(), y.top()
			if from.farIf == to.farIf {
				l.fatal(fmt.Errorf("partition lab: %s and %s are on one site", x.plug().near.name, y.plug().near.name))
			}
			l.cuts = append(l.cuts, cut{from.farIf, to.farIf}, cut{to.farIf, from.farIf})
		}
	}
	l.must(l.core.nft(coreRules(l.cuts)))
}

// Rule has a router treat what passes it as another kind does, from now on.
// Flows that it knows are forgotten: what it blocks now, it blocks for all.
// The kinds must have the same address families.
func (r *Router) Rule(k Kind) {
	if r.Kind.has4() != k.has4() || r.Kind.has6() != k.has6() {
		r.lab.fatal(fmt.Errorf("rule router %s: %s and %s differ in address families", r.Name, r.Kind, k))
	}
	r.Kind = k
	r.Flush()
}

// Heal ends all partitions.
func (l *Lab) Heal() {
	l.cuts = nil
	l.must(l.core.nft(coreRules(nil)))
}

// Move takes a host to another network, as a laptop is carried: its card goes
// down and comes up with other addresses. nil is the Internet. A Cut or Loss stays behind, and its own Line.
func (h *Host) Move(behind *Router) {
	h.lab.Mend(h)
	h.lab.unline(h.plug())
	h.lab.must(h.space.ip("link del eth0"))
	h.attach(behind)
}

// Renumber gives a host behind a router another IPv4 address of its LAN, as a
// DHCP server does that has forgotten it; a second time gives the first one back.
func (h *Host) Renumber() {
	old := h.card.addr4
	if h.route == nil || !old.IsValid() {
		h.lab.fatal(fmt.Errorf("renumber host %s: it has no IPv4 address of a LAN", h.Name))
	}
	// The other half of the LAN: hosts are numbered from its beginning.
	b := old.Addr().As4()
	b[3] ^= 1 << (31 - old.Bits())
	h.card.addr4 = netip.PrefixFrom(netip.AddrFrom4(b), old.Bits())
	own := h.route.leases[h.space.ns]
	own.addr4 = h.card.addr4
	h.route.leases[h.space.ns] = own
	h.lab.must(h.space.ip(
		fmt.Sprintf("addr del %s dev eth0", old),
		fmt.Sprintf("addr add %s dev eth0", h.card.addr4),
		fmt.Sprintf("route replace default via %s", h.card.gate4),
	))
}

// Flush makes the router forget all mappings and connections, as one that restarts.
func (r *Router) Flush() {
	r.lab.must(r.space.nft(routerRules(r.Kind, r.wan.addr4.Addr())))
	r.lab.must(r.space.flushConntrack())
}

// Rebind gives the router another public IPv4 address and makes it forget all
// mappings, as a home line does that reconnects at night. Its IPv6 prefix stays.
func (r *Router) Rebind() {
	l := r.lab
	if r.behind != nil || !r.wan.addr4.IsValid() {
		l.fatal(fmt.Errorf("rebind router %s: it has no public IPv4 address", r.Name))
	}
	line := l.nextLine()
	l.returned = append(l.returned, r.wan.line)
	r.wan.line = line
	gate, addr := link4(line)
	l.must(l.core.ip(
		fmt.Sprintf("addr del %s/30 dev %s", r.wan.gate4, r.wan.farIf),
		fmt.Sprintf("addr add %s dev %s", gate, r.wan.farIf),
	))
	old := r.wan.addr4
	r.wan.addr4, r.wan.gate4 = addr, gate.Addr()
	l.must(r.space.ip(
		fmt.Sprintf("addr del %s dev wan", old),
		fmt.Sprintf("addr add %s dev wan", addr),
		fmt.Sprintf("route replace default via %s", gate.Addr()),
	))
	if r.Kind == Public {
		l.must(l.core.ip(fmt.Sprintf("route replace %s via %s", r.lan4, addr.Addr())))
	}
	r.Flush()
}
