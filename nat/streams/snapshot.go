package streams

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"warren/mesh/identity"
	"warren/nat/stream"
)

// maxAsked bounds the anchors of which it is asked whether UDP works.
const maxAsked = 8

// Snapshot is what Streams believes and has. It is not to be changed.
type Snapshot struct {
	// State is what is believed of UDP, since when, and why.
	State  State
	Since  time.Time
	Reason string

	// Ends are the streams that are up, by member; of several with one member the one that this node has dialled, else that by which
	// the member's session goes, else the newest. One that was
	// accepted says nothing of this node's own UDP: whoever opened it may take his to be blocked, and is the one to know. His
	// session tells: he uses the stream while it goes by it, or while there is none. The end of such a stream may be told late
	// or never, since a host that left its network cannot close what it had there. When one appears, the path to
	// its member is to be checked.
	Ends map[identity.NodeID]End
	// Targets are the streams by which sessions are to be dialled, before other addresses; those that are being left are not
	// among them. What the sessions were told comes back in Desired.Targets.
	Targets map[identity.NodeID]netip.AddrPort
	// Ask are addresses of anchors that are to be asked by UDP beside those to which there is a session, best first. There are
	// none while State is Open.
	Ask []netip.AddrPort

	// Blocked says why streams are used; empty: they are not.
	Blocked string
	// CutOff says why no stream is up although they are used.
	CutOff string
	// Forlorn says that UDP gets no answer from the Internet, as far as it looks.
	Forlorn bool
	// Trouble says why the last stream did not come up; empty since one has.
	Trouble string
	// Refusals are the anchors that refuse this node's streams; where no UDP gets through, their no is heard only so. One ends
	// with a stream to the anchor, or with a session that is younger.
	Refusals map[identity.NodeID]Refusal

	// Blocks counts how often UDP was found to be blocked. Then all paths are to be checked: what does not answer either makes
	// room for a relay. (A return that did not last is not counted: nothing had moved back yet.)
	Blocks uint64
	// Returned counts how often UDP came to work again after it was blocked. Then the peers without a direct path are to be
	// introduced anew.
	Returned uint64

	// Ports are those on which streams are to be accepted, and how that goes.
	Ports []stream.Port
	// Counts says what has become of connections to them. They change without an event.
	Counts stream.Counts
}

// End is a stream that is up.
type End struct {
	Virtual  netip.AddrPort // its address in the socket
	Remote   netip.AddrPort // of TCP
	Accepted bool           // the member has opened it; else this node has
}

// Refusal is an anchor's no.
type Refusal struct {
	Code   uint16
	Reason string
	At     time.Time // when it was heard first
	Proof  [][]byte  // what it rests on, as it came last; shared
	Proved time.Time // when that came
}

// tally is what the loop remembers for the snapshot alone.
type tally struct {
	blocks   uint64
	returned uint64
	trouble  string
	refusals map[identity.NodeID]Refusal
}

// board is where the loop leaves the snapshot.
type board struct {
	events   chan struct{} // constant: a value when there is another one
	snapshot atomic.Pointer[Snapshot]
}

func newBoard() *board {
	b := &board{events: make(chan struct{}, 1)}
	b.snapshot.Store(&Snapshot{})
	return b
}

// put leaves a snapshot, and tells if it is another one.
func (b *board) put(next *Snapshot) {
	if reflect.DeepEqual(next, b.snapshot.Load()) {
		return
	}
	b.snapshot.Store(next)
	select {
	case b.events <- struct{}{}:
	default:
	}
}

// publish makes the snapshot anew.
func (l *loop) publish() {
	state, since, reason := l.machine.State()
	next := Snapshot{
		State: state, Since: since, Reason: reason, Ends: l.held.ends(l.want.Sessions), Targets: l.held.targets(), Trouble: l.tally.trouble,
		Refusals: maps.Clone(l.tally.refusals), Blocks: l.tally.blocks, Returned: l.tally.returned, Ports: l.o.Server.Ports(),
	}
	next.Forlorn = state == Blocked || state == Trying && len(l.udp) == 0 && len(next.Targets) > 0
	if state != Open {
		// Whether UDP works is asked of all, also of those to whom a stream leads, or nothing.
		for _, a := range l.want.Anchors[:min(len(l.want.Anchors), maxAsked)] {
			for _, addr := range l.want.counting(a.UDP) {
				if !slices.Contains(next.Ask, addr) {
					next.Ask = append(next.Ask, addr)
				}
			}
		}
	}
	switch {
	case state == Open || state == Trying:
	case len(next.Targets) > 0:
		next.Blocked = l.machine.why // also while it answers again: what that state rests on speaks against it
	default:
		next.CutOff = next.Trouble
	}
	l.board.put(&next)
}
