package node

import (
	"time"

	"warren/mesh/identity"
)

// Board is what a hub has to show: the settings in force, and what a person should look at.
type Board struct {
	Ready    bool // everything is in place
	Settings Settings
	Warnings []string // in words
	// Refusals are what active members say that want no session, until each has one again. Nothing follows from them.
	Refusals map[identity.NodeID]Refusal
}

// Refusal is what a member says that wants no session with this node.
type Refusal struct {
	Reason string // in its words
	Since  time.Time
}

// remarks are the warnings of the loop itself; empty ones are none.
type remarks struct {
	refusals map[identity.NodeID]Refusal
	settings string
	failing  string // what the last round could not do
}

// Board returns the latest one. It is shared: nothing in it may be changed.
func (h *Hub) Board() *Board { return h.board.Load() }

// publish makes the board anew.
func (h *Hub) publish(f facts, failed error) {
	if h.said.failing = ""; failed != nil {
		h.log.Warn("not everything in place", "error", failed)
		h.said.failing = "not everything is in place: " + failed.Error()
	}
	b := &Board{Ready: h.ready, Settings: h.settings, Refusals: make(map[identity.NodeID]Refusal)}
	for id, no := range h.said.refusals {
		if !f.active(id) {
			delete(h.said.refusals, id) // it has nothing to say
			continue
		}
		b.Refusals[id] = no
	}
	for _, text := range []string{h.said.settings, h.said.failing, f.standing.Trouble, f.neighbours.Trouble} {
		if text != "" {
			b.Warnings = append(b.Warnings, text)
		}
	}
	h.board.Store(b)
}
