package node

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/join"
	"warren/mesh/roster"
	"warren/mesh/session"
	"warren/mesh/signal"
	"warren/mesh/store"
	"warren/nat"
	"warren/nat/netwatch"
	"warren/nat/portmap"
	"warren/nat/relay"
	"warren/tunnel"
	"warren/tunnel/bind"
)

// signalQueue bounds the introductions that wait for the loop, each way. What does not fit is dropped and
// counted; nat sends again.
const signalQueue = 1024

// sessionEvent is a change of a control session.
type sessionEvent = session.Event

// member is this node's part in its mesh: the owners mesh, nat and session, and the wires between them.
type member struct {
	// constant after newMember
	log      *slog.Logger
	state    *state
	self     identity.NodeID
	meshID   identity.MeshID
	instance [8]byte
	socket   *bind.Bind
	store    *store.Store
	mesh     *mesh.Mesh
	sessions *session.Sessions
	nat      *nat.NAT
	sealer   *signal.Sealer
	relays   *relay.Server
	channels *relay.Client
	back     *dialBack
	retry    *time.Timer // of handshakes
	mapper   *portmap.Mapper
	settings func() Settings
	setPSK   func(wgtypes.Key, wgtypes.Key) error
	tunnel   func() *tunnel.Tunnel

	linkSet  chan struct{} // a value after each change of the interface's addresses
	incoming chan incomingSignal
	outgoing chan outgoingSignal

	// safe for all: read by the owners' goroutines
	public  sync.Map // identity.NodeID → ed25519.PublicKey
	routes  atomic.Pointer[routes]
	dropped dropCounters

	// owned by the loop
	peers    map[identity.NodeID]*peer
	up       map[identity.NodeID]sessionFacts
	contacts []contact
	refused  map[identity.NodeID]refusal
}

// peer is what the loop keeps of another active member.
type peer struct {
	key      wgtypes.Key
	endpoint *bind.Endpoint
	psk      wgtypes.Key
	path     nat.Path
	awaits   time.Time // since when a handshake is looked for; zero: none is
	tries    int       // of that handshake, after the first
}

// newMember loads what the state directory holds and makes the owners. Nothing runs yet.
func newMember(n *node, s *state, wireGuard wgtypes.Key) (*member, error) {
	m := &member{
		log: n.log, state: s, self: s.nodeID(), meshID: s.meshID(), instance: newInstance(), socket: n.socket,
		settings: func() Settings { return n.settings }, setPSK: n.setPSK, tunnel: func() *tunnel.Tunnel { return n.tunnel },
		linkSet: make(chan struct{}, 1), back: newDialBack(), retry: time.NewTimer(time.Hour),
		incoming: make(chan incomingSignal, signalQueue), outgoing: make(chan outgoingSignal, signalQueue),
		peers: make(map[identity.NodeID]*peer), up: make(map[identity.NodeID]sessionFacts), refused: make(map[identity.NodeID]refusal),
	}
	m.routes.Store(&routes{})
	records, aside, err := store.Open(recordsPath(s.dir))
	if err != nil {
		return nil, err
	}
	if aside != nil {
		n.log.Warn("damaged store set aside", "file", aside.Path, "error", aside.Cause)
		n.status.warn("store", fmt.Sprintf("the store of records was damaged (%v); it was set aside as %s and is fetched anew from other members", aside.Cause, aside.Path))
	}
	m.store = records
	if err := m.assemble(n, wireGuard); err != nil {
		records.Close()
		return nil, err
	}
	return m, nil
}

func (m *member) assemble(n *node, wireGuard wgtypes.Key) (err error) {
	logger := n.options.Logger
	var damage string
	if m.contacts, damage = loadContacts(m.state, n.started); damage != "" {
		n.log.Warn("contacts", "error", damage)
		n.status.warn("contacts", damage)
	}
	own, err := m.state.ownRecord(wireGuard, n.options.Version)
	if err != nil {
		return err
	}
	own.Instance = m.instance
	m.sessions, err = session.New(session.Options{
		Conn: m.socket.QUIC(), Self: m.self, Credential: m.credential, Verify: m.verify, Member: m.active, NextHops: m.nextHops,
		OnMessage: m.onMessage, OnStream: m.onStream, OnJoin: m.admit, Logger: logger,
	})
	if err != nil {
		return err
	}
	m.mesh, err = mesh.New(mesh.Options{
		Root: m.state.root(), Key: m.state.key, Chain: m.state.chain, Store: m.store, Sessions: gossipLane{m}, Logger: logger, Own: own,
	})
	if err != nil {
		return err
	}
	m.sealer, err = signal.New(signal.Options{
		Mesh: m.meshID, Self: m.self, Signing: m.state.key, Sealing: m.state.sealing, Lookup: m.keysOf,
	})
	if err != nil {
		return err
	}
	m.relays = relay.NewServer(relay.ServerOptions{
		Self: m.self,
		Forward: func(from, to relay.Half) {
			if _, err := m.socket.SetForward(bind.Half(from), bind.Half(to)); err != nil {
				m.log.Warn("forward", "from", from.Addr.String(), "to", to.Addr.String(), "error", err)
			}
		},
		Unforward: func(from relay.Half) { m.socket.RemoveForward(bind.Half(from)) },
		Remote:    m.sessions.Remote, Member: m.active, Enabled: m.relaying, Logger: logger,
	})
	m.channels = relay.NewClient(relay.ClientOptions{
		Dial: m.dialRelay, OpenChannel: m.socket.OpenChannel, CloseChannel: m.socket.CloseChannel, Logger: logger,
	})
	m.mapper = portmap.New(portmap.Options{Port: m.socket.Port, Secret: m.mappingSecret(), Logger: logger})
	m.nat, err = nat.New(nat.Options{
		Self: m.self, Instance: m.instance, STUN: m.socket.STUN(), Port: m.socket.Port, Addresses: func() []netip.Addr { return netwatch.Addresses(n.foreign) },
		Reject: m.inOverlay, Send: m.enqueue, Activity: m.activity, Relay: m.channels, Anchors: m.anchors, External: m.external, Stranger: m.back.stranger, Logger: logger,
	})
	return err
}

// start runs the owners in group until ctx ends.
func (m *member) start(ctx context.Context, group *errgroup.Group) {
	group.Go(func() error { return m.sessions.Run(ctx) })
	group.Go(func() error { return m.mesh.Run(ctx) })
	group.Go(func() error { return m.nat.Run(ctx) })
	group.Go(func() error { return m.channels.Run(ctx) })
	if m.settings().Anchor != AnchorNever {
		group.Go(func() error { return m.mapper.Run(ctx) })
	}
	group.Go(func() error { return m.answerProbes(ctx) })
}

func (m *member) events() eventSources {
	return eventSources{
		paths: m.nat.Events(), sessions: m.sessions.Events(), records: m.mesh.Changes(), fatal: m.mesh.Fatal(),
		incoming: m.incoming, outgoing: m.outgoing, reached: m.back.arrivals, reach: m.back.timer.C, handshakes: m.retry.C, mapped: m.mapper.Events(),
	}
}

// credential is what this node shows in handshakes: its chain, root included, so that a member that lacks records
// can still verify it.
func (m *member) credential() tls.Certificate {
	c := tls.Certificate{PrivateKey: m.state.key, Leaf: m.state.chain[0]}
	for _, cert := range m.state.chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

func (m *member) keysOf(id identity.NodeID) (signal.Keys, bool) {
	other, ok := m.mesh.View().Member(id)
	if !ok || other.State != roster.Active {
		return signal.Keys{}, false
	}
	public, ok := m.publicKey(other)
	return signal.Keys{Signing: public, Sealing: other.Record.SealingKey}, ok
}

// publicKey returns the key that a member's ID is the hash of, which is why it can be remembered.
func (m *member) publicKey(other roster.Member) (ed25519.PublicKey, bool) {
	if known, ok := m.public.Load(other.ID); ok {
		return known.(ed25519.PublicKey), true
	}
	cert, err := identity.ParseCert(other.Record.Certificate)
	if err != nil {
		return nil, false
	}
	public, ok := cert.PublicKey.(ed25519.PublicKey)
	if ok {
		m.public.Store(other.ID, public)
	}
	return public, ok
}

func (m *member) active(id identity.NodeID) bool {
	other, ok := m.mesh.View().Member(id)
	return ok && other.State == roster.Active
}

// relaying reports whether this node relays for others: whoever can be reached does, unless told not to.
func (m *member) relaying() bool { return m.routes.Load().relaying }

// inOverlay keeps addresses of the mesh itself from becoming candidates: a tunnel must not run through itself.
func (m *member) inOverlay(addr netip.Addr) bool {
	view := m.mesh.View()
	return view.Prefix6.Contains(addr) || view.Prefix4.IsValid() && view.Prefix4.Contains(addr)
}

// activity is called by nat for each peer: the path is alive while packets come in.
func (m *member) activity(id identity.NodeID) (lastTx, lastRx time.Time) {
	if e := m.routes.Load().endpoints[id]; e != nil {
		a := e.Activity()
		return a.LastTx, a.LastRx
	}
	return lastTx, lastRx
}

// anchors lists the members with a session, nearest first: any of them can say what address it sees, and relay.
func (m *member) anchors() []nat.Anchor { return m.routes.Load().anchors }

func (m *member) nextHops(dst identity.NodeID) []identity.NodeID { return m.routes.Load().towards(dst) }

// dialRelay opens a relay control stream on the session with an anchor.
func (m *member) dialRelay(ctx context.Context, anchor identity.NodeID) (net.Conn, netip.AddrPort, error) {
	remote, ok := m.sessions.Remote(anchor)
	if !ok {
		return nil, remote, fmt.Errorf("dial relay: %w", session.ErrNoRoute)
	}
	stream, err := m.sessions.OpenDirect(ctx, anchor, session.ProtoRelay)
	return stream, remote, err
}

// onMessage is called by session, from its goroutines.
func (m *member) onMessage(from identity.NodeID, p session.Proto, payload []byte) {
	switch p {
	case session.ProtoGossip:
		m.mesh.HandleMessage(from, payload)
	case session.ProtoSignal:
		select {
		case m.incoming <- incomingSignal{from: from, sealed: payload}:
		default:
			m.dropped.add("signal: queue full")
		}
	case session.ProtoAsk:
		m.helpDialBack(from, payload)
	default:
		m.dropped.add("session: unknown message")
	}
}

// onStream is called by session, in a goroutine of the stream's own.
func (m *member) onStream(from identity.NodeID, p session.Proto, c net.Conn) {
	switch p {
	case session.ProtoGossipStream:
		m.mesh.HandleGossipStream(from, c)
	case session.ProtoSync:
		m.mesh.HandleSync(from, c)
	case session.ProtoRelay:
		if !session.IsDirect(c) { // whoever forwards a request could name any member as its source
			c.Close()
			m.dropped.add("relay: request not from the member itself")
			return
		}
		m.relays.Serve(context.Background(), from, c) // ends with the session
	default:
		c.Close()
		m.dropped.add("session: unknown stream")
	}
}

// pathChanged moves the peer's endpoint and, on the controlling side, starts the WireGuard handshake that the new
// path needs: none when the session keys are good, for then only the address has changed.
func (m *member) pathChanged(e nat.Event) {
	p := m.peers[e.Peer]
	if p == nil {
		return
	}
	moved := e.Path.Addr != p.path.Addr
	if moved {
		m.log.Info("path changed", "peer", m.nameOf(e.Peer), "path", e.Path.Kind.String(), "address", e.Path.Addr, "reason", e.Reason)
	}
	p.path = e.Path
	p.endpoint.SetSources(e.Sources)
	flushed := p.endpoint.SetPath(e.Path.Addr)
	switch {
	case !e.Path.Addr.IsValid():
	case flushed:
		m.await(p)
	case e.Controlling && (e.PeerRestarted || moved && !m.keysAreGood(p.key)):
		m.handshake(p)
	}
}

// Handshakes. WireGuard repeats one that got no answer after five seconds, which suits a peer that may be away; here a
// path has just been proved, so that an answer that is missing after handshakeRetry was lost.
const (
	handshakeRetry = 700 * time.Millisecond
	handshakeTries = 4
)

// handshake starts one, unless one was started just now: two in a row cross, and the peer takes the second for a flood.
func (m *member) handshake(p *peer) {
	if time.Since(p.awaits) < handshakeRetry {
		p.awaits = time.Now()
		return
	}
	m.tunnel().Initiate(p.key, true)
	m.await(p)
}

// await has the handshake that was started looked after.
func (m *member) await(p *peer) {
	p.awaits, p.tries = time.Now(), 0
	m.retry.Reset(handshakeRetry)
}

// retryHandshakes starts those again that had no answer.
func (m *member) retryHandshakes() {
	stats, err := m.tunnel().Snapshot()
	if err != nil {
		return
	}
	again := false
	for _, p := range m.peers {
		switch {
		case p.awaits.IsZero():
		case p.path.Kind == nat.None || p.tries == handshakeTries || stats[p.key].LastHandshake.After(p.awaits):
			p.awaits = time.Time{}
		case time.Since(p.awaits) < time.Duration(p.tries+1)*handshakeRetry:
			again = true
		default:
			p.tries++
			m.tunnel().Initiate(p.key, true)
			again = true
		}
	}
	if again {
		m.retry.Reset(handshakeRetry)
	}
}

// keysAreGood reports whether the WireGuard session with a peer will last for a while: it is rekeyed after two
// minutes and refused after three (WireGuard, section 6.1).
func (m *member) keysAreGood(key wgtypes.Key) bool {
	stats, err := m.tunnel().Snapshot()
	return err == nil && time.Since(stats[key].LastHandshake) < 150*time.Second
}

// staleKeys is the age of a WireGuard session that refuses packets (WireGuard, section 6.1).
const staleKeys = 180 * time.Second

// introduceStale asks for new introductions to the peers whose path works and carries packets one way, while WireGuard
// agrees on no keys: the two ends then have different preshared keys, because every answer of an introduction was lost.
func (m *member) introduceStale(now time.Time) {
	stats, err := m.tunnel().Snapshot()
	if err != nil {
		return
	}
	for id, p := range m.peers {
		handshake := stats[p.key].LastHandshake
		if p.path.Kind != nat.None && now.Sub(p.endpoint.Activity().LastTx) < tickEvery && now.Sub(handshake) > staleKeys {
			m.log.Info("no keys agreed, introducing anew", "peer", m.nameOf(id))
			m.nat.Introduce(id)
		}
	}
}

// roamed is told that WireGuard authenticated the peer with this key from an address that nat did not choose.
func (m *member) roamed(key wgtypes.Key, addr netip.AddrPort) {
	for id, p := range m.peers {
		if p.key == key {
			m.log.Info("peer roamed", "peer", m.nameOf(id), "address", addr.String())
			p.endpoint.SetPath(addr)
			if err := m.tunnel().SetEndpoint(key, p.endpoint.Handle()); err != nil {
				m.log.Warn("peer roamed", "peer", m.nameOf(id), "error", err)
			}
		}
	}
}

func (m *member) sessionChanged(e sessionEvent) {
	switch e.Kind {
	case session.Up:
		rtt, _ := m.sessions.RTT(e.ID)
		m.up[e.ID] = sessionFacts{rtt: rtt}
		delete(m.refused, e.ID)
		m.relays.Moved(e.ID, e.Remote)
		m.mesh.SessionUp(e.ID)
		if e.Dialled {
			m.remember(contact{ID: e.ID, Addr: e.Remote})
		}
		m.publishRoutes()
		m.nat.AnchorsChanged()
		m.nat.SignalReady()
	case session.Moved:
		m.relays.Moved(e.ID, e.Remote)
		m.publishRoutes()
		m.nat.AnchorsChanged()
	case session.Down:
		delete(m.up, e.ID)
		m.publishRoutes()
		m.nat.AnchorsChanged()
		if e.ByPeer && e.Code >= session.CodeFirstFree {
			m.refuse(e)
		}
	case session.Refused:
		m.refuse(e)
	}
}

// networkChanged is told that addresses or routes of this machine are others now.
func (m *member) networkChanged() {
	m.nat.NetworkChanged()
	m.sessions.Redial()
	m.mapper.Changed()
	m.back.machine.NetworkChanged()
}

func (m *member) nameOf(id identity.NodeID) string {
	other, _ := m.mesh.View().Member(id)
	return shorten(other.Name, id)
}

// addFacts adds what the member knows to the facts that plan decides from, and makes the endpoints of new peers.
func (m *member) addFacts(f *facts) {
	view := m.mesh.View()
	f.self, f.members, f.prefix4, f.prefix6 = m.self, view.Members, view.Prefix4, view.Prefix6
	f.sessions, f.contacts = m.up, m.contacts
	f.peers = make(map[identity.NodeID]peerFacts, len(view.Members))
	seen := make(map[identity.NodeID]bool, len(view.Members))
	for _, other := range view.Members {
		if other.ID == m.self || other.State != roster.Active {
			continue
		}
		seen[other.ID] = true
		key := wgtypes.Key(other.Record.WireGuardKey)
		p := m.peers[other.ID]
		if p != nil && p.key != key {
			m.socket.RemoveEndpoint(p.key)
			p = nil
		}
		if p == nil {
			p = &peer{key: key, endpoint: m.socket.Endpoint(key)}
			p.endpoint.SetControlling(m.self.Compare(other.ID) < 0)
			m.peers[other.ID] = p
		}
		facts := peerFacts{handle: p.endpoint.Handle(), psk: p.psk}
		if p.path.Kind == nat.Direct {
			facts.direct = p.path.Addr
		}
		f.peers[other.ID] = facts
	}
	for id, p := range m.peers {
		if !seen[id] {
			m.part(id, p)
		}
	}
}

// part cuts off a member that is one no more: its packets, its channels, its session.
func (m *member) part(id identity.NodeID, p *peer) {
	reason := m.partReason(id)
	m.log.Info("member gone", "peer", id.Short(), "reason", reason)
	delete(m.peers, id)
	m.socket.RemoveEndpoint(p.key)
	m.relays.Drop(id)
	m.sealer.Forget(id)
	// The news of its end is on the way to it: it should hear why before the session ends.
	time.AfterFunc(200*time.Millisecond, func() { m.sessions.Drop(id, codeNotMember, reason) })
}

// apply tells the owners of the mesh side what plan wants.
func (m *member) apply(_ context.Context, f facts, want desired) error {
	m.publishRoutes()
	m.nat.SetPeers(want.reach)
	m.sessions.SetTargets(want.targets)
	select {
	case m.linkSet <- struct{}{}:
	default:
	}
	return m.updateRecord(f)
}

var errNoRoute = errors.New("no control session is up")

// admit answers a joiner's connection.
func (m *member) admit(c session.JoinConn) {
	who, err := join.Serve(context.Background(), c, m.mesh) // ends with the connection
	switch {
	case err != nil && who.IsZero():
		m.dropped.add("join: refused")
		m.log.Info("join refused", "address", c.RemoteAddr().String(), "reason", err)
	case err != nil:
		m.log.Info("admitted, first record not received", "peer", who.Short(), "error", err)
	default:
		m.log.Info("admitted", "peer", who.Short())
	}
}
