package netwatch

import (
	"regexp"
	"slices"

	"github.com/vishvananda/netlink"
)

/* What is an underlay, and what is carried by one
 *
 *	TUN, WireGuard                                        another VPN's, even where the default route leaves by it
 *	other tunnels, dummies                                an underlay only if a default route leaves by it: the IPv6 of many hosts comes in a tunnel
 *	containers' and virtual machines' own networks        the same; they are known by what they are and how their makers call them, both
 *	all else: cards, VLANs, bonds, bridges, veth, PPP …   an underlay
 */

// tunnelKinds are the kernel's words for links that travel over others.
var tunnelKinds = []string{"ipip", "sit", "gre", "gretap", "ip6gre", "ip6gretap", "ip6tnl", "vti", "vti6", "xfrm", "vxlan", "geneve", "dummy", "ifb", "nlmon"}

// What makers of containers and virtual machines call their links, by the kind that these are of. The whole name has to match: a bridge
// called docker-lan is somebody's LAN.
var (
	containerBridge = regexp.MustCompile(`^(docker[0-9]+|docker_gwbridge|br-[0-9a-f]{12}|virbr[0-9]+|lxcbr[0-9]+|lxdbr[0-9]+|incusbr[0-9]+|podman[0-9]+|` +
		`cni[0-9]+|cni-podman[0-9]+|nerdctl[0-9]+|kube-bridge|weave|cbr0)$`)
	hypervisorCard = regexp.MustCompile(`^(vmnet|vboxnet)[0-9]+$`)
	zeroTier       = regexp.MustCompile(`^zt[a-z0-9]{8}$`)
)

// isVirtual reports whether a link of all is no underlay. gateway says that a default route leaves by it.
func isVirtual(l netlink.Link, all []netlink.Link, gateway bool) bool {
	name := l.Attrs().Name
	if tap, ok := l.(*netlink.Tuntap); ok {
		return tap.Mode == netlink.TUNTAP_MODE_TUN || zeroTier.MatchString(name)
	}
	switch kind := l.Type(); {
	case kind == "wireguard":
		return true
	case gateway:
		return false
	case slices.Contains(tunnelKinds, kind):
		return true
	case kind == "bridge":
		return containerBridge.MatchString(name) && !hasCard(l, all)
	case kind == "device":
		return hypervisorCard.MatchString(name)
	}
	return false
}

// hasCard reports whether one of a bridge's ports is neither a container's nor a virtual machine's.
func hasCard(bridge netlink.Link, all []netlink.Link) bool {
	return slices.ContainsFunc(all, func(l netlink.Link) bool {
		return l.Attrs().MasterIndex == bridge.Attrs().Index && l.Type() != "veth" && l.Type() != "tuntap"
	})
}
