package nat

import (
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/nat/nat64"
	"warren/nat/path"
)

// maxHosts leaves room among the candidates for server-reflexive ones.
const maxHosts = 10

// place is where this node stands in the network.
type place struct {
	mux     *mux // constant
	prober  prober
	servers []netip.AddrPort // that the prober asks, best first
	own     *Local           // what the node knows of itself; nil: nothing yet
	local   path.Local       // out of that, for the machines
	hosts   []netip.AddrPort // of local, for the bases of agents
	stood   []netip.AddrPort // hosts as stands last saw them, not empty
}

// setServers has the prober ask the anchors that are known now.
func (p *place) setServers(now time.Time) {
	var servers []netip.AddrPort
	for _, a := range p.own.Anchors {
		servers = append(servers, a.Addr)
	}
	p.servers = servers
	p.prober.set(now, servers)
}

// sendProbes asks the servers that are due.
func (p *place) sendProbes(now time.Time) {
	for _, server := range p.prober.due(now) {
		p.prober.sent(server, p.mux.probe(server))
	}
}

// stands reports whether the host addresses are those of the last time, or none: what was learnt in that network most
// likely holds, or will when the link is back.
func (p *place) stands() bool {
	same := slices.Equal(p.hosts, p.stood)
	if len(p.hosts) > 0 {
		p.stood = p.hosts
	}
	return same || len(p.hosts) == 0
}

// collect lists anew this node's candidates, host before server-reflexive, and, if it relays at all, the anchors that it can
// relay through, nearest first.
func (p *place) collect(relays bool) {
	own := p.own
	l := path.Local{NoUDP: own.NoUDP, Overlay: own.Overlay, Dialable: own.Dialable}
	p.hosts = nil
	for _, addr := range own.Hosts {
		addr = addr.Unmap().WithZone("")
		if own.Port == 0 || len(p.hosts) == maxHosts || !path.Usable(addr) || path.InOverlay(own.Overlay, addr) {
			continue
		}
		host := netip.AddrPortFrom(addr, own.Port)
		if !slices.Contains(p.hosts, host) {
			l.Candidates = append(l.Candidates, path.NewCandidate(path.Host, host, len(p.hosts)))
			p.hosts = append(p.hosts, host)
		}
	}
	// What a router maps for everybody comes before what STUN servers see: of one address a peer takes a few.
	mapped := append(slices.Clone(own.External), p.prober.mapped()...)
	for i, addr := range mapped {
		if !slices.ContainsFunc(l.Candidates, func(c path.Candidate) bool { return c.Addr == addr }) {
			l.Candidates = append(l.Candidates, path.NewCandidate(path.ServerReflexive, addr, i))
		}
	}
	for _, a := range own.Anchors {
		if a.ID.IsZero() || !relays {
			continue
		}
		l.Relays = append(l.Relays, RelayOffer{Anchor: a.ID, RTTms: uint32(min(a.RTT.Milliseconds(), 1<<20)), Load: a.Load, Since: a.Since, Private: a.Private})
	}
	slices.SortFunc(l.Relays, func(a, b RelayOffer) int {
		if a.RTTms != b.RTTms {
			return int(a.RTTms) - int(b.RTTms)
		}
		return a.Anchor.Compare(b.Anchor)
	})
	l.Relays = slices.CompactFunc(l.Relays, func(a, b RelayOffer) bool { return a.Anchor == b.Anchor })
	p.local = l
}

// bases are the host addresses, and one that stands for IPv4 where a NAT64 does: an agent tries only families of which it has one.
func (p *place) bases() []netip.AddrPort {
	if !p.own.NAT64 {
		return p.hosts
	}
	return append(slices.Clone(p.hosts), netip.AddrPortFrom(nat64.Base, p.own.Port))
}

// outbox holds events until the reader takes them: of each peer the latest.
type outbox struct {
	pending map[identity.NodeID]Event
	order   []identity.NodeID // of pending
}

// put replaces the peer's event; that the peer restarted is not lost with the old one.
func (b *outbox) put(e Event) {
	before, waiting := b.pending[e.Peer]
	if !waiting {
		b.order = append(b.order, e.Peer)
	}
	e.PeerRestarted = e.PeerRestarted || before.PeerRestarted
	b.pending[e.Peer] = e
}

// first returns the event that has waited longest.
func (b *outbox) first() (Event, bool) {
	if len(b.order) == 0 {
		return Event{}, false
	}
	return b.pending[b.order[0]], true
}

func (b *outbox) drop(peer identity.NodeID) {
	delete(b.pending, peer)
	if len(b.order) > 0 && b.order[0] == peer {
		b.order = b.order[1:] // the one that was taken: the others need not move
		return
	}
	if i := slices.Index(b.order, peer); i >= 0 {
		b.order = slices.Delete(b.order, i, i+1)
	}
}
