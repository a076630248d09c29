package nat

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"warren/mesh/identity"
)

// News is what was seen that concerns more than the path to one peer.
type News struct {
	Doubts   []Doubt          // paths that answer no checks, each once
	Moved    bool             // the NAT has given this node another address
	Answered []netip.AddrPort // the STUN servers that have answered, each once: UDP to them works
	Arrived  [][12]byte       // transactions that were expected and have come in
}

// Doubt is a path that answers no checks: what broke it may have broken more.
type Doubt struct {
	Peer identity.NodeID
	Via  identity.NodeID // its relay; zero for a direct one
}

func (n *News) empty() bool {
	return !n.Moved && len(n.Doubts)+len(n.Answered)+len(n.Arrived) == 0
}

// addOnce is bounded by the peers and their relays, and by the servers, that there were while nobody took the news.
func addOnce[T comparable](list []T, one T) []T {
	if slices.Contains(list, one) {
		return list
	}
	return append(list, one)
}

// News returns the channel of news. It coalesces: what comes while nobody reads is added to what waits, and nothing is lost.
func (n *NAT) News() <-chan News { return n.news }

// Expect has a bare Binding request with this transaction told as News.Arrived, once, if it comes in before that time. Others
// are told to nobody: strangers may flood. Of more than 256 the oldest is forgotten.
func (n *NAT) Expect(id [12]byte, until time.Time) { n.mux.arrivals.await(id, until) }

// maxExpected is far above the tests that one node may have under way.
const maxExpected = 256

// expected is a request that may come in.
type expected struct {
	id    [12]byte
	until time.Time
}

// arrivals are the bare requests that others are expected to send here, and those that have come.
type arrivals struct {
	mu       sync.Mutex // guards the rest
	expected []expected // oldest first
	arrived  [][12]byte // of expected, for the run loop
}

// await notes that a request is expected.
func (a *arrivals) await(id [12]byte, until time.Time) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expected = slices.DeleteFunc(a.expected, func(e expected) bool { return e.id == id || !now.Before(e.until) })
	a.expected = append(a.expected, expected{id, until})
	a.expected = a.expected[max(0, len(a.expected)-maxExpected):]
}

// came takes a bare request that came in; it reports whether it was expected. take returns those that were.
func (a *arrivals) came(id [12]byte) bool {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.expected, func(e expected) bool { return e.id == id && now.Before(e.until) })
	if i < 0 {
		return false
	}
	a.expected = slices.Delete(a.expected, i, i+1)
	a.arrived = append(a.arrived, id) // no more than were expected
	return true
}

func (a *arrivals) take() [][12]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	got := a.arrived
	a.arrived = nil
	return got
}
