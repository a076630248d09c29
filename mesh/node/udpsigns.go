package node

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"warren/mesh/identity"
	"warren/nat"
	"warren/nat/ranges"
	"warren/nat/streams"
	"warren/tunnel/bind"
)

// Signs for and against UDP, as the owners' goroutines give them and as the loop finds them.

const (
	// blockedLookEvery is how often the loop looks whether packets go over streams.
	blockedLookEvery = 4 * time.Second
	// busyFor is how lately a packet must have been sent for that.
	busyFor = 10 * time.Second
	// underway is how long after the beginning of a trial packets may come in that were sent before it.
	underway = 50 * time.Millisecond
)

// udpSigns are left by other goroutines for the loop. Answers coalesce, and news are bounded by the streams that there
// may be.
type udpSigns struct {
	news chan struct{} // constant: a value when there is something to take

	// everywhere says that addresses of private networks count as well: no anchor has another one.
	everywhere atomic.Bool

	mu       sync.Mutex // guards the rest
	pending  []streamNews
	answered bool
	silent   map[identity.NodeID]bool
}

func newUDPSigns() *udpSigns {
	return &udpSigns{news: make(chan struct{}, 1), silent: make(map[identity.NodeID]bool)}
}

func (s *udpSigns) poke() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// counts reports whether what happens at an address is evidence about UDP, and whether streams may lead there. In a mesh with
// anchors on the Internet those in the own network prove nothing: UDP may end at the router.
func (s *udpSigns) counts(addr netip.Addr) bool {
	return ranges.IsPublic(addr) || s.everywhere.Load() && addr.IsGlobalUnicast() && !bind.IsVirtual(addr)
}

// counting returns the addresses that count.
func (s *udpSigns) counting(addrs []netip.AddrPort) (out []netip.AddrPort) {
	for _, a := range addrs {
		if s.counts(a.Addr()) {
			out = append(out, a)
		}
	}
	return out
}

// tell leaves news of a stream.
func (s *udpSigns) tell(n streamNews) {
	s.mu.Lock()
	s.pending = append(s.pending, n)
	s.mu.Unlock()
	s.poke()
}

// udpAnswered is called by nat for each answer of an anchor.
func (s *udpSigns) udpAnswered(server netip.AddrPort) {
	if !s.counts(server.Addr()) {
		return
	}
	s.mu.Lock()
	s.answered = true
	s.mu.Unlock()
	s.poke()
}

// pathSilent is called by nat when the path to a peer seems dead.
func (s *udpSigns) pathSilent(peer identity.NodeID) {
	s.mu.Lock()
	s.silent[peer] = true
	s.mu.Unlock()
	s.poke()
}

func (s *udpSigns) take() (news []streamNews, answered bool, silent []identity.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.silent {
		silent = append(silent, id)
	}
	clear(s.silent)
	news, answered = s.pending, s.answered
	s.pending, s.answered = nil, false
	return news, answered, silent
}

// streamsChanged takes the signs, and what time brings.
func (m *member) streamsChanged() {
	news, answered, silent := m.streams.signs.take()
	for _, n := range news {
		if n.Serial == 0 {
			m.streamAccepted(n)
		} else {
			m.streamDialled(n)
		}
	}
	for _, id := range silent {
		if p := m.peers[id]; p != nil && m.byInternet(p.path) {
			m.stream(streams.Doubt{})
			break
		}
	}
	now := time.Now()
	if state, since, _ := m.streams.machine.State(); state == streams.Trying && m.peerHeard(since.Add(underway)) {
		m.stream(streams.PeerAnswered{})
	}
	if answered {
		m.stream(streams.Answered{})
	}
	m.seeDials(now)
	m.stream(streams.Tick{Busy: m.streamsBusy(now)})
	m.followStreams()
}

// byInternet reports whether a path goes by UDP to addresses that count: straight, or to the relay.
func (m *member) byInternet(p nat.Path) bool {
	switch p.Kind {
	case nat.Direct:
		return m.streams.signs.counts(p.Addr.Addr())
	case nat.Relayed:
		return m.byUDP(p.Via)
	}
	return false
}

// peerHeard reports whether a peer has been heard by UDP since then.
func (m *member) peerHeard(since time.Time) bool {
	for _, p := range m.peers {
		if p.path.Kind == nat.Direct && m.byInternet(p.path) && p.way() == p.path.Addr && p.endpoint.Activity().LastRx.After(since) {
			return true
		}
	}
	return false
}

// streamsBusy reports whether packets go over streams.
func (m *member) streamsBusy(now time.Time) bool {
	for _, p := range m.peers {
		relayed := p.path.Kind == nat.Relayed && bind.IsStream(m.up[p.path.Via].remote.Addr())
		if (relayed || bind.IsStream(p.way().Addr())) && now.Sub(p.endpoint.Activity().LastTx) < busyFor {
			return true
		}
	}
	return false
}
