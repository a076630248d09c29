// Package mesh keeps a node's verified copy of the mesh's records in step with the other members', and knows who seems to
// be alive. Fresh records go out at once to the neighbours and by memberlist's gossip to the rest; whatever got lost is
// found by comparing digests, and only what differs is fetched (syncwire.go draws the exchange). Every record is
// verified before it is kept or passed on, whoever brought it.
//
// It leaves to roster what the records mean, to store how they survive, to session how members reach each other, and to node
// what is done about a change: it only says that there was one. That a member seems dead is a hint, and never touches
// a record.
//
// New loads and starts nothing that runs; Run starts and ends all goroutines. The other methods may be called concurrently,
// before, during and after Run. Snapshots are shared and must not be changed.
package mesh

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
	"warren/mesh/session"
	"warren/mesh/store"
)

// Sessions is how mesh reaches other members, directly or through members that forward. All methods are called concurrently.
type Sessions interface {
	// SendGossip sends a message, which the far side gives to HandleMessage. It never blocks and may lose it. The payload is
	// not used after the return.
	SendGossip(to identity.NodeID, payload []byte) error
	// OpenGossip opens a stream, which the far side gives to HandleGossipStream.
	OpenGossip(ctx context.Context, to identity.NodeID) (net.Conn, error)
	// OpenSync opens a stream, which the far side gives to HandleSync.
	OpenSync(ctx context.Context, to identity.NodeID) (net.Conn, error)
	// Neighbours returns the members with which there is a session now.
	Neighbours() []identity.NodeID
}

// Options is what New takes; all but Logger are needed.
type Options struct {
	Root     *x509.Certificate
	Key      ed25519.PrivateKey  // the node's
	Chain    []*x509.Certificate // of the node, leaf first, root last
	Store    *store.Store        // closed by the caller, after Run
	Sessions Sessions
	// Own is what the node says of itself at the start. ID, sequence, epoch and times are filled in here, and the instance when it
	// is zero.
	Own    record.Node
	Logger *slog.Logger
	// LANSecret is shown in the own record while this node is an admin.
	LANSecret [16]byte
}

// Mesh is one node's part in a mesh. Each part of it has one subject:
//
//	messages, gossip ──▶ ear ──┐
//	Add, Update ───────────────┼─▶ intake ─▶ writer ─▶ book ─▶ published (View, digest)
//	joiners ─▶ Admission ──────┤      │
//	syncs ⇄ syncer ────────────┘      └─▶ book.save, then spreader (neighbours, gossip) and bell (Changes, Fatal)
//	           ▲
//	loop: timetable (when to sync with whom), granter (names and addresses), notices and pace (what is told, and heard, when)
//
// Those further down in the struct use those above.
type Mesh struct {
	// constant after New
	key      ed25519.PrivateKey
	self     identity.NodeID
	meshID   identity.MeshID
	sessions Sessions
	log      *slog.Logger

	// guarded by themselves
	drops     *drops
	alive     *liveness
	asks      *asks
	bell      *bell
	book      *book      // the records behind their lock, and what is read of them without it
	writer    *writer    // writes there, and keeps the own record
	sides     *sides     // who dialled whom
	evidence  *evidence  // why others are out
	spread    *spreader  // records out
	intake    *intake    // records in
	ear       *ear       // of messages: how much each sender is heard
	syncer    *syncer    // and those that differ
	admission *Admission // joiners
	power     *Power     // what this node signs as an admin

	running *stage
}

// New loads the records from the store and makes this node's own record of this start. The error is, or wraps,
// *FatalError when the records say that the node is no member any more.
func New(o Options) (*Mesh, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Mesh{
		key: o.Key, self: identity.NodeIDOf(o.Key.Public().(ed25519.PublicKey)), meshID: identity.MeshIDOf(o.Root.PublicKey.(ed25519.PublicKey)),
		sessions: o.Sessions, log: o.Logger.With("part", "mesh"), drops: newDrops(), alive: newLiveness(), asks: newAsks(),
	}
	if len(o.Chain) == 0 || identity.NodeIDOfCert(o.Chain[0]) != m.self {
		return nil, errors.New("start mesh: the certificate is not that of the node's key")
	}
	m.bell, m.running = newBell(m.log), newStage()
	var err error
	if m.book, err = newBook(o.Root, newSaver(o.Store), m.log); err != nil {
		return nil, fmt.Errorf("start mesh: %w", err)
	}
	if m.writer, err = newWriter(o, m.self, m.book); err != nil {
		return nil, fmt.Errorf("start mesh: %w", err)
	}
	m.sides, m.evidence = newSides(), newEvidence(m.book)
	m.spread = newSpreader(m.self, o.Sessions, m.writer, m.alive.count)
	m.intake = newIntake(m.writer, m.spread, m.evidence, m.asks, m.bell, m.drops, m.log)
	m.ear = &ear{public: m.book.public, limits: newLimits(m.book.public), intake: m.intake, drops: m.drops}
	m.syncer = &syncer{
		sessions: o.Sessions, book: m.book, intake: m.intake, asks: m.asks, drops: m.drops, log: m.log, bringer: session.Bringer,
		proof: &proof{book: m.book, self: m.self, sides: m.sides}, slots: newSlots(),
	}
	m.admission = &Admission{key: m.key, self: m.self, meshID: m.meshID, book: m.book, intake: m.intake, drops: m.drops, log: m.log}
	m.power = &Power{key: m.key, self: m.self, meshID: m.meshID, book: m.book, intake: m.intake}
	if err := m.admission.pending.restore(o.Store); err != nil {
		return nil, fmt.Errorf("start mesh: %w", err)
	}
	items, err := o.Store.Load()
	if err != nil {
		return nil, fmt.Errorf("start mesh: %w", err)
	}
	records := m.writer.load(items, o.Chain, m.drops)
	if err := m.writer.start(); err != nil {
		return nil, fmt.Errorf("start mesh: %w", err)
	}
	m.log.Info("records loaded", "records", records)
	m.book.keep()
	return m, nil
}

// Run keeps this node in step with the others until ctx ends. It may be called once. What it returns is nil, or why gossip could
// not start.
func (m *Mesh) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	public := m.book.public
	t, s := newTransport(ctx, m.sessions, public.isMember), newSwim(m.self, m.intake, m.alive)
	if err := s.start(t, m.log.Enabled(ctx, slog.LevelDebug)); err != nil {
		return err
	}
	m.running.begin(&run{ctx: ctx, transport: t, swim: s})
	var keeper sync.WaitGroup
	keeper.Go(func() { m.book.keeper(ctx) })
	l := &loop{
		intake: m.intake, asks: m.asks, notices: m.spread.notices, sides: m.sides, sessions: m.sessions, swim: s, log: m.log, timer: time.NewTimer(time.Hour),
		grants: newGranter(m, time.Now()),
		syncs: &timetable{
			self: m.self, sessions: m.sessions, public: public, book: m.book, alive: m.alive, asks: m.asks, syncer: m.syncer, swim: s, log: m.log,
			results: make(chan result), jobs: make(map[identity.NodeID]*job),
		},
	}
	for _, id := range m.sessions.Neighbours() {
		m.spread.greet(id, m.sides.begins(id))
		m.asks.up(id)
	}
	l.run(ctx)
	cancel()
	m.running.end()
	if err := s.list.Shutdown(); err != nil {
		m.log.Debug("gossip not stopped", "error", err)
	}
	l.syncs.wait()
	keeper.Wait()
	_ = m.book.save()
	return nil
}

// SessionUp tells that there is a session with a node now, and whether this side has dialled it. The two are brought in step, and gossip
// introduced. To one that is no member here the side that was dialled shows nothing, before that one has shown its own record.
func (m *Mesh) SessionUp(id identity.NodeID, dialled bool) {
	m.sides.up(id, dialled)
	if !m.sides.met(id, dialled, time.Now()) {
		m.spread.greet(id, dialled)
	}
	m.asks.up(id)
}

// Greet tells that a hello is on its way to a node that has proved to be the one that was dialled: to a member goes this node's record with it.
func (m *Mesh) Greet(id identity.NodeID) {
	if m.book.public.isMember(id) {
		m.sides.greets(id, time.Now())
		m.spread.greet(id, true)
	}
}

// HandleMessage takes a message that another member sent with SendGossip. by is from itself, or the member that has forwarded it: then
// from is that one's word, and what the message costs is on its account. It never blocks. The payload is kept.
func (m *Mesh) HandleMessage(from, by identity.NodeID, payload []byte) {
	rest := m.ear.message(from, by, payload)
	if rest == nil {
		return
	}
	if r := m.running.get(); r == nil || !r.transport.deliver(from, rest) {
		m.drops.add("gossip: queue full")
	}
}

// HandleGossipStream takes a stream that another member opened with OpenGossip. It returns when the stream has ended, and closes
// it.
func (m *Mesh) HandleGossipStream(from identity.NodeID, conn net.Conn) {
	var r *run
	if m.book.public.isMember(from) && m.ear.limits.stream(from, conn) {
		r = m.running.wait()
	}
	if r == nil {
		_ = conn.Close()
		m.drops.add("gossip: stream not now")
		return
	}
	if err := r.transport.serve(conn); err != nil {
		m.drops.add("gossip: stream not now")
	}
}

// HandleSync answers a sync stream that another member opened with OpenSync. It returns when the conversation is over, and
// closes conn.
func (m *Mesh) HandleSync(from identity.NodeID, conn net.Conn) {
	var r *run
	if m.ear.limits.stream(from, conn) {
		r = m.running.wait()
	}
	if r == nil {
		_ = conn.Close()
		m.drops.add("sync: not now")
		return
	}
	m.syncer.serve(r.ctx, from, conn)
}

// Admission is how joiners come in, for join.Serve.
func (m *Mesh) Admission() *Admission { return m.admission }

// Power is what this node may do as an admin, and what would come of it.
func (m *Mesh) Power() *Power { return m.power }

// View returns the current view. It takes no lock and costs nothing, so it may be called for each packet and under locks of others.
func (m *Mesh) View() *View { return m.book.public.view.Load() }

// Own returns this node's record as it stands.
func (m *Mesh) Own() record.Node { return m.writer.ownNode() }

// Changes has a value whenever View has changed since the last one was taken.
func (m *Mesh) Changes() <-chan struct{} { return m.bell.changes }

// Fatal has one error, a *FatalError, once this node must stop.
func (m *Mesh) Fatal() <-chan error { return m.bell.fatal }

// Dropped counts what was refused or dropped since New, under named reasons.
func (m *Mesh) Dropped() map[string]uint64 { return m.drops.counts() }

// Alive returns what gossip thinks of a member, and since when: a hint.
func (m *Mesh) Alive(id identity.NodeID) (Liveness, time.Time) { return m.alive.get(id) }

// LastAnswer returns when a member last answered a probe of this node's, directly or through others; zero: never. It is a hint too.
func (m *Mesh) LastAnswer(id identity.NodeID) time.Time { return m.alive.lastAnswer(id) }

// VerifyChain checks a chain of certificates, leaf first, that a node presents in a handshake, and returns whose it is. Its
// error wraps a roster refusal with the reason.
func (m *Mesh) VerifyChain(chain []*x509.Certificate) (identity.NodeID, error) {
	return m.book.verifyChain(chain, time.Now())
}

// Standing returns nil for a member, else a roster refusal that says why the node is none.
func (m *Mesh) Standing(id identity.NodeID) error { return m.book.standing(id) }

// Missing returns how many records others have that are being fetched.
func (m *Mesh) Missing() int { return int(max(0, m.syncer.missing.Load())) }

// FatalError says why this node cannot go on as a member.
type FatalError struct {
	Reason roster.Reason // of the record that says it
	Text   string
}

// Error returns the explanation, for people.
func (e *FatalError) Error() string { return e.Text }

// drops counts under named reasons. It is written under memberlist's locks too, so it has none of its own.
type drops struct {
	n sync.Map // string → *atomic.Uint64
}

func newDrops() *drops { return &drops{} }

func (d *drops) add(reason string) {
	n, ok := d.n.Load(reason)
	if !ok {
		n, _ = d.n.LoadOrStore(reason, new(atomic.Uint64))
	}
	n.(*atomic.Uint64).Add(1)
}

func (d *drops) counts() map[string]uint64 {
	counts := make(map[string]uint64)
	for reason, n := range d.n.Range {
		counts[reason.(string)] = n.(*atomic.Uint64).Load()
	}
	return counts
}
