package path

import (
	"slices"
	"time"

	"warren/mesh/identity"
)

// maxChanges is how many changes of a path are kept: enough to see a pattern, such as one that dies every half minute.
const maxChanges = 16

// Change is one move to another path, or to none.
type Change struct {
	At     time.Time
	Path   Path
	Reason Reason // why
}

// history holds the latest changes, oldest first. A View shares them: they are never written to again.
type history struct{ changes []Change }

func (h *history) note(c Change) {
	if len(h.changes) == maxChanges {
		h.changes = h.changes[1:]
	}
	h.changes = append(h.changes, c)
}

// Evidence is what tells why a peer is reached as it is.
type Evidence struct {
	Status
	Changes []Change // the latest, oldest first

	// The ask or offer that is out; zero when none is.
	Unanswered int       // how often it was sent
	Begun      time.Time // when for the first time
	NoRoute    string    // why it had no way to the peer, in words; empty when it had one
	Refused    bool      // the peer says that it does not know this node

	Failure string    // how the last attempt failed, in words; empty when it did not
	NextTry time.Time // of the next introduction made unasked; zero when none is planned
	Relays  []Beside  // the channels to the peer, the one in use included
}

// Beside is a channel through one anchor.
type Beside struct {
	Anchor identity.NodeID
	Ready  bool // the peer has answered through it
}

// Evidence describes the peer in full at now.
func (v *View) Evidence(now time.Time) Evidence {
	e := Evidence{Status: v.Status(now), Changes: slices.Clone(v.changes), Failure: v.failure, NextTry: v.next}
	if v.waiting {
		e.Unanswered, e.Begun, e.NoRoute, e.Refused = v.sent, v.begun, v.noRoute, v.refused
	}
	for _, r := range v.relays {
		e.Relays = append(e.Relays, Beside{Anchor: r.anchor, Ready: r.phase == relayReady})
	}
	return e
}
