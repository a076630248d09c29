// Package meshtest is an in-memory network of control sessions for tests of mesh: links that can be cut, latency,
// loss, forwarding over at most two members as mesh/session does it, and counts of what was sent.
//
// Certificates, handshakes and real packets are left to mesh/session and its own twin; here whoever has a link is
// taken for verified. Nothing sleeps: inside a testing/synctest bubble time is virtual.
//
// All methods may be called concurrently.
package meshtest

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"warren/mesh/identity"
)

// MaxHops is how many members may forward a message or stream between its two ends.
const MaxHops = 2

// ErrNoRoute is returned when there is neither a link nor a chain of members that leads to the destination.
var ErrNoRoute = errors.New("no route")

// Handler is the receiving side of a node; *mesh.Mesh is one.
type Handler interface {
	HandleMessage(from, by identity.NodeID, payload []byte)
	HandleGossipStream(from identity.NodeID, c net.Conn)
	HandleSync(from identity.NodeID, c net.Conn)
	SessionUp(id identity.NodeID, dialled bool)
}

// Traffic counts what the nodes sent.
type Traffic struct {
	Messages, MessageBytes         int
	GossipStreams, GossipBytes     int
	SyncStreams, SyncBytes         int
	Refused                        int // no route
	LargestMessage, MessagesBehind int // MessagesBehind: sent, not yet delivered
}

// Net is the network.
type Net struct {
	latency time.Duration

	mu      sync.Mutex
	loss    float64
	ports   map[identity.NodeID]*Port
	links   map[[2]identity.NodeID]bool
	streams map[*end]bool
	traffic Traffic
	rng     *rand.Rand
}

// New makes an empty network in which each link takes latency in each direction.
func New(latency time.Duration) *Net {
	return &Net{
		latency: latency,
		ports:   make(map[identity.NodeID]*Port),
		links:   make(map[[2]identity.NodeID]bool),
		streams: make(map[*end]bool),
		rng:     rand.New(rand.NewPCG(1, 1)),
	}
}

// Port is one node's access to the network: the sessions that mesh uses.
type Port struct {
	net  *Net
	self identity.NodeID // its place in the network
	id   identity.NodeID // what others know it by: another one's, when it is a clone

	// guarded by net.mu
	handler Handler
}

// Port returns the access of a node, which may send and receive once Serve is called.
func (n *Net) Port(id identity.NodeID) *Port { return n.Clone(id, id) }

// Clone returns the access of a second holder of the identity id, which has links of its own under the name place.
// What is sent to id goes to the nearer of the two.
func (n *Net) Clone(place, id identity.NodeID) *Port {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.ports[place]
	if p == nil {
		p = &Port{net: n, self: place, id: id}
		n.ports[place] = p
	}
	return p
}

// Serve brings the node up: its links become sessions, which it dials, and both ends of each are told.
func (p *Port) Serve(h Handler) {
	p.net.mu.Lock()
	p.handler = h
	up := p.net.upWith(p.self)
	p.net.mu.Unlock()
	for _, peer := range up {
		h.SessionUp(peer.id, true)
		peer.handler.SessionUp(p.id, false)
	}
}

// Stop takes the node down: its streams break, and what is sent to it is lost.
func (p *Port) Stop() {
	p.net.mu.Lock()
	p.handler = nil
	broken := p.net.takeBroken()
	p.net.mu.Unlock()
	closeAll(broken)
}

// upWith returns the running nodes to which a node has a link, as they are now.
func (n *Net) upWith(place identity.NodeID) map[identity.NodeID]Port {
	up := make(map[identity.NodeID]Port)
	for other, port := range n.ports {
		if port.handler != nil && n.links[pair(place, other)] {
			up[other] = *port
		}
	}
	return up
}

// find returns the nearest running node that goes by an ID, and how many links lead there.
func (n *Net) find(from, id identity.NodeID) (place identity.NodeID, hops int) {
	for other, port := range n.ports {
		if port.id != id || port.handler == nil || other == from {
			continue
		}
		if h := n.hops(from, other); h > 0 && (hops == 0 || h < hops) {
			place, hops = other, h
		}
	}
	return place, hops
}

func pair(a, b identity.NodeID) [2]identity.NodeID {
	if a.Compare(b) > 0 {
		a, b = b, a
	}
	return [2]identity.NodeID{a, b}
}

// Link makes a link between two nodes and tells them, if both are up: the first one has dialled.
func (n *Net) Link(a, b identity.NodeID) {
	n.mu.Lock()
	was := n.links[pair(a, b)]
	n.links[pair(a, b)] = true
	var pa, pb Port
	if n.ports[a] != nil && n.ports[b] != nil {
		pa, pb = *n.ports[a], *n.ports[b]
	}
	n.mu.Unlock()
	if !was && pa.handler != nil && pb.handler != nil {
		pa.handler.SessionUp(pb.id, true)
		pb.handler.SessionUp(pa.id, false)
	}
}

// LinkAll links each of the nodes with each other.
func (n *Net) LinkAll(ids ...identity.NodeID) {
	for i, a := range ids {
		for _, b := range ids[:i] {
			n.Link(a, b)
		}
	}
}

// Cut takes the link between two nodes away.
func (n *Net) Cut(a, b identity.NodeID) {
	n.mu.Lock()
	delete(n.links, pair(a, b))
	broken := n.takeBroken()
	n.mu.Unlock()
	closeAll(broken)
}

// Partition cuts every link between a node of one side and a node that is not of it.
func (n *Net) Partition(side ...identity.NodeID) {
	n.mu.Lock()
	maps.DeleteFunc(n.links, func(l [2]identity.NodeID, _ bool) bool {
		return slices.Contains(side, l[0]) != slices.Contains(side, l[1])
	})
	broken := n.takeBroken()
	n.mu.Unlock()
	closeAll(broken)
}

// SetLoss makes that part of all messages, 0 to 1, get lost. Streams stay reliable.
func (n *Net) SetLoss(part float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = part
}

// Traffic returns the counts since the last call of ResetTraffic.
func (n *Net) Traffic() Traffic {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.traffic
}

// ResetTraffic sets all counts to zero.
func (n *Net) ResetTraffic() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.traffic = Traffic{MessagesBehind: n.traffic.MessagesBehind}
}

// hops returns the number of links on the shortest way between two running nodes, 0 when there is none within reach.
func (n *Net) hops(from, to identity.NodeID) int {
	at := map[identity.NodeID]bool{from: true}
	if n.ports[from] == nil || n.ports[from].handler == nil {
		return 0
	}
	for hop := 1; hop <= MaxHops+1; hop++ {
		next := maps.Clone(at)
		for id := range at {
			for other := range n.upWith(id) {
				next[other] = true
			}
		}
		if next[to] {
			return hop
		}
		at = next
	}
	return 0
}

// SendGossip sends a message; the caller may use payload again at once.
func (p *Port) SendGossip(to identity.NodeID, payload []byte) error {
	n := p.net
	n.mu.Lock()
	defer n.mu.Unlock()
	place, hops := n.find(p.self, to)
	if hops == 0 {
		n.traffic.Refused++
		return ErrNoRoute
	}
	n.traffic.Messages++
	n.traffic.MessageBytes += len(payload)
	n.traffic.LargestMessage = max(n.traffic.LargestMessage, len(payload))
	if n.rng.Float64() < n.loss {
		return nil
	}
	n.traffic.MessagesBehind++
	payload = bytes.Clone(payload)
	go func() { // not time.AfterFunc, which now and then crashes the race detector in a bubble (golang/go issue 78156)
		time.Sleep(time.Duration(hops) * n.latency)
		n.mu.Lock()
		n.traffic.MessagesBehind--
		h := n.ports[place].handler
		n.mu.Unlock()
		if h != nil {
			h.HandleMessage(p.id, p.id, payload)
		}
	}()
	return nil
}

// OpenGossip opens a stream for memberlist.
func (p *Port) OpenGossip(ctx context.Context, to identity.NodeID) (net.Conn, error) {
	return p.open(ctx, to, false)
}

// OpenSync opens a stream for anti-entropy.
func (p *Port) OpenSync(ctx context.Context, to identity.NodeID) (net.Conn, error) {
	return p.open(ctx, to, true)
}

func (p *Port) open(ctx context.Context, to identity.NodeID, sync bool) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n := p.net
	n.mu.Lock()
	defer n.mu.Unlock()
	place, hops := n.find(p.self, to)
	if hops == 0 {
		n.traffic.Refused++
		return nil, ErrNoRoute
	}
	h, bytes := n.ports[place].handler, &n.traffic.GossipBytes
	if sync {
		n.traffic.SyncStreams++
		bytes = &n.traffic.SyncBytes
	} else {
		n.traffic.GossipStreams++
	}
	near, far := newStream(n, p.self, place, hops, bytes)
	n.streams[near], n.streams[far] = true, true
	if sync {
		go h.HandleSync(p.id, far)
	} else {
		go h.HandleGossipStream(p.id, far)
	}
	return near, nil
}

// Neighbours returns the nodes with which this one has a session: none before Serve, and after Stop.
func (p *Port) Neighbours() []identity.NodeID {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	if p.handler == nil {
		return nil
	}
	var ids []identity.NodeID
	for _, peer := range p.net.upWith(p.self) {
		ids = append(ids, peer.id)
	}
	slices.SortFunc(ids, identity.NodeID.Compare)
	return slices.Compact(ids)
}

// takeBroken removes and returns the streams whose ends can no longer reach each other.
func (n *Net) takeBroken() []*end {
	var broken []*end
	for e := range n.streams {
		if n.hops(e.self, e.peer) == 0 {
			delete(n.streams, e)
			broken = append(broken, e)
		}
	}
	return broken
}

func closeAll(ends []*end) {
	for _, e := range ends {
		e.in.close(net.ErrClosed)
	}
}
