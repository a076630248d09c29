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
	failures int
	reached  bool      // ever
	lost     int       // rounds of tests that failed since it was last reached
	next     time.Time // of the next test
	test     *Ask      // under way
	deadline time.Time
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
			list = append(list, &candidate{Candidate: Candidate{Addr: addr, State: Untested, Since: now}})
		}
	}
	m.candidates = list
}

// SetHelpers says whom to ask.
func (m *Machine) SetHelpers(helpers []Helper) {
	m.helpers = helpers
	maps.DeleteFunc(m.unable, func(l lack, _ time.Time) bool {
		return !slices.ContainsFunc(helpers, func(h Helper) bool { return h.ID == l.helper })
	})
}

// NetworkChanged makes all tests start over; what was known holds until they end.
func (m *Machine) NetworkChanged() {
	for _, c := range m.candidates {
		c.failures, c.next, c.test = 0, time.Time{}, nil
	}
}

// Step returns the tests to start now, and when to call again at the latest; zero for never.
func (m *Machine) Step(now time.Time) (asks []Ask, wake time.Time) {
	for _, c := range m.candidates {
		if c.test != nil && !now.Before(c.deadline) {
			c.failed(now)
		}
		if c.test == nil && !now.Before(c.next) {
			helper, ok := m.helper(now, c.Addr.Addr())
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
	c.Helper, c.test = c.test.Helper, nil
	c.failures++
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

func (c *candidate) become(now time.Time, s State) {
	if c.State != s {
		c.State, c.Since = s, now
	}
	c.failures = 0
}

// Seen says that a Binding request with this transaction came in. It reports whether it was the answer to a test.
func (m *Machine) Seen(now time.Time, id [12]byte) bool {
	for _, c := range m.candidates {
		if c.test != nil && c.test.ID == id {
			c.Helper, c.test = c.test.Helper, nil
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
func (m *Machine) helper(now time.Time, about netip.Addr) (identity.NodeID, bool) {
	// A helper whose session runs over the other address family may well have this one too: it is asked last.
	for _, sameFamily := range []bool{true, false} {
		for range m.helpers {
			h := m.helpers[m.turn%len(m.helpers)]
			m.turn++
			able := !now.Before(m.unable[lack{h.ID, about.Is4()}])
			if able && h.Addr != about && (h.Addr.Is4() == about.Is4()) == sameFamily && isElsewhere(h.Addr) {
				return h.ID, true
			}
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
