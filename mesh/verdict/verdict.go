// Package verdict says why two nodes are not connected directly, what would help, and what to expect of a network.
//
// It is pure: evidence goes in as values, and a Verdict comes out, whose kind, cause and remedy are values too. They become
// sentences by Words, which is the only place where the IDs in them become names. Gathering the evidence is left to whoever runs
// the owners; how it is shown to mesh/report and the command line.
//
// Everything here may be called concurrently.
package verdict

import (
	"fmt"
	"net/netip"
	"time"

	"warren/mesh/identity"
	"warren/nat/natkind"
)

// Names says what a node is called: its name, or its short ID where it has none.
type Names = func(identity.NodeID) string

// Sentence is a cause, a remedy, or another statement that can be put into words.
type Sentence interface{ Words(Names) string }

// Plain is a sentence that is always the same.
type Plain string

// Words returns the sentence.
func (p Plain) Words(Names) string { return string(p) }

// Verdict is what the evidence about a peer amounts to.
type Verdict struct {
	Kind       Kind
	Conclusion Sentence // how the peer is reached
	Cause      Sentence // why; nil when all is well
	Fix        Sentence // the most likely remedy; nil when there is none, or none is needed
}

// Words is a verdict in words. Cause and Fix are empty where the verdict has none.
type Words struct{ Conclusion, Cause, Fix string }

// Words puts the verdict into words.
func (v Verdict) Words(names Names) Words {
	return Words{Conclusion: words(v.Conclusion, names), Cause: words(v.Cause, names), Fix: words(v.Fix, names)}
}

func words(s Sentence, names Names) string {
	if s == nil {
		return ""
	}
	return s.Words(names)
}

// Evidence is what a verdict about a member rests on. Times are zero for never.
type Evidence struct {
	Signs
	Here     Node
	There    Node
	Left     bool // it has left the mesh by itself
	Policy   Policy
	NoTunnel string // why this node has no tunnel with it at all, in words; "": it has one
	Path     Path
	Since    time.Time // of Path, or of its absence
	Ping     Ping
	Bursts   Bursts
	Life     Life
	Session  bool // a control session with it seems to be up
	Sessions int  // that are up, with whomever
	Refusals []Refusal
	UDP      Belief // of this node
	Signals  Signals
	Attempts []Attempt       // the latest, newest first
	Mapped   []netip.Addr    // under which others see this node
	Relay    identity.NodeID // a relay to it is kept on this anchor; zero: on none
	Pathless Sentence        // why there is no path, by the word of nat; nil when there is one
}

// Node is one of the two ends.
type Node struct {
	ID      identity.NodeID
	Port    uint16 // of its shared socket; 0: not known
	NAT     natkind.Self
	Version string
	At      []netip.AddrPort // where it says that it is reached; of the peer only
	Unsent  []Unsent         // what its system refuses to send, the latest first; of this node only
}

// Path is how the packets to a peer go.
type Path struct {
	Kind PathKind
	Via  identity.NodeID // of a relayed one
	TCP  bool            // by a stream, because UDP does not get through
}

// PathKind says how a peer is reached.
type PathKind uint8

// The kinds of Path.
const (
	NoPath PathKind = iota
	DirectPath
	RelayedPath
)

// Belief is what a node believes of UDP on its own network.
type Belief struct {
	State  UDPState
	Reason string // in words
}

// UDPState is whether UDP gets through.
type UDPState uint8

// The beliefs.
const (
	UDPUsed      UDPState = iota // it does, or there is nobody to ask
	UDPInDoubt                   // it is being found out
	UDPBlocked                   // it does not: streams are used
	UDPReturning                 // it does again, and streams are used until that is sure
)

// Ping is what came of asking the peer for an answer through the tunnel.
type Ping struct {
	Asked    bool
	Answered bool
	Passages []Passage // by overlay address
}

// Life is what other members say of the peer by gossip.
type Life uint8

// What gossip says.
const (
	LifeUnknown Life = iota
	Alive
	Dead
)

// String returns the word that people are shown.
func (l Life) String() string {
	switch l {
	case Alive:
		return "alive"
	case Dead:
		return "dead"
	}
	return "unknown"
}

// Refusal is a member that wants no session with this node.
type Refusal struct {
	By     identity.NodeID
	Reason string // in its words
	Since  time.Time
}

// Words says who refuses, since when, and what it says: its word, that is, and no more.
func (r Refusal) Words(names Names) string {
	return fmt.Sprintf("%s has refused this node since %s; it says: %s", names(r.By), r.Since.UTC().Format("2006-01-02 15:04:05 UTC"), r.Reason)
}

// Signals is how the introduction goes that is under way, and the last one.
type Signals struct {
	Unanswered int       // offers, or requests for one, that the peer has not answered
	Since      time.Time // the first of them
	NoRoute    string    // why there is no way for them; "" when there is
	Refused    bool      // the peer says that it does not know this node
	Skewed     bool      // the peer's last one was refused because of its clock
	Heard      time.Time // the last message of the peer
}
