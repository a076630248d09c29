// Package nat keeps, for each peer that it was last told to reach, the best working path, and says when it changes.
package nat

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"warren/mesh/identity"
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

// Message kinds, path kinds and states; see package path.
const (
	KindAsk        = path.KindAsk
	KindOffer      = path.KindOffer
	KindAnswer     = path.KindAnswer
	KindCandidates = path.KindCandidates
	KindRefuse     = path.KindRefuse

	None    = path.None
	Direct  = path.Direct
	Relayed = path.Relayed
)

// Decode reads a Message; its error wraps path.ErrMalformed. The reverse is Message.Encode.
func Decode(raw []byte) (Message, error) { return path.Decode(raw) }

// RelayControl opens relay channels over the control session with an anchor.
type RelayControl interface {
	// Open returns the virtual address under which the bind reaches peer through anchor. Opening what
	// is open returns the same address.
	Open(ctx context.Context, anchor, peer identity.NodeID) (netip.AddrPort, error)
	Close(virtual netip.AddrPort)
}

// Anchor is a member that answers STUN and relays, with a session up.
type Anchor struct {
	ID   identity.NodeID
	Addr netip.AddrPort // its STUN address, zero when unknown
	RTT  time.Duration
}

// Options are the parts that a NAT works with. Its functions must not block and not call back into the NAT.
type Options struct {
	Self      identity.NodeID
	Instance  [8]byte                                               // new at each start of the process
	STUN      net.PacketConn                                        // the bind's STUN lane; carries virtual addresses too
	Port      func() uint16                                         // of the shared socket, now
	Addresses func() []netip.Addr                                   // host addresses, now
	Reject    func(netip.Addr) bool                                 // addresses never to be candidates (overlay prefixes); may be nil
	Send      func(to identity.NodeID, m Message) error             // signalling; an error means no route now
	Activity  func(peer identity.NodeID) (lastTx, lastRx time.Time) // of WireGuard's packets on any path; may be nil
	Relay     RelayControl                                          // nil: no relaying
	Anchors   func() []Anchor                                       // may be nil
	Logger    *slog.Logger
}

// NAT is the owner. See New.
type NAT struct {
	events chan Event
}

// New checks the options; nothing runs before Run.
func New(o Options) (*NAT, error) { return nil, errors.New("nat: not ready") }

// Run works until ctx ends and returns when every goroutine is gone.
func (n *NAT) Run(ctx context.Context) error { return errors.New("nat: not ready") }

// SetPeers says which peers to reach. Repeating it changes nothing.
func (n *NAT) SetPeers(peers []identity.NodeID) {}

// Deliver hands over a verified signal. It never blocks.
func (n *NAT) Deliver(from identity.NodeID, m Message) {}

// NetworkChanged says that host addresses, routes or the port are others now.
func (n *NAT) NetworkChanged() {}

// AnchorsChanged says that Options.Anchors returns something else now.
func (n *NAT) AnchorsChanged() {}

// SignalReady says that signals to these peers (to all, with none named) have a route now.
func (n *NAT) SignalReady(peers ...identity.NodeID) {}

// Events returns the channel of changes, the latest for each peer.
func (n *NAT) Events() <-chan Event { return n.events }

// Snapshot returns the status of every peer.
func (n *NAT) Snapshot() map[identity.NodeID]PeerStatus { return nil }

// Mapped returns this node's server-reflexive addresses.
func (n *NAT) Mapped() []netip.AddrPort { return nil }
