// Package natkind names what the NATs and firewalls before a node do with UDP, in the terms of RFC 4787, and judges it from what
// was seen, after RFC 5780.
//
// It only judges: asking STUN servers, and having others send, is the business of nat and nat/standing.
//
// It has values and pure functions, safe for concurrent use.
package natkind

import (
	"net/netip"
	"time"
)

// Mapping says how a NAT chooses the outside address and port of a socket (RFC 4787, section 4.1). The numbers go over the
// wire.
type Mapping uint8

// The kinds of mapping.
const (
	MappingUnknown         Mapping = 0
	Unmapped               Mapping = 1 // no NAT: others see an address of this host
	MappedIndependent      Mapping = 2 // one outside address for all destinations
	MappedByAddress        Mapping = 3 // another one for each destination address
	MappedByAddressAndPort Mapping = 4 // another one for each destination address and port
	MappedDependent        Mapping = 5 // by destination; whether the port matters too is not known
	mappings                       = 6 // how many there are
)

// String returns the term of RFC 4787.
func (m Mapping) String() string {
	switch m {
	case Unmapped:
		return "none"
	case MappedIndependent:
		return "endpoint-independent"
	case MappedByAddress:
		return "address-dependent"
	case MappedByAddressAndPort:
		return "address-and-port-dependent"
	case MappedDependent:
		return "destination-dependent"
	}
	return "unknown"
}

// Dependent reports whether the outside address differs by destination, so that a peer cannot be told where to send.
func (m Mapping) Dependent() bool {
	return m == MappedByAddress || m == MappedByAddressAndPort || m == MappedDependent
}

// Filtering says whose packets come in to a socket that has sent some (RFC 4787, section 5). The numbers go over the wire.
type Filtering uint8

// The kinds of filtering.
const (
	FilteringUnknown         Filtering = 0
	FilteredNot              Filtering = 1 // endpoint-independent: anybody's
	FilteredByAddress        Filtering = 2 // those from addresses written to
	FilteredByAddressAndPort Filtering = 3 // those from addresses and ports written to
	FilteredLoosely          Filtering = 4 // from other ports too; whether from other addresses is not known
	filterings                         = 5 // how many there are
)

// String returns the term of RFC 4787.
func (f Filtering) String() string {
	switch f {
	case FilteredNot:
		return "endpoint-independent"
	case FilteredByAddress:
		return "address-dependent"
	case FilteredByAddressAndPort:
		return "address-and-port-dependent"
	case FilteredLoosely:
		return "not port-dependent"
	}
	return "unknown"
}

// PortMapping says whether a router was asked to keep the port open, and what it said. The numbers go over the wire.
type PortMapping uint8

// The answers of routers.
const (
	PortMappingUnknown  PortMapping = 0
	PortMapped          PortMapping = 1 // to an address of the Internet
	PortMappingAbsent   PortMapping = 2 // the router speaks none of the protocols
	PortMappingRefused  PortMapping = 3 // it speaks one and maps nothing
	PortMappedInside    PortMapping = 4 // mapped, but another NAT stands behind that router
	PortMappingUnneeded PortMapping = 5 // this host has a public address itself
	PortMappingOff      PortMapping = 6 // not asked: this node is configured never to be an anchor
	portMappings                    = 7 // how many there are
)

// String returns a word for the API.
func (p PortMapping) String() string {
	switch p {
	case PortMapped:
		return "mapped"
	case PortMappingAbsent:
		return "absent"
	case PortMappingRefused:
		return "refused"
	case PortMappedInside:
		return "inside"
	case PortMappingUnneeded:
		return "unneeded"
	case PortMappingOff:
		return "off"
	}
	return "unknown"
}

// Self is what a node tells its peers of where it stands.
type Self struct {
	Mapping     Mapping
	Filtering   Filtering
	PortMapping PortMapping
	UDPBlocked  bool // it sends by streams, because UDP gets no answer
	Ports       Ports
	PortTaken   bool // this host is a router, and a machine behind it has its port
}

// LetsIn reports whether packets come in from a peer of which only the address is known beforehand, not the port.
func (s Self) LetsIn() bool {
	return s.PortMapping == PortMapped || s.Filtering == FilteredNot || s.Filtering == FilteredByAddress || s.Filtering == FilteredLoosely
}

// Pack returns s as a number: three bits each for Mapping, Filtering and PortMapping, the lowest first, one for
// UDPBlocked, two for Ports, and one for PortTaken. Nothing known is 0.
func (s Self) Pack() uint32 {
	n := uint32(s.Mapping) | uint32(s.Filtering)<<3 | uint32(s.PortMapping)<<6 | uint32(s.Ports)<<10
	if s.UDPBlocked {
		n |= 1 << 9
	}
	if s.PortTaken {
		n |= 1 << 12
	}
	return n
}

// Unpack is the reverse of Pack. What it does not know it takes for unknown.
func Unpack(n uint32) Self {
	s := Self{
		Mapping: Mapping(n & 7), Filtering: Filtering(n >> 3 & 7), PortMapping: PortMapping(n >> 6 & 7), UDPBlocked: n>>9&1 == 1, Ports: Ports(n >> 10 & 3),
		PortTaken: n>>12&1 == 1,
	}
	if s.Mapping >= mappings {
		s.Mapping = MappingUnknown
	}
	if s.Filtering >= filterings {
		s.Filtering = FilteringUnknown
	}
	if s.PortMapping >= portMappings {
		s.PortMapping = PortMappingUnknown
	}
	return s
}

// Seen is one answer of a STUN server: the address under which it saw a socket.
type Seen struct {
	Server netip.AddrPort
	Mapped netip.AddrPort
}

// Sighting is the latest answer of one STUN server about one socket.
type Sighting struct {
	Server, Mapped netip.AddrPort
	At             time.Time
}

// MappingOf judges by what STUN servers saw of one socket, all over the same address family and at about the same time. local
// reports whether an address is one of this host.
//
// With one server address nothing can be said of a NAT, but that it minds the port: RFC 5780, section 4.3, asks a second one.
func MappingOf(seen []Seen, local func(netip.Addr) bool) Mapping {
	seen = agreed(seen)
	if len(seen) == 0 {
		return MappingUnknown
	}
	first := seen[0]
	unmapped, addresses, differs := true, false, false
	ports, byPort := false, false // one server address was asked at two ports; and saw two addresses there
	for i, s := range seen {
		unmapped = unmapped && local(s.Mapped.Addr())
		addresses = addresses || s.Server.Addr() != first.Server.Addr()
		differs = differs || s.Mapped != first.Mapped
		for _, other := range seen[:i] {
			if other.Server.Addr() == s.Server.Addr() && other.Server.Port() != s.Server.Port() {
				ports = true
				byPort = byPort || other.Mapped != s.Mapped
			}
		}
	}
	switch {
	case unmapped:
		return Unmapped
	case byPort:
		return MappedByAddressAndPort
	case !addresses:
		return MappingUnknown
	case !differs:
		return MappedIndependent
	case ports:
		return MappedByAddress
	}
	return MappedDependent
}

// agreed leaves out what one server says against all others, two of them at least, that say the same: a NAT that gives these one
// address has no other one for that server, but a server may say what it likes.
func agreed(seen []Seen) []Seen {
	for _, alone := range seen {
		var others []Seen
		servers := make(map[netip.Addr]bool)
		same, differs := true, false
		for _, s := range seen {
			if s.Server.Addr() != alone.Server.Addr() {
				others = append(others, s)
				servers[s.Server.Addr()] = true
				same = same && s.Mapped == others[0].Mapped
			}
		}
		for _, s := range seen {
			differs = differs || len(others) > 0 && s.Server.Addr() == alone.Server.Addr() && s.Mapped != others[0].Mapped
		}
		if len(servers) >= 2 && same && differs {
			return others
		}
	}
	return seen
}

// Arrivals is what came in to a socket that had written to one address and port only (RFC 5780, section 4.4).
type Arrivals struct {
	OtherPort    Outcome // from another port of that address
	OtherAddress Outcome // from an address never written to
}

// Outcome is what came of one test.
type Outcome uint8

// The outcomes.
const (
	Untested Outcome = iota
	Arrived
	Missing
)

// FilteringOf judges by what arrived.
func FilteringOf(a Arrivals) Filtering {
	switch {
	case a.OtherAddress == Arrived:
		return FilteredNot
	case a.OtherPort == Arrived && a.OtherAddress == Missing:
		return FilteredByAddress
	case a.OtherPort == Arrived:
		return FilteredLoosely
	case a.OtherPort == Missing:
		return FilteredByAddressAndPort
	}
	return FilteringUnknown
}
