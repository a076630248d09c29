package streams

import (
	"time"

	"warren/mesh/identity"
)

// State is what is believed of UDP.
type State uint8

// The states. A change of the network leads from any of them to Trying.
//
//	        doubt        no answer, but a stream        answered
//	Open ──────────► Trying ──────────────► Blocked ────────────► Returning
//	 ▲ ▲               │  or for trialTime     ▲                    │   │
//	 │ └───────────────┘                       └────────────────────┘   │
//	 │      answered                             answers stop           │
//	 └──────────────────────────────────────────────────────────────────┘
//	                      answered for long enough
const (
	Open      State = iota // UDP works, or there is nobody to ask
	Trying                 // in doubt; streams are dialled beside the probes, and those that are up stay
	Blocked                // streams are used
	Returning              // UDP answers again; streams are used until that is sure
)

// String returns the state in words.
func (s State) String() string {
	return [...]string{"open", "in doubt", "blocked", "answering again"}[s]
}

// Input is something that Step is told.
type Input interface{ input() }

// The inputs. All evidence is about anchors at public addresses: one in the same network would answer also where UDP
// ends at the router.
type (
	// Anchors replaces the anchors that streams may be opened to, best first.
	Anchors struct{ IDs []identity.NodeID }
	// Moved says that an anchor is at other addresses now, by its own word.
	Moved struct{ ID identity.NodeID }
	// NetworkChanged says that addresses or routes of this machine are others now.
	NetworkChanged struct{}
	// Doubt says that something which went by UDP is not answered: a session that ended so, a path that died.
	Doubt struct{}
	// DialFailed says that a round of dialling an anchor by UDP ended without any answer.
	DialFailed struct{ ID identity.NodeID }
	// Answered says that an anchor has just answered a probe by UDP.
	Answered struct{}
	// PeerAnswered says that a member which is no anchor has just been heard by UDP.
	PeerAnswered struct{}
	// SessionUp says that a session with an anchor came up by UDP.
	SessionUp struct{ ID identity.NodeID }
	// SessionDown says that it ended, for whatever reason.
	SessionDown struct{ ID identity.NodeID }
	// Knocked says what came of a Knock: whether an anchor could be dialled.
	Knocked struct {
		Serial uint64
		Open   bool
	}
	// StreamUp says that OpenStream succeeded.
	StreamUp struct{ Ref }
	// StreamDown says that OpenStream failed, or that a stream ended. For one that CloseStream ended it means nothing.
	StreamDown struct{ Ref }
	// Tick says that it is the time that Step asked to be woken at, or another one. Busy says that packets go over the streams; Late is
	// how much later than asked for it comes: this machine had other things to do, and answers may lie unread for as long.
	Tick struct {
		Busy bool
		Late time.Duration
	}
)

func (Anchors) input()        {}
func (Moved) input()          {}
func (NetworkChanged) input() {}
func (Doubt) input()          {}
func (DialFailed) input()     {}
func (Answered) input()       {}
func (PeerAnswered) input()   {}
func (SessionUp) input()      {}
func (SessionDown) input()    {}
func (Knocked) input()        {}
func (StreamUp) input()       {}
func (StreamDown) input()     {}
func (Tick) input()           {}

// Output is something to be done.
type Output interface{ output() }

// The outputs.
type (
	// Probe asks the anchors, all of them, by UDP: a STUN Binding request each.
	Probe struct{}
	// Knock dials anchors by UDP as a session would be, and hangs up. What comes of it is to be told by Knocked with its serial number.
	Knock struct{ Serial uint64 }
	// OpenStream dials a stream to the anchor. What comes of it is to be told by StreamUp or StreamDown.
	OpenStream struct{ Ref }
	// LeaveStream moves the session with the anchor away from the stream, which stays a little longer.
	LeaveStream struct{ Ref }
	// CloseStream ends the stream, or the dialling of it.
	CloseStream struct{ Ref }
)

// Ref names one stream: the anchor that it leads to, and a number that tells it from earlier ones.
type Ref struct {
	ID     identity.NodeID
	Serial uint64
}

func (Probe) output()       {}
func (Knock) output()       {}
func (OpenStream) output()  {}
func (LeaveStream) output() {}
func (CloseStream) output() {}
