// Package ranges says what an underlay address is worth by the range that it lies in: who can send to it.
//
// It knows ranges only; whether something answers at an address is found out elsewhere. There is one list of
// them, and everything that asks "is this on the Internet" asks here.
//
// Its functions may be called concurrently.
package ranges

import (
	"net/netip"
	"slices"
)

// Kind says who can send to an address.
type Kind int

// The kinds of addresses, from the widest to the narrowest.
const (
	Public  Kind = iota // everyone
	Private             // those on the same site: RFC 1918, RFC 4193
	Shared              // those behind the same carrier's NAT: RFC 6598, RFC 6333, RFC 2544
	Useless             // nobody
)

// Carrier is the address space that carriers share (RFC 6598); IPv4 overlay networks are taken out of it too.
var Carrier = netip.MustParsePrefix("100.64.0.0/10")

// Overlays are the address spaces of which everybody may take a part for a network of its own: that of carriers, and those of RFC 1918.
var Overlays = []netip.Prefix{
	Carrier, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
}

var (
	// dsLite is the inside of DS-Lite (RFC 6333, section 5.7).
	dsLite = netip.MustParsePrefix("192.0.0.0/24")
	// benchmark is RFC 2544's range, which carriers have been seen to use inside.
	benchmark = netip.MustParsePrefix("198.18.0.0/15")
	// thisNetwork and future are of no use as an address of anybody (RFC 6890, section 2.2.2).
	thisNetwork, future = netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("240.0.0.0/4")
)

// Of returns the kind of an address; IPv4 in IPv6 form counts as IPv4. Link-local, loopback, multicast and unspecified
// addresses are Useless.
func Of(a netip.Addr) Kind {
	a = a.Unmap()
	switch {
	case !a.IsGlobalUnicast() || thisNetwork.Contains(a) || future.Contains(a):
		return Useless
	case a.IsPrivate():
		return Private
	case Carrier.Contains(a) || dsLite.Contains(a) || benchmark.Contains(a):
		return Shared
	}
	return Public
}

// IsPublic reports whether everyone on the Internet can send to an address.
func IsPublic(a netip.Addr) bool { return Of(a) == Public }

// discard is where nothing is by its definition (RFC 6666), and where the shared socket has the addresses of its streams.
var discard = netip.MustParsePrefix("100::/64")

// Dialable reports whether an address that another node names may be dialled: not if it is of this host alone, of many or of nobody, and
// not inside the overlay's own networks, where what comes back says nothing of the way there. Addresses of private networks may.
func Dialable(a netip.Addr, overlay ...netip.Prefix) bool {
	a = a.Unmap()
	return Of(a) != Useless && !discard.Contains(a) && !slices.ContainsFunc(overlay, func(p netip.Prefix) bool { return p.Contains(a) })
}

// PublicOf keeps the addresses that everyone can send to.
func PublicOf(addrs []netip.AddrPort) (out []netip.AddrPort) {
	for _, a := range addrs {
		if IsPublic(a.Addr()) {
			out = append(out, a)
		}
	}
	return out
}
