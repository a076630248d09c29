package node

import (
	"fmt"
	"net/netip"
	"slices"

	"warren/mesh/api"
	"warren/nat/natkind"
	"warren/nat/reach"
)

// concludeNet says what to expect of direct connections, and what would better that. It is pure.
func concludeNet(n *api.Netcheck) {
	n.Verdict, n.Conclusion, n.Advice = netVerdict(*n)
}

func netVerdict(n api.Netcheck) (verdict, conclusion, advice string) {
	family := n.IPv4 // a NAT is IPv4's business; IPv6 counts where it is all there is
	if n.IPv4.UDP != api.UDPWorks && n.IPv6.UDP == api.UDPWorks {
		family = n.IPv6
	}
	hard := slices.Contains([]string{natkind.MappedByAddress.String(), natkind.MappedByAddressAndPort.String(), natkind.MappedDependent.String()}, family.Mapping)
	open := openAddress(n)
	switch {
	case family.UDP != api.UDPWorks:
		return noUDP(n)
	case open.IsValid():
		return api.NetOpen, fmt.Sprintf("direct connections: with every peer that can send UDP; strangers reach this node at %s", open), ""
	case family.Filtering == natkind.FilteredNot.String():
		return api.NetOpen, "direct connections: likely with every peer that can send UDP; the NAT lets strangers in through a port in use", ""
	case hard:
		return api.NetHard, fmt.Sprintf("direct connections: only with peers that strangers can reach; this NAT's mapping is %s", family.Mapping), openPort(n)
	case family.Mapping == natkind.MappingUnknown.String():
		return api.NetUnknown, "direct connections: likely, but how this NAT maps ports is not known; " + family.Reason, "make a second member reachable from the Internet, so that two can be asked"
	case family.Filtering == natkind.FilteredByAddress.String():
		return api.NetEasy, "direct connections: likely with every peer that can send UDP", ""
	case family.Mapping == natkind.Unmapped.String():
		return api.NetEasy, "direct connections: likely with all peers but those whose NAT maps by destination; a firewall keeps strangers out",
			fmt.Sprintf("to be reachable for all, and an anchor, let UDP port %d in", n.Port)
	}
	return api.NetEasy, "direct connections: likely with all peers but those whose NAT maps by destination", ""
}

// noUDP is netVerdict where no answer came by UDP.
func noUDP(n api.Netcheck) (verdict, conclusion, advice string) {
	tcp := slices.ContainsFunc(n.Anchors, func(a api.AnchorCheck) bool { return a.TCP == api.TCPOpen })
	silent := n.IPv4.UDP == api.UDPSilent || n.IPv6.UDP == api.UDPSilent
	switch {
	case n.Portal.Suspected:
		return api.NetPortal, "direct connections: none; something answers in the anchors' place, probably a captive portal (" + n.Portal.Reason + ")",
			"open a web page in a browser here and log in"
	case silent && (tcp || n.Fallback.InUse):
		return api.NetBlocked, "direct connections: none over the Internet; this network drops UDP, so packets go over TCP through anchors, more slowly",
			fmt.Sprintf("let UDP out, at least to port %d of the anchors", n.Port)
	case silent:
		return api.NetOffline, "direct connections: none over the Internet; no anchor answers, neither by UDP nor by TCP",
			"see whether this machine is online, and the anchors are up"
	case len(n.IPv4.Addresses)+len(n.IPv6.Addresses) == 0:
		return api.NetOffline, "direct connections: none; this machine has no address on any network", "connect it to a network"
	}
	return api.NetUnknown, "direct connections: not known; there is no other anchor on the Internet to ask", "make a second member reachable from the Internet: then each can ask the other"
}

// openAddress is an address at which a member has reached this node unasked, invalid for none.
func openAddress(n api.Netcheck) (at netip.AddrPort) {
	for _, r := range n.Reachable {
		if r.State == string(reach.Reachable) && (!at.IsValid() || r.Address.Addr().Is4()) {
			return r.Address
		}
	}
	return at
}

// openPort is how to let strangers in through the router, by what it said when it was asked.
func openPort(n api.Netcheck) string {
	forward := fmt.Sprintf("forward UDP port %d to this machine", n.Port)
	for _, r := range n.Routers {
		switch {
		case r.Mapping != nil && !r.Mapping.Public:
			return fmt.Sprintf("the router %s maps the port, but another NAT stands behind it: ask the provider for a public address or IPv6", r.Gateway)
		case r.Mapping != nil:
			return fmt.Sprintf("the router %s maps the port to %s, but nobody gets through: see whether another firewall stands before it", r.Gateway, r.Mapping.External)
		}
		for _, p := range r.Protocols {
			if p.State == "refused" {
				return fmt.Sprintf("the router %s refuses port mappings by %s (%s): allow them there, or %s", r.Gateway, p.Name, p.Reason, forward)
			}
		}
	}
	if len(n.Routers) > 0 {
		return fmt.Sprintf("turn on UPnP or NAT-PMP on the router %s, or %s", n.Routers[0].Gateway, forward)
	}
	return "on the router, " + forward
}
