package path

import (
	"net/netip"
	"time"

	"warren/mesh/identity"
)

// Input is one of the types below.
type Input interface{ input() }

type (
	// Wake is due at the time that Step returned. It carries the peer's WireGuard activity, zero for never, and how late it is: this
	// machine had other things to do, and what was sent to it meanwhile may not have been read either.
	Wake struct {
		LastTx, LastRx time.Time
		Late           time.Duration
	}
	// Local replaces what this node knows of itself: its candidates, the anchors that it can relay through, and the
	// prefixes of its overlay, in which no address is ever a candidate or a source. The machine keeps what it refers to.
	Local struct {
		Candidates []Candidate
		Relays     []RelayOffer
		NoUDP      bool // nothing gets an answer from the Internet by UDP: no direct path is worth waiting for
		Overlay    []netip.Prefix
		// Dialable holds the anchors with which this node could get a session, as far as it has none; nil: all.
		Dialable map[identity.NodeID]bool
	}
	// Met says where an earlier process has reached the peer last: it is tried there, beside everything else.
	Met struct{ Addr netip.AddrPort }
	// Received is a verified message from the peer.
	Received struct{ Message Message }
	// Stirred is Wake out of turn: the peer is sent to after a pause.
	Stirred Wake
	// Routable says that signals to the peer have a route now; if Perhaps is set, that they may have one, because there is a session
	// with somebody else: that is news only for those that had none.
	Routable struct{ Perhaps bool }
	// Unroutable says that the message just sent, of that kind, had no route.
	Unroutable struct {
		Kind Kind
		Text string
	}
	// NetworkChanged brings what Local does and asks for a new attempt, whatever there is. If the host addresses are the
	// Same as before, a path that there is need only be checked.
	NetworkChanged struct {
		Local Local
		Same  bool
	}
	// PeerChanged says that the peer may be reached elsewhere now: a new attempt makes sense unless the path is direct.
	PeerChanged struct{}
	// Suspect asks for a check of the current path now.
	Suspect struct{}
	// RelayGone says that an anchor is no member any more: nothing goes through it from now on, whether it answers or not.
	RelayGone struct{ Anchor identity.NodeID }
	// Introduce asks for a new introduction although there is a path, which stays in use meanwhile. It does nothing
	// while one is under way, or right after one.
	Introduce struct{}
	// PairAnswered says that a check of ICE to an address was answered, the first one of an attempt.
	PairAnswered struct {
		Attempt uint64
		Addr    netip.AddrPort
	}
	// Nominated is ICE's success; Failed its end without one.
	Nominated struct {
		Attempt uint64
		Addr    netip.AddrPort
	}
	Failed struct {
		Attempt uint64
		Text    string
	}
	// OwnPredicted brings the ports at which this node's NAT may let the peer in, in the attempt that runs.
	OwnPredicted struct {
		Attempt   uint64
		Predicted Predicted
	}
	// RelayOpened answers OpenRelay; Text is the error, empty for success.
	RelayOpened struct {
		Anchor identity.NodeID
		Addr   netip.AddrPort
		Text   string
	}
	// CheckAnswered says that a Check got an authentic answer from the address it went to.
	CheckAnswered struct{ ID uint64 }
	// PeerChecked says that an authentic check of the peer came from that address, and was answered.
	PeerChecked struct{ From netip.AddrPort }
	// Proven says that something authentic of the peer came from that address which ICE deals with: a check, or the
	// answer to one.
	Proven struct{ From netip.AddrPort }
)

func (Wake) input()           {}
func (Local) input()          {}
func (Met) input()            {}
func (Received) input()       {}
func (Stirred) input()        {}
func (Routable) input()       {}
func (Unroutable) input()     {}
func (NetworkChanged) input() {}
func (PeerChanged) input()    {}
func (Suspect) input()        {}
func (RelayGone) input()      {}
func (Introduce) input()      {}
func (PairAnswered) input()   {}
func (Nominated) input()      {}
func (Failed) input()         {}
func (OwnPredicted) input()   {}
func (RelayOpened) input()    {}
func (CheckAnswered) input()  {}
func (PeerChecked) input()    {}
func (Proven) input()         {}

// Output is one of the types below, to be carried out in order.
type Output interface{ output() }

type (
	// Send signals a message to the peer, by a session or, with Message.Straight, by a letter. If there is no route for one that goes by
	// a session, Unroutable must be the next input.
	Send struct{ Message Message }
	// StartICE starts an agent of its own for this attempt. StopICE ends it; it may have ended already.
	StartICE struct {
		Attempt       uint64
		Controlling   bool
		Local, Remote Credentials
		Candidates    []Candidate
		// Spacing is the time between two checks of one address, at least: it follows what answers take.
		Spacing time.Duration
	}
	AddCandidates struct {
		Attempt    uint64
		Candidates []Candidate
	}
	// Punch sends checks of the attempt to addresses at which the peer's NAT may let this node in.
	Punch struct {
		Attempt uint64
		To      []netip.AddrPort
	}
	StopICE struct{ Attempt uint64 }
	// Trust replaces the own credentials under which the peer's checks are answered.
	Trust struct{ Own []Credentials }
	// Check sends one STUN Binding request from Own to Remote's credentials.
	Check struct {
		ID          uint64
		To          netip.AddrPort
		Own, Remote Credentials
	}
	// Doubt says that the path answers no check in its time: whatever else leads to the peer should be looked at, and
	// whether this node still has its address.
	Doubt      struct{ Via identity.NodeID } // the relay of the path, zero for a direct one
	OpenRelay  struct{ Anchor identity.NodeID }
	CloseRelay struct {
		Anchor identity.NodeID
		Addr   netip.AddrPort
	}
	// Report tells the world.
	Report struct{ Event Event }
)

func (Send) output()          {}
func (StartICE) output()      {}
func (AddCandidates) output() {}
func (Punch) output()         {}
func (StopICE) output()       {}
func (Trust) output()         {}
func (Check) output()         {}
func (Doubt) output()         {}
func (OpenRelay) output()     {}
func (CloseRelay) output()    {}
func (Report) output()        {}
