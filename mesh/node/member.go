package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/place"
	"warren/mesh/roster"
	"warren/mesh/session"
	"warren/mesh/signal"
	"warren/mesh/store"
	"warren/nat"
	"warren/nat/portmap"
	"warren/nat/relay"
	"warren/nat/streams"
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
	state    *place.State
	self     identity.NodeID
	meshID   identity.MeshID
	instance [8]byte
	owners
	back     *dialBack
	lan      *lan
	streams  *streaming
	share    *relaying
	outlook  *outlook
	hosted   *hosted
	retry    *time.Timer // of handshakes
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
	peers   map[identity.NodeID]*peer
	up      map[identity.NodeID]sessionFacts
	refused map[identity.NodeID]refusal
}

// owners are what a member plugs together.
type owners struct {
	socket   *bind.Bind
	store    *store.Store
	mesh     *mesh.Mesh
	sessions *session.Sessions
	nat      *nat.NAT
	sealer   *signal.Sealer
	relays   *relay.Server
	channels *relay.Client
	mapper   *portmap.Mapper
	contacts *place.Contacts
}

// peer is what the loop keeps of another active member.
type peer struct {
	key      wgtypes.Key
	endpoint *bind.Endpoint
	psk      wgtypes.Key
	path     nat.Path  // nat's
	stream   streamEnd // used while nat has no path, or
	// preferStream says that the path, if there is one, goes by UDP that is most likely blocked.
	preferStream bool
	size         tunnel.Path
	sources      []netip.AddrPort
	said         whereabouts
	instance     [8]byte // that answered last
	shake        awaited
	strayed      time.Time // when its packets began to go where nat did not choose; zero: they do not
}

// newMember loads what the state directory holds and makes the owners. Nothing runs yet.
func newMember(n *node, s *place.State, wireGuard wgtypes.Key) (*member, error) {
	m := &member{
		log: n.log, state: s, self: s.NodeID(), meshID: s.MeshID(), instance: newInstance(), owners: owners{socket: n.socket},
		settings: func() Settings { return n.settings }, setPSK: n.setPSK, tunnel: func() *tunnel.Tunnel { return n.tunnel },
		linkSet: make(chan struct{}, 1), back: newDialBack(), share: newRelaying(), outlook: newOutlook(), hosted: newHosted(n), retry: time.NewTimer(time.Hour),
		incoming: make(chan incomingSignal, signalQueue), outgoing: make(chan outgoingSignal, signalQueue),
		peers: make(map[identity.NodeID]*peer), up: make(map[identity.NodeID]sessionFacts), refused: make(map[identity.NodeID]refusal),
	}
	m.routes.Store(&routes{})
	records, aside, err := store.Open(s.RecordsPath())
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
	if m.contacts, damage = place.OpenContacts(m.state, logger); damage != "" {
		n.log.Warn("contacts", "error", damage)
		n.status.warn("contacts", damage)
	}
	own, err := m.state.OwnRecord(wireGuard, n.options.Version)
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
		Root: m.state.Root(), Key: m.state.Key, Chain: m.state.Chain, Store: m.store, Sessions: gossipLane{m}, Logger: logger, Own: own,
	})
	if err != nil {
		return err
	}
	m.sealer, err = signal.New(signal.Options{
		Mesh: m.meshID, Self: m.self, Signing: m.state.Key, Sealing: m.state.Sealing, Lookup: m.keysOf,
	})
	if err != nil {
		return err
	}
	m.relays, m.channels = m.newRelayServer(logger), m.newRelayClient(logger)
	m.mapper = portmap.New(portmap.Options{Port: m.socket.Port, TCP: func() bool { return m.streams.listening.Load() }, Secret: m.state.MappingSecret(), Logger: logger})
	if err := m.assembleStreams(n); err != nil {
		return err
	}
	if m.lan, err = newLAN(n, m); err != nil {
		return err
	}
	m.nat, err = nat.New(nat.Options{
		Self: m.self, Instance: m.instance, STUN: m.socket.STUN(), Port: m.socket.Port, Addresses: m.hostAddresses,
		Reject: m.inOverlay, Send: m.enqueue, Activity: m.activity, Relay: m.channels, Anchors: m.anchors, External: m.external, Stranger: m.back.stranger,
		Doubt: m.doubtful, Moved: m.sessions.CheckAll, NoUDP: func() bool { return m.routes.Load().forlorn }, Dialable: m.dialable, Listen: listenUDP4, Measured: m.measuredMapping,
		Answered: m.streams.signs.udpAnswered, Logger: logger,
	})
	return err
}

// start runs the owners in group until ctx ends.
func (m *member) start(ctx context.Context, group *errgroup.Group) {
	group.Go(func() error { return m.sessions.Run(ctx) })
	group.Go(func() error { return m.mesh.Run(ctx) })
	group.Go(func() error { return m.contacts.Run(ctx) })
	group.Go(func() error { return m.nat.Run(ctx) })
	group.Go(func() error { return m.channels.Run(ctx) })
	group.Go(func() error { return m.relays.Run(ctx) })
	if m.settings().Anchor != AnchorNever {
		group.Go(func() error { return m.mapper.Run(ctx) })
	}
	group.Go(func() error { return m.streams.server.Run(ctx, streamTaker{m}) })
	group.Go(func() error { return m.dialStreams(ctx) })
	group.Go(func() error { return m.answerProbes(ctx) })
	group.Go(func() error { return m.watchTraffic(ctx) })
	group.Go(func() error { return m.lan.beacon.Run(ctx) })
	group.Go(func() error { return m.measureNAT(ctx) })
	group.Go(func() error { return m.helpMeasure(ctx) })
}

func (m *member) events() eventSources {
	return eventSources{
		paths: m.nat.Events(), sessions: m.sessions.Events(), records: m.mesh.Changes(), fatal: m.mesh.Fatal(),
		incoming: m.incoming, outgoing: m.outgoing, reached: m.back.news, reach: m.back.timer.C, handshakes: m.retry.C, mapped: m.mapper.Events(),
		streams: m.streams.signs.news, heard: m.lan.beacon.Found(), relays: m.channels.News(),
	}
}

// takeSessions takes the events that wait.
func (m *member) takeSessions(events <-chan sessionEvent) {
	for {
		select {
		case e := <-events:
			m.sessionChanged(e)
		default:
			return
		}
	}
}

func (m *member) sessionChanged(e sessionEvent) {
	switch e.Kind {
	case session.Up:
		rtt, _ := m.sessions.RTT(e.ID)
		m.up[e.ID] = sessionFacts{rtt: rtt, remote: e.Remote, since: time.Now()}
		delete(m.refused, e.ID)
		m.relays.Moved(e.ID, e.Remote)
		m.channels.Moved(e.ID, e.Remote)
		m.share.sessionUp()
		m.mesh.SessionUp(e.ID)
		if e.Dialled && !bind.IsVirtual(e.Remote.Addr()) {
			m.contacts.Add(e.ID, e.Remote)
		}
		m.publishRoutes()
		m.nat.AnchorsChanged()
		m.nat.SignalReady()
	case session.Moved:
		m.relays.Moved(e.ID, e.Remote)
		m.channels.Moved(e.ID, e.Remote)
		if s, up := m.up[e.ID]; up {
			s.remote, s.since = e.Remote, time.Now()
			m.up[e.ID] = s
		}
		m.publishRoutes()
		m.nat.AnchorsChanged()
	case session.Down:
		m.streamSessionDown(e)
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
	m.leaveNetwork()
	m.stream(streams.NetworkChanged{})
	m.mapper.Changed()
	m.back.machine.NetworkChanged()
	m.lan.networkChanged()
	m.outlook.networkChanged()
}

func (m *member) nameOf(id identity.NodeID) string {
	other, _ := m.mesh.View().Member(id)
	return shorten(other.Name, id)
}

// addFacts adds what the member knows to the facts that plan decides from, and makes the endpoints of new peers.
func (m *member) addFacts(f *facts) {
	view := m.mesh.View()
	f.self, f.members, f.prefix4, f.prefix6 = m.self, view.Members, view.Prefix4, view.Prefix6
	f.sessions, f.contacts, f.streams, f.relays = m.up, m.contacts.Snapshot(), m.streams.targets(), m.channels.Anchors()
	f.neighbours = m.lan.contacts(m.self)
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
		m.heardOf(p, other)
		facts := peerFacts{handle: p.endpoint.Handle(), psk: p.psk, size: m.sizeOf(p)}
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
	time.AfterFunc(200*time.Millisecond, func() {
		m.sessions.Drop(id, codeNotMember, reason)
		time.AfterFunc(200*time.Millisecond, func() { m.streams.server.Drop(id) })
	})
}

// apply tells the owners of the mesh side what plan wants.
func (m *member) apply(_ context.Context, f facts, want desired) error {
	m.limitRelay()
	m.publishRoutes()
	m.nat.SetPeers(want.reach)
	m.sessions.SetTargets(want.targets)
	m.followAnchors(f)
	m.lan.update(time.Now(), f, m.mesh.View().Invites)
	m.followStreams()
	select {
	case m.linkSet <- struct{}{}:
	default:
	}
	err := m.updateRecord(f)
	m.listen()
	return err
}

var errNoRoute = errors.New("no control session is up")
