package tunnel

// The bytes that a packet inside the tunnel gains on its way out, on the worst path: relayed, over IPv6.
//
//	| IPv6 40 | UDP 8 | ChannelData 4 | WireGuard header 16 | packet | tag 16 |
//
// IPv4 has a header of 20, and a direct path has no ChannelData; but the path may change at any moment, and the MTU
// of the interface is one for all peers.
const (
	ipv6Header     = 40
	udpHeader      = 8
	channelHeader  = 4  // RFC 8656, section 12.4
	wireguardExtra = 32 // type, receiver and counter before, Poly1305 tag after
	overhead       = ipv6Header + udpHeader + channelHeader + wireguardExtra
)

// minMTU is what IPv6 inside the tunnel needs (RFC 8200, section 5). Below it the system would take the overlay's IPv6
// addresses away; with it, outer packets are fragmented on paths that are too narrow.
const minMTU = 1280

// defaultPath is a path MTU that nearly every access network has: Ethernet's 1,500 less 8 for PPPoE, 20 for the
// IP-in-IP or 32 for the DS-Lite, 464XLAT or cloud overlay that providers add without saying so.
const defaultPath = 1460

// DefaultMTU is the MTU of the interface when the configuration has none: 1,460 − 84 = 1,376, which happens to be
// 86 × 16.
const DefaultMTU = (defaultPath - overhead) &^ 15

// MTUFor returns the greatest MTU for the interface with which no packet is larger than pathMTU outside, whatever the
// path; but at least 1,280. It is a multiple of 16 because WireGuard pads each packet to one, so that the last
// bytes below the next multiple cannot be used anyway.
func MTUFor(pathMTU int) int { return max((pathMTU-overhead)&^15, minMTU) }
