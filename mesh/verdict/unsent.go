package verdict

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// What this machine itself refuses to send is certain, so it goes before what seems to be so of the network.

// Unsent is one address to which this machine's own system refuses to send.
type Unsent struct {
	To    netip.AddrPort
	By    Refuser
	Why   string    // of ByRouting: the route or the rule; "": not known
	Count uint64    // of sends that were refused
	First time.Time // of them
	Last  time.Time
	Sent  time.Time // when something was sent there last; zero: never
}

// Refuser is what of this machine refuses.
type Refuser uint8

// The refusers.
const (
	ByFirewall Refuser = iota // a rule, or a full table of connections (EPERM)
	ByRouting                 // a rule or a route that prohibits or discards
)

const (
	// unsentFor is how long a refusal holds when nothing is sent there meanwhile: while UDP is taken to be blocked it is asked once a minute.
	unsentFor = 75 * time.Second
	// unsentBeside is how long it holds when what was refused elsewhere passes again: dialling is tried every half minute.
	unsentBeside = 40 * time.Second
	// unsentAmid is how long it holds while packets pass to the same host.
	unsentAmid = 10 * time.Second
)

// UnsentNow returns those of the refusals that still hold.
func UnsentNow(now time.Time, all []Unsent) (out []Unsent) {
	for _, u := range all {
		holds := unsentFor
		for _, other := range all {
			switch {
			case !other.Sent.After(u.Last):
			case other.To.Addr() == u.To.Addr():
				holds = unsentAmid
			default:
				holds = min(holds, unsentBeside)
			}
		}
		// One that was once refused while ten pass is no rule.
		if passes := u.Sent.After(u.First); now.Sub(u.Last) < holds && (!passes || u.Count > 2) {
			out = append(out, u)
		}
	}
	return out
}

// RoutedAway names what of this machine's routing refuses packets: a route of a type in a table, which a rule chose, or a rule by itself. It is
// empty where neither is known: then there is just no way.
func RoutedAway(kind string, table, rule int) string {
	switch {
	case table != 0:
		return fmt.Sprintf("a route of type %s%s", kind, Passage{Table: table, Rule: rule}.by())
	case rule != 0:
		return fmt.Sprintf("a rule of type %s%s", kind, Passage{Rule: rule}.by())
	}
	return ""
}

// RefusedTo returns those that concern one of the addresses.
func RefusedTo(all []Unsent, addrs ...netip.AddrPort) (out []Unsent) {
	for _, u := range all {
		if slices.ContainsFunc(addrs, func(a netip.AddrPort) bool { return a.Addr().Unmap() == u.To.Addr() }) {
			out = append(out, u)
		}
	}
	return out
}

// Filtered returns those by the firewall: what a person is warned of unasked. Where routing refuses, a member may have named an address
// that nobody has.
func Filtered(all []Unsent) (out []Unsent) {
	for _, u := range all {
		if u.By == ByFirewall {
			out = append(out, u)
		}
	}
	return out
}

// refusedHere has a verdict about a member say what this machine refuses, where that is the reason.
func (e *Evidence) refusedHere(v Verdict) Verdict {
	var list []Unsent
	switch v.Kind {
	case UDPBlockedHere, Isolated:
		list = e.Here.Unsent
	case UDPBlockedThere, Unstable, FirewallThere, Unexplained, Firewall, Off, Silent, Trying, MapsByDestination, BothMapByDestination:
		trial, _ := e.lastTrial()
		var at []netip.AddrPort
		for _, p := range trial.Pairs {
			at = append(at, p.Remote)
		}
		list = RefusedTo(e.Here.Unsent, append(at, e.There.At...)...)
	}
	if len(list) == 0 {
		return v
	}
	v.Kind, v.Cause, v.Fix = FirewallHere, Refuses{list}, AllowOut{list[0]}
	return v
}

// refusedHere has a verdict about this network say what this machine refuses.
func (n *Network) refusedHere(v NetVerdict) NetVerdict {
	switch {
	case len(n.Unsent) == 0:
	case v.Kind == NetBlocked || v.Kind == NetOffline || v.Kind == NetUnknown:
		v = NetVerdict{NetBlocked, NoneByRefusal{n.Unsent}, AllowOut{n.Unsent[0]}}
	case v.Advice == nil:
		v.Advice = Both{Refuses{n.Unsent}, AllowOut{n.Unsent[0]}}
	}
	return v
}

// Refuses is what this machine refuses to send.
type Refuses struct{ Unsent []Unsent }

// Words names the refuser, the address that was refused last, and how many there are.
func (c Refuses) Words(Names) string {
	u := c.Unsent[0]
	who, why := "this machine's firewall", "operation not permitted"
	if u.By == ByRouting {
		who, why = "this machine's routing", cmp.Or(u.Why, "a rule or a route prohibits it")
	}
	what := "UDP to "
	if u.Sent.After(u.First) {
		what = "some packets, perhaps large ones, to "
	}
	text := fmt.Sprintf("%s refuses %s%s", who, what, u.To)
	if others := otherAddresses(c.Unsent); others == 1 {
		text += " and one more address"
	} else if others > 1 {
		text += fmt.Sprintf(" and %d more addresses", others)
	}
	return fmt.Sprintf("%s (%s, %d times since %s)", text, why, u.Count, u.First.UTC().Format("15:04:05 UTC"))
}

// otherAddresses is how many there are beside the first.
func otherAddresses(all []Unsent) int {
	seen := make(map[netip.AddrPort]bool)
	for _, u := range all {
		seen[u.To] = true
	}
	return len(seen) - 1
}

// NoneByRefusal is a machine that lets no UDP out by itself.
type NoneByRefusal struct{ Unsent []Unsent }

// Words says what it refuses.
func (c NoneByRefusal) Words(names Names) string {
	return "direct connections: none over the Internet; " + Refuses(c).Words(names)
}

// AllowOut is the remedy for it.
type AllowOut struct{ Unsent Unsent }

// Words says where to look.
func (f AllowOut) Words(Names) string {
	if f.Unsent.By == ByRouting {
		return fmt.Sprintf("see: ip rule; ip route get %s", f.Unsent.To.Addr())
	}
	return fmt.Sprintf("let UDP out to port %d in this machine's own firewall; its rules: nft list ruleset", f.Unsent.To.Port())
}

// Both is two sentences.
type Both struct{ First, Then Sentence }

// Words says one after the other.
func (b Both) Words(names Names) string { return b.First.Words(names) + "; " + b.Then.Words(names) }
