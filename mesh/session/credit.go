package session

import (
	"net/netip"
	"time"

	"warren/mesh/identity"
	"warren/nat/limit"
)

/* The credit of addresses
 *
 * Whoever signs a record names the addresses at which it is dialled. They may be those of somebody who has nothing to do with it, and
 * the record may be another one each second. So dials are counted by where they go and for whom, whatever records say meanwhile:
 *
 *	a host      an IPv4 address or an IPv6 /64, whoever has named it: 16 dials, and one more each 2 s, which is about as often as
 *	            a silent address of one member is due. Where a member was met nothing is counted
 *	a member    64 dials, and one more each second, to hosts that are counted
 *	this node   400 dials, and 100 more each second, to hosts that are counted
 *
 * A dial without credit is left out, not put off: the ladder of waits comes to it again.
 */

var (
	dialsToHost   = limit.Rate{PerSecond: 0.5, Burst: 16}
	dialsToMember = limit.Rate{PerSecond: 1, Burst: 64}
	dialsOfNode   = limit.Rate{PerSecond: 100, Burst: 400}
)

// credit is what this node may dial on the word of records. Its methods may be called concurrently.
type credit struct {
	// constant, and guarded by themselves
	met     *friends
	hosts   *limit.Sources[netip.Prefix]
	members *limit.Sources[identity.NodeID]
}

func newCredit(met *friends) *credit {
	return &credit{met, limit.NewSources[netip.Prefix](dialsOfNode, dialsToHost), limit.NewSources[identity.NodeID](dialsOfNode, dialsToMember)}
}

// affordable returns those of a member's addresses that may be dialled now, which are paid for with it.
func (c *credit) affordable(now time.Time, id identity.NodeID, addrs []netip.AddrPort) (out []netip.AddrPort) {
	for _, addr := range addrs {
		host := limit.Host(addr.Addr())
		// A stream, which has an address of the discard prefix, is there.
		if discard.Contains(addr.Addr()) || c.met.has(host) || c.members.Allow(now, id) && c.hosts.Allow(now, host) {
			out = append(out, addr)
		}
	}
	return out
}
