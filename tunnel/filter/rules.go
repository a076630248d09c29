package filter

import (
	"math/bits"
	"net/netip"
	"slices"
)

// Rules are who may begin flows with whom. The zero value lets nobody.
type Rules struct {
	Open     bool // there is no policy: all may
	Incoming bool // new flows that come in are taken
	Rules    []Rule
	// Own are this node's addresses: pings to them pass (see tunnel/echo), whatever the rules say.
	Own []netip.Addr
	// Through are the prefixes of peers that are reached through this machine: what goes on to them is not for it, and Incoming says
	// nothing of it.
	Through []netip.Prefix
}

// Rule lets flows begin from some prefixes to others.
type Rule struct {
	From, To []netip.Prefix
	Ports    []Ports // none: nothing
	Line     int     // in the file of the policy
	Text     string
}

// Ports are those of one protocol, or all of it.
type Ports struct {
	Protocol    uint8  // IANA's number; 0: any. 1 and 58 are the same: ICMP of either family
	First, Last uint16 // of the destination; a protocol without ports has port 0
}

// pingPort is where nodes answer pings on their own addresses, and nothing else: tunnel/echo's Port.
const pingPort = 9278

// compiled are rules as they are asked. It is immutable.
type compiled struct {
	Rules
	generation uint64
	from, to   prefixes[set]
	own        map[[16]byte]bool
	through    prefixes[bool]
}

// set is a set of rules, one bit each.
type set []uint64

// compile makes the tables: one for the sources and one for the destinations, whose sets of rules have in common those for a pair. So the
// number of rules hardly matters.
func compile(r Rules, generation uint64) *compiled {
	c := &compiled{Rules: r, generation: generation, own: make(map[[16]byte]bool, len(r.Own))}
	for _, a := range r.Own {
		c.own[a.As16()] = true
	}
	for _, p := range r.Through {
		c.through.set(p, true)
	}
	c.through.order()
	for i, rule := range r.Rules {
		c.from.mark(rule.From, i, len(r.Rules))
		c.to.mark(rule.To, i, len(r.Rules))
	}
	c.from.order()
	c.to.order()
	inherit(&c.from)
	inherit(&c.to)
	return c
}

// mark adds a rule to the sets of prefixes.
func (t *prefixes[T]) mark(list []netip.Prefix, rule, all int) {
	for _, p := range list {
		s, _ := any(t.get(p)).(set)
		if s == nil {
			s = make(set, (all+63)/64)
			t.set(p, any(s).(T))
		}
		s[rule/64] |= 1 << (rule % 64)
	}
}

// inherit gives each prefix the rules of those that hold it, so that the longest match is all that has to be looked for.
func inherit(t *prefixes[set]) {
	shorter := prefixes[set]{of: t.of}
	for _, bits := range slices.Backward(t.lengths) {
		for k, s := range t.of {
			if k.bits != bits {
				continue
			}
			for i, word := range shorter.longest(k.addr) {
				s[i] |= word
			}
		}
		shorter.lengths = slices.Insert(shorter.lengths, 0, bits)
	}
}

// mayBegin says why a flow may not begin from the side that dir tells: In, the far one.
func (c *compiled) mayBegin(k key, dir Direction) Reason {
	src, dst, port := k.near, k.far, k.farPort
	if dir == In {
		src, dst, port = k.far, k.near, k.nearPort
	}
	if k.protocol == protoUDP && port == pingPort && (dir == Out || c.own[dst]) {
		return None
	}
	if dir == In && c.own[src] {
		return NotAllowed // WireGuard has stopped it before: it is no peer's
	}
	if dir == In && !c.Incoming && !c.through.longest(dst) {
		return IncomingOff
	}
	if !c.allows(src, dst, k.protocol, port) {
		return NotAllowed
	}
	return None
}

// allows reports whether a rule lets a flow begin.
func (c *compiled) allows(src, dst [16]byte, protocol, port uint16) bool {
	if c.Open {
		return true
	}
	if protocol == protoICMP || protocol == protoICMPv6 {
		port = 0 // it is the identifier of an echo
	}
	from, to := c.from.longest(src), c.to.longest(dst)
	for i := range min(len(from), len(to)) {
		for both := from[i] & to[i]; both != 0; both &= both - 1 {
			for _, p := range c.Rules.Rules[i*64+bits.TrailingZeros64(both)].Ports {
				if p.hold(protocol, port) {
					return true
				}
			}
		}
	}
	return false
}

// any reports whether a rule names a pair.
func (c *compiled) any(src, dst [16]byte) bool {
	from, to := c.from.longest(src), c.to.longest(dst)
	for i := range min(len(from), len(to)) {
		for both := from[i] & to[i]; both != 0; both &= both - 1 {
			if len(c.Rules.Rules[i*64+bits.TrailingZeros64(both)].Ports) > 0 {
				return true
			}
		}
	}
	return false
}

func (p Ports) hold(protocol, port uint16) bool {
	mine := uint16(p.Protocol)
	if mine == protoICMPv6 {
		mine = protoICMP
	}
	if protocol == protoICMPv6 {
		protocol = protoICMP
	}
	return (mine == 0 || mine == protocol) && p.First <= port && port <= p.Last
}
