package nat

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"warren/nat/limit"
	"warren/nat/path"
	"warren/nat/ranges"
)

/* The pace of one attempt
 *
 * The agent has a check for each pair every 50 ms, and knows no more of pacing. Here the newest one to each address is held until
 * it is its turn, and is dropped if the agent does not renew it:
 *
 *	1. what the peer's own checks have just come from (RFC 8445, section 7.3.1.4: triggered checks go first), and have come from
 *	   before: these every 50 ms
 *	2. what is likely to work, first checks and repetitions, which become rarer: see repeats
 *	3. what is less likely
 *
 * Whichever side begins later has its first check let in by the one that the other has sent before, and that goes straight to 1.
 * To an address that has answered in this attempt all goes at once, for it is the peer's; but no oftener than of use.
 */

// repeats are the times between checks to an address that stays silent, the last one from there on. Where answers to introductions take long, a check
// is not repeated sooner than an answer to it may be here: see path.StartICE.
var repeats = [...]time.Duration{
	50 * time.Millisecond, 50 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond,
	200 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, time.Second,
}

const (
	// echoes is the time between two checks of what has answered: the agent has one for each that comes from the peer, for as long as that nominates.
	echoes = 4 * checkInterval
	// heldFor is how long a check is held that the agent does not renew, which it does at each tick.
	heldFor = 2*checkInterval + checkInterval/2
	// gatherTime lets the checks that the agent makes in one go be there when the first is chosen.
	gatherTime = 200 * time.Microsecond
)

// pacer holds the checks of one attempt. It is pure, and not safe for concurrent use: its owner sends for it.
type pacer struct {
	near    neighbourhood
	spacing time.Duration // between two checks of one address, at least
	pairs   map[netip.AddrPort]*paced
}

// paced is one address of a peer, in one attempt.
type paced struct {
	to       netip.AddrPort
	raw      []byte // the newest check; nil: none waits
	made     time.Time
	priority uint32 // that the peer gave it, 0 for none

	sent     int
	spent    int // of the budget, since the last answer
	next     time.Time
	checked  bool // the peer's check has come from there since the last one went there
	heard    bool // ever
	answered bool

	// Of what leaves at once, because it has answered, the last that nominates it and the last other one.
	nominated, echoed time.Time
}

func newPacer(near neighbourhood, spacing time.Duration) *pacer {
	return &pacer{near: near, spacing: spacing, pairs: make(map[netip.AddrPort]*paced)}
}

func (q *pacer) pair(addr netip.AddrPort) *paced {
	p := q.pairs[addr]
	if p == nil {
		p = &paced{to: addr}
		q.pairs[addr] = p
	}
	return p
}

// named notes candidates of the peer.
func (q *pacer) named(candidates []path.Candidate) {
	for _, c := range candidates {
		q.pair(c.Addr).priority = c.Priority
		q.near.peer(c.Addr.Addr())
	}
}

// hold takes a check of the agent, which keeps raw. It reports whether that is to leave at once. To what has answered nothing waits; what the agent
// repeats sooner than an answer can be here is dropped.
func (q *pacer) hold(now time.Time, raw []byte, to netip.AddrPort, nominates bool) (atOnce bool) {
	p := q.pair(to)
	if p.answered {
		last, spacing := &p.echoed, max(q.spacing, echoes)
		if nominates {
			last, spacing = &p.nominated, q.spacing
		}
		if now.Sub(*last) < spacing {
			return false
		}
		*last = now
		return true
	}
	p.raw, p.made = slices.Clone(raw), now
	return false
}

// heard notes an authentic check of the peer.
func (q *pacer) heard(from netip.AddrPort) {
	p := q.pair(from)
	p.checked, p.heard = true, true
}

// answered notes an authentic answer of the peer, and returns how many checks were spent on it.
func (q *pacer) answered(from netip.AddrPort) (spent int) {
	p := q.pair(from)
	spent, p.spent, p.answered = p.spent, 0, true
	return spent
}

// due lists what may leave at now, in its order.
func (q *pacer) due(now time.Time) (list []*paced) {
	for _, p := range q.pairs {
		if p.raw == nil {
			continue
		}
		if now.Sub(p.made) > heldFor {
			p.raw = nil
			continue
		}
		if p.checked || p.sent == 0 || !now.Before(p.next) {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *paced) int {
		return cmp.Or(
			cmp.Compare(q.turn(a), q.turn(b)),
			a.next.Compare(b.next),
			cmp.Compare(q.near.rank(a.to.Addr()), q.near.rank(b.to.Addr())),
			cmp.Compare(b.priority, a.priority),
			a.to.Compare(b.to),
		)
	})
	return list
}

// turn is the class of a check, the smallest first.
func (q *pacer) turn(p *paced) int {
	switch {
	case p.checked:
		return 0
	case p.heard:
		return 1
	case q.near.rank(p.to.Addr()) <= likely:
		return 2
	}
	return 3
}

// leave takes the check that leaves now. paid says that it was taken from the budget.
func (q *pacer) leave(p *paced, now time.Time, paid bool) (raw []byte) {
	raw, p.raw = p.raw, nil
	wait := repeats[min(p.sent, len(repeats)-1)]
	if p.heard {
		wait = repeats[0]
	}
	p.next = now.Add(max(wait, q.spacing))
	p.sent++
	p.checked = false
	if paid {
		p.spent++
	}
	return raw
}

// neighbourhood is what this node knows of where it is, and by that how likely an address of the peer is to work.
type neighbourhood struct {
	hosts  []netip.Addr // this host's
	mapped []netip.Addr // as the Internet sees it
	site   bool         // the peer is seen at one of these too: it is behind the same router
}

// peer notes an address of the peer.
func (n *neighbourhood) peer(a netip.Addr) { n.site = n.site || slices.Contains(n.mapped, a) }

// likely is the last of the ranks at which a path is likely.
const likely = 1

// rank orders the peer's addresses, the most likely to work first: those in a network of this host's own, those on the Internet,
// those of a router that stands before both, and private ones elsewhere.
func (n *neighbourhood) rank(a netip.Addr) int {
	public := ranges.IsPublic(a)
	switch {
	case n.site && !public, slices.ContainsFunc(n.hosts, func(own netip.Addr) bool { return sameNetwork(own, a) }):
		return 0
	case public && !slices.Contains(n.mapped, a):
		return 1
	case public:
		return 2
	}
	return 3
}

// sameNetwork guesses whether two addresses are in one network: a /24, as most are, or an IPv6 /64.
func sameNetwork(a, b netip.Addr) bool {
	if a.Is4() != b.Is4() {
		return false
	}
	if !a.Is4() {
		return limit.Host(a) == limit.Host(b)
	}
	prefix, _ := a.Prefix(24)
	return prefix.Contains(b)
}
