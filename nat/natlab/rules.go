//go:build linux

package natlab

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
)

// The rules of every router start from these two chains. Unsolicited input is
// dropped, as real routers do: if it were accepted, conntrack would confirm
// the stranger's packet, the packet would own the very tuple that the host
// behind is about to use, and masquerade would have to pick another port.
const (
	routerInput = `	chain input {
		type filter hook input priority filter; policy drop;
		iifname { "lo", "lan" } accept
		ct state established,related accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert } accept
		icmp type echo-request accept
		icmpv6 type echo-request accept
	}
`
	routerForward = `	chain forward {
		type filter hook forward priority filter; policy drop;
%s		iifname "lan" accept
		ct state established,related accept
%s	}
`
	masquerade = `table ip nat {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "wan" masquerade%s
	}
}
`
	// A cone in four rules. The first packet of an inside (address, port) takes
	// a random port; what was taken is learnt after the translation in two
	// maps. "taken" makes the mapping endpoint-independent for the flows that
	// follow, "open" lets strangers in through it: all of them when its key is
	// the port alone, the other ports of known addresses when it is both.
	cone = `table ip nat {
	map taken { type ipv4_addr . inet_service : inet_service; size 65535; flags dynamic; }
	map open { type %[2]s : ipv4_addr . inet_service; size 65535; flags dynamic; }
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		iifname "wan" ip protocol udp dnat ip to %[3]s map @open
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "wan" ip protocol udp snat ip to %[1]s : ip saddr . udp sport map @taken
		oifname "wan" ip protocol udp masquerade fully-random
		oifname "wan" masquerade
	}
	chain learn {
		type filter hook postrouting priority srcnat + 50; policy accept;
		oifname "wan" ip protocol udp ct direction original add @taken { ct original ip saddr . ct original proto-src : udp sport } add @open { %[4]s : ct original ip saddr . ct original proto-src }
	}
}
`
	sequence = `table ip nat {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "wan" ip protocol udp snat ip to %s : numgen inc mod %d map { %s }
		oifname "wan" masquerade
	}
}
`
)

// routerRules returns the whole nftables ruleset of a router, loaded in one
// transaction. wan4 is its own address on the side of the Internet.
func routerRules(k Kind, wan4 netip.Addr) string {
	var first, last, nat string
	switch k {
	case Public:
		last = "\t\taccept\n"
	case EIMEIF:
		last = "\t\tct status dnat accept\n"
		nat = fmt.Sprintf(cone, wan4, "inet_service", "udp dport", "udp sport")
	case EIMADF:
		last = "\t\tct status dnat accept\n"
		nat = fmt.Sprintf(cone, wan4, "ipv4_addr . inet_service", "ip saddr . udp dport", "ip daddr . udp sport")
	case EIMAPDF, DoubleNAT, SymmetricCarrier, DualStack:
		nat = fmt.Sprintf(masquerade, "")
	case Symmetric:
		nat = fmt.Sprintf(masquerade, " fully-random")
	case Sequential:
		nat = sequentialPorts(wan4, 1)
	case SequentialByTwo:
		nat = sequentialPorts(wan4, 2)
	case UDPBlocked:
		first = "\t\tmeta l4proto udp drop\n"
		nat = fmt.Sprintf(masquerade, "")
	}
	return "flush ruleset\ntable inet lab {\n" + routerInput + fmt.Sprintf(routerForward, first, last) + "}\n" + nat
}

// sequentialPorts returns the table of a NAT that gives each new flow the port
// after that of the one before. Where it begins is another place each time, or
// a router that restarts would give the same ports again.
func sequentialPorts(wan4 netip.Addr, step int) string {
	const flows = 4096
	var ports strings.Builder
	for i, first := 0, 20000+rand.IntN(30000); i < flows; i++ {
		fmt.Fprintf(&ports, "%d : %d, ", i, first+i*step)
	}
	return fmt.Sprintf(sequence, wan4, flows, ports.String())
}

// cut is one direction that the core of the lab's Internet does not forward:
// from one of its interfaces to another.
type cut struct{ from, to string }

// coreRules returns the ruleset of the Internet's core for these cuts.
func coreRules(cuts []cut) string {
	var b strings.Builder
	b.WriteString("flush ruleset\ntable inet lab {\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n")
	slices.SortFunc(cuts, func(x, y cut) int { return strings.Compare(x.from+" "+x.to, y.from+" "+y.to) })
	for _, c := range slices.Compact(cuts) {
		fmt.Fprintf(&b, "\t\tiifname %q oifname %q drop\n", c.from, c.to)
	}
	b.WriteString("\t}\n}\n")
	return b.String()
}

// faultRules returns the ruleset that loses perMille of a thousand frames in
// each direction at the far end of one cable; 1000 cuts it silently, without
// the near end losing its carrier.
func faultRules(ifname string, perMille int) string {
	table := "fault-" + ifname
	clear := fmt.Sprintf("add table netdev %[1]s\ndelete table netdev %[1]s\n", table)
	if perMille <= 0 {
		return clear
	}
	verdict := "drop"
	if perMille < 1000 {
		// What a Line held has passed here once.
		verdict = fmt.Sprintf("ether saddr %s accept\n\t\tnumgen random mod 1000 < %d drop", linePassed, perMille)
	}
	return clear + fmt.Sprintf(`table netdev %s {
	chain from {
		type filter hook ingress device %[2]q priority filter; policy accept;
		%[3]s
	}
	chain to {
		type filter hook egress device %[2]q priority filter; policy accept;
		%[3]s
	}
}
`, table, ifname, verdict)
}
