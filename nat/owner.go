package nat

import (
	"container/heap"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/nat/path"
)

const (
	// parkTime lets an introduction wait for the record, on its way by gossip, that makes its sender a peer.
	parkTime   = 5 * time.Second
	maxParked  = 64
	maxHosts   = 10
	noDeadline = 365 * 24 * time.Hour
)

// loop is the state of the run loop.
type loop struct {
	spawn  func(task func(ctx context.Context)) // starts a goroutine that Run waits for and whose ctx ends with it
	wakes  wakeHeap
	prober prober
	local  path.Local
	hosts  []netip.AddrPort // of local, for the bases of agents
	slots  slots
	parked map[identity.NodeID]parked

	pending map[identity.NodeID]Event // not taken by the reader yet
	order   []identity.NodeID         // of pending
}

type parked struct {
	message Message
	until   time.Time
}

// Run works until ctx ends and returns when every goroutine is gone. It may be called once.
func (n *NAT) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	n.loop = loop{
		spawn:   func(task func(ctx context.Context)) { n.tasks.Go(func() { task(ctx) }) },
		parked:  make(map[identity.NodeID]parked),
		pending: make(map[identity.NodeID]Event),
	}
	n.loop.slots.init()
	if err := n.o.STUN.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("run nat: %w", err)
	}
	var readErr error
	n.tasks.Go(func() {
		if err := n.mux.read(ctx); err != nil {
			readErr = err
			cancel(err)
		}
	})
	n.networkChanged(time.Now(), false)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		timer.Reset(time.Until(n.nextWake()))
		n.turn(ctx, timer)
	}
	for _, p := range n.peers {
		n.carryOut(p, p.machine.Stop())
	}
	_ = n.o.STUN.SetReadDeadline(time.Now())
	n.tasks.Wait()
	if readErr != nil {
		return fmt.Errorf("run nat: %w", readErr)
	}
	return nil
}

// turn waits for one thing and does it.
func (n *NAT) turn(ctx context.Context, timer *time.Timer) {
	var out chan Event
	var first Event
	if len(n.loop.order) > 0 {
		out, first = n.events, n.loop.pending[n.loop.order[0]]
	}
	select {
	case <-ctx.Done():
	case out <- first:
		delete(n.loop.pending, n.loop.order[0])
		n.loop.order = n.loop.order[1:]
	case <-n.poke:
		n.reconcile(time.Now())
	case it := <-n.inbox:
		n.take(time.Now(), it)
	case <-timer.C:
		n.tick(time.Now())
	}
}

// nextWake is the earliest time at which something is due.
func (n *NAT) nextWake() time.Time {
	next := time.Now().Add(noDeadline)
	times := []time.Time{n.loop.prober.wake(), n.loop.slots.wake()}
	if len(n.loop.wakes) > 0 {
		times = append(times, n.loop.wakes[0].wake)
	}
	for _, p := range n.loop.parked {
		times = append(times, p.until)
	}
	for _, t := range times {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	return next
}

// tick does what is due.
func (n *NAT) tick(now time.Time) {
	for len(n.loop.wakes) > 0 && !n.loop.wakes[0].wake.After(now) {
		p := n.loop.wakes[0]
		tx, rx := n.o.Activity(p.id)
		n.step(now, p, path.Wake{LastTx: tx, LastRx: rx})
	}
	n.sendProbes(now)
	n.startQueued(now)
	for id, p := range n.loop.parked {
		if !p.until.After(now) {
			delete(n.loop.parked, id)
			n.refuse(id)
		}
	}
}

// take handles one item of the inbox.
func (n *NAT) take(now time.Time, it item) {
	if it.mapped != nil {
		n.mappedAnswered(now, *it.mapped)
		return
	}
	p := n.peers[it.peer]
	if p != nil {
		n.step(now, p, it.in)
		return
	}
	received, ok := it.in.(path.Received)
	if !ok || received.Message.Kind != KindAsk && received.Message.Kind != KindOffer {
		return
	}
	until := now.Add(parkTime)
	if early, known := n.loop.parked[it.peer]; known {
		until = early.until
	} else if len(n.loop.parked) >= maxParked {
		n.refuse(it.peer)
		return
	}
	n.loop.parked[it.peer] = parked{message: received.Message, until: until}
}

// refuse tells a member that it is none of our peers. Without a route it will not hear, and ask again.
func (n *NAT) refuse(id identity.NodeID) {
	if err := n.o.Send(id, Message{Kind: KindRefuse, Instance: n.o.Instance}); err != nil {
		n.log.Debug("introduction not refused", "peer", id.Short(), "err", err)
	}
}

// reconcile does what the methods asked for.
func (n *NAT) reconcile(now time.Time) {
	n.mu.Lock()
	d := n.desired
	n.desired = desired{ready: make(map[identity.NodeID]bool)}
	n.mu.Unlock()
	switch {
	case d.network:
		n.networkChanged(now, true)
	case d.anchors:
		n.anchorsChanged(now)
	}
	if d.setPeers {
		n.setPeers(now, d.peers)
	}
	for id, p := range n.peers {
		if d.everyReady || d.ready[id] {
			n.step(now, p, path.Routable{})
		}
	}
}

// setPeers touches only the difference.
func (n *NAT) setPeers(now time.Time, ids []identity.NodeID) {
	for id, p := range n.peers {
		if !slices.Contains(ids, id) {
			n.removePeer(p)
		}
	}
	for _, id := range ids {
		if n.peers[id] == nil && id != n.o.Self {
			n.addPeer(now, id)
		}
	}
}

// networkChanged looks at everything anew. introduce is false at the start, when there are no peers.
func (n *NAT) networkChanged(now time.Time, introduce bool) {
	n.setServers(now)
	n.loop.prober.flush(now)
	n.publishMapped()
	n.loop.local = n.collect()
	if introduce {
		n.log.Info("network changed", "addresses", len(n.loop.hosts))
	}
	for _, p := range n.peers {
		n.step(now, p, path.NetworkChanged{Local: n.loop.local})
	}
	n.sendProbes(now)
}

func (n *NAT) anchorsChanged(now time.Time) {
	n.setServers(now)
	n.sendProbes(now)
	n.localChanged(now)
}

func (n *NAT) setServers(now time.Time) {
	var servers []netip.AddrPort
	for _, a := range n.o.Anchors() {
		servers = append(servers, a.Addr)
	}
	n.loop.prober.set(now, servers)
}

func (n *NAT) sendProbes(now time.Time) {
	for _, server := range n.loop.prober.due(now) {
		id, err := n.mux.probe(server)
		if err != nil {
			n.log.Warn("probe not sent", "server", server, "err", err)
			continue
		}
		n.loop.prober.sent(server, id)
	}
}

// mappedAnswered trickles a new address of ours. A server that sees us elsewhere than before means that
// the NAT has lost its state: all paths are suspect.
func (n *NAT) mappedAnswered(now time.Time, a mappedAnswer) {
	changed, moved := n.loop.prober.answered(now, a)
	if changed {
		n.publishMapped()
		n.localChanged(now)
	}
	if !moved {
		return
	}
	n.log.Info("mapped address changed", "addr", a.addr, "server", a.server)
	for _, p := range n.peers {
		n.step(now, p, path.Suspect{})
	}
}

func (n *NAT) publishMapped() {
	mapped := n.loop.prober.mapped()
	n.mu.Lock()
	n.mapped = mapped
	n.mu.Unlock()
}

func (n *NAT) localChanged(now time.Time) {
	before := n.loop.local
	n.loop.local = n.collect()
	if slices.Equal(before.Candidates, n.loop.local.Candidates) && slices.Equal(before.Relays, n.loop.local.Relays) {
		return
	}
	for _, p := range n.peers {
		n.step(now, p, path.Local(n.loop.local))
	}
}

// collect lists this node's candidates, host before server-reflexive, and the anchors that it can relay
// through, nearest first.
func (n *NAT) collect() path.Local {
	var l path.Local
	n.loop.hosts = nil
	port := n.o.Port()
	for _, addr := range n.o.Addresses() {
		addr = addr.Unmap().WithZone("")
		if port == 0 || len(n.loop.hosts) == maxHosts || !path.Usable(addr) || n.o.Reject != nil && n.o.Reject(addr) {
			continue
		}
		host := netip.AddrPortFrom(addr, port)
		if !slices.Contains(n.loop.hosts, host) {
			l.Candidates = append(l.Candidates, path.NewCandidate(path.Host, host, len(n.loop.hosts)))
			n.loop.hosts = append(n.loop.hosts, host)
		}
	}
	for i, mapped := range n.loop.prober.mapped() {
		if !slices.Contains(n.loop.hosts, mapped) {
			l.Candidates = append(l.Candidates, path.NewCandidate(path.ServerReflexive, mapped, i))
		}
	}
	if n.o.Relay == nil {
		return l
	}
	for _, a := range n.o.Anchors() {
		l.Relays = append(l.Relays, RelayOffer{Anchor: a.ID, RTTms: uint32(min(a.RTT.Milliseconds(), 1<<20))})
	}
	slices.SortFunc(l.Relays, func(a, b RelayOffer) int {
		if a.RTTms != b.RTTms {
			return int(a.RTTms) - int(b.RTTms)
		}
		return a.Anchor.Compare(b.Anchor)
	})
	l.Relays = slices.CompactFunc(l.Relays, func(a, b RelayOffer) bool { return a.Anchor == b.Anchor })
	return l
}

// wakeHeap holds the peers by the time of their next wake; those without one are not in it.
type wakeHeap []*peer

func (h wakeHeap) Len() int           { return len(h) }
func (h wakeHeap) Less(i, j int) bool { return h[i].wake.Before(h[j].wake) }
func (h wakeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is heap.Interface's.
func (h *wakeHeap) Push(x any) {
	p := x.(*peer) //nolint:forcetypeassert // only plan pushes
	p.index = len(*h)
	*h = append(*h, p)
}

// Pop is heap.Interface's.
func (h *wakeHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	last.index = -1
	return last
}

// plan notes when a peer wants to be woken.
func (h *wakeHeap) plan(p *peer, wake time.Time) {
	p.wake = wake
	switch {
	case p.index >= 0 && wake.IsZero():
		heap.Remove(h, p.index)
	case p.index >= 0:
		heap.Fix(h, p.index)
	case !wake.IsZero():
		heap.Push(h, p)
	}
}
