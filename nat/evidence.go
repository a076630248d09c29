package nat

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/nat/natkind"
	"warren/nat/path"
)

// Bounds of what is kept for Evidence: the attempt that runs and the one before, of each peer.
const (
	maxTrials = 2
	// maxPairs is above the candidates of one side; more are peer-reflexive, or guesses at a port.
	maxPairs = 32
)

// Pair is what came of one address of a peer in an attempt. This node sends all checks from one socket, so that the pairs of
// RFC 8445 differ by the remote address only.
type Pair struct {
	Remote   netip.AddrPort
	Type     string // of the remote candidate: host, srflx, or prflx when the peer did not name it
	Sent     int    // checks sent to it
	Answered int    // authentic answers
	Heard    int    // authentic checks of the peer from it
	Unable   bool   // this node has no address of its family
}

// Attempt is one run of ICE with a peer.
type Attempt struct {
	Number    uint64
	Started   time.Time
	Ended     time.Time      // zero: it runs
	Nominated netip.AddrPort // the address that won; invalid: none did
	Pairs     []Pair         // those named by the peer first
	More      int            // further addresses that checks went to, or came from
}

// Evidence is what tells why a peer is reached as it is.
type Evidence struct {
	path.Evidence
	Trials []Attempt // the latest, oldest first
}

// Evidence describes a peer in full; false when it is none.
func (n *NAT) Evidence(peer identity.NodeID) (Evidence, bool) {
	now := time.Now()
	s, known := n.board.peer(peer)
	if !known {
		return Evidence{}, false
	}
	e := Evidence{Evidence: s.view.Evidence(now)}
	for _, t := range s.trials {
		e.Trials = append(e.Trials, t.snapshot())
	}
	return e, true
}

// Sightings returns what STUN servers last said of the shared socket, and when.
func (n *NAT) Sightings() []natkind.Sighting { return n.board.seen().sightings }

// trial records one attempt while it runs. Its methods may be called concurrently.
type trial struct {
	v4, v6 bool // whether this node has an address of the family

	mu  sync.Mutex
	got Attempt
}

func (t *trial) begun(now time.Time, start path.StartICE) {
	t.mu.Lock()
	t.got.Number, t.got.Started = start.Attempt, now
	t.mu.Unlock()
}

// named notes candidates that the peer has told.
func (t *trial) named(candidates []path.Candidate) {
	for _, c := range candidates {
		kind := "host"
		if c.Type == path.ServerReflexive {
			kind = "srflx"
		}
		t.mu.Lock()
		t.pair(c.Addr).Type = kind
		t.mu.Unlock()
	}
}

func (t *trial) sent(to netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pair(to).Sent++
}

func (t *trial) answered(from netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pair(from).Answered++
}

func (t *trial) heard(from netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pair(from).Heard++
}

func (t *trial) nominated(addr netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.got.Nominated = addr
}

func (t *trial) ended(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.got.Ended = now
}

// pair returns that of an address; of one too many a pair that nobody sees. The caller holds mu.
func (t *trial) pair(addr netip.AddrPort) *Pair {
	i := slices.IndexFunc(t.got.Pairs, func(p Pair) bool { return p.Remote == addr })
	switch {
	case i < 0 && len(t.got.Pairs) == maxPairs:
		t.got.More++
		return new(Pair)
	case i < 0:
		i = len(t.got.Pairs)
		t.got.Pairs = append(t.got.Pairs, Pair{Remote: addr, Type: "prflx", Unable: addr.Addr().Is4() && !t.v4 || !addr.Addr().Is4() && !t.v6})
	}
	return &t.got.Pairs[i]
}

func (t *trial) snapshot() Attempt {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.got
	a.Pairs = slices.Clone(a.Pairs)
	return a
}
