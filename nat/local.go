package nat

import (
	"maps"
	"net/netip"
	"slices"

	"warren/mesh/identity"
	"warren/nat/natkind"
)

// Local is what the node knows of itself, as far as it matters here.
type Local struct {
	// Network tells one network from another. Another value says that host addresses, routes or the port may be others now:
	// every path is checked, and unless the host addresses are the same as before, every peer is introduced anew.
	Network  uint64
	Port     uint16           // of the shared socket; 0: not open
	Hosts    []netip.Addr     // host addresses, best first
	External []netip.AddrPort // where routers map the shared port to
	NAT64    bool             // this host has no IPv4 of its own and reaches it by a NAT64
	Anchors  []Anchor
	Overlay  []netip.Prefix  // the mesh's own addresses: never candidates nor sources
	NoUDP    bool            // UDP from here to the Internet gets no answer
	Mapping  natkind.Mapping // of IPv4 as it was measured, for where STUN answers do not show it
	// Dialable holds the anchors with which a session could be had; nil: with all.
	Dialable map[identity.NodeID]bool
}

func (l *Local) equal(o *Local) bool {
	return l.Network == o.Network && l.Port == o.Port && l.NoUDP == o.NoUDP && l.NAT64 == o.NAT64 && l.Mapping == o.Mapping &&
		slices.Equal(l.Hosts, o.Hosts) && slices.Equal(l.External, o.External) && slices.Equal(l.Anchors, o.Anchors) &&
		slices.Equal(l.Overlay, o.Overlay) && sameDialable(l.Dialable, o.Dialable)
}

// sameDialable tells none from all.
func sameDialable(a, b map[identity.NodeID]bool) bool {
	return (a == nil) == (b == nil) && maps.Equal(a, b)
}

// Set says what the node knows of itself. Repeating it changes nothing. The NAT keeps l: what it refers to must not be
// written to any more.
func (n *NAT) Set(l Local) { n.requests.set(&l) }
