package node

import (
	"time"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/nat"
	"warren/tunnel"
	"warren/tunnel/bind"
)

// What the events mean beyond "look again". Those that return true want a round.

// pathChanged has a peer's packets take the path that nat found, at once and without touching the others.
func (h *Hub) pathChanged(e nat.Event) bool {
	p := h.peers[e.Peer]
	if p == nil {
		return false
	}
	if e.Path.Addr != p.path.Path.Addr {
		h.log.Info("path changed", "peer", h.nameOf(e.Peer), "path", e.Path.Kind.String(), "address", e.Path.Addr, "reason", e.Reason)
	}
	if p.path.Path.Kind == nat.None && e.Path.Kind != nat.None {
		p.met = time.Now()
	}
	p.path = e
	if e.Path.Kind == nat.Direct {
		h.o.Owners.Paths.Keep(e.Peer, e.Path.Addr, e.Path.RTT)
	}
	h.steer(e.Peer, p, planWay(e.Peer, e, h.last.facts.underlay()), e.PeerRestarted)
	if e.Path.Kind == nat.Relayed && e.Path.RTT != 0 { // else nobody has answered through it yet, and a direct one may be there first
		h.o.Owners.Standing.Want() // a direct one could not be had, or not yet: what stands in the way is worth knowing
	}
	return true
}

// steer has a peer's packets take a way.
func (h *Hub) steer(id identity.NodeID, p *peer, w way, restarted bool) {
	before := p.way
	p.way = w
	opened := w.stream != before.stream && w.stream.Virtual.IsValid()
	// Whoever opens a stream may have started anew and lost its keys.
	restarted = restarted || opened && w.addr == w.stream.Virtual
	h.o.Tunnel.SetWay(id, tunnel.Way{Addr: w.addr, Sources: w.sources, Restarted: restarted})
	if opened && w.stream.Accepted || before.byStream() && !w.byStream() {
		h.o.Owners.NAT.Check(id) // nat saw no traffic by which to watch the path
	}
}

// sessionChanged notes a control session that came, moved or went.
func (h *Hub) sessionChanged(e session.Event) bool {
	o := h.o.Owners
	if _, known := h.sessions[e.ID]; e.Stranger && !known {
		// Whoever holds an invite can have such sessions, one after the other. It is asked for its records, and until these make it a member
		// there is nothing to plan.
		if e.Kind == session.Up {
			o.Records.SessionUp(e.ID, e.Dialled)
		}
		return false
	}
	switch e.Kind {
	case session.Greeted:
		// First the record, by which others know whose offers they are.
		o.Records.Greet(e.ID)
		o.NAT.SignalReady(e.ID)
		h.opened.early = true
		return false
	case session.Up:
		h.opened.first = h.opened.first || len(h.sessions) == 0 && !(h.opened.early && e.Dialled)
		h.opened.to = append(h.opened.to, e.ID)
		h.sessions[e.ID] = sessionFacts{remote: e.Remote, since: time.Now(), met: e.Dialled && !bind.IsVirtual(e.Remote.Addr())}
		delete(h.said.refusals, e.ID)
		o.Relays.Moved(e.ID, e.Remote)
		o.Records.SessionUp(e.ID, e.Dialled)
		h.meet(e.ID)
	case session.Moved:
		o.Relays.Moved(e.ID, e.Remote)
		if s, up := h.sessions[e.ID]; up {
			h.sessions[e.ID] = sessionFacts{remote: e.Remote, since: time.Now(), met: s.met}
		}
	case session.Down:
		// Silence is evidence against the way that the session went.
		if !e.ByPeer && (e.Code == session.CodeLost || e.Code == session.CodeUnresponsive) {
			o.Streams.SessionLost(e.ID, h.sessions[e.ID].remote)
		}
		delete(h.sessions, e.ID)
		if e.ByPeer && e.Code >= session.CodeStranger {
			h.refused(e.ID, e.Reason)
		}
	case session.Refused:
		h.refused(e.ID, e.Reason)
	}
	return true
}

// meet keeps the address at which a member was reached. Who has proved no membership is not kept: anybody with an old invite can be
// reached somewhere.
func (h *Hub) meet(id identity.NodeID) {
	s := h.sessions[id]
	if m, ok := h.o.Owners.Records.View().Member(id); ok && m.State == mesh.Active && s.met {
		s.met = false
		h.sessions[id] = s
		h.o.Owners.Contacts.Add(id, s.remote)
	}
}

// refused notes why a member wants no session, for people to see. It is that member's word, and nothing follows from it.
func (h *Hub) refused(by identity.NodeID, reason string) {
	m, ok := h.o.Owners.Records.View().Member(by)
	if !ok || m.State != mesh.Active || h.said.refusals[by].Reason == reason {
		return
	}
	h.said.refusals[by] = Refusal{Reason: reason, Since: time.Now()}
	h.log.Warn("session refused", "peer", m.Name, "reason", reason)
}

// CodeNotMember is told to a node that was a member, or had an invite, and is none for good by the records of whoever says so, which come
// along. A node that hears it believes those records, and not the code.
const CodeNotMember = session.CodeFirstFree

// natSays hands nat's news to those whom they concern.
func (h *Hub) natSays(n nat.News) {
	o := h.o.Owners
	for _, d := range n.Doubts {
		// What broke the path may have broken the sessions too, and the way back leads over them.
		o.Sessions.Doubt(d.Peer, d.Via)
		o.Streams.PathSilent(d.Peer)
	}
	if n.Moved {
		o.Sessions.Redial()
	}
	for _, server := range n.Answered {
		o.Streams.Answered(server)
	}
	for _, id := range n.Arrived {
		o.Standing.Arrived(id)
	}
}

// tunnelSays hands on what the packets show.
func (h *Hub) tunnelSays(e tunnel.Event) {
	paths := h.o.Owners.NAT
	switch e.Kind {
	case tunnel.Roamed:
		h.log.Info("peer roamed", "peer", h.nameOf(e.ID), "address", e.Addr)
		paths.Check(e.ID)
	case tunnel.Stirred:
		paths.Stirred(e.ID)
	case tunnel.Stale:
		h.log.Info("no keys agreed, introduced anew", "peer", h.nameOf(e.ID))
		paths.Introduce(e.ID)
	}
}

// reload reads the settings again. On error the old ones stay.
func (h *Hub) reload() reloaded {
	settings, err := h.o.Load()
	if err != nil {
		h.log.Warn("settings not reloaded", "error", err)
		h.said.settings = "settings not reloaded: " + err.Error()
		return reloaded{err: err}
	}
	pending := runningOf(h.o).pending(settings.Interface)
	h.said.settings = inOne(pending)
	h.settings = settings
	h.log.Info("settings reloaded")
	for _, text := range pending {
		h.log.Warn("setting waits for the next start", "reason", text)
	}
	return reloaded{pending: pending}
}

// nameOf names a node in messages: its name if known, else the short ID.
func (h *Hub) nameOf(id identity.NodeID) string {
	if m, ok := h.o.Owners.Records.View().Member(id); ok && m.Name != "" {
		return m.Name
	}
	return id.Short()
}
