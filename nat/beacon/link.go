package beacon

import (
	"net/netip"
	"slices"
)

// Link is a network interface on which to speak, with this machine's addresses on it.
type Link struct {
	Index int
	Name  string
	// Prefixes are the addresses with the lengths of their subnets. IPv6 link-local ones only say that there is IPv6.
	Prefixes []netip.Prefix
}

func (l Link) equal(o Link) bool {
	return l.Index == o.Index && l.Name == o.Name && slices.Equal(l.Prefixes, o.Prefixes)
}

// speakable returns the addresses to tell others.
func (l Link) speakable() (out []netip.Addr) {
	for _, p := range l.Prefixes {
		if addr := p.Addr(); speakable(addr) && len(out) < maxAddrs {
			out = append(out, addr)
		}
	}
	return out
}

// families returns the families that the link has an address of.
func (l Link) families() (out []Family) {
	for _, p := range l.Prefixes {
		family := IPv6
		if p.Addr().Is4() {
			family = IPv4
		}
		if !slices.Contains(out, family) {
			out = append(out, family)
		}
	}
	return out
}

// has reports whether the link has an address of the family.
func (l Link) has(f Family) bool { return slices.Contains(l.families(), f) }

// contains reports whether an address is on this link, by the subnets of our own.
func (l Link) contains(addr netip.Addr) bool {
	return slices.ContainsFunc(l.Prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}
