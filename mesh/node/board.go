package node

import (
	"log/slog"
	"sync/atomic"
	"time"

	"warren/mesh/identity"
	"warren/nat"
)

// Board is what a hub has to show: the settings in force, and what a person should look at.
type Board struct {
	Ready    bool // everything is in place
	Settings Settings
	Warnings []string // in words
	// Refusals are what active members say that want no session, until each has one again. One with which this node has found a path since,
	// which takes introductions both ways, has taken it in, whether or not they need a session. Nothing follows from them.
	Refusals map[identity.NodeID]Refusal
	// NoTunnel are the active members that have no tunnel here, and why.
	NoTunnel map[identity.NodeID]string
	NoIPv4   bool // the overlay has no IPv4 on this machine
}

// posted is the latest board, and whether there is another one.
type posted struct {
	atomic.Pointer[Board]
	changed chan struct{}
}

// Refusal is what a member says that wants no session with this node.
type Refusal struct {
	Reason string // in its words
	Since  time.Time
}

// remarks are the warnings of the loop itself; empty ones are none.
type remarks struct {
	refusals  map[identity.NodeID]Refusal
	conflicts map[string]bool // texts
	settings  string
	failing   string // what the last round could not do
}

// Board returns the latest one. It is shared: nothing in it may be changed.
func (h *Hub) Board() *Board { return h.board.Load() }

// Boards has a value when there is another board. What the records say may have changed as well.
func (h *Hub) Boards() <-chan struct{} { return h.board.changed }

// publish makes the board anew.
func (h *Hub) publish(f facts, want desired, failed error) {
	if h.said.failing = ""; failed != nil {
		h.log.Warn("not everything in place", "error", failed)
		h.said.failing = "not everything is in place: " + failed.Error()
	}
	b := &Board{
		Ready: h.ready, Settings: h.settings, Refusals: make(map[identity.NodeID]Refusal), NoTunnel: make(map[identity.NodeID]string), NoIPv4: want.noIPv4,
	}
	for id, no := range h.said.refusals {
		if !f.active(id) {
			delete(h.said.refusals, id) // it has nothing to say
			continue
		}
		if p := h.peers[id]; p != nil && p.path.Path.Kind != nat.None && p.met.After(no.Since) {
			continue // should that path end it may be said again
		}
		b.Refusals[id] = no
	}
	for _, text := range []string{h.said.settings, h.said.failing, f.standing.Trouble, f.neighbours.Trouble} {
		if text != "" {
			b.Warnings = append(b.Warnings, text)
		}
	}
	for _, c := range want.conflicts {
		b.Warnings = append(b.Warnings, c.Text)
		if c.NoTunnel != "" {
			b.NoTunnel[c.ID] = c.NoTunnel
		}
	}
	h.said.see(want.conflicts, h.log)
	h.board.Store(b)
	select {
	case h.board.changed <- struct{}{}:
	default:
	}
}

// see logs the conflicts that are new, and those that are over.
func (r *remarks) see(list []Conflict, log *slog.Logger) {
	now := make(map[string]bool, len(list))
	for _, c := range list {
		if now[c.Text] = true; !r.conflicts[c.Text] {
			log.Warn("conflict", "reason", c.Text)
		}
	}
	for text := range r.conflicts {
		if !now[text] {
			log.Info("conflict over", "reason", text)
		}
	}
	r.conflicts = now
}
