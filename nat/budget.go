package nat

import (
	"net/netip"
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/nat/limit"
)

/* The budget of attempts
 *
 * Whoever introduces himself names addresses, and this node sends checks there. They may be those of somebody who has nothing to
 * do with it. What an address gets that has not answered is bounded four times; what was answered is given back:
 *
 *	a peer       one check each 50 ms in all (RFC 8445, section 14.2), after four at once, however many attempts, candidates
 *	             and ports there are; and 240, and one more each second
 *	a host       an IPv4 address or an IPv6 /64, whoever has named it: 32 checks, and one more each 5 s, until something
 *	             authentic came from there, or an answer did; then 256 and 20 a second for 10 minutes. Predicted ports: 256,
 *	             and one more each 5 s
 *	this node    1,000 checks, and 500 more each second; repetitions leave half of them to first checks
 *
 * Within an attempt the checks to an address that stays silent become rarer, see the pacer.
 */

// allowance is how many a second are allowed in the long run, and how many at once after a rest.
type allowance struct{ perSecond, burst float64 }

var (
	paceOfPeer    = allowance{float64(time.Second / checkInterval), 4}
	checksOfPeer  = allowance{1, 240}
	checksToHost  = allowance{0.2, 32}
	checksToShown = allowance{20, 256}
	portsAtHost   = allowance{0.2, 256}
	checksOfNode  = allowance{500, 1000}
)

const (
	// shownFor is how long an answer makes a host one that has to do with it.
	shownFor = 10 * time.Minute
	// sweepBudgets is how often what has rested is forgotten: some 6,000 hosts are kept at most, as many as get a check meanwhile.
	sweepBudgets = 5 * time.Second
)

// purse is what is left of an allowance. The zero purse is full.
type purse struct {
	spent float64 // at at
	at    time.Time
}

// left is what may be taken at now.
func (p *purse) left(now time.Time, a allowance) float64 {
	p.spent = max(0, p.spent-now.Sub(p.at).Seconds()*a.perSecond)
	p.at = now
	return a.burst - p.spent
}

func (p *purse) give(n float64) { p.spent = max(0, p.spent-n) }

// peerBudget is what a peer's introductions may spend.
type peerBudget struct{ pace, checks purse }

// hostBudget is what a host may be sent.
type hostBudget struct {
	checks, ports purse
	shown         time.Time // the last answer from there
}

// allowance is that of checks to the host.
func (h *hostBudget) allowance(now time.Time) allowance {
	if !h.shown.IsZero() && now.Sub(h.shown) < shownFor {
		return checksToShown
	}
	return checksToHost
}

// budget is all that this node may send to addresses which have not answered. Its methods may be called concurrently.
type budget struct {
	mu    sync.Mutex // guards the rest
	peers map[identity.NodeID]*peerBudget
	hosts map[netip.Prefix]*hostBudget
	node  purse
	swept time.Time
}

func newBudget() *budget {
	return &budget{peers: make(map[identity.NodeID]*peerBudget), hosts: make(map[netip.Prefix]*hostBudget)}
}

// leave is what a budget says of one check.
type leave int

const (
	granted leave = iota // and paid for
	waits                // nothing of this peer's may leave now
	refused              // not to this host, or no checks for this peer, for a while
)

// check asks for one check of a peer's attempt to an address. again says that it is a repetition, free that the peer's own check
// has just come from there: one that is sent back for one that came makes nothing worse.
func (b *budget) check(now time.Time, peer identity.NodeID, to netip.Addr, again, free bool) leave {
	prefix := limit.Host(to)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweep(now)
	p := b.peer(peer)
	if p.pace.left(now, paceOfPeer) < 1 {
		return waits
	}
	if free {
		p.pace.spent++
		return granted
	}
	h, reserve := b.host(prefix), 1.0
	if again {
		reserve = checksOfNode.burst / 2
	}
	if p.checks.left(now, checksOfPeer) < 1 || h.checks.left(now, h.allowance(now)) < 1 || b.node.left(now, checksOfNode) < reserve {
		return refused
	}
	p.pace.spent++
	p.checks.spent++
	h.checks.spent++
	b.node.spent++
	return granted
}

// ports asks for n predicted ports at an address to be punched, whoever has named it.
func (b *budget) ports(now time.Time, at netip.Addr, n int) bool {
	prefix := limit.Host(at)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweep(now)
	h := b.host(prefix)
	if h.ports.left(now, portsAtHost) < float64(n) {
		return false
	}
	h.ports.spent += float64(n)
	return true
}

// answered notes that an address has answered: the n checks that went there unanswered since the last time were well spent.
func (b *budget) answered(now time.Time, peer identity.NodeID, from netip.Addr, n int) {
	prefix := limit.Host(from)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.peer(peer).checks.give(float64(n))
	b.node.give(float64(n))
	h := b.host(prefix)
	h.shown = now
	h.checks.give(float64(n))
}

// won notes a direct path to an address: what was predicted there was worth it.
func (b *budget) won(at netip.Addr) {
	prefix := limit.Host(at)
	b.mu.Lock()
	defer b.mu.Unlock()
	if h := b.hosts[prefix]; h != nil {
		h.ports = purse{}
	}
}

// peer and host return what is kept of one. The caller holds mu.
func (b *budget) peer(id identity.NodeID) *peerBudget {
	p := b.peers[id]
	if p == nil {
		p = new(peerBudget)
		b.peers[id] = p
	}
	return p
}

func (b *budget) host(prefix netip.Prefix) *hostBudget {
	h := b.hosts[prefix]
	if h == nil {
		h = new(hostBudget)
		b.hosts[prefix] = h
	}
	return h
}

// sweep forgets what is as good as new, so that what is kept is bounded by what this node sends. The caller holds mu.
func (b *budget) sweep(now time.Time) {
	if now.Sub(b.swept) < sweepBudgets {
		return
	}
	b.swept = now
	for id, p := range b.peers {
		if p.checks.left(now, checksOfPeer) == checksOfPeer.burst {
			delete(b.peers, id)
		}
	}
	for prefix, h := range b.hosts {
		shown := !h.shown.IsZero() && now.Sub(h.shown) < shownFor
		if !shown && h.checks.left(now, checksToHost) == checksToHost.burst && h.ports.left(now, portsAtHost) == portsAtHost.burst {
			delete(b.hosts, prefix)
		}
	}
}
