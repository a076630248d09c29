//go:build linux

package natlab

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// countRules count, by destination port, what the hosts behind a router send to one address.
const countRules = `table inet count {
	set sent { type inet_service; size 65535; flags dynamic; }
	chain forward {
		type filter hook forward priority filter - 10; policy accept;
		iifname "lan" ip daddr %s meta l4proto udp update @sent { udp dport counter }
	}
}
`

// CountUDP has the router count the UDP packets that its LAN sends to an IPv4 address, from now until Flush, Rebind or Rule.
func (r *Router) CountUDP(to netip.Addr) {
	r.lab.must(r.space.nft(fmt.Sprintf(countRules, to)))
}

// CountedUDP returns the packets counted since CountUDP, by destination port.
func (r *Router) CountedUDP() map[uint16]int {
	out, err := run(nil, "ip", "netns", "exec", r.space.ns, "nft", "-j", "list", "set", "inet", "count", "sent")
	r.lab.must(err)
	var list struct {
		Nftables []struct {
			Set struct {
				Elem []struct {
					Elem struct {
						Val     uint16
						Counter struct{ Packets int }
					}
				}
			}
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		r.lab.fatal(fmt.Errorf("read the counters of router %s: %w: %s", r.Name, err, out))
	}
	counted := make(map[uint16]int)
	for _, entry := range list.Nftables {
		for _, e := range entry.Set.Elem {
			counted[e.Elem.Val] = e.Elem.Counter.Packets
		}
	}
	return counted
}
