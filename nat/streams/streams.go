// Package streams keeps the streams of a node. Where UDP is blocked, datagrams go over TLS streams to anchors (package
// stream): this package judges from what is answered and what is not whether that is so, holds streams while they are
// wanted, takes over those that others open to this node, and ends the sessions that have to change their way.
//
// It leaves to its user who the anchors are, whom to ask by UDP (Snapshot.Ask), where the sessions are dialled
// (Snapshot.Targets), and which way the packets for a peer go (Snapshot.Ends).
//
// The methods of Streams may be called concurrently, before, during and after Run, and never wait. A Machine, which is
// the pure judgement, has one owner.
package streams

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"warren/mesh/identity"
	"warren/nat/path"
	"warren/nat/ranges"
	"warren/nat/stream"
	"warren/tunnel/bind"
)

/* The walk of a stream
 *
 * A stream is an address of the socket like any other, so that a session, what is relayed, and the tunnel to the anchor
 * itself only have to be told to go there:
 *
 *	machine ── OpenStream ──► dial, attach ── news ──► loop: StreamUp; Snapshot: Targets, Ends
 *	user:                     the stream first among the session's targets ──► Set, with those targets
 *	loop:                     only now the session by UDP is ended, and comes back through the stream
 *	anchor:                   accept, attach ── news ──► loop; Snapshot: Ends
 *
 * And back: LeaveStream takes the stream out of Targets, the user's Set says that the sessions have heard of that, the
 * session by the stream is ended and comes back by UDP; lingerTime later CloseStream ends the stream.
 */

// Client dials streams: *stream.Client.
type Client interface {
	Dial(ctx context.Context, id identity.NodeID, addrs []netip.AddrPort) (net.Conn, error)
}

// Server accepts streams: *stream.Server.
type Server interface {
	Run(ctx context.Context, t stream.Taker) error
	SetPorts(ports ...uint16)
	Ports() []stream.Port
	Counts() stream.Counts
	Drop(id identity.NodeID)
}

// Socket carries datagrams over streams: *bind.Streams.
type Socket interface {
	Attach(c net.Conn, o bind.StreamOptions) (virtual netip.AddrPort, done <-chan struct{}, err error)
	Detach(virtual netip.AddrPort)
}

// Sessions are the control sessions: *session.Sessions.
type Sessions interface {
	// Drop ends the session with a node. It does not wait for that.
	Drop(id identity.NodeID, code uint64, reason string)
	// Dials returns how often dialling a node has failed since the last session, and whether nobody answered the last time. A dial that
	// stalls counts again and again while it does: something comes back, and never what it waits for.
	Dials(id identity.NodeID) (attempts int, silent bool)
	// Knock dials a node at these addresses, as for a session, and hangs up; nil: it has answered at one of them, and both sides
	// have proved who they are. It waits until then, for some seconds, or until ctx ends.
	Knock(ctx context.Context, id identity.NodeID, addrs []netip.AddrPort) error
}

// Traffic knows when packets went to and came from a peer, and which way they go now.
type Traffic interface {
	Activity(peer identity.NodeID) (a bind.Activity, way netip.AddrPort)
}

// STUN asks the anchors by UDP, those in Snapshot.Ask included. Their answers are told to Streams.Answered.
type STUN interface{ Probe() }

// Options are what New takes. All but Logger are needed.
type Options struct {
	Client   Client
	Server   Server // run by Streams.Run
	Socket   Socket
	Sessions Sessions
	Traffic  Traffic
	STUN     STUN
	Logger   *slog.Logger // nil: none
}

// Desired is all that the judgement needs to know. See Streams.Set.
type Desired struct {
	// Network tells networks apart: another number says that addresses or routes of this machine are others now.
	Network uint64
	// Anchors are those to which streams may lead, best first.
	Anchors []Anchor
	// Private says that addresses of private networks count too, because no anchor has another one. See Counts.
	Private bool
	// Sessions are the control sessions that are up.
	Sessions map[identity.NodeID]Session
	// Targets are the streams among the addresses at which the sessions are dialled by now: Snapshot.Targets as it was when they
	// were told. Until a stream has come into it, or has gone out of it, no session is ended to make it change its way: it
	// would come back the way that it went.
	Targets map[identity.NodeID]netip.AddrPort
	// Paths are nat's paths to all peers, also to those to which there is none.
	Paths map[identity.NodeID]path.Path
	// Listen are the TCP ports on which to accept streams; none: streams are not accepted.
	Listen []uint16
}

// Anchor is a member to which streams may lead. Addresses that do not count are left out.
type Anchor struct {
	ID  identity.NodeID
	UDP []netip.AddrPort // where it is asked
	TCP []netip.AddrPort // where streams to it are dialled; none that counts: most likely at stream.Guess(UDP)
}

// Session is where a session leads, and since when it leads there, as the caller's clock has it.
type Session struct {
	Remote netip.AddrPort
	Since  time.Time
}

// Streams keeps a node's streams. See New.
type Streams struct {
	// constant after New
	o      Options
	inbox  *inbox
	holder *holder
	board  *board
	jitter func() float64             // for tests
	hosts  func() ([]net.Addr, error) // the addresses of this machine; for tests

	// atomic
	started atomic.Bool
}

// New returns streams that do nothing until Run is called.
func New(o Options) (*Streams, error) {
	if o.Client == nil || o.Server == nil || o.Socket == nil || o.Sessions == nil || o.Traffic == nil || o.STUN == nil {
		return nil, errors.New("new streams: all options but Logger are needed")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Logger = o.Logger.With("part", "streams")
	in := newInbox()
	return &Streams{
		o: o, inbox: in, holder: &holder{client: o.Client, socket: o.Socket, inbox: in, log: o.Logger}, board: newBoard(),
		jitter: rand.Float64, hosts: net.InterfaceAddrs,
	}, nil
}

// Set says what is so and what is wanted, as a whole; only the last one counts. It is to be called after each of Events as
// well, with the targets that the sessions were told. What d holds belongs to Streams from then on, and is only read.
func (s *Streams) Set(d Desired) { s.inbox.set(d) }

// Events has a value when Snapshot returns something else than before, but for its counts. Values coalesce.
func (s *Streams) Events() <-chan struct{} { return s.board.events }

// Answered tells that an anchor has answered by UDP from this address.
func (s *Streams) Answered(server netip.AddrPort) { s.inbox.answer(time.Now(), server) }

// PathSilent tells that the path to a peer answers no checks.
func (s *Streams) PathSilent(peer identity.NodeID) { s.inbox.silence(peer) }

// SessionLost tells that a session ended in silence, which is evidence against the way that it went: it was lost or
// unresponsive, and it was not the far side that ended it. remote is where it led last.
func (s *Streams) SessionLost(id identity.NodeID, remote netip.AddrPort) { s.inbox.lose(id, remote) }

// Drop ends the streams that a member has opened to this node, at once: it was revoked or left.
func (s *Streams) Drop(id identity.NodeID) { s.o.Server.Drop(id) }

// Counts reports whether what happens at an address is evidence about UDP, and whether streams may lead there. In a mesh with
// anchors on the Internet those in the own network prove nothing: UDP may end at the router. private says that the mesh has
// none on the Internet.
func Counts(addr netip.Addr, private bool) bool {
	return !bind.IsVirtual(addr) && (ranges.IsPublic(addr) || private && addr.IsGlobalUnicast())
}

// counting returns the addresses that count.
func (d *Desired) counting(addrs []netip.AddrPort) (out []netip.AddrPort) {
	for _, a := range addrs {
		if Counts(a.Addr(), d.Private) {
			out = append(out, a)
		}
	}
	return out
}

// Snapshot returns what is believed and had now.
func (s *Streams) Snapshot() Snapshot {
	out := *s.board.snapshot.Load()
	out.Counts = s.o.Server.Counts()
	return out
}

// Run accepts, dials and holds streams until ctx ends; then it ends them all and returns nil when every goroutine has ended. It
// returns an error when the server fails. It can be called once.
func (s *Streams) Run(ctx context.Context) error {
	if s.started.Swap(true) {
		return errors.New("run streams: called twice")
	}
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- s.o.Server.Run(ctx, s.holder) }()
	running, err := newLoop(s).run(ctx, served)
	cancel()
	if running {
		<-served
	}
	s.holder.work.Wait() // the server has ended, and adds none
	return err
}
