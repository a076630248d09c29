//go:build linux

package natlab

import "fmt"

// Kind says how a router treats what passes it. The words are those of RFC
// 4787: endpoint-independent (EI), address-dependent (AD), address-and-port-
// dependent (APD) mapping (M) and filtering (F).
type Kind int

// The kinds of routers. The self-test of this package measures each of them
// by the method of RFC 5780.
const (
	// Public routes a public prefix, dual stack, without translation or filter.
	Public Kind = iota + 1
	// EIMEIF is a "full cone" NAT: one mapping per inside address and port,
	// open to every outside address. IPv4 only.
	EIMEIF
	// EIMAPDF is what a Linux home router does (plain masquerade): the inside
	// port is kept where it is free, and only those who were written to may
	// answer. IPv4 only.
	EIMAPDF
	// EIMADF is an "address-restricted cone" NAT: one mapping per inside address
	// and port, open to every port of the addresses that were written to. IPv4 only.
	EIMADF
	// Symmetric takes a fresh random port for each destination. IPv4 only.
	Symmetric
	// Sequential takes the next port for each destination. IPv4 only.
	Sequential
	// SequentialByTwo takes the next but one, as NATs do that keep the parity
	// of ports (RFC 4787, section 4.2.2). IPv4 only.
	SequentialByTwo
	// DoubleNAT is an EIMAPDF router at home behind an EIMAPDF router of the
	// carrier. IPv4 only.
	DoubleNAT
	// SymmetricCarrier is an EIMAPDF router at home behind a Symmetric router of
	// the carrier. IPv4 only.
	SymmetricCarrier
	// IPv6Only has no IPv4 at all; a stateful firewall guards its prefix.
	IPv6Only
	// DualStack masquerades IPv4 as EIMAPDF does and routes an IPv6 prefix
	// behind a stateful firewall.
	DualStack
	// UDPBlocked lets TCP out by masquerade and no UDP in either direction.
	UDPBlocked
)

// Kinds are all kinds, in the order in which they are declared.
func Kinds() []Kind {
	return []Kind{
		Public, EIMEIF, EIMAPDF, EIMADF, Symmetric, Sequential, SequentialByTwo, DoubleNAT,
		SymmetricCarrier, IPv6Only, DualStack, UDPBlocked,
	}
}

// String returns the kind as tables of results print it.
func (k Kind) String() string {
	switch k {
	case Public:
		return "public"
	case EIMEIF:
		return "EIM/EIF"
	case EIMAPDF:
		return "EIM/APDF"
	case EIMADF:
		return "EIM/ADF"
	case Symmetric:
		return "symmetric"
	case Sequential:
		return "sequential"
	case SequentialByTwo:
		return "sequential by 2"
	case DoubleNAT:
		return "double NAT"
	case SymmetricCarrier:
		return "symmetric carrier"
	case IPv6Only:
		return "IPv6 only"
	case DualStack:
		return "dual stack"
	case UDPBlocked:
		return "UDP blocked"
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// carrier is the kind of the carrier's router in front of a router of this
// kind; 0: there is none.
func (k Kind) carrier() Kind {
	switch k {
	case DoubleNAT:
		return EIMAPDF
	case SymmetricCarrier:
		return Symmetric
	}
	return 0
}

// has4 reports whether the sites of this kind have IPv4.
func (k Kind) has4() bool { return k != IPv6Only }

// has6 reports whether the sites of this kind have IPv6.
func (k Kind) has6() bool { return k == Public || k == IPv6Only || k == DualStack }
