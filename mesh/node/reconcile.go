package node

import (
	"errors"
	"reflect"
	"slices"
	"time"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/nat"
	"warren/nat/streams"
	"warren/tunnel"
)

// reconcile reads, plans, and tells the owners, from the bottom up: the tunnel knows a peer before nat looks for a path to it.
// What fails is tried again soon and shown as a warning.
func (h *Hub) reconcile(now time.Time) {
	f := h.gather(now)
	want := plan(f)
	before := h.last
	if before == nil {
		before = &round{}
	}
	h.o.Names.Set(want.names)
	// Before there are peers, so that none slips through.
	if h.o.Filter != nil && (h.last == nil || !reflect.DeepEqual(before.want.rules, want.rules)) {
		h.o.Filter.SetRules(want.rules)
	}
	if h.o.Owners != nil {
		h.o.Owners.Sessions.SetTargets(want.targets) // needs nothing of the rest, and the dials take longest
	}
	// At the start the first dials and introductions do not wait for the kernel. Later they do: the interface may stand in their way.
	anew, start := h.last == nil || h.stale, h.last == nil && h.o.Owners != nil
	var failed error
	if !start {
		failed = setLink(h.o.Tunnel, anew, before.want, want)
	}
	failed = errors.Join(failed, setPeers(h.o.Tunnel, anew, before.want, want))
	if h.o.Owners != nil {
		failed = errors.Join(failed, h.setMesh(before, round{f, want}))
	}
	if start {
		failed = errors.Join(failed, setLink(h.o.Tunnel, anew, before.want, want))
	}
	if want.move != f.here.move {
		h.log.Info("port has another owner behind this host", "port", f.port, "wanted", want.move.to, "address", f.standing.Taken.Seen.String())
		failed = errors.Join(failed, h.o.Tunnel.SetPort(want.move.to))
	}
	h.last, h.stale = &round{f, want}, failed != nil
	// Before it is known where this node is reached, its record does not say so, and an invite would lead nowhere.
	if !h.ready && (h.o.Owners == nil || f.standing.Settled) {
		h.ready = true
		if h.o.Ready != nil {
			close(h.o.Ready)
		}
	}
	h.publish(f, want, failed)
}

// setPeers tells the tunnel its peers, only when something ought to be different, or once a minute (anew): the loop would wait until all preshared
// keys are set that were agreed before, while the news of new paths wait for the loop.
func setPeers(t Tunnel, anew bool, before, want desired) error {
	if anew || !slices.EqualFunc(before.tunnel, want.tunnel, tunnel.Peer.Equal) {
		return t.SetPeers(want.tunnel)
	}
	return nil
}

// setLink is the same for the interface, which is the kernel's.
func setLink(t Tunnel, anew bool, before, want desired) error {
	if anew || !reflect.DeepEqual(before.link, want.link) {
		return t.SetLink(want.link)
	}
	return nil
}

// setMesh tells the owners of the mesh, in the order in which one relies on the other.
func (h *Hub) setMesh(before *round, r round) (failed error) {
	o, f, want := h.o.Owners, r.facts, r.want
	h.setMembers(f, want)
	o.Echo.Set(want.echo)
	o.Relays.Set(want.relaying, want.relayLimit)
	o.Relays.Follow(want.follow)
	if h.stale || h.last == nil || !slices.Equal(before.want.reach, want.reach) {
		o.NAT.SetPeers(want.reach)
	}
	if f.standing.Network != 0 { // else this host's addresses are not known yet: an offer without them would be of no use
		o.NAT.Set(want.local)
	}
	o.Standing.Set(want.standing)
	o.Streams.Set(want.streams) // after the targets: it ends sessions that have to be dialled by another way
	o.Neighbours.Set(want.neighbours)
	for id, p := range h.peers {
		if w := want.ways[id]; !w.equal(p.way) {
			h.steer(id, p, w, false)
		}
	}
	if last := before.facts.standing; last != nil && last.Network != 0 && last.Network != f.standing.Network {
		h.log.Info("network changed")
		o.Sessions.Redial()
	}
	h.followUDP(before.facts.streams, f.streams)
	switch {
	case h.opened.first:
		o.NAT.SignalReady()
	case len(h.opened.to) > 0:
		o.NAT.SignalReady(f.led(h.opened.to)...)
	}
	h.opened = opened{early: h.opened.early}
	if want.own != nil && (h.stale || !reflect.DeepEqual(want.own, before.want.own)) {
		failed = o.Records.Announce(*want.own)
	}
	return failed
}

// setMembers makes a peer of each active member that has a tunnel, parts from those that are members no more, and notes whose record says
// that it is elsewhere now, or runs anew.
func (h *Hub) setMembers(f facts, want desired) {
	for _, m := range f.view.Members {
		if _, tied := want.ways[m.ID]; !tied {
			continue
		}
		now := whereabouts{key: m.Record.WireGuardKey, instance: m.Record.Instance, endpoints: m.Record.Endpoints}
		p := h.peers[m.ID]
		h.meet(m.ID)
		if p == nil {
			h.peers[m.ID] = &peer{where: now}
			h.o.Owners.Courier.Met(m.ID)
			continue
		}
		before := p.where
		p.where = now
		if before.instance != [8]byte{} && (before.instance != now.instance || !slices.Equal(before.endpoints, now.endpoints)) {
			h.o.Owners.NAT.PeerChanged(m.ID)
		}
		if before.key != now.key {
			h.o.Owners.NAT.Introduce(m.ID) // the preshared key went with the old one
		}
	}
	for id := range h.peers {
		if _, tied := want.ways[id]; tied {
			continue
		}
		if m, ok := f.view.Member(id); ok && m.State == mesh.Active {
			delete(h.peers, id) // it has no tunnel any more, but is a member as before: see Conflict
			continue
		}
		h.cutOff(f.now, id)
	}
}

// followUDP has paths looked at when another thing is believed of UDP.
func (h *Hub) followUDP(before, now streams.Snapshot) {
	paths := h.o.Owners.NAT
	if now.Blocks != before.Blocks {
		paths.Check() // what does not answer either makes room for a relay
	}
	for id, no := range now.Refusals {
		// Where no UDP gets through, an anchor's no is heard only over a stream.
		if no.At != before.Refusals[id].At && uint64(no.Code) == CodeNotMember {
			h.refused(id, no.Reason)
		}
		if no.Proved != before.Refusals[id].Proved {
			h.o.Owners.Records.HandleProof(id, no.Proof)
		}
	}
	if now.Returned == before.Returned {
		return
	}
	for id, p := range h.peers {
		if p.path.Path.Kind != nat.Direct {
			paths.Introduce(id)
		}
	}
}

// partAfter is how long a node that is put out still has its session: the news of its end is on the way to it, and it should
// hear why. Its stream follows the session after as long again.
const partAfter = 200 * time.Millisecond

// parting is a node to be parted from in a moment.
type parting struct {
	id     identity.NodeID
	at     time.Time
	reason string
	stream bool // the session has gone
}

// cutOff ends everything with a node that is a member no more: its channels and keys at once.
func (h *Hub) cutOff(now time.Time, id identity.NodeID) {
	o := h.o.Owners
	reason := "left the mesh"
	if err := o.Records.Standing(id); err != nil {
		reason = err.Error()
	}
	h.log.Info("member gone", "peer", h.nameOf(id), "reason", reason)
	delete(h.peers, id)
	o.Relays.Drop(id)
	o.Courier.Forget(id)
	o.Paths.Forget(id)
	h.parting = append(h.parting, parting{id: id, at: now.Add(partAfter), reason: reason})
}

// part ends the sessions and streams with those that were given their moment. Who has come back meanwhile stays.
func (h *Hub) part(now time.Time) {
	var later []parting
	for _, p := range h.parting {
		switch _, back := h.peers[p.id]; {
		case back:
		case now.Before(p.at):
			later = append(later, p)
		case p.stream:
			h.o.Owners.Streams.Drop(p.id)
		default:
			h.o.Owners.Sessions.Drop(p.id, CodeNotMember, p.reason)
			later = append(later, parting{id: p.id, at: now.Add(partAfter), stream: true})
		}
	}
	h.parting = later
}

// nextWake is when something is due beside rounds for news; zero: never.
func (h *Hub) nextWake() time.Time {
	next := h.retryAt()
	for _, p := range h.parting {
		if next.IsZero() || p.at.Before(next) {
			next = p.at
		}
	}
	return next
}

// retryAt is when a round that failed is to be repeated; zero: it did not.
func (h *Hub) retryAt() time.Time {
	if h.said.failing == "" {
		return time.Time{}
	}
	return h.last.facts.now.Add(retryAfter)
}
