package node

import (
	"net/netip"
	"time"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/neighbours"
	"warren/mesh/place"
	"warren/mesh/session"
	"warren/nat"
	"warren/nat/standing"
	"warren/nat/streams"
	"warren/tunnel"
	"warren/tunnel/osnet"
)

// The owners as the hub sees them: each is told what it should have (Set…), asked what it has (Snapshot and the like,
// which wait for nothing), and speaks up through a channel of Feeds. None of these calls blocks for the network or a disk, but
// for the tunnel's, which set what the kernel has.

// Tunnel moves packets for the peers that it was last told to have; package tunnel.
type Tunnel interface {
	SetLink(osnet.Config) error
	SetPeers([]tunnel.Peer) error
	SetWay(identity.NodeID, tunnel.Way)
	// Elsewhere is what this machine reaches by other interfaces than the tunnel's, as far as it overlaps one of the prefixes.
	Elsewhere(within ...netip.Prefix) ([]osnet.Route, error)
	// Gateways are the routers of this machine's default routes.
	Gateways() []netip.Addr
	// Running is the name of the interface, and the UDP port; 0: not open.
	Running() (name string, port uint16)
	// SetPort moves the shared socket; on an error it stays where it is.
	SetPort(port uint16) error
}

// Names turns host:port into addresses in its own time; package mesh/resolve.
type Names interface {
	Set(names []string)
	Answer(name string) (netip.AddrPort, bool)
}

// Records is the verified set of records; package mesh.
type Records interface {
	View() *mesh.View
	Announce(mesh.Own) error
	Standing(identity.NodeID) error
	SessionUp(id identity.NodeID, dialled bool)
	// Greet tells that a node was dialled that is to say whether it accepts this one, and takes messages meanwhile.
	Greet(id identity.NodeID)
	// HandleProof takes the records for which a node refuses this one. Only they can put it out: see Feeds.Fatal.
	HandleProof(by identity.NodeID, records [][]byte)
}

// Sessions keeps control sessions; package mesh/session.
type Sessions interface {
	SetTargets([]session.Target)
	Preferred() []identity.NodeID
	RTT(identity.NodeID) (time.Duration, bool)
	Drop(id identity.NodeID, code uint64, reason string)
	Doubt(...identity.NodeID)
	Redial()
}

// NAT keeps the best working path to each peer; package nat.
type NAT interface {
	SetPeers([]identity.NodeID)
	Set(nat.Local)
	Hints
}

// Hints are news for nat's machines that no desired state can say.
type Hints interface {
	Check(...identity.NodeID)
	SignalReady(...identity.NodeID)
	Introduce(identity.NodeID)
	Stirred(identity.NodeID)
	PeerChanged(identity.NodeID)
}

// Standing finds out where this node stands; package nat/standing.
type Standing interface {
	Set(standing.Desired)
	Snapshot() *standing.Snapshot
	Arrived(id [12]byte)
	Want()
}

// Streams keeps the streams for networks that drop UDP; package nat/streams.
type Streams interface {
	Set(streams.Desired)
	Snapshot() streams.Snapshot
	Answered(netip.AddrPort)
	PathSilent(identity.NodeID)
	SessionLost(identity.NodeID, netip.AddrPort)
	Drop(identity.NodeID)
}

// Courier carries introductions; package mesh/courier.
type Courier interface {
	Forget(identity.NodeID)
	// Met tells that a node is known as a member now: what it has said before can be opened.
	Met(id identity.NodeID)
}

// Relays are this node's two parts in relaying, as a relay and as a user of others; package nat/relay.
type Relays interface {
	// Set says whether to relay for others, and at most how many bytes a second; 0: no limit.
	Set(enabled bool, limit int)
	Follow([]identity.NodeID)
	Wanted() []identity.NodeID
	Load(anchor identity.NodeID) uint8
	Moved(identity.NodeID, netip.AddrPort)
	Drop(identity.NodeID)
}

// Neighbours knows the members on the local networks; package mesh/neighbours.
type Neighbours interface {
	Set(neighbours.Desired)
	Snapshot() neighbours.Snapshot
}

// Contacts keeps addresses at which members were reached; package mesh/place.
type Contacts interface {
	Add(identity.NodeID, netip.AddrPort)
	Snapshot() []place.Contact
}

// Paths remembers on which direct paths members were reached; package mesh/place.
type Paths interface {
	Keep(id identity.NodeID, addr netip.AddrPort, rtt time.Duration)
	Forget(identity.NodeID)
}

// Echo answers pings on this node's overlay addresses; package tunnel/echo.
type Echo interface {
	Set([]netip.Addr)
}

// Owners are all that a hub plugs together in a mesh.
type Owners struct {
	Records    Records
	Sessions   Sessions
	NAT        NAT
	Standing   Standing
	Streams    Streams
	Courier    Courier
	Relays     Relays
	Neighbours Neighbours
	Contacts   Contacts
	Paths      Paths
	Echo       Echo
}

// Feeds are where the owners speak up. A nil channel is one that never does.
type Feeds struct {
	Paths      <-chan nat.Event     // of each peer the latest
	News       <-chan nat.News      // coalesced
	Sessions   <-chan session.Event // of each node the latest of each kind
	Tunnel     <-chan tunnel.Event
	Records    <-chan struct{} // the view is another one
	Standing   <-chan struct{}
	Streams    <-chan struct{}
	Relays     <-chan struct{}
	Neighbours <-chan struct{}
	Names      <-chan struct{}
	Fatal      <-chan error // of the records: this node is out
}
