package verdict

import (
	"fmt"
	"slices"

	"warren/nat/natkind"
)

// Family is what was found out about UDP over IPv4 or IPv6.
type Family struct {
	V4        bool
	Present   bool   // this host has an address of the family
	Trouble   string // why nobody could be asked; "" when some could
	Asked     int    // anchors
	Answered  int
	Mapping   natkind.Mapping // of no account unless somebody answered
	Filtering natkind.Filtering
}

// UDP says whether UDP gets answers.
type UDP uint8

// The states of UDP.
const (
	UDPUnsure UDP = iota // there is no anchor to ask
	UDPWorks
	UDPSilent // no anchor answers
	UDPUnused // this host has no address of the family
)

// String returns the word that stays the same.
func (u UDP) String() string {
	switch u {
	case UDPWorks:
		return "works"
	case UDPSilent:
		return "silent"
	case UDPUnused:
		return "unused"
	}
	return "unknown"
}

// UDP judges by who answered.
func (f Family) UDP() UDP {
	switch {
	case !f.Present:
		return UDPUnused
	case f.Trouble != "" || f.Asked == 0:
		return UDPUnsure
	case f.Answered == 0:
		return UDPSilent
	}
	return UDPWorks
}

// Lack is what is missing where something is not known; nil when nothing is.
func (f Family) Lack() Sentence {
	switch {
	case !f.Present:
		return NoFamily{f.V4}
	case f.Trouble != "":
		return Plain(f.Trouble)
	case f.Asked == 0:
		return NoPublicAnchor{f.V4}
	case f.Answered == 0:
		return NobodyAnswers
	case f.Mapping == natkind.MappingUnknown:
		return TooFewAnswers{f.Answered, f.Asked}
	case f.Filtering == natkind.FilteringUnknown:
		return NobodyHelped
	}
	return nil
}

// What is missing, where it is always the same.
const (
	NobodyAnswers Plain = "no anchor answers by UDP"
	NobodyHelped  Plain = "no anchor has helped to find out how packets are filtered"
)

// NoFamily is a host without an address of a family.
type NoFamily struct{ V4 bool }

// Words says which.
func (l NoFamily) Words(Names) string { return "this host has no " + familyName(l.V4) + " address" }

// NoPublicAnchor is a mesh without another anchor that can be asked over a family.
type NoPublicAnchor struct{ V4 bool }

// Words says which.
func (l NoPublicAnchor) Words(Names) string {
	return "no other anchor has a public " + familyName(l.V4) + " address"
}

// TooFewAnswers is why the mapping of a NAT is not known.
type TooFewAnswers struct{ Answered, Asked int }

// Words says how many there are.
func (l TooFewAnswers) Words(Names) string {
	return fmt.Sprintf("needs two anchors at different addresses, and %d of %d answers", l.Answered, l.Asked)
}

func familyName(v4 bool) string {
	if v4 {
		return "IPv4"
	}
	return "IPv6"
}

// Look is what a TCP connection to an anchor ended at.
type Look struct {
	TCP    TCP
	Detail string // of TCPForeign, in words
}

// TCP says who answers in an anchor's place.
type TCP uint8

// The answers, from the worst to the best.
const (
	TCPUntried TCP = iota
	TCPSilent      // none
	TCPClosed      // refused
	TCPForeign     // something else
	TCPOpen        // the mesh's certificate
)

// String returns the word that stays the same; "" for an anchor that was not tried.
func (t TCP) String() string {
	return [...]string{"", "silent", "closed", "foreign", "open"}[t]
}

func anyOpen(looks []Look) bool {
	return slices.ContainsFunc(looks, func(l Look) bool { return l.TCP == TCPOpen })
}

// Portal is whether a captive portal, or a proxy, seems to stand between this node and the anchors.
type Portal struct {
	Suspected bool
	Reason    string // in words, either way
}

// JudgePortal goes by what answered. Where it is not sure, a web page at an anchor's address is the last sign: see PageAt.
func JudgePortal(n Network) (p Portal, sure bool) {
	switch {
	case n.IPv4.UDP() == UDPWorks || n.IPv6.UDP() == UDPWorks:
		return Portal{Reason: "anchors answer by UDP"}, true
	case anyOpen(n.Looks):
		return Portal{Reason: "anchors answer by TCP with the mesh's certificates"}, true
	case n.IPv4.UDP() != UDPSilent && n.IPv6.UDP() != UDPSilent:
		return Portal{Reason: "there is no anchor to ask"}, true
	}
	for _, l := range n.Looks {
		if l.TCP == TCPForeign {
			return Portal{Suspected: true, Reason: l.Detail}, true
		}
	}
	return Portal{Reason: "nothing answers in the anchors' place"}, false
}

// PageAt adds what was found at the address of an anchor by who looked for a web page there; detail is "" for nothing that sends
// people elsewhere.
func (p Portal) PageAt(detail string) Portal {
	if detail == "" {
		return p
	}
	return Portal{Suspected: true, Reason: detail}
}
