package session

import (
	"net/netip"

	"warren/mesh/identity"
)

// EventKind tells the kinds of Event apart.
type EventKind byte

// The kinds of Event.
const (
	Up      EventKind = iota + 1 // a session with ID came up
	Down                         // it went down: Code, Reason, ByPeer
	Moved                        // its far side's address changed, or another connection carries it now
	Refused                      // a dial was refused by ID with Code and Reason; told once per change of them
)

// Event is a change of state of the session with one node.
type Event struct {
	Kind    EventKind
	ID      identity.NodeID
	Remote  netip.AddrPort // Up, Moved
	Dialled bool           // Up, Moved: this side dialled
	Code    uint64         // Down, Refused
	Reason  string         // Down, Refused
	ByPeer  bool           // Down: the far side closed it and gave Code and Reason
}
