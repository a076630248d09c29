package ranges

import (
	"fmt"
	"math/big"
	"net/netip"
	"slices"
)

/* Routes that swallow the tunnel
 *
 * A route into a tunnel must not lead there what the tunnel itself stands on: its own packets would go round in it, and this machine
 * would be cut off. Whoever has all traffic go through a peer (an exit) has to keep the tunnel's own packets out of it, which nothing
 * here does yet. So such routes are refused, each by itself:
 *
 *	all of a family │ the Internet in pieces │ what holds an address of the ground │ a network that this machine is on
 */

// Ground is an address that this machine reaches outside of every tunnel, and what it is, in words: "the endpoint of static peer phone".
type Ground struct {
	Addr netip.Addr
	What string
}

// Route is a prefix that a person wants to lead to a peer.
type Route struct {
	Prefix netip.Prefix
	Peer   string
}

// The widest prefix that a route may have outside of private ranges: what is wider is an exit's. Nobody was given more of IPv4 than a /8,
// nor of IPv6 than a /16.
const (
	widest4 = 8
	widest6 = 16
)

var (
	loopback = netip.MustParsePrefix("127.0.0.0/8")
	// internet6 is what of IPv6 is given out (RFC 4291, section 2.4).
	internet6 = netip.MustParsePrefix("2000::/3")
	// inside are the ranges that are not on the Internet, in which a prefix may be as wide as it likes.
	inside = append([]netip.Prefix{netip.MustParsePrefix("fc00::/7")}, Overlays...)
)

// Swallowing says which of the routes must not be, and why, in words, by their places in the list. ground is what this machine reaches
// outside; elsewhere are the networks that it reaches by other interfaces, default routes left out: what lies in one that is more
// specific than the route is not lost to it. Of several addresses that a route holds the first of ground is named.
func Swallowing(routes []Route, ground []Ground, elsewhere []netip.Prefix) map[int]string {
	out := make(map[int]string)
	sorted := make([]placed, len(ground))
	for i, g := range ground {
		sorted[i] = placed{Ground{g.Addr.Unmap().WithZone(""), g.What}, i}
	}
	slices.SortFunc(sorted, func(a, b placed) int { return a.Addr.Compare(b.Addr) })
	for i, r := range routes {
		if why := swallows(r.Prefix.Masked(), sorted, elsewhere); why != "" {
			out[i] = why
		}
	}
	for _, v4 := range []bool{true, false} {
		pieces := wide(routes, v4)
		if !most(routes, pieces, v4) {
			continue
		}
		for _, i := range pieces {
			if out[i] == "" {
				out[i] = fmt.Sprintf("the routes together are most of the %s Internet, piece by piece: %s", familyOf(v4), noExit)
			}
		}
	}
	return out
}

const noExit = "all traffic through a peer is not supported yet"

// placed is a ground and its place in the list.
type placed struct {
	Ground
	place int
}

// swallows is Swallowing of one route, by itself; ground is sorted by address.
func swallows(p netip.Prefix, ground []placed, elsewhere []netip.Prefix) string {
	v4 := p.Addr().Is4()
	switch a := p.Addr(); {
	case a.Is4In6():
		return fmt.Sprintf("it is IPv4 in the form of IPv6: write %v", netip.PrefixFrom(a.Unmap(), max(0, p.Bits()-96)))
	case a.IsMulticast():
		return "it is multicast, which goes to no peer"
	case a.IsLoopback() || loopback.Overlaps(p) && p.Bits() >= loopback.Bits():
		return "it is this machine itself (loopback)"
	case a.Is6() && a.IsLinkLocalUnicast():
		return "it is link-local: every interface has it"
	case p.Bits() == 0:
		return fmt.Sprintf("it is all of %s: %s", familyOf(v4), noExit)
	case IsWide(p):
		return fmt.Sprintf("it is a large part of %s: %s", familyOf(v4), noExit)
	}
	from, _ := slices.BinarySearchFunc(ground, p.Addr(), func(g placed, a netip.Addr) int { return g.Addr.Compare(a) })
	held := placed{place: len(ground)}
	for _, g := range ground[from:] {
		if !p.Contains(g.Addr) {
			break
		}
		if g.place < held.place && !slices.ContainsFunc(elsewhere, func(e netip.Prefix) bool { return e.Bits() > p.Bits() && e.Contains(g.Addr) }) {
			held = g
		}
	}
	if held.place < len(ground) {
		return fmt.Sprintf("it holds %s, %v, which the tunnel itself needs outside", held.What, held.Addr)
	}
	if slices.Contains(elsewhere, p) {
		return "this machine reaches that network by another interface already"
	}
	return ""
}

// IsWide reports whether a prefix is more of the Internet than any peer has: what is routed there belongs to an exit.
func IsWide(p netip.Prefix) bool {
	widest := widest6
	if p.Addr().Is4() {
		widest = widest4
	}
	return p.Bits() < widest && !isInside(p)
}

// isInside reports whether the whole of a prefix is off the Internet.
func isInside(p netip.Prefix) bool {
	return slices.ContainsFunc(inside, func(in netip.Prefix) bool { return in.Bits() <= p.Bits() && in.Contains(p.Addr()) })
}

// onInternet reports whether some of a prefix is on the Internet.
func onInternet(p netip.Prefix) bool {
	return !isInside(p) && (p.Addr().Is4() || p.Overlaps(internet6))
}

// wide are the routes of a family that are networks on the Internet.
func wide(routes []Route, v4 bool) (out []int) {
	for i, r := range routes {
		if r.Prefix.Addr().Is4() == v4 && !r.Prefix.IsSingleIP() && onInternet(r.Prefix.Masked()) {
			out = append(out, i)
		}
	}
	return out
}

// most reports whether the routes at these places are more than a quarter of a family's Internet: more than any network that is one.
func most(routes []Route, places []int, v4 bool) bool {
	var all []netip.Prefix
	for _, i := range places {
		all = append(all, routes[i].Prefix.Masked())
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var last netip.Prefix
	sum, whole := new(big.Int), new(big.Int).Lsh(big.NewInt(1), 32)
	if !v4 {
		whole.Lsh(big.NewInt(1), 125)
	}
	for _, p := range all {
		if last.IsValid() && last.Overlaps(p) { // two prefixes are apart, or one is in the other
			continue
		}
		last = p
		sum.Add(sum, new(big.Int).Lsh(big.NewInt(1), uint(p.Addr().BitLen()-p.Bits())))
	}
	return sum.Lsh(sum, 2).Cmp(whole) > 0
}

func familyOf(v4 bool) string {
	if v4 {
		return "IPv4"
	}
	return "IPv6"
}
