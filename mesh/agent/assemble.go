package agent

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/courier"
	"warren/mesh/dns"
	"warren/mesh/identity"
	"warren/mesh/letter"
	"warren/mesh/neighbours"
	"warren/mesh/node"
	"warren/mesh/place"
	"warren/mesh/resolve"
	"warren/mesh/session"
	"warren/mesh/store"
	"warren/nat"
	"warren/nat/dns64"
	"warren/nat/nat64"
	"warren/nat/netwatch"
	"warren/nat/portmap"
	"warren/nat/relay"
	"warren/nat/rtnl"
	"warren/nat/standing"
	"warren/nat/stream"
	"warren/nat/streams"
	"warren/tunnel"
	"warren/tunnel/bind"
	"warren/tunnel/echo"
	"warren/tunnel/filter"
	"warren/tunnel/osnames"
	"warren/tunnel/sockets"
)

// parts are the owners that a mesh needs, constant once they are made.
type parts struct {
	state      *place.State
	store      *store.Store
	records    *mesh.Mesh
	members    *members
	inbound    *inbound
	sessions   *session.Sessions
	courier    *courier.Courier
	nat        *nat.NAT
	standing   *standing.Standing
	streams    *streams.Streams
	host       standing.Host // this machine
	relays     relays
	mapper     *portmap.Mapper
	neighbours *neighbours.Neighbours
	contacts   *place.Contacts
	paths      *place.Paths
	letters    *letter.Post
	echo       *echo.Responder
	naming     *naming
	network    *network
}

// prepare makes the tunnel and what it stands on, and nothing that needs the state's records. Nothing runs yet. private is WireGuard's key of this node.
func prepare(o Options, settings node.Settings, state *place.State) (a *agent, private wgtypes.Key, err error) {
	a = &agent{
		o: o, log: o.Logger.With("part", "agent"), started: time.Now(), ready: make(chan struct{}),
	}
	a.nat64 = dns64.New(dns64.Options{Way: &a.way, Logger: o.Logger, Advertised: rtnl.Advertised})
	a.names = resolve.New(resolve.Options{Plain: a.way.In, Logger: o.Logger})
	a.socket = bind.New(guise(bind.Options{Inner: sockets.Translated{Bind: sockets.New(), Way: &a.way}, Logger: o.Logger}))
	private = settings.Interface.PrivateKey
	port, ifname := settings.Interface.Port, settings.Interface.Name
	if state != nil {
		if private == (wgtypes.Key{}) {
			private = state.WireGuard
		}
		if port == 0 {
			port = state.StartPort()
		}
		if ifname == "" {
			ifname = state.Settings.Interface
		}
	}
	if port == 0 {
		port = place.DefaultPort
	}
	a.public = private.PublicKey()
	a.filter = filter.New(a.started)
	a.tunnel, err = tunnel.New(tunnel.Options{
		Name: ifname, MTU: settings.Interface.MTU, PrivateKey: private, Port: port, Bind: a.socket,
		Filter: a.filter, Logger: o.Logger, LimitMemory: true,
	})
	return a, private, err
}

// assemble makes everything else. Nothing runs yet but the tunnel. The order is that in which one needs the other; where two need each other, plug.go
// stands between.
func (a *agent) assemble(settings node.Settings, state *place.State, private wgtypes.Key) (err error) {
	o := a.o
	hub := node.Options{
		Key: a.public, Settings: settings, Load: o.Load, Reload: o.Reload, Ready: a.ready, Tunnel: grounded{a.tunnel, state, a.log}, Filter: a.filter, Names: a.names, Logger: o.Logger,
	}
	if state != nil {
		if err := a.assembleMesh(state, private); err != nil {
			return err
		}
		hub.Self, hub.Endpoints, hub.NoIPv4 = state.NodeID(), state.Settings.Endpoints, state.Settings.NoIPv4
		hub.Owners, hub.Feeds = a.parts.owners(), a.parts.feeds(a.tunnel)
	}
	hub.Feeds.Names = a.names.Changes()
	a.hub, err = node.New(guise(hub))
	return err
}

// foreign reports whether an interface is none of ours to offer as a way in.
func (a *agent) foreign(ifname string) bool { return ifname == a.tunnel.Name() }

// assembleMesh makes the owners of a mesh.
func (a *agent) assembleMesh(state *place.State, wireGuard wgtypes.Key) (err error) {
	logger, self := a.o.Logger, state.NodeID()
	own, err := state.OwnRecord(state.MeshID(), wireGuard, a.o.Version)
	if err != nil {
		return err
	}
	rand.Read(own.Instance[:])
	p := &parts{state: state, members: &members{state: state}, echo: echo.New(), network: newNetwork(a)}
	if err := a.openStore(p); err != nil {
		return err
	}
	a.parts = p
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	p.naming = &naming{a: a, self: self, dns: dns.New(), resolver: osnames.New(osnames.Options{Mesh: a.o.Mesh, Logger: logger})}
	p.contacts = a.openContacts(state)
	p.paths = place.OpenPaths(state, traffic{a.tunnel}.last, a.o.Logger)
	p.letters = letter.New(letter.Options{Conn: bind.Letters(a.socket), Take: func(sealed []byte, from netip.AddrPort) { p.courier.TakeStraight(sealed, from) }})
	p.inbound = &inbound{log: a.log}
	p.sessions, err = session.New(guise(session.Options{
		Conn: a.socket.QUIC(), Self: self, Members: p.members, Roster: p.members, Inbound: p.inbound, Joins: true, Logger: logger,
	}))
	if err != nil {
		return err
	}
	p.records, err = mesh.New(mesh.Options{
		Root: state.Root(), Key: state.Key, Chain: state.Chain, Store: p.store, Sessions: gossip{p.sessions}, Logger: logger, Own: own,
		LANSecret: state.LANSecret(),
	})
	if err != nil {
		return err
	}
	p.members.book, p.members.sessions = p.records, p.sessions
	p.assembleRelays(a.socket, self, logger)
	if err := p.assembleNAT(a, own.Instance, logger); err != nil {
		return err
	}
	p.inbound.hosts = (&backend{a}).hostFor
	p.inbound.mesh, p.inbound.courier, p.inbound.standing, p.inbound.relay = p.records, p.courier, p.standing, p.relays.server
	p.neighbours, err = neighbours.New(neighbours.Options{Self: self, Mesh: state.MeshID(), Host: lanHost{a}, Logger: logger})
	return err
}

// openStore opens the store of records. A damaged one was set aside.
func (a *agent) openStore(p *parts) error {
	records, aside, err := store.Open(p.state.RecordsPath())
	if err != nil {
		return err
	}
	p.store = records
	switch {
	case aside == nil:
	case aside.Path == "":
		a.log.Warn("damaged store left where it is", "file", p.state.RecordsPath(), "error", aside.Cause)
		a.remarks = append(a.remarks, fmt.Sprintf("the store of records, %s, is damaged (%v), and cannot be set aside: all is fetched anew from other members, and kept in memory", p.state.RecordsPath(), aside.Cause))
	default:
		a.log.Warn("damaged store set aside", "file", aside.Path, "error", aside.Cause)
		a.remarks = append(a.remarks, fmt.Sprintf("the store of records was damaged (%v); it was set aside as %s and is fetched anew from other members", aside.Cause, aside.Path))
	}
	if trouble := records.Trouble(); trouble != nil {
		a.log.Warn("running from memory", "file", p.state.RecordsPath(), "error", trouble.Err)
	}
	return nil
}

func (a *agent) openContacts(state *place.State) *place.Contacts {
	contacts, damage := place.OpenContacts(state, a.o.Logger)
	if damage != "" {
		a.log.Warn("contacts damaged", "reason", damage)
		a.remarks = append(a.remarks, damage)
	}
	return contacts
}

func (p *parts) assembleRelays(socket *bind.Bind, self identity.NodeID, logger *slog.Logger) {
	p.relays = relays{
		server:  relay.NewServer(relay.ServerOptions{Self: self, Socket: forwarder{socket.Forwards()}, Members: p.members, Logger: logger}),
		client:  relay.NewClient(relay.ClientOptions{Dialer: anchorDialer{p.sessions}, Channels: socket.Channels(), Logger: logger}),
		forward: socket.Forwards(),
	}
}

// assembleNAT makes the owners of what lies between two nodes.
func (p *parts) assembleNAT(a *agent, instance [8]byte, logger *slog.Logger) (err error) {
	self, stunned := p.state.NodeID(), &later{}
	p.host = standing.System(a.foreign, &a.way)
	p.mapper = portmap.New(portmap.Options{Secret: p.state.MappingSecret(), Logger: logger})
	p.standing, err = standing.New(standing.Options{
		Sessions: p.sessions, Members: p.members, STUN: stunned, Mapper: p.mapper, Host: p.host, Network: p.network.changes, Logger: logger,
	})
	if err != nil {
		return err
	}
	p.courier, err = courier.New(courier.Options{
		Mesh: p.state.MeshID(), Self: self, Signing: p.state.Key, Sealing: p.state.Sealing, Instance: instance, Members: courier.NewKeyring(records{p.members}),
		Sessions: p.sessions, Tunnel: a.tunnel, Standing: p.standing, Letters: p.letters, Logger: logger,
	})
	if err != nil {
		return err
	}
	p.nat, err = nat.New(nat.Options{
		Self: self, Instance: instance, STUN: a.socket.STUN(), Signals: p.courier, Traffic: traffic{a.tunnel}, Relay: p.relays.client,
		Sockets: udp4{&a.way}, Met: p.paths.Lately(), Logger: logger,
	})
	if err != nil {
		return err
	}
	stunned.NAT, p.relays.paths = p.nat, p.nat
	accepted, err := stream.New(stream.Options{Members: streamMembers{p.members}, Roster: p.members, Joins: true, Logger: logger})
	if err != nil {
		return err
	}
	p.streams, err = streams.New(streams.Options{
		Client: stream.NewClient(stream.ClientOptions{Members: streamMembers{p.members}, Way: &a.way}), Server: accepted, Socket: a.socket.Streams(),
		Sessions: p.sessions, Traffic: a.tunnel, STUN: p.nat, Logger: logger,
	})
	return err
}

// later is nat for those that are made before it.
type later struct{ *nat.NAT }

// udp4 opens sockets with ports of the system's choice, for a question or two. Nothing is ever offered on them.
type udp4 struct{ way *nat64.Way }

func (u udp4) Listen() (net.PacketConn, error) {
	if !u.way.Prefix().IsValid() {
		return net.ListenUDP("udp4", nil)
	}
	c, err := net.ListenUDP("udp6", nil)
	return dns64.Packets{PacketConn: c, Way: u.way}, err
}

// lanHost tells the interfaces to speak to neighbours on.
type lanHost struct{ *agent }

// Links implements neighbours.Host.
func (h lanHost) Links() []netwatch.Link { return netwatch.Links(h.foreign) }

// owners are the parts as the hub sees them.
func (p *parts) owners() *node.Owners {
	return &node.Owners{
		Records: p.records, Sessions: p.sessions, NAT: p.nat, Standing: p.standing, Streams: p.streams, Courier: p.courier,
		Relays: p.relays, Neighbours: p.neighbours, Contacts: p.contacts, Paths: p.paths, Echo: p.echo,
	}
}

// feeds are where they speak up.
func (p *parts) feeds(t *tunnel.Tunnel) node.Feeds {
	return node.Feeds{
		Paths: p.nat.Events(), News: p.nat.News(), Sessions: p.sessions.Events(), Tunnel: t.Events(), Records: p.records.Changes(),
		Standing: p.standing.Events(), Streams: p.streams.Events(), Relays: p.relays.client.News(), Neighbours: p.neighbours.Events(), Fatal: p.records.Fatal(),
	}
}

// owner is anything that runs.
type owner struct {
	name string
	run  func(context.Context) error
}

// running lists the owners in the order in which they are started.
func (p *parts) running() []owner {
	return []owner{
		{"contacts", p.contacts.Run}, {"paths", p.paths.Run}, {"letters", p.letters.Run}, {"sessions", p.sessions.Run}, {"records", p.records.Run}, {"nat", p.nat.Run},
		{"courier", func(ctx context.Context) error { return p.courier.Run(ctx, p.nat) }},
		{"relay client", p.relays.client.Run}, {"relay", p.relays.server.Run}, {"port mapping", p.mapper.Run}, {"streams", p.streams.Run},
		{"standing", p.standing.Run}, {"neighbours", p.neighbours.Run}, {"echo", p.echo.Run}, {"dns", p.naming.dns.Run}, {"resolver", p.naming.resolver.Run}, {"naming", p.naming.Run}, {"network", p.network.Run},
	}
}
