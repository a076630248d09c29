package beacon

import (
	"fmt"
	"net/netip"

	"warren/mesh/identity"
)

// Need says how much this node wants to hear of others.
type Need int

// The needs, each with what it costs on the wire (one beacon here is one for each link and address family).
const (
	// Quiet: an anchor answers. Three beacons at a change of the network, answers, and nothing else.
	Quiet Need = iota
	// Apart: sessions are up, but none with an anchor. A tell a minute at most, four a minute of forty members on the
	// link together and six of a hundred, so that groups that were formed apart find each other.
	Apart
	// Alone: no session is up. Asks, at first three in two seconds, in the end two a minute.
	Alone
)

// State is what a node is told to do. It replaces all that was said before.
type State struct {
	Links   []Link
	Members []Key // between members, the one to speak under first; none: no beacons between members
	Invites []Key // of open invites; of a joiner: the one of its token
	Need    Need
	Port    uint16 // of the agent's socket, 0 while it has none; a joiner names none
}

// Found is a member that was heard.
type Found struct {
	ID    identity.NodeID // zero when it answered a joiner
	Addrs []netip.AddrPort
}

// Packet is a beacon that came in.
type Packet struct {
	Link int            // index of the interface
	From netip.AddrPort // with a zone when it is an IPv6 link-local one
	Raw  []byte
}

// Send is a beacon that is to go out.
type Send struct {
	Link  int
	Group Family         // the group of this family; zero: to To
	To    netip.AddrPort // who asked
	Raw   []byte
}

// Family is an address family.
type Family int

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// String names a family in errors.
func (f Family) String() string { return fmt.Sprintf("IPv%d", int(f)) }

// ClocksDiffer is the reason for which a member's beacon is dropped whose time is not within Window of ours.
const ClocksDiffer = "clocks differ"

// Bounds of State: the keys of the members, the first of which is spoken under, and those of invites. Every one is tried on
// every beacon that comes in.
const (
	MaxSecrets = 4
	MaxInvites = 32
)
