// Package reach decides which of a node's addresses strangers can reach: it asks another member to send a packet there
// from a socket that this node has never spoken to, and believes what arrives.
//
// It is a pure state machine. Asking (a message to the helper, who sends) and seeing (the packet comes in by the shared
// socket) belong to nat/standing and nat; what an address is announced for is mesh/node's.
//
// A Machine has one owner and is not safe for concurrent use.
package reach

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/nat/due"
	"warren/nat/ranges"
)

// Timing. A reachable address is tested often enough that its loss is known within a minute: every Recheck, and then
// tries in a row.
const (
	Recheck = 40 * time.Second
	// answerTime is how long a test may take: the helper sends three times within 0.75 s.
	answerTime = 2 * time.Second
	// tries is how many tests in a row have to fail, and manyVoices of how many helpers that have nothing to do with each other, where
	// there are so many. Once witnesses of these have vouched for the address, only the silence of such counts.
	tries      = 3
	manyVoices = 5
	witnesses  = 2
	// retest is how long an address that was not reachable is left alone; a change of the network starts over. One that was
	// reachable before may be so again soon, when a line is mended: it is tested after lostRetest, then twice as long each time.
	retest     = 5 * time.Minute
	lostRetest = 5 * time.Second
	// wordFor is how long what came of a helper's last test counts against what others say.
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
	// Voice is who answers for it: itself, or whoever has let it in and may have made it up. Helpers of one voice count once.
	Voice identity.NodeID
}

func (h Helper) voice() identity.NodeID {
	if h.Voice.IsZero() {
		return h.ID
	}
	return h.Voice
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
	failures int                      // in a row, of those that count
	asked    []Helper                 // whose tests these were, and whose did not count meanwhile
	words    map[identity.NodeID]word // what came of the last test of each helper
	reached  bool                     // ever
	lost     int                      // rounds of tests that failed since it was last reached
	next     time.Time                // of the next test
	test     *Ask                     // under way
	by       Helper                   // whose test that is, or was
	deadline time.Time
}

// word is what came of a helper's last test.
type word struct {
	arrived bool
	vouched bool // one of its tests has arrived, this or an earlier one
	voice   identity.NodeID
	at      time.Time
}

/* Whom to believe
 *
 * A helper can lie both ways: it sends nothing, or by a way on which it is no stranger. Members can make up members, who lie alike:
 * all that one has let in have one voice, with it.
 *
 * An address is unreachable when three tests in a row have failed, and those of five voices if there are so many. Once two voices
 * have vouched for it, by tests that arrived, only the tests of such count among the three.
 *
 * An arrival makes an address reachable. One voice alone is outvoted by two that sent what did not come; several only by more of
 * those that have vouched for it before.
 */

// outvoted reports whether an arrival does not count against what others have said lately.
func (c *candidate) outvoted(now time.Time) bool {
	arrived, silent, turned := make(map[identity.NodeID]bool), make(map[identity.NodeID]bool), make(map[identity.NodeID]bool)
	for _, w := range c.words {
		switch {
		case now.Sub(w.at) >= wordFor:
		case w.arrived:
			arrived[w.voice] = true
		default:
			silent[w.voice] = true
			if w.vouched {
				turned[w.voice] = true
			}
		}
	}
	against := len(turned)
	if len(arrived) < witnesses {
		against = len(silent)
	}
	return against >= 2 && against > len(arrived)
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
			m.failed(now, c)
		}
		if c.test == nil && !now.Before(c.next) {
			helper, ok := m.helper(now, c)
			if !ok {
				wake = due.Sooner(wake, m.ableAgain(now, c)) // a new helper calls Step
				continue
			}
			c.test, c.by = &Ask{Helper: helper.ID, Addr: c.Addr, ID: m.newID()}, helper
			c.deadline = now.Add(answerTime)
			asks = append(asks, *c.test)
		}
		next := c.next
		if c.test != nil {
			next = c.deadline
		}
		wake = due.Sooner(wake, next)
	}
	return asks, wake
}

// failed counts a test that nothing came of. A single loss is no proof.
func (m *Machine) failed(now time.Time, c *candidate) {
	c.ended(now, false)
	c.wasAsked()
	voices, known := c.voices(m.able(now, c))
	if !known || c.words[c.Helper].vouched {
		c.failures++
	}
	heard := make(map[identity.NodeID]bool)
	for _, h := range c.asked {
		heard[h.voice()] = true
	}
	if c.failures < tries || len(heard) < min(voices, manyVoices) {
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

// voices counts those of the helpers, and says whether enough of them have vouched for the address to know whose silence counts.
func (c *candidate) voices(able []Helper) (n int, known bool) {
	all, vouched := make(map[identity.NodeID]bool), make(map[identity.NodeID]bool)
	for _, h := range able {
		all[h.voice()] = true
		if c.words[h.ID].vouched {
			vouched[h.voice()] = true
		}
	}
	return len(all), len(vouched) >= witnesses
}

// ended notes what came of the test under way.
func (c *candidate) ended(now time.Time, arrived bool) {
	c.Helper = c.test.Helper
	c.words[c.Helper] = word{arrived, arrived || c.words[c.Helper].vouched, c.by.voice(), now}
	c.test = nil
}

// wasAsked has others asked before the helper of the last test.
func (c *candidate) wasAsked() {
	c.asked = append(c.asked, c.by)
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

// able returns the members that can be asked about an address: those that are elsewhere. One on the same LAN, or behind the same
// router, would prove no more than that the router sends packets round in a circle.
func (m *Machine) able(now time.Time, c *candidate) (out []Helper) {
	about := c.Addr.Addr()
	for i := range m.helpers {
		h := m.helpers[(m.turn+i)%len(m.helpers)]
		if !now.Before(m.unable[lack{h.ID, about.Is4()}]) && h.Addr != about && isElsewhere(h.Addr) {
			out = append(out, h)
		}
	}
	return out
}

// ableAgain is when the first of the helpers may be asked about an address that has said that it cannot be; zero: there is none.
func (m *Machine) ableAgain(now time.Time, c *candidate) (first time.Time) {
	for l, until := range m.unable {
		if l.v4 == c.Addr.Addr().Is4() && until.After(now) {
			first = due.Sooner(first, until)
		}
	}
	return first
}

// helper returns whom to ask about an address.
func (m *Machine) helper(now time.Time, c *candidate) (Helper, bool) {
	able := m.able(now, c)
	_, known := c.voices(able)
	silence := known && c.failures < tries && len(c.asked) > 0 && !c.words[c.asked[len(c.asked)-1].ID].arrived
	sameFamily := func(h Helper) bool { return h.Addr.Is4() == c.Addr.Addr().Is4() }
	another := func(h Helper) bool { return !slices.ContainsFunc(c.asked, func(a Helper) bool { return a.ID == h.ID }) }
	otherVoice := func(h Helper) bool {
		return !slices.ContainsFunc(c.asked, func(a Helper) bool { return a.voice() == h.voice() })
	}
	// After a silence those come first whose silence counts, and other voices. A helper whose session runs over the other address
	// family may well have this one too: it is asked last.
	weight := func(h Helper) (w int) {
		for _, good := range []bool{silence && c.words[h.ID].vouched, otherVoice(h), another(h), sameFamily(h)} {
			w *= 2
			if good {
				w++
			}
		}
		return w
	}
	// Else it is the one that was asked longest ago: no word counts twice while there are others to be had.
	best := -1
	for i, h := range able {
		if best < 0 || cmp.Or(cmp.Compare(weight(h), weight(able[best])), c.words[able[best].ID].at.Compare(c.words[h.ID].at)) > 0 {
			best = i
		}
	}
	if best < 0 {
		return Helper{}, false
	}
	m.turn = slices.IndexFunc(m.helpers, func(h Helper) bool { return h.ID == able[best].ID }) + 1
	return able[best], true
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
