// Package reach decides which of a node's addresses strangers can reach: it asks another member to send a packet there
// from a socket that this node has never spoken to, and believes what arrives.
//
// It is a pure state machine. Asking (a message to the helper, who sends) and seeing (the packet comes in by the shared
// socket) belong to nat/standing and nat; what an address is announced for is mesh/node's.
//
// A Machine has one owner and is not safe for concurrent use.
package reach

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/nat/ranges"
)

// Timing. A reachable address is tested often enough that its loss is known within a minute: every Recheck, and then
// tries in a row.
const (
	Recheck = 40 * time.Second
	// answerTime is how long a test may take: the helper sends three times within 0.75 s.
	answerTime = 2 * time.Second
	// tries is how many tests in a row have to fail, with different helpers where there are some.
	tries = 3
	// retest is how long an address that was not reachable is left alone; a change of the network starts over. One that was
	// reachable before may be so again soon, when a line is mended: it is tested after lostRetest, then twice as long each time.
	retest     = 5 * time.Minute
	lostRetest = 5 * time.Second
	// wordFor is how long what came of a helper's last test counts against what others say. A helper can lie both ways: it sends
	// nothing, or by a way on which it is no stranger.
	wordFor = 10 * time.Minute
	// otherWord is when another helper is asked after a test that arrived against the word of others.
	otherWord = 500 * time.Millisecond
)

// State is what is known of an address.
type State string

// The states of an address.
const (
	Untested    State = "untested"    // no helper could be asked yet
	Reachable   State = "reachable"   // a stranger's packet came in
	Unreachable State = "unreachable" // tests failed
)

// Helper is a member that can be asked, and the underlay address that its session comes from.
type Helper struct {
	ID   identity.NodeID
	Addr netip.Addr
}

// Ask is a test to start: Helper is to send to Addr, with ID as the transaction of a STUN Binding request.
type Ask struct {
	Helper identity.NodeID
	Addr   netip.AddrPort
	ID     [12]byte
}

// Candidate is one address with what is known of it.
type Candidate struct {
	Addr  netip.AddrPort
	State State
	Since time.Time
	// Helper did the last test that ended.
	Helper identity.NodeID
}

// Machine keeps the candidates of one node.
type Machine struct {
	newID      func() [12]byte
	helpers    []Helper
	candidates []*candidate
	turn       int // helpers take turns
	// unable holds until when helpers are not asked again about a family that they have said not to have.
	unable map[lack]time.Time
}

// lack is a helper without an address family.
type lack struct {
	helper identity.NodeID
	v4     bool
}

type candidate struct {
	Candidate
	failures int                      // in a row
	asked    []identity.NodeID        // whose tests these were, and whose did not count meanwhile
	words    map[identity.NodeID]word // what came of the last test of each helper
	reached  bool                     // ever
	lost     int                      // rounds of tests that failed since it was last reached
	next     time.Time                // of the next test
	test     *Ask                     // under way
	deadline time.Time
}

// word is what came of a test.
type word struct {
	arrived bool
	at      time.Time
}

// outvoted reports whether two helpers at least, and more than have seen to an arrival, have sent nothing that arrived.
func (c *candidate) outvoted(now time.Time) bool {
	arrived, missing := 0, 0
	for _, w := range c.words {
		switch {
		case now.Sub(w.at) >= wordFor:
		case w.arrived:
			arrived++
		default:
			missing++
		}
	}
	return missing >= 2 && missing > arrived
}

// New returns a machine without candidates. newID makes unpredictable transaction IDs: who cannot guess one cannot
// pretend that a test arrived.
func New(newID func() [12]byte) *Machine {
	return &Machine{newID: newID, unable: make(map[lack]time.Time)}
}

// SetCandidates says which addresses the node believes to have. Those known already keep their state.
func (m *Machine) SetCandidates(now time.Time, addrs []netip.AddrPort) {
	var list []*candidate
	for _, addr := range addrs {
		same := func(c *candidate) bool { return c.Addr == addr }
		if slices.ContainsFunc(list, same) {
			continue
		}
		if i := slices.IndexFunc(m.candidates, same); i >= 0 {
			list = append(list, m.candidates[i])
		} else {
			list = append(list, &candidate{Candidate: Candidate{Addr: addr, State: Untested, Since: now}, words: make(map[identity.NodeID]word)})
		}
	}
	m.candidates = list
}

// SetHelpers says whom to ask.
func (m *Machine) SetHelpers(helpers []Helper) {
	m.helpers = helpers
	gone := func(id identity.NodeID) bool {
		return !slices.ContainsFunc(helpers, func(h Helper) bool { return h.ID == id })
	}
	maps.DeleteFunc(m.unable, func(l lack, _ time.Time) bool { return gone(l.helper) })
	for _, c := range m.candidates {
		maps.DeleteFunc(c.words, func(id identity.NodeID, _ word) bool { return gone(id) })
	}
}

// NetworkChanged makes all tests start over; what was known holds until they end.
func (m *Machine) NetworkChanged() {
	for _, c := range m.candidates {
		c.failures, c.asked, c.next, c.test = 0, nil, time.Time{}, nil
		clear(c.words)
	}
}

// Step returns the tests to start now, and when to call again at the latest; zero for never.
func (m *Machine) Step(now time.Time) (asks []Ask, wake time.Time) {
	for _, c := range m.candidates {
		if c.test != nil && !now.Before(c.deadline) {
			c.failed(now)
		}
		if c.test == nil && !now.Before(c.next) {
			helper, ok := m.helper(now, c)
			if !ok {
				continue // a new helper calls Step
			}
			c.test = &Ask{Helper: helper, Addr: c.Addr, ID: m.newID()}
			c.deadline = now.Add(answerTime)
			asks = append(asks, *c.test)
		}
		due := c.next
		if c.test != nil {
			due = c.deadline
		}
		if wake.IsZero() || due.Before(wake) {
			wake = due
		}
	}
	return asks, wake
}

// failed counts a test that nothing came of. A single loss is no proof.
func (c *candidate) failed(now time.Time) {
	c.ended(now, false)
	c.failures++
	c.wasAsked()
	if c.failures < tries {
		c.next = now
		return
	}
	c.become(now, Unreachable)
	wait := retest
	if c.reached {
		wait = min(lostRetest<<min(c.lost, 10), retest)
		c.lost++
	}
	c.next = now.Add(wait)
}

// ended notes what came of the test under way.
func (c *candidate) ended(now time.Time, arrived bool) {
	c.Helper, c.test = c.test.Helper, nil
	c.words[c.Helper] = word{arrived, now}
}

// wasAsked has others asked before the helper of the last test.
func (c *candidate) wasAsked() {
	if !slices.Contains(c.asked, c.Helper) {
		c.asked = append(c.asked, c.Helper)
	}
}

func (c *candidate) become(now time.Time, s State) {
	if c.State != s {
		c.State, c.Since = s, now
	}
	c.failures, c.asked = 0, nil
}

// Seen says that a Binding request with this transaction came in. It reports whether it was the answer to a test. It makes the
// address reachable unless more helpers, two at least, say otherwise.
func (m *Machine) Seen(now time.Time, id [12]byte) bool {
	for _, c := range m.candidates {
		if c.test != nil && c.test.ID == id {
			c.ended(now, true)
			if c.outvoted(now) {
				c.wasAsked()
				c.next = now.Add(otherWord)
				return true
			}
			c.become(now, Reachable)
			c.reached, c.lost = true, 0
			c.next = now.Add(Recheck)
			return true
		}
	}
	return false
}

// Unable says that a helper cannot send to the address of this test: it has no address of the family. That is no evidence
// about the address; another helper is asked. It reports whether it was the answer of the helper of a test.
func (m *Machine) Unable(now time.Time, helper identity.NodeID, id [12]byte) bool {
	for _, c := range m.candidates {
		if c.test != nil && c.test.ID == id && c.test.Helper == helper {
			c.test, c.next = nil, now
			m.unable[lack{helper, c.Addr.Addr().Is4()}] = now.Add(retest)
			return true
		}
	}
	return false
}

// helper returns whom to ask about an address: a member that is elsewhere. One on the same LAN, or behind the same
// router, would prove no more than that the router sends packets round in a circle.
func (m *Machine) helper(now time.Time, c *candidate) (identity.NodeID, bool) {
	about := c.Addr.Addr()
	able := func(h Helper) bool {
		return !now.Before(m.unable[lack{h.ID, about.Is4()}]) && h.Addr != about && isElsewhere(h.Addr)
	}
	sameFamily := func(h Helper) bool { return h.Addr.Is4() == about.Is4() }
	fresh := func(h Helper) bool { return !slices.Contains(c.asked, h.ID) }
	// A helper whose session runs over the other address family may well have this one too: it is asked last. So is one whose test
	// has just failed. Else it is the one that was asked longest ago: no word counts twice while there are others to be had.
	for _, choice := range []func(Helper) bool{
		func(h Helper) bool { return fresh(h) && sameFamily(h) }, fresh, sameFamily, func(Helper) bool { return true },
	} {
		best := -1
		for i := range m.helpers {
			at := (m.turn + i) % len(m.helpers)
			h := m.helpers[at]
			if able(h) && choice(h) && (best < 0 || c.words[h.ID].at.Before(c.words[m.helpers[best].ID].at)) {
				best = at
			}
		}
		if best >= 0 {
			m.turn = best + 1
			return m.helpers[best].ID, true
		}
	}
	return identity.NodeID{}, false
}

// isElsewhere reports whether an address lies outside the LAN.
func isElsewhere(addr netip.Addr) bool {
	kind := ranges.Of(addr)
	return kind == ranges.Public || kind == ranges.Shared
}

// Snapshot lists the candidates.
func (m *Machine) Snapshot() []Candidate {
	out := make([]Candidate, 0, len(m.candidates))
	for _, c := range m.candidates {
		out = append(out, c.Candidate)
	}
	slices.SortFunc(out, func(a, b Candidate) int { return a.Addr.Compare(b.Addr) })
	return out
}

// Usable lists the addresses that may be announced: those that were reached, and those that nobody could test yet.
func (m *Machine) Usable() (out []netip.AddrPort) {
	for _, c := range m.candidates {
		if c.State != Unreachable {
			out = append(out, c.Addr)
		}
	}
	return out
}
