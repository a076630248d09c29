// Package nat keeps, for each peer that it was last told to reach, the best working path, and says when
// it changes: it runs introductions, ICE attempts, relay channels and checks over the shared socket,
// asks the anchors for this node's addresses, and answers when it is asked.
//
// What to do when is decided by package nat/path, one pure machine per peer; this package is its shell.
// Sealing and carrying signals, relay allocation and moving WireGuard's endpoints are the business of
// whoever plugs it in. Files in the order of an introduction: requests.go (what is asked for), owner.go (the run loop),
// peers.go (what a machine says is done), local.go and place.go (what this node knows of itself, and can be reached at),
// work.go (the goroutines), agent.go (one ICE attempt), mux.go (every STUN packet), news.go (what others should look at),
// board.go (what there is to see).
//
// All methods may be called concurrently, with Run or before it; none but Run blocks.
package nat

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/nat/natkind"
	"warren/nat/path"
)

// The words of package path that the seam of this package speaks.
type (
	Message    = path.Message
	Kind       = path.Kind
	RelayOffer = path.RelayOffer
	Path       = path.Path
	PathKind   = path.PathKind
	Event      = path.Event
	PeerStatus = path.Status
	State      = path.State
)

// Message kinds and path kinds; see package path.
const (
	KindAsk        = path.KindAsk
	KindOffer      = path.KindOffer
	KindAnswer     = path.KindAnswer
	KindCandidates = path.KindCandidates
	KindRefuse     = path.KindRefuse
	KindRemind     = path.KindRemind

	None    = path.None
	Direct  = path.Direct
	Relayed = path.Relayed
)

// RelayControl opens relay channels over the control session with an anchor. Its methods may block;
// for one peer they are called one after the other.
type RelayControl interface {
	// Open returns the virtual address under which the bind reaches peer through anchor. Opening what
	// is open returns the same address.
	Open(ctx context.Context, anchor, peer identity.NodeID) (netip.AddrPort, error)
	// Close gives the channel up. It must return soon: Run waits for it.
	Close(virtual netip.AddrPort)
}

// Anchor is a member that answers STUN and relays.
type Anchor struct {
	ID    identity.NodeID // zero: it only answers STUN
	Addr  netip.AddrPort  // its STUN address, zero when unknown; a stream's is not asked
	RTT   time.Duration
	Since time.Time // when its session came up; zero: not known
	Load  uint8     // of its relay, as it told: 0 for none or not known, 255 for all that it can carry
	// Private says that it is no anchor to strangers: a neighbour, which the peer may have no session with.
	Private bool
}

// Signals carries messages to peers, those that go straight (Message.Straight) as letters. Send is called by Run's goroutine and must not
// block; an error means no route now.
type Signals interface {
	Send(to identity.NodeID, m Message) error
}

// Traffic says when WireGuard last sent to a peer and heard of it, on any path that NAT knows; zero for never. It is called
// by Run's goroutine and must not block.
type Traffic interface {
	Activity(peer identity.NodeID) (lastTx, lastRx time.Time)
}

// Sockets opens UDP sockets of their own, over IPv4, for a question or two.
type Sockets interface {
	Listen() (net.PacketConn, error)
}

// Options are the parts that a NAT works with. They must not call back into the NAT.
type Options struct {
	Self     identity.NodeID
	Instance [8]byte        // new at each start of the process
	STUN     net.PacketConn // the bind's STUN lane; carries virtual addresses too
	Signals  Signals
	Traffic  Traffic      // nil: nothing is known of any
	Relay    RelayControl // nil: no relaying
	Sockets  Sockets      // nil: ports are not predicted
	// Met are the addresses at which an earlier process has reached peers: each is tried once, when the peer is first told of. nil: none.
	Met    map[identity.NodeID]netip.AddrPort
	Logger *slog.Logger // nil: none
}

// NAT is the owner. See New.
type NAT struct {
	// Constant after New.
	o      Options
	log    *slog.Logger
	mux    *mux
	inbox  chan item // from the network and from our goroutines; packets drop when it is full
	events chan Event
	news   chan News
	tasks  sync.WaitGroup // every goroutine of Run but its own

	// With locks of their own, under which nothing is called.
	requests *requests
	board    *board // the run loop writes
}

// item is one input from another goroutine: to a peer's machine, or a STUN server's answer.
type item struct {
	peer   identity.NodeID
	in     path.Input
	mapped *mappedAnswer
	// sampled is for the run loop itself.
	sampled *sampled
}

// inboxSize holds the burst of 250 peers that signal and check at once.
const inboxSize = 1024

// New checks the options and allocates; nothing runs before Run.
func New(o Options) (*NAT, error) {
	switch {
	case o.Self.IsZero():
		return nil, errors.New("start nat: no own node ID")
	case o.STUN == nil || o.Signals == nil:
		return nil, errors.New("start nat: STUN and Signals are needed")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Traffic == nil {
		o.Traffic = noTraffic{}
	}
	n := &NAT{
		o:        o,
		log:      o.Logger.With("part", "nat"),
		inbox:    make(chan item, inboxSize),
		events:   make(chan Event),
		news:     make(chan News),
		requests: newRequests(),
		board:    &board{peers: make(map[identity.NodeID]shown)},
	}
	n.mux = newMux(o.STUN, n.offer, n.requests.wake)
	return n, nil
}

type noTraffic struct{}

func (noTraffic) Activity(identity.NodeID) (lastTx, lastRx time.Time) { return }

// SetPeers says which peers to reach. Repeating it changes nothing; a peer left out loses its path
// without an event. They wait for the first Set: an offer without an address would be of no use.
func (n *NAT) SetPeers(peers []identity.NodeID) {
	n.requests.ask(desired{peers: slices.Clone(peers), setPeers: true})
}

// Deliver hands over a verified signal. When too many wait it is dropped: the peer repeats it.
func (n *NAT) Deliver(from identity.NodeID, m Message) {
	n.offer(item{peer: from, in: path.Received{Message: m}})
}

// Probe asks all anchors for this node's address now: whoever answers shows that UDP works (News.Answered).
func (n *NAT) Probe() { n.requests.ask(desired{probe: true}) }

// Check has the paths to these peers (to all, with none named) checked now.
func (n *NAT) Check(peers ...identity.NodeID) {
	n.requests.ask(desired{check: only(peers...), checkAll: len(peers) == 0})
}

// SignalReady says that signals to these peers (to all, with none named) have a route now: what waits for one, or for an answer, is
// sent at once. Signals to others may have one: what had none is sent.
func (n *NAT) SignalReady(peers ...identity.NodeID) {
	n.requests.ask(desired{ready: only(peers...), everyReady: len(peers) == 0})
}

// Introduce starts a new introduction with a peer now, although a path works: both sides agree on new keys, and the path
// stays in use until the attempt has won. It does nothing while an introduction is under way and for six
// seconds after one began, so it may be repeated until it has helped.
func (n *NAT) Introduce(peer identity.NodeID) {
	n.requests.ask(desired{introduce: only(peer)})
}

// Stirred says that WireGuard sends to a peer after a pause of a second or more: its path is watched from now on until the
// next one. Without this word a path in use is looked at as seldom as an idle one.
func (n *NAT) Stirred(peer identity.NodeID) {
	n.requests.ask(desired{stirred: only(peer)})
}

// PeerChanged says that a peer can be reached elsewhere than before, by its own word: if it has no direct path, one is
// tried for now and not at the next rung of the ladder.
func (n *NAT) PeerChanged(peer identity.NodeID) {
	n.requests.ask(desired{changed: only(peer)})
}

// RelayGone says that a node may not relay any more, since it is no member: paths through it end at once, though it may go on
// to forward.
func (n *NAT) RelayGone(anchor identity.NodeID) {
	n.requests.ask(desired{gone: only(anchor)})
}

// Events returns the channel of changes. It coalesces: of each peer only the latest is held for a slow reader.
func (n *NAT) Events() <-chan Event { return n.events }

// Snapshot returns the status of every peer.
func (n *NAT) Snapshot() map[identity.NodeID]PeerStatus {
	now := time.Now()
	peers := n.board.all()
	all := make(map[identity.NodeID]PeerStatus, len(peers))
	for id, s := range peers {
		all[id] = s.view.Status(now)
	}
	return all
}

// Mapped returns this node's server-reflexive addresses, as the anchors see them.
func (n *NAT) Mapped() []netip.AddrPort { return n.board.seen().mapped }

// Ports returns how the router before this node gives out ports over IPv4, if that was of use to know.
func (n *NAT) Ports() natkind.Ports { return n.board.seen().ports }

// Dropped returns the number of STUN packets dropped so far, by reason.
func (n *NAT) Dropped() map[string]uint64 { return n.mux.drops() }

// offer queues an item unless the queue is full.
func (n *NAT) offer(it item) bool {
	select {
	case n.inbox <- it:
		return true
	default:
		return false
	}
}
