package osnet

import "net/netip"

// Leaving is where the system sends packets to an address, and by which of its rules.
type Leaving struct {
	Interface string // by which they leave; "": they do not
	// Refusal says what becomes of them where they do not leave: "unreachable", "blackhole", "prohibit", "throw". Table or Rule say whose word that
	// is; where neither is known there is just no route.
	Refusal string
	Table   int // of the route; 0: not known
	Rule    int // priority of the rule that chose the table; 0: not known
}

// LeavingFor asks the system where packets of a program go that are for an address, without sending any. The error says that it cannot
// be asked, or wraps errors.ErrUnsupported.
func LeavingFor(to netip.Addr) (Leaving, error) { return leavingFor(to) }
