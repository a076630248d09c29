package verdict

import (
	"fmt"

	"warren/mesh/identity"
)

// The remedies of verdicts about members. Those at routers are in nats.go.

// Remedies that are the same whoever the peer is.
const (
	AskAgain     Plain = "ask again in some seconds"
	IsChecked    Plain = "it is being checked: ask again in some seconds"
	Wait         Plain = "wait some seconds"
	Repeated     Plain = "it is tried again by itself, and may work then"
	SeeStatus    Plain = "see: warren status"
	SeeNetcheck  Plain = "see whether this machine is online and an anchor is up: warren netcheck"
	SetClocks    Plain = "set both clocks by NTP: timedatectl set-ntp true"
	AddFamily    Plain = "give one of the two the other family too"
	IsolationOff Plain = "switch client isolation off on the router, or put both into one network"
)

// InviteAgain brings a member back that has left.
type InviteAgain struct{ Peer identity.NodeID }

// Words says how.
func (f InviteAgain) Words(names Names) string {
	return "to have it back: warren invite here, and warren join TOKEN on " + names(f.Peer)
}

// AnotherKey is for a member whose WireGuard key another has.
type AnotherKey struct{ Peer identity.NodeID }

// Words says where a key may have come from, too.
func (f AnotherKey) Words(names Names) string {
	peer := names(f.Peer)
	return fmt.Sprintf("give %s another WireGuard key: warren leave, then warren join TOKEN there; if nobody has copied a key there, warren revoke %s", peer, peer)
}

// JoinAnew brings a machine back whose key was revoked.
type JoinAnew struct{ Name string }

// Words says how.
func (f JoinAnew) Words(Names) string {
	return "a revoked key stays out; to have the machine back: warren leave --force, then warren join TOKEN on " + f.Name
}

// RestartThere is for a peer that holds other keys, and does not agree on new ones.
type RestartThere struct{ Peer identity.NodeID }

// Words says when.
func (f RestartThere) Words(names Names) string {
	return "keys are agreed on anew by themselves within seconds; if not, restart the agent on " + names(f.Peer)
}

// LookInside is for a peer of which something on one of the machines drops what the tunnel carries.
type LookInside struct{ Self, Peer identity.NodeID }

// Words says where to look.
func (f LookInside) Words(names Names) string {
	return fmt.Sprintf("ask again; if it stays so, look for rules that drop packets of the tunnel: sudo nft list ruleset on %s and on %s", names(f.Self), names(f.Peer))
}

// WaitForRecords is for a peer that does not know this node.
type WaitForRecords struct{ Peer identity.NodeID }

// Words says how long.
func (f WaitForRecords) Words(names Names) string {
	return "wait some seconds; if it stays so, look at warren status on " + names(f.Peer)
}

// Start is for a peer that is off.
type Start struct{ Peer identity.NodeID }

// Words says what else may be.
func (f Start) Words(names Names) string {
	return fmt.Sprintf("start %s, or see there: warren status, warren netcheck", names(f.Peer))
}

// Update is for a peer with an older version.
type Update struct{ Peer identity.NodeID }

// Words says so.
func (f Update) Words(names Names) string { return "update warren on " + names(f.Peer) }

// SeeThere is for a peer that is deaf: it may know why. Self is this node, by the name that is to be asked for there.
type SeeThere struct{ Self identity.NodeID }

// Words says what to ask.
func (f SeeThere) Words(names Names) string {
	return fmt.Sprintf("see there: warren why %s, warren status", names(f.Self))
}

// NetcheckThere is for a peer that tells no address.
type NetcheckThere struct{ Peer identity.NodeID }

// Words says what to ask.
func (f NetcheckThere) Words(names Names) string {
	return "see there: warren netcheck on " + names(f.Peer)
}

// NetcheckOn is for a node of whose NAT too little is known.
type NetcheckOn struct{ Node identity.NodeID }

// Words says what it takes.
func (f NetcheckOn) Words(names Names) string {
	return fmt.Sprintf("see on %s: warren netcheck (it takes two anchors to tell)", names(f.Node))
}

// LetOut is for a network that drops UDP.
type LetOut struct{ Node identity.NodeID }

// Words says at least whereto.
func (f LetOut) Words(names Names) string {
	return fmt.Sprintf("let UDP out of the network of %s, at least to port %d of the anchors", names(f.Node), usualPort)
}
