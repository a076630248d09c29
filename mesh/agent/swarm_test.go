package agent

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/courier"
	"warren/mesh/identity"
	"warren/mesh/node"
	"warren/mesh/session"
	"warren/mesh/signal"
	"warren/nat"
	"warren/nat/path"
	"warren/tunnel"
	"warren/tunnel/bind"
	"warren/tunnel/bind/bindtest"
	"warren/tunnel/osnet/osnettest"
)

/* A swarm: one node among many others, in memory
 *
 *	            the node                                      each other
 *	records ─▶ hub ─▶ tunnel ─▶ WireGuard ─┐      ┌─ WireGuard ◀─ other
 *	  (twin)    │ ▲                        bindtest                ▲ path events
 *	            ▼ │ path events              │                     │
 *	            nat ─────────────────────────┴────────────────── nat
 *	             │ ▲                                             ▲ │
 *	             ▼ │            sessions (twin)                  │ ▼
 *	           courier ◀────────────────────────────────────▶ courier
 *
 * The node is made of the real hub, courier, nat and tunnel, the last one with a real WireGuard device; the others have the
 * real courier and nat, and a WireGuard device each. What the sessions carry arrives at once, and so do the packets.
 */

// swarmPort is where everybody has its socket.
const swarmPort = 9277

// face is what everybody in a swarm has: the keys, an address, and the owners that talk to the other side.
type face struct {
	id      identity.NodeID
	signing ed25519.PrivateKey
	private wgtypes.Key
	keys    signal.Keys
	sealing [32]byte
	addr    netip.Addr
	socket  *bind.Bind
	courier *courier.Courier
	nat     *nat.NAT
	member  mesh.Member
}

// swarm is all of it.
type swarm struct {
	log    *slog.Logger
	node   *face
	others []*other
	tunnel *tunnel.Tunnel
	hub    *node.Hub
	twins  *twins

	couriers map[identity.NodeID]*courier.Courier // constant once all are made
	signals  atomic.Uint64                        // that the sessions have carried

	stop   context.CancelFunc
	failed atomic.Pointer[error]
	run    sync.WaitGroup
}

// newSwarm makes a node, which logs to log, and n others, which run and know nothing of each other yet. name is that of the interface.
// With so many of the others as leading says they have the first word in introductions and handshakes, with the rest the node has it.
func newSwarm(t testing.TB, n, leading int, name string, log *slog.Logger) *swarm {
	t.Helper()
	s := &swarm{log: log, couriers: make(map[identity.NodeID]*courier.Courier)}
	faces := make([]*face, n+1)
	for i := range faces {
		faces[i] = newFace(t)
	}
	slices.SortFunc(faces, func(a, b *face) int { return a.id.Compare(b.id) }) // the smaller ID has it
	faces[0], faces[leading] = faces[leading], faces[0]
	network := bindtest.NewNetwork()
	for i, f := range faces {
		f.settle(i)
		inner := network.Host(f.addr)
		if i > 0 {
			inner = thrifty{inner} // a hundred devices that read 128 packets at once have gigabytes of buffers
		}
		f.socket = bind.New(bind.Options{Inner: inner, Logger: log})
	}
	s.node = faces[0]
	s.makeNode(t, name)
	s.log = slog.New(slog.DiscardHandler) // what the others do is nobody's business
	for _, f := range faces[1:] {
		s.others = append(s.others, s.makeOther(t, f))
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.start(t, ctx)
	return s
}

func newFace(t testing.TB) *face {
	f := &face{signing: identity.GenerateKey()}
	var err error
	if f.private, err = wgtypes.GeneratePrivateKey(); err != nil {
		t.Fatal(err)
	}
	f.keys.Signing = f.signing.Public().(ed25519.PublicKey)
	if f.sealing, f.keys.Sealing, err = signal.GenerateSealingKey(); err != nil {
		t.Fatal(err)
	}
	f.id = identity.NodeIDOf(f.keys.Signing)
	return f
}

// settle gives the i-th its addresses and its record.
func (f *face) settle(i int) {
	hi, lo := byte(i>>8), byte(i)
	f.addr = netip.AddrFrom4([4]byte{11, 0, hi, lo})
	f.member = mesh.Member{
		ID: f.id, Name: fmt.Sprint("node-", i), State: mesh.Active,
		Addr4: netip.AddrFrom4([4]byte{100, 70, hi, lo}), Addr6: netip.AddrFrom16([16]byte{0: 0xfd, 14: hi, 15: lo}),
	}
	f.member.Record.ID, f.member.Record.WireGuardKey, f.member.Record.Instance = f.id, f.private.PublicKey(), [8]byte{7: 1}
	f.member.Record.SealingKey = f.keys.Sealing
}

// equip makes the courier and nat of a face.
func (s *swarm) equip(t testing.TB, f *face, members courier.Members, keys courier.Tunnel, traffic nat.Traffic) {
	t.Helper()
	var err error
	f.courier, err = courier.New(courier.Options{
		Mesh: identity.MeshID{1}, Self: f.id, Signing: f.signing, Sealing: f.sealing, Members: members, Sessions: line{s, f.id}, Tunnel: keys, Standing: outlook{}, Logger: s.log,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.couriers[f.id] = f.courier
	f.nat, err = nat.New(nat.Options{
		Self: f.id, Instance: f.member.Record.Instance, STUN: f.socket.STUN(), Signals: f.courier, Traffic: traffic, Logger: s.log,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// line is the sessions of one side: what is sent arrives.
type line struct {
	*swarm
	self identity.NodeID
}

func (l line) Send(to identity.NodeID, _ session.Proto, sealed []byte) error {
	l.signals.Add(1)
	l.couriers[to].Take(l.self, l.self, sealed)
	return nil
}

func (l line) Leads() bool { return true }

func (l line) Came(identity.NodeID, identity.NodeID) {}

// outlook is where everybody stands.
type outlook struct{}

func (outlook) Pack() uint32 { return 1 }

// makeNode makes the node, with twins of what is not measured.
func (s *swarm) makeNode(t testing.TB, name string) {
	t.Helper()
	f := s.node
	machine := osnettest.New()
	var err error
	s.tunnel, err = tunnel.New(tunnel.Options{
		Name: name, PrivateKey: f.private, Port: swarmPort, Bind: f.socket, TUN: newQuietTUN(name), Links: machine, Logger: s.log,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.twins = newTwins(f)
	s.equip(t, f, s.twins, s.tunnel, traffic{s.tunnel})
	s.hub, err = node.New(node.Options{
		Self: f.id, Load: func() (node.Settings, error) { return node.Settings{}, nil }, Ready: s.twins.ready, Tunnel: grounded{Tunnel: s.tunnel}, Names: twinNames{}, Logger: s.log,
		Owners: &node.Owners{
			Records: s.twins, Sessions: twinSessions{s.twins}, NAT: f.nat, Standing: twinStanding{s.twins}, Streams: twinStreams{}, Courier: f.courier,
			Relays: twinRelays{}, Neighbours: twinNeighbours{}, Contacts: twinContacts{}, Paths: twinPaths{}, Echo: twinEcho{},
		},
		Feeds: node.Feeds{
			Paths: f.nat.Events(), News: f.nat.News(), Tunnel: s.tunnel.Events(), Records: s.twins.changes, Sessions: s.twins.events,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// start runs everything, and waits until the node has nothing more to do.
func (s *swarm) start(t testing.TB, ctx context.Context) {
	t.Helper()
	s.go_(ctx, "tunnel", s.tunnel.Run)
	select {
	case <-s.tunnel.Ready():
	case <-time.After(patience):
		t.Fatalf("tunnel: not ready within %v", patience)
	}
	s.go_(ctx, "hub", s.hub.Run)
	all := []*face{s.node}
	for _, o := range s.others {
		all = append(all, o.face)
		s.go_(ctx, "follow", o.follow)
	}
	for _, f := range all {
		s.go_(ctx, "nat", f.nat.Run)
		s.go_(ctx, "courier", func(ctx context.Context) error { return f.courier.Run(ctx, f.nat) })
	}
	select {
	case <-s.twins.ready:
	case <-time.After(patience):
		t.Fatalf("hub: not ready within %v", patience)
	}
}

// go_ runs an owner until the swarm ends.
func (s *swarm) go_(ctx context.Context, name string, run func(context.Context) error) {
	s.run.Go(func() {
		if err := run(ctx); err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%s: %w", name, err)
			s.failed.Store(&err)
		}
	})
}

// patience bounds every wait.
const patience = 2 * time.Minute

// meet has the records of all appear, on both sides, and waits until all WireGuard handshakes are done.
func (s *swarm) meet(t testing.TB) {
	t.Helper()
	s.twins.learn(s.others)
	for _, o := range s.others {
		o.nat.SetPeers([]identity.NodeID{s.node.id})
	}
	deadline := time.Now().Add(patience)
	for _, o := range s.others { // each is asked for until it is there, and not again: what this costs does not grow with their number
		for s.tunnel.LastHandshake(o.id).IsZero() {
			if err := s.failed.Load(); err != nil {
				t.Fatal(*err)
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: no handshake within %v", o.member.Name, patience)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// handshakes counts the others that the node has shaken hands with.
func (s *swarm) handshakes() (n int) {
	for _, o := range s.others {
		if !s.tunnel.LastHandshake(o.id).IsZero() {
			n++
		}
	}
	return n
}

// end stops everything.
func (s *swarm) end(t testing.TB) {
	t.Helper()
	s.stop()
	for _, o := range s.others {
		o.device.Close()
	}
	s.run.Wait()
	if err := s.failed.Load(); err != nil {
		t.Error(*err)
	}
}

// other is one of the others: the owners that an introduction needs, around a plain WireGuard device.
type other struct {
	*face
	first    bool // it has the first word
	nodeKey  string
	device   *device.Device
	endpoint *bind.Endpoint
}

func (s *swarm) makeOther(t testing.TB, f *face) *other {
	t.Helper()
	public := s.node.private.PublicKey()
	o := &other{face: f, first: f.id.Compare(s.node.id) < 0, nodeKey: hex.EncodeToString(public[:])}
	o.device = device.NewDevice(newQuietTUN("other"), f.socket, device.NewLogger(device.LogLevelSilent, ""))
	o.endpoint = f.socket.NewEndpoint(public)
	o.endpoint.SetControlling(o.first)
	err := o.device.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%d\npublic_key=%s\nendpoint=%v\nallowed_ip=%v/32\n",
		hex.EncodeToString(f.private[:]), swarmPort, o.nodeKey, o.endpoint.Handle(), s.node.member.Addr4))
	if err == nil {
		err = o.device.Up()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.equip(t, f, acquaintance{s.node}, o, nil)
	f.nat.Set(nat.Local{Network: 1, Port: swarmPort, Hosts: []netip.Addr{f.addr}})
	return o
}

// acquaintance is the members of somebody who knows one only.
type acquaintance struct{ *face }

func (a acquaintance) Keys(id identity.NodeID) (signal.Keys, bool) { return a.keys, id == a.id }

// SetPresharedKey implements courier.Tunnel.
func (o *other) SetPresharedKey(_ identity.NodeID, psk [32]byte) error {
	return o.device.IpcSet(fmt.Sprintf("public_key=%s\nupdate_only=true\npreshared_key=%s\n", o.nodeKey, hex.EncodeToString(psk[:])))
}

// Initiation, Respond and Conclude implement courier.Handshakes: for the plain device nothing looks whether one is due.
func (o *other) Initiation(identity.NodeID, uint64) []byte { return nil }

func (o *other) Respond(_ identity.NodeID, initiation []byte) ([]byte, error) {
	return o.endpoint.Carried().Respond(initiation, 20*time.Millisecond), nil
}

func (o *other) Conclude(identity.NodeID, [8]byte, []byte) bool { return false }

// Agreed implements courier.Tunnel.
func (o *other) Anew(identity.NodeID)            {}
func (o *other) Agreed(identity.NodeID, [8]byte) {}

// follow has the packets take the way that nat finds, and begins the handshake where that is this side's.
func (o *other) follow(ctx context.Context) error {
	var key device.NoisePublicKey
	if err := key.FromHex(o.nodeKey); err != nil {
		return err
	}
	peer := o.device.LookupPeer(key)
	for {
		select {
		case e := <-o.nat.Events():
			o.endpoint.SetSources(e.Sources)
			flushed := o.endpoint.SetPath(e.Path.Addr)
			if o.first && !flushed && e.Path.Kind == path.Direct {
				if err := peer.SendHandshakeInitiation(false); err != nil {
					return err
				}
			}
		case <-o.nat.News():
		case <-ctx.Done():
			return nil
		}
	}
}

// thrifty reads one packet at a time.
type thrifty struct{ conn.Bind }

func (thrifty) BatchSize() int { return 1 }

// quietTUN is an interface on which nobody says anything, and that takes what comes.
type quietTUN struct {
	name   string
	events chan tun.Event
	closed chan struct{}
	once   sync.Once
}

func newQuietTUN(name string) *quietTUN {
	q := &quietTUN{name: name, events: make(chan tun.Event, 1), closed: make(chan struct{})}
	q.events <- tun.EventUp
	return q
}

func (q *quietTUN) File() *os.File           { return nil }
func (q *quietTUN) MTU() (int, error)        { return tunnel.DefaultMTU, nil }
func (q *quietTUN) Name() (string, error)    { return q.name, nil }
func (q *quietTUN) Events() <-chan tun.Event { return q.events }
func (q *quietTUN) BatchSize() int           { return 1 }

func (q *quietTUN) Read([][]byte, []int, int) (int, error) {
	<-q.closed
	return 0, os.ErrClosed
}

func (q *quietTUN) Write(packets [][]byte, _ int) (int, error) { return len(packets), nil }

func (q *quietTUN) Close() error {
	q.once.Do(func() {
		close(q.closed)
		close(q.events)
	})
	return nil
}
