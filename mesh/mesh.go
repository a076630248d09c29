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
}

// Mesh is one node's part in a mesh.
type Mesh struct {
	// constant after New
	sessions Sessions
	store    *store.Store
	key      ed25519.PrivateKey
	self     identity.NodeID
	meshID   identity.MeshID
	log      *slog.Logger
	isDirect func(net.Conn) bool // does a stream come straight from its sender

	// guarded by themselves
	book   *book
	saver  *saver
	drops  *drops
	alive  *liveness
	spread *spreader
	asks   *asks
	limits limits

	// channels
	inbox   chan arrival  // records and notices that came in messages; drops the newest when full: a sync mends that
	changes chan struct{} // coalesced
	fatal   chan error    // the first one only

	// atomic
	running atomic.Pointer[run]
	basis   atomic.Pointer[basis]
	missing atomic.Int64 // records that running syncs have yet to fetch
}

// limits are the rates at which one sender is heard. All who are no members share one rate: whoever holds an old invite can make
// as many IDs as it likes.
//
// Streams that did not come straight from their sender share one rate too, for the member that forwards them can name any
// sender. Messages do not say how they came, so a member that forges senders can use up another's share of messages and
// records here. What is lost by that are hints and copies: digests show it, and a sync over the session with that other,
// whose rate nobody else can use up, brings it.
type limits struct {
	messages  *limiter // messages for memberlist
	records   *limiter // records in messages
	streams   *limiter
	forwarded *limiter // streams, all senders together
}

// heard takes one token of a sender.
func (m *Mesh) heard(l *limiter, from identity.NodeID) bool {
	if !m.isMember(from) {
		from = identity.NodeID{}
	}
	return l.take(from, 1, time.Now())
}

// heardStream takes one token for a stream: of its sender if that is proven.
func (m *Mesh) heardStream(from identity.NodeID, conn net.Conn) bool {
	if m.isDirect(conn) {
		return m.heard(m.limits.streams, from)
	}
	return m.limits.forwarded.take(identity.NodeID{}, 1, time.Now())
}

// run is what exists only while Run runs.
type run struct {
	ctx       context.Context // ends with Run: streams that are being served watch it
	transport *transport
	swim      *swim
}

// arrival is a record that came in a message, or when encoded is nil the notice that a member holds one. From is that member, and zero when
// memberlist brought a record: it does not say from whom.
type arrival struct {
	encoded []byte
	notice  roster.Entry
	from    identity.NodeID
	hops    byte // how many more times it may be passed straight on
}

// inboxSize holds a burst of records while earlier ones are being verified at 6,000 a second.
const inboxSize = 1024

// New loads the records from the store and makes this node's own record of this start. The error is, or wraps,
// *FatalError when the records say that the node is no member any more.
func New(o Options) (*Mesh, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Mesh{
		sessions: o.Sessions, store: o.Store, key: o.Key, log: o.Logger.With("part", "mesh"), isDirect: session.IsDirect,
		self:   identity.NodeIDOf(o.Key.Public().(ed25519.PublicKey)),
		meshID: identity.MeshIDOf(o.Root.PublicKey.(ed25519.PublicKey)),
		drops:  newDrops(), alive: newLiveness(), asks: newAsks(),
		limits: limits{
			messages: newLimiter(500, 1000), records: newLimiter(50, 500), streams: newLimiter(2, 60), forwarded: newLimiter(20, 300),
		},
		inbox: make(chan arrival, inboxSize), changes: make(chan struct{}, 1), fatal: make(chan error, 1),
	}
	if len(o.Chain) == 0 || identity.NodeIDOfCert(o.Chain[0]) != m.self {
		return nil, errors.New("start mesh: the certificate is not that of the node's key")
	}
	m.saver = newSaver(o.Store)
	m.spread = newSpreader(m.alive.count)
	book, err := newBook(o, m.self, m.saver)
	if err != nil {
		return nil, fmt.Errorf("start mesh: %w", err)
	}
	m.book = book
	if err := m.load(o.Chain); err != nil {
		return nil, fmt.Errorf("start mesh: %w", err)
	}
	return m, nil
}

// load fills the roster from the store and the node's own chain, and signs the own record of this start.
func (m *Mesh) load(chain []*x509.Certificate) error {
	items, err := m.store.Load()
	if err != nil {
		return err
	}
	var records []record.Signed
	for _, cert := range chain {
		if identity.RoleOf(cert) == identity.RoleInvite {
			records = append(records, record.NewCertificate(cert))
		}
	}
	for _, item := range items {
		signed, err := record.Unmarshal(item.Value)
		if err != nil {
			m.drops.add("store: malformed record")
			m.saver.mark(item.Key)
			continue
		}
		records = append(records, signed)
	}
	n := m.book.load(records)
	if err := m.book.start(); err != nil {
		return err
	}
	m.log.Info("records loaded", "records", n)
	return m.flush()
}

// Own returns this node's record as it stands.
func (m *Mesh) Own() record.Node { return m.book.ownNode() }

// Changes has a value whenever View has changed since the last one was taken.
func (m *Mesh) Changes() <-chan struct{} { return m.changes }

// Fatal has one error, a *FatalError, once this node must stop.
func (m *Mesh) Fatal() <-chan error { return m.fatal }

// Dropped counts what was refused or dropped since New, under named reasons.
func (m *Mesh) Dropped() map[string]uint64 { return m.drops.counts() }

// Alive returns what gossip thinks of a member, and since when: a hint.
func (m *Mesh) Alive(id identity.NodeID) (Liveness, time.Time) { return m.alive.get(id) }

// VerifyChain checks a chain of certificates, leaf first, that a node presents in a handshake, and returns whose it is. Its
// error wraps a roster refusal with the reason.
func (m *Mesh) VerifyChain(chain []*x509.Certificate) (identity.NodeID, error) {
	return m.book.verifyChain(chain, time.Now())
}

// Standing returns nil for a member, else a roster refusal that says why the node is none.
func (m *Mesh) Standing(id identity.NodeID) error { return m.book.standing(id) }

// FatalError says why this node cannot go on as a member.
type FatalError struct {
	Reason roster.Reason // ReasonNone when no record says it: the key lives elsewhere too, or all members refuse this node
	Text   string
}

// Error returns the explanation, for people.
func (e *FatalError) Error() string { return e.Text }

// fail gives Fatal its error; later ones are not news.
func (m *Mesh) fail(err *FatalError) {
	select {
	case m.fatal <- err:
		m.log.Error("node must stop", "reason", err.Text)
	default:
	}
}

// changed tells the user of View that it has.
func (m *Mesh) changed() {
	select {
	case m.changes <- struct{}{}:
	default:
	}
}

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
