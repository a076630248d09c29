package path

import (
	"net/netip"
	"time"

	"warren/mesh/identity"
)

// PathKind says how a peer is reached.
type PathKind uint8

// The kinds of a path.
const (
	None    PathKind = iota // not at all
	Direct                  // straight to an address of the peer
	Relayed                 // through an anchor that both have a channel on
)

// String returns the word that status shows.
func (k PathKind) String() string {
	switch k {
	case Direct:
		return "direct"
	case Relayed:
		return "relay"
	}
	return "none"
}

// Path is the way to a peer. Addr is the peer's underlay address, or the virtual address of a relay
// channel; it is the zero AddrPort when Kind is None. Via is the relaying anchor. RTT is the last one
// measured, zero when there is none yet.
type Path struct {
	Addr netip.AddrPort
	Kind PathKind
	Via  identity.NodeID
	RTT  time.Duration

	slow time.Duration // the longest round trip lately: times that an answer has are measured by it
}

// measured is the path with a round trip that was measured just now. On a line that shakes the last one says little of the next.
func (p Path) measured(trip time.Duration) Path {
	p.RTT = trip
	p.slow = max(trip, p.slow-p.slow/8)
	return p
}

// trip is the round trip that an answer may take.
func (p Path) trip() time.Duration { return max(p.RTT, p.slow) }

// Event says that the path to a peer, or the set of its source addresses, is now another one.
type Event struct {
	Peer          identity.NodeID
	Path          Path
	Controlling   bool             // this side starts the WireGuard handshake
	PeerRestarted bool             // the peer runs a new process since the last path: old session keys are void
	Sources       []netip.AddrPort // further addresses from which the peer may send: proven by checks, none merely claimed
	Reason        Reason           // why
}

// State sums up where a peer stands.
type State string

// The states of a peer.
const (
	StateUp          State = "up"          // there is a path
	StateIntroducing State = "introducing" // an ask or offer is out
	StateChecking    State = "checking"    // candidate pairs are being tried
	StateWaiting     State = "waiting"     // the next try has a time
)

// Status describes a peer for people and for the API.
type Status struct {
	Path       Path
	State      State
	Reason     Reason    // why there is no path, or no direct one; empty when direct
	Since      time.Time // of the path, or of its absence
	RTT        time.Duration
	Local      []string // candidate lines of the last attempt, own
	Remote     []string // and the peer's
	Attempts   uint64   // ICE attempts so far
	Instance   [8]byte  // of the peer's process, zero when never heard
	LastChange time.Time
	Standby    identity.NodeID // the anchor on which a second relayed path works and idles, zero for none
	Proved     time.Time       // when the peer last answered a check over the path of that time, or sent one; zero for never
	Doubted    time.Time       // since when the path owes an answer to a check; zero: it owes none
}

// Overdue reports whether the path has owed an answer for longer than one takes to come: two checks, as when another path is looked for.
func (s Status) Overdue(now time.Time) bool {
	patience := 2 * s.Path.checkInterval()
	if s.Path.RTT == 0 {
		patience = deadAfter // how long an answer takes is not known yet
	}
	return s.Path.Kind != None && !s.Doubted.IsZero() && now.Sub(s.Doubted) >= patience
}
