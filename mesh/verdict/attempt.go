package verdict

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// The types of a Pair, in the words of RFC 8445.
const (
	host            = "host"
	serverReflexive = "srflx"
)

// Attempt is one run of ICE (RFC 8445) with a peer.
type Attempt struct {
	Started   time.Time
	Ended     time.Time      // zero: it runs
	Nominated netip.AddrPort // the address that won; invalid: none did
	Pairs     []Pair
	More      int // pairs that are not listed
}

// Pair is what came of one address of the peer. (This node sends all checks from one socket.)
type Pair struct {
	Remote   netip.AddrPort
	Type     string // of the remote candidate: host, srflx, or prflx when the peer did not name it
	Sent     int    // checks sent to it
	Answered int    // authentic answers
	Heard    int    // authentic checks of the peer from it
	Unable   bool   // this node has no address of its family
}

// Outcome is what became of a Pair.
type Outcome uint8

// The outcomes.
const (
	Unable     Outcome = iota // this node has no address of its family
	Chosen                    // it answered, and was nominated
	NotChosen                 // it answered
	HeardOnly                 // checks came in from it, and none was sent
	HeardMute                 // checks came in from it, and ours were not answered
	Untried                   // its turn is still to come
	NeverTried                // the attempt ended before its turn
	Unanswered                // checks were sent, and nothing came
)

// Outcome says what became of one of the attempt's pairs.
func (a Attempt) Outcome(p Pair) Outcome {
	switch {
	case p.Unable:
		return Unable
	case p.Remote == a.Nominated:
		return Chosen
	case p.Answered > 0:
		return NotChosen
	case p.Heard > 0 && p.Sent == 0:
		return HeardOnly
	case p.Heard > 0:
		return HeardMute
	case p.Sent == 0 && a.Ended.IsZero():
		return Untried
	case p.Sent == 0:
		return NeverTried
	}
	return Unanswered
}

// Tell puts what became of one of the attempt's pairs into words.
func (a Attempt) Tell(p Pair) string {
	switch a.Outcome(p) {
	case Unable:
		return "not tried: this node has no address of its family"
	case Chosen:
		return "answered, chosen"
	case NotChosen:
		return "answered, not chosen"
	case HeardOnly:
		return "its checks came in, none was sent back"
	case HeardMute:
		return fmt.Sprintf("its checks came in; no answer to %d", p.Sent)
	case Untried:
		return "not tried yet"
	case NeverTried:
		return "not tried: the attempt ended before"
	}
	return fmt.Sprintf("no answer to %s", counted(p.Sent, "check"))
}

// Result sums the attempt up in words.
func (a Attempt) Result() string {
	switch {
	case a.Nominated.IsValid():
		return "found " + a.Nominated.String()
	case a.Ended.IsZero():
		return "runs"
	case len(a.Pairs) == 0:
		return "the peer has told no address"
	}
	answered := 0
	for _, p := range a.Pairs {
		if p.Answered > 0 {
			answered++
		}
	}
	return fmt.Sprintf("%d of %s answered", answered, counted(len(a.Pairs), "address"))
}

// Ranked returns the pairs in the order in which a person wants them: what answered first, then what was worked on the most.
func (a Attempt) Ranked() []Pair {
	out := slices.Clone(a.Pairs)
	slices.SortStableFunc(out, func(x, y Pair) int {
		return cmp.Or(cmp.Compare(y.Answered, x.Answered), cmp.Compare(y.Heard, x.Heard), cmp.Compare(y.Sent, x.Sent))
	})
	return out
}

// sums adds up the checks, and counts the pairs that could be tried.
func (a Attempt) sums() (sent, answered, heard, able int) {
	for _, p := range a.Pairs {
		sent, answered, heard = sent+p.Sent, answered+p.Answered, heard+p.Heard
		if !p.Unable {
			able++
		}
	}
	return sent, answered, heard, able
}

// cutShort reports whether the attempt ended before silence could show anything: it was given up after fewer checks than a STUN request is repeated
// until nobody answers (Rc, RFC 8489, 6.2.1), as when the peer begins anew.
func (a Attempt) cutShort() bool {
	const requests = 7
	sent, answered, heard, _ := a.sums()
	return !a.Nominated.IsValid() && answered+heard == 0 && sent > 0 && sent < requests
}

// mappedTo reports whether the peer's NAT shows one of these addresses.
func (a Attempt) mappedTo(addrs []netip.Addr) bool {
	return slices.ContainsFunc(a.Pairs, func(p Pair) bool { return p.Type == serverReflexive && slices.Contains(addrs, p.Remote.Addr()) })
}
