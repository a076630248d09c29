package osnet

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// refusal is how the kernel answers for routes, and rules, that send nothing.
type refusal struct {
	errno error
	name  string
}

var refusals = []refusal{
	{unix.EINVAL, "blackhole"}, {unix.ENETUNREACH, "unreachable"}, {unix.EHOSTUNREACH, "unreachable"}, {unix.EACCES, "prohibit"},
}

func leavingFor(to netip.Addr) (out Leaving, err error) {
	rules, err := netlink.RuleList(map[bool]int{true: netlink.FAMILY_V4, false: netlink.FAMILY_V6}[to.Is4()])
	if err != nil {
		rules = nil // the route is worth more
	}
	slices.SortStableFunc(rules, func(a, b netlink.Rule) int { return cmp.Compare(a.Priority, b.Priority) })
	first := func(wanted func(netlink.Rule) bool) int {
		i := slices.IndexFunc(rules, func(r netlink.Rule) bool { return wanted(r) && mayApply(r, to) })
		if i < 0 {
			return 0
		}
		return rules[i].Priority
	}
	routes, err := netlink.RouteGetWithOptions(net.IP(to.AsSlice()), nil)
	if err != nil {
		i := slices.IndexFunc(refusals, func(r refusal) bool { return errors.Is(err, r.errno) })
		if i < 0 {
			return Leaving{}, fmt.Errorf("ask for the route to %s: %w", to, err)
		}
		out.Refusal = refusals[i].name
		out.refusedBy(rules, to)
		return out, nil
	}
	if len(routes) == 0 {
		return Leaving{}, fmt.Errorf("ask for the route to %s: no answer", to)
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return Leaving{}, fmt.Errorf("ask for the route to %s: %w", to, err)
	}
	out.Interface, out.Table = link.Attrs().Name, routes[0].Table
	out.Rule = first(func(r netlink.Rule) bool { return r.Table == out.Table })
	if routes[0].Type == unix.RTN_UNREACHABLE || routes[0].Type == unix.RTN_BLACKHOLE || routes[0].Type == unix.RTN_PROHIBIT {
		out = Leaving{Refusal: "unreachable"} // IPv6 names a loopback for them
		out.refusedBy(rules, to)
	}
	return out, nil
}

// refusedBy finds the rule or the route that refuses, as the kernel looks for it: rule by rule, and in each table the longest route. A route
// that throws has the next rule asked.
func (l *Leaving) refusedBy(rules []netlink.Rule, to netip.Addr) {
	for _, r := range rules {
		switch {
		case !mayApply(r, to) || r.Goto > 0:
			continue
		case r.Table <= 0: // it says no by itself; the library does not tell how
			l.Rule, l.Table = r.Priority, 0
			return
		}
		switch kind := typeIn(r.Table, to); kind {
		case "":
		case "unicast":
			return
		default:
			l.Refusal, l.Rule, l.Table = kind, r.Priority, r.Table
			if kind != "throw" {
				return
			}
		}
	}
}

// types are the names of the types of routes.
var types = map[int]string{
	unix.RTN_UNREACHABLE: "unreachable", unix.RTN_BLACKHOLE: "blackhole", unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw",
}

// lastResort is the metric of the route with which IPv6 of some kernels ends.
const lastResort = 1<<32 - 1

// typeIn returns the type of the longest route to an address in a table; "": there is none.
func typeIn(table int, to netip.Addr) (kind string) {
	family := netlink.FAMILY_V6
	if to.Is4() {
		family = netlink.FAMILY_V4
	}
	longest, metric := -1, 0
	_ = netlink.RouteListFilteredIter(family, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
		bits := 0
		if r.Dst != nil {
			if bits, _ = r.Dst.Mask.Size(); !r.Dst.Contains(net.IP(to.AsSlice())) {
				return true
			}
		}
		if bits < longest || bits == longest && r.Priority >= metric || r.Priority == lastResort {
			return true
		}
		longest, metric = bits, r.Priority
		if kind = types[r.Type]; kind == "" {
			kind = "unicast"
		}
		return true
	})
	return kind
}

// mayApply reports whether a rule is for packets of a plain program to an address, as far as can be told from the rule alone.
func mayApply(r netlink.Rule, to netip.Addr) bool {
	if r.Mark != 0 && !r.Invert || r.IifName != "" && r.IifName != "lo" || r.OifName != "" {
		return false
	}
	if r.Dst == nil {
		return true
	}
	return r.Dst.Contains(net.IP(to.AsSlice())) != r.Invert
}
