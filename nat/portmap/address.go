package portmap

import "net/netip"

// addrKind says who can send to an address.
type addrKind int

const (
	publicAddr  addrKind = iota // everyone
	privateAddr                 // those on the same site
	sharedAddr                  // those behind the same carrier's NAT
	uselessAddr                 // nobody
)

// sharedPrefixes are carriers': RFC 6598, and the inside of DS-Lite (RFC 6333).
var sharedPrefixes = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24")}

// benchmark is RFC 2544's range, which carriers have been seen to use inside.
var benchmark = netip.MustParsePrefix("198.18.0.0/15")

func kindOf(a netip.Addr) addrKind {
	a = a.Unmap()
	switch {
	case !a.IsValid() || !a.IsGlobalUnicast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return uselessAddr
	case a.IsPrivate():
		return privateAddr
	case sharedPrefixes[0].Contains(a) || sharedPrefixes[1].Contains(a) || benchmark.Contains(a):
		return sharedAddr
	case a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 240):
		return uselessAddr
	}
	return publicAddr
}

// remark says in words what an external address means that is not public.
func remark(a netip.Addr) string {
	switch kindOf(a) {
	case privateAddr:
		return "the router's own address, " + a.String() + ", is private: it is behind another NAT (double NAT), whose port would have to be forwarded too"
	case sharedAddr:
		return "the router's own address, " + a.String() + ", is shared: the provider translates addresses itself (carrier-grade NAT), and nobody outside can reach a port of it"
	case uselessAddr:
		return "the router names " + a.String() + " as its own address, which nobody can send to"
	}
	return ""
}
