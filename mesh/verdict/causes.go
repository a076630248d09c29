package verdict

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"warren/mesh/identity"
)

// The conclusions and causes of verdicts about members. Those about NATs are in nats.go.

// Causes that are about nobody in particular.
const (
	HandshakeRuns  Plain = "the path has just come up; WireGuard's handshake is under way"
	DirectIsTried  Plain = "a direct path is being tried; the relay carries the packets meanwhile"
	UDPReturns     Plain = "UDP answers again on this network; packets go by the TCP stream until it has done so for some seconds"
	UDPReturnsSoon Plain = "UDP answers again on this network, and direct paths are tried once it has done so for some seconds"
	StreamForNow   Plain = "packets go by a TCP stream, since UDP was in doubt at one of the two ends; UDP is being tried"
)

// NoKeys is a path that answers checks, and over which WireGuard does not agree on keys.
type NoKeys struct {
	Never bool // it never did since this agent started
}

// Words says what is known, and what may be behind it: which of the two it is cannot be seen from here.
func (c NoKeys) Words(Names) string {
	text := "the path answers checks, but WireGuard's handshake gets no answer over it"
	if c.Never {
		text = "the path answers checks, but WireGuard's handshake has got no answer over it so far"
	}
	return text + ": either the two ends do not hold the same keys, or something on the way drops WireGuard's packets and lets others pass; which of the two is not known"
}

// NoUDPHere is a network that drops UDP.
type NoUDPHere struct {
	Why     string // what has shown that
	Streams bool   // TCP streams carry the packets
}

// Words says so.
func (c NoUDPHere) Words(Names) string {
	text := "UDP does not get through on this network"
	if c.Why != "" {
		text += " (" + c.Why + ")"
	}
	if c.Streams {
		text += ", so packets go by TCP streams through anchors"
	}
	return text
}

// DirectIsLost is a direct path that was found and is not there any more.
type DirectIsLost struct{ Addr netip.AddrPort }

// Words says which.
func (c DirectIsLost) Words(Names) string {
	return fmt.Sprintf("the direct path to %s, which the last try has found, has stopped answering; another one is looked for", c.Addr)
}

// How is how a member is reached.
type How struct {
	Peer   identity.NodeID
	Path   Path
	Answer Answer
}

// Answer says whether the member answers by its path.
type Answer uint8

// The answers.
const (
	Answered    Answer = iota // it was heard just now
	NotAsked                  // it answered when it was last asked
	NotAnswered               // it does not
	PathAnswers               // the path does, and what goes through the tunnel is not answered
)

// Words says it in one line.
func (h How) Words(names Names) string {
	peer, way := names(h.Peer), h.Path.words(names)
	switch {
	case way == "":
		return peer + " is not reached"
	case h.Answer == NotAnswered:
		return peer + " does not answer; the path to it leads " + way
	case h.Answer == PathAnswers:
		return fmt.Sprintf("%s does not answer through the tunnel; the path to it leads %s", peer, way)
	case h.Answer == NotAsked:
		return peer + " was last reached " + way
	}
	return peer + " is reached " + way
}

// words says where a path leads; "" for none.
func (p Path) words(names Names) string {
	switch {
	case p.TCP && p.Kind == RelayedPath:
		return fmt.Sprintf("through the relay %s, by a TCP stream", names(p.Via))
	case p.TCP && p.Kind == DirectPath:
		return "by a TCP stream"
	case p.Kind == RelayedPath:
		return fmt.Sprintf("through the relay %s, not directly", names(p.Via))
	case p.Kind == DirectPath:
		return "directly"
	}
	return ""
}

// LeftMesh is the conclusion about a member that has left.
type LeftMesh struct{ Peer identity.NodeID }

// Words says so.
func (c LeftMesh) Words(names Names) string {
	return names(c.Peer) + " is not reached: it has left the mesh by itself"
}

// NoMember is the conclusion about a node that was revoked.
type NoMember struct{ Name string }

// Words says so.
func (c NoMember) Words(Names) string { return c.Name + " is no member any more" }

// PutOut is who revoked a node.
type PutOut struct {
	By     string
	At     time.Time
	Reason string
}

// Words says who, when and why.
func (c PutOut) Words(Names) string {
	text := fmt.Sprintf("revoked by %s on %s", c.By, c.At.UTC().Format("2 January 2006 at 15:04 UTC"))
	if c.Reason != "" {
		text += ": " + c.Reason
	}
	return text
}

// NoAnswer is a peer with a path that did not answer a ping.
type NoAnswer struct{ Peer identity.NodeID }

// Words says so.
func (c NoAnswer) Words(names Names) string {
	return names(c.Peer) + " does not answer over its path just now: the path, or the machine, may have gone this moment"
}

// NoAnswerInside is a peer whose path and keys are good, and that does not answer a ping through the tunnel.
type NoAnswerInside struct{ Peer identity.NodeID }

// Words says what is known.
func (c NoAnswerInside) Words(names Names) string {
	return fmt.Sprintf("the path to %s answers and its keys are good, but a ping through the tunnel got no answer: it was lost, or something drops what goes into the tunnel or comes out of it, on one of the two machines", names(c.Peer))
}

// NothingHeard is a peer that is off, or offline.
type NothingHeard struct {
	Peer    identity.NodeID
	Waited  time.Duration // for an answer; 0: since now
	Ago     time.Duration // it was last heard
	Never   bool          // it was not heard since the agent started
	Life    Life          // what gossip says
	Session bool          // the session with it has not ended
}

// Words says since when, as far as is known, and that the machine is off only if nobody hears it.
func (c NothingHeard) Words(names Names) string {
	off := ": it may be switched off or offline, or its agent does not run"
	if c.Life == Dead && !c.Session {
		off = ": it is switched off or offline, or its agent does not run"
	}
	text := fmt.Sprintf("%s has answered nothing for %s%s", names(c.Peer), coarse(c.Waited), off)
	switch {
	case c.Never:
		text = names(c.Peer) + " has not been heard since this agent started" + off
	case c.Waited == 0:
		text = names(c.Peer) + " does not answer" + off
	}
	if !c.Never && c.Ago > c.Waited+time.Minute {
		text += fmt.Sprintf(" (last heard %s ago)", coarse(c.Ago))
	}
	switch {
	case c.Session:
		text += "; the control session with it has not ended yet"
	case c.Life == Dead:
		text += "; no other member hears it either"
	case c.Life == Alive:
		text += "; gossip has not missed it so far, which may take minutes"
	}
	return text
}

// RefusedBy are the members that take this node in no more.
type RefusedBy struct{ Refusals []Refusal }

// Words says who, and why.
func (c RefusedBy) Words(names Names) string {
	var all []string
	for _, r := range c.Refusals {
		all = append(all, r.Words(names))
	}
	return "other members refuse this node: " + strings.Join(all, "; ")
}

// NoSession is a node that nobody can introduce.
type NoSession struct{ Peer identity.NodeID }

// Words says so.
func (c NoSession) Words(names Names) string {
	return "this node has a session with nobody, so nobody can introduce it to " + names(c.Peer)
}

// ClocksDiffer are two nodes whose clocks are too far apart for signals.
type ClocksDiffer struct{ Self, Peer identity.NodeID }

// Words says so.
func (c ClocksDiffer) Words(names Names) string {
	return fmt.Sprintf("the clocks of %s and %s differ by more than five minutes, so that introductions are refused", names(c.Self), names(c.Peer))
}

// NotKnownTo is a peer that has not this node's record, or has another one.
type NotKnownTo struct{ Peer identity.NodeID }

// Words says so.
func (c NotKnownTo) Words(names Names) string {
	return names(c.Peer) + " says that it does not know this node: the record of one of the two may still be on its way"
}

// NoRoute is a peer to which introductions find no way.
type NoRoute struct {
	Peer identity.NodeID
	Why  string
}

// Words says why.
func (c NoRoute) Words(names Names) string {
	return "introductions find no way to " + names(c.Peer) + ": " + c.Why
}

// JustLost is a peer that was there a moment ago.
type JustLost struct{ Peer identity.NodeID }

// Words says so.
func (c JustLost) Words(names Names) string {
	return names(c.Peer) + " has just stopped answering, and is being looked for"
}

// AskedJustNow is a peer that has hardly had the time to answer.
type AskedJustNow struct{ Peer identity.NodeID }

// Words says so.
func (c AskedJustNow) Words(names Names) string {
	return names(c.Peer) + " was asked for an introduction just now"
}

// AnswersLate is a peer that was heard since it was asked for an introduction.
type AnswersLate struct {
	Peer        identity.NodeID
	Ago, Waited time.Duration
}

// Words says so.
func (c AnswersLate) Words(names Names) string {
	return fmt.Sprintf("%s was heard %s ago, and has not answered an introduction for %s: one of the two may be lost, or on its way", names(c.Peer), coarse(c.Ago), coarse(c.Waited))
}

// PathIsTried is a peer with which no attempt has ended yet.
type PathIsTried struct{ Peer identity.NodeID }

// Words says so.
func (c PathIsTried) Words(names Names) string {
	return "a path to " + names(c.Peer) + " is being tried"
}

// AnswersNoIntroduction is a peer that has a session with this node and says nothing.
type AnswersNoIntroduction struct{ Peer identity.NodeID }

// Words says so.
func (c AnswersNoIntroduction) Words(names Names) string {
	return names(c.Peer) + " is there but answers no introduction"
}

// IsOlder is AnswersNoIntroduction of a peer that may not understand it.
type IsOlder struct {
	Peer        identity.NodeID
	There, Here string // versions
}

// Words says so.
func (c IsOlder) Words(names Names) string {
	return fmt.Sprintf("%s; it runs version %s, and this node %s", AnswersNoIntroduction{c.Peer}.Words(names), c.There, c.Here)
}

// NoUDPThere is a peer on a network that drops UDP.
type NoUDPThere struct {
	Peer    identity.NodeID
	Streams bool // TCP streams carry the packets
}

// Words says by whose word, and what follows.
func (c NoUDPThere) Words(names Names) string {
	text := fmt.Sprintf("%s says that UDP does not get through on its network", names(c.Peer))
	if c.Streams {
		text += ", so its packets go by TCP streams through anchors"
	}
	return text
}

// FamiliesDiffer are two nodes of which one has IPv4 only, the other IPv6 only.
type FamiliesDiffer struct{ Self, Peer identity.NodeID }

// Words says so.
func (c FamiliesDiffer) Words(names Names) string {
	return fmt.Sprintf("%s and %s have no address family in common: one has IPv4 only, the other IPv6 only", names(c.Self), names(c.Peer))
}

// NoAddress is a peer that has told no candidate.
type NoAddress struct{ Peer identity.NodeID }

// Words says so.
func (c NoAddress) Words(names Names) string {
	return names(c.Peer) + " has told no address that can be used"
}

// Unrelayed is why there is no path at all: Cause is why there is no direct one.
type Unrelayed struct {
	Cause Sentence
	Peer  identity.NodeID
	Relay identity.NodeID // through which the peer does not answer; zero: there is none
	Why   Sentence        // why there is none; nil: not known
}

// Words adds why no relay carries the packets.
func (c Unrelayed) Words(names Names) string {
	why := "no anchor serves both"
	if c.Relay != (identity.NodeID{}) {
		why = fmt.Sprintf("%s does not answer through %s", names(c.Peer), names(c.Relay))
	} else if text := words(c.Why, names); text != "" {
		why = text
	}
	return words(c.Cause, names) + "; and no relay carries the packets: " + why
}
