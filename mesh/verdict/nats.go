package verdict

import (
	"fmt"

	"warren/mesh/identity"
	"warren/nat/natkind"
)

// What stands in the way at NATs and firewalls, and what would help there.

// BothMap is why two nodes do not meet whose NATs both map by destination.
type BothMap struct{ Here, There Node }

// Words says of which kinds they are.
func (c BothMap) Words(names Names) string {
	kinds := c.Here.NAT.Mapping.String()
	if other := c.There.NAT.Mapping.String(); other != kinds {
		kinds += " here, " + other + " there"
	}
	return fmt.Sprintf("the routers of %s and %s both map ports by destination (%s), so neither can be told where to send", names(c.Here.ID), names(c.There.ID), kinds)
}

// OneMaps is why two nodes do not meet of which one has a NAT that maps by destination, and the other one that filters.
type OneMaps struct{ Hard, Guarded Node }

// Words says which, and how it chooses ports.
func (c OneMaps) Words(names Names) string {
	order := ""
	switch c.Hard.NAT.Ports {
	case natkind.PortsRandom:
		order = ", at random"
	case natkind.PortsSequential:
		order = ", one after the other, but the one for this peer was not found"
	}
	text := fmt.Sprintf("the router of %s maps ports by destination (%s%s), and the one of %s lets in only whom it wrote to",
		names(c.Hard.ID), c.Hard.NAT.Mapping, order, names(c.Guarded.ID))
	if c.Guarded.NAT.Filtering == natkind.FilteringUnknown {
		return text + ", as far as is known"
	}
	return text
}

// RouterParts is why two nodes do not meet that are seen under one address.
type RouterParts struct{ Self, Peer identity.NodeID }

// Words says so.
func (c RouterParts) Words(names Names) string {
	return fmt.Sprintf("%s and %s are seen under one address, so behind one router most likely, and it does not pass packets between them", names(c.Self), names(c.Peer))
}

// HoldsNot is a peer that has answered, and yet no pair was nominated.
type HoldsNot struct {
	Peer     identity.NodeID
	Answered int // checks
}

// Words says so.
func (c HoldsNot) Words(names Names) string {
	return fmt.Sprintf("%s answered %s, but no pair of addresses held", names(c.Peer), counted(c.Answered, "check"))
}

// LetsNothingIn is a peer whose checks come in, and that gets none.
type LetsNothingIn struct {
	Peer identity.NodeID
	Sent int // checks
}

// Words says so.
func (c LetsNothingIn) Words(names Names) string {
	peer := names(c.Peer)
	return fmt.Sprintf("checks of %s come in here, but none of the %d sent there is answered: what goes there is dropped on the way, most likely by a firewall before %s", peer, c.Sent, peer)
}

// NothingTried is an attempt that ended before its first check.
type NothingTried struct{ Peer identity.NodeID }

// Words says so.
func (c NothingTried) Words(names Names) string {
	return "the last try for a direct path ended before a check was sent to " + names(c.Peer)
}

// NATUnknown is why nothing can be concluded: what the router of Node does is not known.
type NATUnknown struct {
	Node identity.NodeID
	Sent int // checks
}

// Words says so.
func (c NATUnknown) Words(names Names) string {
	return fmt.Sprintf("none of %s was answered; what the router of %s does is not known", counted(c.Sent, "check"), names(c.Node))
}

// FirewallBetween is what is left when both NATs would let checks in.
type FirewallBetween struct {
	Self, Peer identity.NodeID
	Sent       int // checks
}

// Words says so.
func (c FirewallBetween) Words(names Names) string {
	return fmt.Sprintf("none of %s was answered and none came in, though both NATs would let them: a firewall between %s and %s drops UDP",
		counted(c.Sent, "check"), names(c.Self), names(c.Peer))
}

// dropped is why checks get lost that no NAT explains.
func (e *Evidence) dropped(sent, answered, heard int) Verdict {
	self, peer := e.Here.ID, e.There.ID
	blind := self
	if e.Here.NAT.Mapping != natkind.MappingUnknown {
		blind = peer
	}
	switch {
	case sent == 0:
		return Verdict{Kind: Unexplained, Cause: NothingTried{peer}, Fix: Repeated}
	case answered > 0:
		return Verdict{Kind: Unstable, Cause: HoldsNot{peer, answered}, Fix: Repeated}
	case heard > 0:
		return Verdict{Kind: FirewallThere, Cause: LetsNothingIn{peer, sent}, Fix: OpenAt{e.There}}
	case e.Here.NAT.Mapping == natkind.MappingUnknown || e.There.NAT.Mapping == natkind.MappingUnknown:
		return Verdict{Kind: Unexplained, Cause: NATUnknown{blind, sent}, Fix: NetcheckOn{blind}}
	}
	return Verdict{Kind: Firewall, Cause: FirewallBetween{self, peer, sent}, Fix: LetPass{e.Here}}
}

// openOne is how to let the other in at one end; that end first where it is the easiest.
func (e *Evidence) openOne() Sentence {
	here, there := e.Here.NAT.PortMapping, e.There.NAT.PortMapping
	plain := func(p natkind.PortMapping) bool {
		return p == natkind.PortMappingAbsent || p == natkind.PortMappingUnknown
	}
	hopeless := func(p natkind.PortMapping) bool { return p == natkind.PortMappedInside }
	switch {
	case plain(here) && plain(there) && e.Here.Port == e.There.Port:
		return OpenEither{e.Here.ID, e.There.ID, e.Here.Port}
	case hopeless(here) && !hopeless(there):
		return OpenAt{e.There}
	case hopeless(there) && !hopeless(here):
		return OpenAt{e.Here}
	}
	return OpenAny{e.Here, e.There}
}

// OpenEither is the remedy where the same has to be done at one of two routers.
type OpenEither struct {
	Self, Peer identity.NodeID
	Port       uint16
}

// Words says what.
func (f OpenEither) Words(names Names) string {
	return fmt.Sprintf("turn on UPnP or NAT-PMP on the router of %s or of %s, or forward UDP port %d there; one of them is enough", names(f.Self), names(f.Peer), f.Port)
}

// OpenAny is the remedy where different things can be done at two routers.
type OpenAny struct{ Here, There Node }

// Words says what, at each.
func (f OpenAny) Words(names Names) string {
	return OpenAt{f.Here}.Words(names) + "; or " + OpenAt{f.There}.Words(names)
}

// OpenAt is how to let strangers in to one node.
type OpenAt struct{ Node Node }

// Words goes by what its router said.
func (f OpenAt) Words(names Names) string {
	name := names(f.Node.ID)
	forward := fmt.Sprintf("forward UDP port %d to it", f.Node.Port)
	switch f.Node.NAT.PortMapping {
	case natkind.PortMapped:
		return fmt.Sprintf("the router of %s maps a port, but nobody gets through: see whether another firewall stands before it", name)
	case natkind.PortMappingRefused:
		return fmt.Sprintf("the router of %s refuses port mappings: allow them there, or %s", name, forward)
	case natkind.PortMappedInside:
		return fmt.Sprintf("another NAT stands behind the router of %s: ask its provider for a public address or IPv6", name)
	case natkind.PortMappingOff:
		return fmt.Sprintf("%s is set to anchor = \"never\", so it asks its router for no port: set it to \"auto\", or %s", name, forward)
	case natkind.PortMappingUnneeded:
		return fmt.Sprintf("let UDP port %d in at the firewall of %s", f.Node.Port, name)
	}
	return fmt.Sprintf("turn on UPnP or NAT-PMP on the router of %s, or %s", name, forward)
}

// LetPass is the remedy against a firewall of which it is not known where it stands.
type LetPass struct{ Here Node }

// Words says which port.
func (f LetPass) Words(names Names) string {
	return fmt.Sprintf("let UDP port %d pass at both ends, or at one: %s", f.Here.Port, OpenAt{f.Here}.Words(names))
}
