// Package session keeps the control sessions of a node: QUIC connections with mutual TLS 1.3 to other members, on the
// QUIC lane of the node's one UDP socket. It dials the targets that it was last told to have and keeps at it for ever,
// accepts what verified members dial, carries short messages and streams over the sessions, and passes both on for
// members that have no session with each other, through at most two forwarding members (wire.go draws the formats).
//
// It leaves to its user who is a member (Options.Members and Roster), which members to dial (SetTargets), and what messages and
// streams mean. By whom a member without a session is reached it chooses itself (hops.go). What comes through a forwarding
// member names its source only as truly as that member does: the first hop checks it, the last one cannot. Whoever
// needs proof of the source signs the payload. Tunnels never depend on a session.
//
// All methods may be called concurrently, and before, during and after Run; what Options name is called concurrently,
// without any lock held, and may call every method except Run.
package session

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"warren/mesh/identity"
)

// Proto says what a message or a stream is for. Zero is not used on the wire; numbers that this package does not know
// are carried all the same.
type Proto byte

// The protocols that sessions carry today.
const (
	ProtoGossip       Proto = 1 // message: a packet of memberlist
	ProtoGossipStream Proto = 2 // stream: memberlist's push/pull and fallback ping
	ProtoSignal       Proto = 3 // message: a sealed introduction; parked for a destination that is not there yet
	ProtoSync         Proto = 4 // stream: anti-entropy of records
	ProtoRelay        Proto = 5 // stream: relay control
	ProtoAsk          Proto = 6 // message: asks a member to dial back, or to help measure the NAT, and what it answers
	ProtoHost         Proto = 7 // stream: an admin has a member host a plain WireGuard device
)

// MaxMessage is the largest payload, in bytes, that Send takes. Up to about 1,100 bytes travel as one QUIC datagram
// (unreliable); larger ones as a stream of their own.
const MaxMessage = 64 << 10

// Codes with which a session is closed (the application error code of QUIC's CONNECTION_CLOSE, RFC 9000, section 19.19).
// Codes from CodeFirstFree on are the user's, given to Drop.
const (
	CodeShutdown     uint64 = 0 // the node stops
	CodeDuplicate    uint64 = 1 // a second session between the same two nodes, dialled at the same time
	CodeReplaced     uint64 = 2 // a newer session with the same node took over
	CodeRefused      uint64 = 3 // the certificate chain was not accepted
	CodeUnresponsive uint64 = 4 // no answer to checks
	CodeUnneeded     uint64 = 5 // the dialling side no longer has the node as a target
	CodeProtocol     uint64 = 6 // the far side broke the protocol
	CodeLost         uint64 = 7 // never sent: the session timed out or was reset
	CodeStranger     uint64 = 8 // no place, or no more time, for a node that is no member by the records of the side that closes
	CodeFirstFree    uint64 = 0x100
)

// Errors that callers tell apart.
var (
	ErrNoRoute  = errors.New("no session with the node, and with none that leads to it")
	ErrTooLarge = errors.New("message too large")
)

// Target is a node to keep a session with, and the underlay addresses where it may be dialled.
type Target struct {
	ID    identity.NodeID
	Addrs []netip.AddrPort
	// Behind is another target in whose place this one is: it is dialled when that one has not answered. Zero: none.
	Behind identity.NodeID
}

// Refusal is an error that Members.Verify may return (also wrapped) to choose the code and the text that the refused
// node is told. With any other error the code is CodeRefused and the text is the error's.
type Refusal struct {
	Code   uint64
	Reason string
	// Proof is what the refusal rests on, for the far side to verify: records of the user's, at most MaxProof bytes with 4 for each. They
	// are handed over only with a code from CodeFirstFree on.
	Proof [][]byte
}

// Error returns the reason.
func (r *Refusal) Error() string { return r.Reason }

// Members proves this node to others, and tells whose chain is a member's. Both methods are called concurrently.
type Members interface {
	// Credential returns the node's chain, leaf first, root last, with the node's Ed25519 key.
	Credential() tls.Certificate
	// Verify checks a chain that was presented in a handshake, leaf first, and returns the leaf's node ID. It is asked at each
	// handshake, and once more when the session is entered, so that a revocation that falls between the two is not missed.
	Verify(chain []*x509.Certificate) (identity.NodeID, error)
}

// Inbound takes what comes in. Its methods are called concurrently.
type Inbound interface {
	// Message must not block; payload is its own from then on. by is the far side of the session that brought it: from itself, or a
	// member that forwards, and then from is that one's word only. What is done on account of a message is on by's account.
	Message(from, by identity.NodeID, p Proto, payload []byte)
	// Stream has a goroutine of its own; it closes c, and returns when c fails. See Bringer.
	Stream(from identity.NodeID, p Proto, c net.Conn)
	// Join takes a joiner's connection, likewise. It is not called unless joining is offered.
	Join(c JoinConn)
	// Proof takes what a node that refuses this one handed over as its reason (Refusal.Proof). That node has proved its ID and nothing
	// more. It must not block; the records are its own from then on.
	Proof(from identity.NodeID, records [][]byte)
}

// Options is what New takes. Conn, Self and Members are needed, the rest may be left out.
type Options struct {
	Conn    net.PacketConn // the QUIC lane; its read deadline must work; not closed by this package
	Self    identity.NodeID
	Members Members
	Roster  Roster  // who is a member, and where members can be found. Nil: everybody is, and nothing more is known
	Inbound Inbound // nil: messages are dropped and streams refused
	Joins   bool    // joining is offered; needs Inbound
	Logger  *slog.Logger
}

// Status describes one target or session.
type Status struct {
	ID        identity.NodeID
	Target    bool // it is in the list given to SetTargets
	Up        bool
	Remote    netip.AddrPort // the far side's address, when up
	RTT       time.Duration  // smoothed, when up
	Since     time.Time      // when the session came up
	Dialled   bool           // this side dialled it
	LastError string         // of the last dial or session; empty when there was none
	Silent    bool           // LastError is that of a dial that nobody answered
	Attempts  int            // failed dials since the last session
	NextDial  time.Time      // zero when up or dialling
}

// Sessions keeps a node's control sessions. See the package comment.
//
//	SetTargets ─▶ targets ─▶ dialler ─┐
//	                                  ├─▶ keeper ─▶ table (which link serves whom) ─▶ mailbox (Events)
//	   others ─▶ gate ─▶ reception ───┘     └─────▶ router (what goes over the links: Send, Open, Inbound)
type Sessions struct {
	// constant
	options   Options
	lane      *lane
	transport *quic.Transport
	table     *table        // which link serves whom
	events    *mailbox      // what the user is told
	router    *router       // carries messages and streams over the links
	keeper    *keeper       // looks after the links
	targets   *targets      // has sessions dialled
	reception *reception    // takes in those that others dial
	strangers *strangers    // of these, who is no member
	strange   chan struct{} // capacity 1: a far side may have moved

	// atomic, or guarded by themselves
	counters counters
	wait     sync.WaitGroup
	started  atomic.Bool
}

// New returns sessions that do nothing until Run is called.
func New(o Options) (*Sessions, error) {
	if o.Conn == nil || o.Members == nil || o.Self.IsZero() || o.Joins && o.Inbound == nil {
		return nil, errors.New("new sessions: Conn, Self and Members are needed, and Inbound to offer joining")
	}
	if o.Roster == nil {
		o.Roster = everybody{}
	}
	key, err := resetKey(o.Members.Credential())
	if err != nil {
		return nil, fmt.Errorf("new sessions: %w", err)
	}
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	log = log.With("part", "session")
	var own instance
	rand.Read(own[:])
	gate := newGate()
	s := &Sessions{options: o, events: newMailbox(), strange: make(chan struct{}, 1)}
	s.lane = newLane(o.Conn, func() { notify(s.strange) })
	s.table = newTable(o.Self, s.events, s.lane)
	s.transport = &quic.Transport{
		Conn:                             s.lane,
		ConnectionIDGenerator:            connectionIDs{},
		StatelessResetKey:                key,
		DisableVersionNegotiationPackets: true, // a stranger gets no answer to what we do not speak
		VerifySourceAddress:              gate.wantRetry,
		ConnContext:                      gate.enter,
	}
	s.router = &router{
		self: o.Self, roster: o.Roster, inbound: o.Inbound, began: time.Now(),
		table: s.table, parking: newParking(), ways: newWays(), counters: &s.counters, spare: copiesOfSignals.Limiter(), gossip: copiesOfGossip.Limiter(),
	}
	s.strangers = newStrangers(o.Roster)
	proofs := &proofs{inbound: o.Inbound, wait: &s.wait}
	s.keeper = &keeper{
		members: o.Members, table: s.table, router: s.router, strangers: s.strangers, met: &gate.met, wait: &s.wait, log: log,
	}
	s.targets = &targets{
		self: o.Self, table: s.table, credit: newCredit(&gate.met), places: make(chan struct{}, dialsAtOnce), besides: besides.Limiter(), keeper: s.keeper, events: s.events, wait: &s.wait,
		dialler: &dialler{o.Members, s.transport, s.lane, own, proofs, &s.wait},
		changed: make(chan struct{}, 1), running: make(map[*target]context.CancelFunc), list: make(map[identity.NodeID]*target),
	}
	s.reception = &reception{
		self: o.Self, instance: own, members: o.Members, roster: o.Roster, inbound: o.Inbound, gate: gate, keeper: s.keeper, proofs: proofs,
		events: s.events, counters: &s.counters, wait: &s.wait, log: log,
	}
	return s, nil
}

// Run accepts and dials until ctx is done; then it closes all sessions, telling the far sides, and returns nil when every
// goroutine has ended. It returns an error when the lane fails. It can be called once.
func (s *Sessions) Run(ctx context.Context) error {
	if s.started.Swap(true) {
		return errors.New("run sessions: called twice")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listener, err := s.transport.Listen(serverTLS(s.options.Members, s.options.Joins), quicConfig())
	if err != nil {
		return fmt.Errorf("run sessions: %w", err)
	}
	s.wait.Go(func() { s.events.run(ctx) })
	broken := make(chan error, 1)
	s.wait.Go(func() { broken <- s.reception.run(ctx, listener) })
	err = s.loop(ctx, broken)
	cancel()
	s.shutdown(listener)
	return err
}

// loop follows the list of targets, and looks after far sides that move.
func (s *Sessions) loop(ctx context.Context, broken <-chan error) error {
	defer s.targets.stop()
	notify(s.targets.changed)
	timer := time.NewTimer(strangersLook)
	defer timer.Stop()
	look := func() {
		for _, l := range s.strangers.look(time.Now()) {
			s.keeper.became(l)
		}
		if timer.Stop(); s.strangers.any() {
			timer.Reset(strangersLook)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-broken:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("run sessions: %w", err)
		case <-s.strange:
			s.table.refresh()
		case <-s.targets.changed:
			s.targets.follow(ctx)
			look() // the records may be others
		case <-s.strangers.came:
			look()
		case <-timer.C:
			look()
		}
	}
}

// shutdown closes everything and waits for it.
func (s *Sessions) shutdown(listener *quic.Listener) {
	var closing sync.WaitGroup
	for _, l := range s.table.links(identity.NodeID{}) {
		closing.Go(func() { l.close(CodeShutdown, "the node stops") })
	}
	closing.Wait()
	listener.Close()
	s.transport.Close()
	s.wait.Wait()
}

// SetTargets replaces the list of nodes to keep sessions with; calling it again with the same list changes nothing. Each
// is dialled for ever: its addresses raced, with waits that grow from 0.2 s to 30 s. A session with a node that is no
// target any more ends if this side dialled it. The node itself and targets without an address are allowed and not dialled.
func (s *Sessions) SetTargets(targets []Target) { s.targets.set(targets) }

// Redial is to be called when the network changed: every target without a session is dialled at once, with the ladder of
// waits reset, and every session is checked: one that does not answer within 1.6 s is closed and dialled anew. The check
// also shows the far side our new address.
func (s *Sessions) Redial() {
	s.targets.rouse()
	s.CheckAll()
}

// CheckAll is to be called when this node's NAT has given it another address: a session that the far side dialled cannot
// follow that (RFC 9000, section 9: servers do not migrate), and neither side would notice for long. Each is checked as
// after Redial.
func (s *Sessions) CheckAll() {
	for _, l := range s.table.links(identity.NodeID{}) {
		l.check(nil)
	}
}

// Doubt is to be called when a path to a node, perhaps by another, answers no checks: the sessions with these are checked as
// after Redial, and so are those that this side dialled, since this node's own address may be another now. Sessions that were just checked, or
// heard from, are left alone, so that it may be called often.
func (s *Sessions) Doubt(ids ...identity.NodeID) {
	for _, l := range s.table.links(identity.NodeID{}) {
		if (l.dialled || slices.Contains(ids, l.id)) && l.pulse.quiet() >= doubtQuiet {
			l.checkSoon(doubtPause)
		}
	}
}

// Drop closes all connections with a node; the far side sees code (CodeFirstFree or higher) and reason. It does not
// keep the node from coming back: that is for Verify.
func (s *Sessions) Drop(id identity.NodeID, code uint64, reason string) {
	if id.IsZero() {
		return
	}
	for _, l := range s.table.links(id) {
		l.spawn(func() { l.close(code, reason) })
	}
}

// Events returns the channel of changes. There is one reader; a slow one misses intermediate states of a node but never
// its last one. The channel is never closed.
func (s *Sessions) Events() <-chan Event { return s.events.out }

// Remote returns the underlay address of the far side of the session with id, if there is one.
func (s *Sessions) Remote(id identity.NodeID) (netip.AddrPort, bool) {
	if l := s.table.link(id); l != nil {
		return addrPortOf(l.conn.RemoteAddr()), true
	}
	return netip.AddrPort{}, false
}

// Heard returns when something last came in over the session with id; zero: there is none.
func (s *Sessions) Heard(id identity.NodeID) time.Time {
	if l := s.table.link(id); l != nil {
		return l.pulse.lastHeard()
	}
	return time.Time{}
}

// RTT returns the shortest round-trip time of the session with id on its present path, if there is one: what the line takes. Machines that are
// busy, as when many start at once, make others longer.
func (s *Sessions) RTT(id identity.NodeID) (time.Duration, bool) {
	if l := s.table.link(id); l != nil {
		return l.conn.ConnectionStats().MinRTT, true
	}
	return 0, false
}

// Counters returns how often something was dropped, by reason, or passed on, as "forwarded" and "spliced".
func (s *Sessions) Counters() map[string]uint64 { return s.counters.snapshot() }

// Dials returns how often dialling a target has failed since the last session with it, and whether nobody answered the last
// time: Status.Attempts and Status.Silent, without the rest. A dial that has been answered and does not get on, as where large packets
// are lost, counts once more every 1.5 s from 3 s on.
func (s *Sessions) Dials(id identity.NodeID) (attempts int, silent bool) {
	t := s.targets.find(id)
	if t == nil {
		return 0, false
	}
	return t.dials()
}

// Snapshot describes all targets and sessions, ordered by node ID.
func (s *Sessions) Snapshot() []Status {
	all := s.targets.status()
	for _, l := range s.table.links(identity.NodeID{}) {
		if s.table.link(l.id) != l {
			continue
		}
		st := all[l.id]
		st.ID, st.Up, st.Dialled, st.Since = l.id, true, l.dialled, l.since
		st.Remote, st.RTT = addrPortOf(l.conn.RemoteAddr()), l.rtt()
		all[l.id] = st
	}
	return slices.SortedFunc(maps.Values(all), func(a, b Status) int { return a.ID.Compare(b.ID) })
}

// notify leaves a note in a channel of capacity 1.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
