package agent

import (
	"net/netip"
	"sync/atomic"
	"time"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/neighbours"
	"warren/mesh/place"
	"warren/mesh/session"
	"warren/mesh/signal"
	"warren/nat/standing"
	"warren/nat/streams"
)

// twins are in memory what surrounds the owners that a swarm measures. They do nothing and know what they were told.
type twins struct {
	self    *face
	view    atomic.Pointer[mesh.View]
	keys    atomic.Pointer[map[identity.NodeID]signal.Keys]
	stands  standing.Snapshot
	changes chan struct{} // of capacity 1: the view is another one
	events  chan session.Event
	ready   chan struct{}
}

func newTwins(self *face) *twins {
	w := &twins{self: self, changes: make(chan struct{}, 1), events: make(chan session.Event), ready: make(chan struct{}), stands: standing.Snapshot{Settled: true, Network: 1, Hosts: []netip.Addr{self.addr}}}
	w.keys.Store(new(map[identity.NodeID]signal.Keys))
	w.view.Store(viewOf(self.member))
	return w
}

func viewOf(members ...mesh.Member) *mesh.View {
	return mesh.NewView(netip.MustParsePrefix("100.70.0.0/16"), netip.MustParsePrefix("fd00::/48"), members...)
}

// learn has the records of the others appear.
func (w *twins) learn(others []*other) {
	members, keys := []mesh.Member{w.self.member}, make(map[identity.NodeID]signal.Keys, len(others))
	for _, o := range others {
		members = append(members, o.member)
		keys[o.id] = o.keys
	}
	w.keys.Store(&keys)
	w.view.Store(viewOf(members...))
	w.changes <- struct{}{}
}

// Keys implements courier.Members.
func (w *twins) Keys(id identity.NodeID) (signal.Keys, bool) {
	k, ok := (*w.keys.Load())[id]
	return k, ok
}

func (w *twins) View() *mesh.View                      { return w.view.Load() }
func (w *twins) Announce(mesh.Own) error               { return nil }
func (w *twins) Standing(identity.NodeID) error        { return nil }
func (w *twins) Greet(identity.NodeID)                 {}
func (w *twins) SessionUp(identity.NodeID, bool)       {}
func (w *twins) HandleProof(identity.NodeID, [][]byte) {}

type twinSessions struct{ *twins }

func (twinSessions) SetTargets([]session.Target)               {}
func (twinSessions) Preferred() []identity.NodeID              { return nil }
func (twinSessions) RTT(identity.NodeID) (time.Duration, bool) { return time.Millisecond, true }
func (twinSessions) Drop(identity.NodeID, uint64, string)      {}
func (twinSessions) Doubt(...identity.NodeID)                  {}
func (twinSessions) Redial()                                   {}

type twinStanding struct{ *twins }

func (twinStanding) Set(standing.Desired)           {}
func (w twinStanding) Snapshot() *standing.Snapshot { return &w.stands }
func (twinStanding) Arrived([12]byte)               {}
func (twinStanding) Want()                          {}

type twinStreams struct{}

func (twinStreams) Set(streams.Desired)                         {}
func (twinStreams) Snapshot() streams.Snapshot                  { return streams.Snapshot{} }
func (twinStreams) Answered(netip.AddrPort)                     {}
func (twinStreams) PathSilent(identity.NodeID)                  {}
func (twinStreams) SessionLost(identity.NodeID, netip.AddrPort) {}
func (twinStreams) Drop(identity.NodeID)                        {}

type twinRelays struct{}

func (twinRelays) Set(bool, int)                         {}
func (twinRelays) Follow([]identity.NodeID)              {}
func (twinRelays) Wanted() []identity.NodeID             { return nil }
func (twinRelays) Load(identity.NodeID) uint8            { return 0 }
func (twinRelays) Moved(identity.NodeID, netip.AddrPort) {}
func (twinRelays) Drop(identity.NodeID)                  {}

type twinNames struct{}

func (twinNames) Set([]string)                         {}
func (twinNames) Answer(string) (netip.AddrPort, bool) { return netip.AddrPort{}, false }

type twinNeighbours struct{}

func (twinNeighbours) Set(neighbours.Desired)        {}
func (twinNeighbours) Snapshot() neighbours.Snapshot { return neighbours.Snapshot{} }

type twinPaths struct{}

func (twinPaths) Keep(identity.NodeID, netip.AddrPort, time.Duration) {}
func (twinPaths) Forget(identity.NodeID)                              {}

type twinContacts struct{}

func (twinContacts) Add(identity.NodeID, netip.AddrPort) {}
func (twinContacts) Snapshot() []place.Contact           { return nil }

type twinEcho struct{}

func (twinEcho) Set([]netip.Addr) {}
