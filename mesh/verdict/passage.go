package verdict

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"warren/mesh/identity"
)

// Passage is what came of asking a peer at one of its overlay addresses by the way that every program's packets take: through the kernels
// of both ends.
type Passage struct {
	To       netip.Addr
	Answered bool
	Fault    Fault
	// Of RouteStolen: by which interface packets leave, and the table and priority of the rule that says so; 0: not known. Of RouteRefuses: Detail
	// is the type of the route or rule, and both numbers are as before.
	Interface   string
	Table, Rule int
	Detail      string
}

// Fault is where packets are lost beside the tunnel.
type Fault uint8

// The faults.
const (
	NoFault      Fault = iota // or none that can be told
	RouteStolen               // they leave by another interface
	RouteRefuses              // the kernel here does not send them
	FilteredOut               // a filter here does not let them out
	FilteredIn                // the answers come out of the tunnel here, and not to the program
	LostBeyond                // nothing comes back
	NoListener                // the kernel there says that nobody listens
)

// certain reports whether a fault is known to be one of this machine, whatever else works.
func (f Fault) certain() bool {
	return f == RouteStolen || f == RouteRefuses || f == FilteredOut || f == FilteredIn
}

// Bars reports whether the i-th of the passages to one peer is barred at a kernel: surely by something on this machine, or while another
// one of them passes.
func Bars(list []Passage, i int) bool {
	p := list[i]
	passes := slices.ContainsFunc(list, func(other Passage) bool { return other.Answered })
	return !p.Answered && (p.Fault.certain() || passes && p.Fault != NoFault)
}

// barred returns the passage to blame, what is certain first.
func barred(list []Passage) (out Passage, found bool) {
	for i, p := range list {
		if Bars(list, i) && (!found || p.Fault.certain() && !out.Fault.certain()) {
			out, found = p, true
		}
	}
	return out, found
}

// Barred is why a peer that is reached by the tunnel is not reached by programs.
type Barred struct {
	Passage Passage
	Peer    identity.NodeID
}

// Words says where the packets go, or are lost.
func (c Barred) Words(names Names) string {
	p, peer := c.Passage, names(c.Peer)
	family := familyName(p.To.Is4())
	switch p.Fault {
	case RouteStolen:
		return fmt.Sprintf("this machine sends packets for %s out by %s%s, not into the mesh", p.To, p.Interface, p.by())
	case RouteRefuses:
		return fmt.Sprintf("this machine sends no packets to %s: its routes say %s%s", p.To, p.Detail, p.by())
	case FilteredOut:
		return fmt.Sprintf("a packet filter on this machine drops %s packets to %s on their way out", family, p.To)
	case FilteredIn:
		return fmt.Sprintf("answers of %s over %s come out of the tunnel, and a packet filter (or a reverse path check) on this machine drops them", peer, family)
	case NoListener:
		return fmt.Sprintf("%s says that nobody answers at %s: its kernel lets no packets through to the agent, or the agent has not that address", peer, p.To)
	}
	return fmt.Sprintf("nothing comes back from %s over %s, though the tunnel carries packets both ways: a packet filter or a route on %s drops or takes them", peer, family, peer)
}

// by names the rule.
func (p Passage) by() string {
	var parts []string
	if p.Rule != 0 {
		parts = append(parts, fmt.Sprintf("ip rule of priority %d", p.Rule))
	}
	if p.Table != 0 {
		parts = append(parts, fmt.Sprintf("routing table %d", p.Table))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// Unbar is the remedy.
type Unbar struct {
	Passage Passage
	Peer    identity.NodeID
}

// Words says what to look at, and how to live with it.
func (f Unbar) Words(names Names) string {
	text, flag := "", "-4"
	if !f.Passage.To.Is4() {
		flag = "-6"
	}
	switch f.Passage.Fault {
	case RouteStolen, RouteRefuses:
		text = fmt.Sprintf("see: ip %s rule; ip %s route get %s; another VPN may have set it", flag, flag, f.Passage.To)
	case FilteredOut, FilteredIn:
		text = "see: nft list ruleset; another VPN or a firewall may have set it"
	case NoListener, LostBeyond, NoFault:
		text = fmt.Sprintf("see on %s: nft list ruleset; ip %s rule", names(f.Peer), flag)
	}
	if f.Passage.To.Is4() {
		text += "; or do without: ipv4 = false in [mesh] of the configuration"
	}
	return text
}
