package nat

import (
	"net/netip"
	"slices"
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
func (n *NAT) Expect(id [12]byte, until time.Time) { n.mux.await(id, until) }

// maxExpected is far above the tests that one node may have under way.
const maxExpected = 256

// expected is a request that may come in.
type expected struct {
	id    [12]byte
	until time.Time
}

// await notes that a request is expected.
func (x *mux) await(id [12]byte, until time.Time) {
	now := time.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.expected = slices.DeleteFunc(x.expected, func(e expected) bool { return e.id == id || !now.Before(e.until) })
	x.expected = append(x.expected, expected{id, until})
	x.expected = x.expected[max(0, len(x.expected)-maxExpected):]
}

// came takes a bare request that came in; it reports whether it was expected. takeArrived returns those that were.
func (x *mux) came(id [12]byte) bool {
	now := time.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	i := slices.IndexFunc(x.expected, func(e expected) bool { return e.id == id && now.Before(e.until) })
	if i < 0 {
		return false
	}
	x.expected = slices.Delete(x.expected, i, i+1)
	x.arrived = append(x.arrived, id) // no more than were expected
	return true
}

func (x *mux) takeArrived() [][12]byte {
	x.mu.Lock()
	defer x.mu.Unlock()
	got := x.arrived
	x.arrived = nil
	return got
}
