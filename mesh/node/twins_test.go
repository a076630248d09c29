package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/mesh/neighbours"
	"warren/mesh/place"
	"warren/mesh/session"
	"warren/nat"
	"warren/nat/standing"
	"warren/nat/streams"
	"warren/tunnel"
	"warren/tunnel/osnet"
)

// journal notes what the owners of one node were told or did, and when, as lines. What repeats the line before of the same
// subject is left out: owners are told their state again and again.
type journal struct {
	mu    sync.Mutex
	start time.Time
	lines []string
	last  map[string]string
}

func (j *journal) note(subject, format string, args ...any) {
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	j.mu.Lock()
	defer j.mu.Unlock()
	if before, ok := j.last[subject]; ok && before == text {
		return
	}
	j.last[subject] = text
	j.lines = append(j.lines, strings.TrimSpace(fmt.Sprintf("%v %s %s", time.Since(j.start), subject, text)))
}

// happened notes what counts each time that it comes.
func (j *journal) happened(subject, format string, args ...any) {
	j.mu.Lock()
	delete(j.last, subject)
	j.mu.Unlock()
	j.note(subject, format, args...)
	j.mu.Lock()
	delete(j.last, subject)
	j.mu.Unlock()
}

// take returns the lines since the last call, as they came, and sets the clock of the lines to zero.
func (j *journal) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := j.lines
	j.lines, j.start = nil, time.Now()
	return out
}

// network is where the twins of several nodes meet. An introduction takes a signal's time each way, ICE checks as long again.
type network struct {
	mu    sync.Mutex
	nodes map[identity.NodeID]*twins
}

const signalTime = 10 * time.Millisecond

// twins are the owners of one node in memory, around the real hub.
type twins struct {
	*journal
	self    identity.NodeID
	net     *network
	hub     *Hub
	done    chan error
	stop    context.CancelFunc
	setting Settings // what Load returns
	loadErr error
	logger  *slog.Logger

	mu       sync.Mutex // guards the rest
	view     mesh.View
	up       []identity.NodeID
	peers    map[identity.NodeID]tunnel.Peer // of the tunnel, members only
	ways     map[identity.NodeID]tunnel.Way
	keys     map[identity.NodeID][32]byte // preshared
	reach    map[identity.NodeID]bool     // of nat
	local    nat.Local
	stands   standing.Snapshot
	udp      streams.Snapshot
	contacts []place.Contact
	heard    neighbours.Snapshot
	failLink error         // of the next SetLink
	slowLink time.Duration // how long SetLink takes; constant
	routes   []osnet.Route
	failing  error // of every SetPeers while it is set
	peerSets int   // how often the tunnel and nat were told of the peers

	paths    chan nat.Event
	news     chan nat.News
	sessions chan session.Event
	tunnels  chan tunnel.Event
	records  chan struct{}
	standing chan struct{}
	streams  chan struct{}
	nearby   chan struct{}
	fatal    chan error
	reload   chan struct{}
	ready    chan struct{} // nil: nobody waits
}

// newTwins makes a node; run starts its hub.
func newTwins(t testing.TB, network *network, self byte, members ...mesh.Member) *twins {
	w := &twins{
		journal: &journal{start: time.Now(), last: make(map[string]string)}, self: id(self), net: network,
		peers: make(map[identity.NodeID]tunnel.Peer), ways: make(map[identity.NodeID]tunnel.Way), keys: make(map[identity.NodeID][32]byte), reach: make(map[identity.NodeID]bool),
		stands: standing.Snapshot{Settled: true, Network: 1, Hosts: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, self})}},
		paths:  make(chan nat.Event), news: make(chan nat.News), sessions: make(chan session.Event), tunnels: make(chan tunnel.Event),
		records: make(chan struct{}, 1), standing: make(chan struct{}, 1), streams: make(chan struct{}, 1), nearby: make(chan struct{}, 1), fatal: make(chan error, 1), reload: make(chan struct{}),
		done: make(chan error, 1),
	}
	w.view = testView(members...)
	network.mu.Lock()
	network.nodes[w.self] = w
	network.mu.Unlock()
	return w
}

// run starts the hub and waits until it has nothing more to do.
func (w *twins) run(t testing.TB) {
	t.Helper()
	var err error
	w.hub, err = New(Options{
		Self: w.self, Settings: w.setting, Key: wgtypes.Key(testMember(w.self[0]).Record.WireGuardKey), Load: w.load, Reload: w.reload, Logger: w.logger, Ready: w.ready, Tunnel: twinTunnel{w}, Names: twinNames{w},
		Owners: &Owners{
			Records: twinRecords{w}, Sessions: twinSessions{w}, NAT: twinNAT{w}, Standing: twinStanding{w}, Streams: twinStreams{w}, Courier: twinCourier{w},
			Relays: twinRelays{w}, Neighbours: twinNeighbours{w}, Contacts: twinContacts{w}, Paths: twinPaths{w}, Echo: twinEcho{w},
		},
		Feeds: Feeds{
			Paths: w.paths, News: w.news, Sessions: w.sessions, Tunnel: w.tunnels, Records: w.records, Standing: w.standing, Streams: w.streams,
			Neighbours: w.nearby, Fatal: w.fatal,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	w.stop = stop
	go func() { w.done <- w.hub.Run(ctx) }()
	t.Cleanup(stop)
	synctest.Wait()
}

func (w *twins) load() (Settings, error) { return w.setting, w.loadErr }

// learn has the records say this from now on.
func (w *twins) learn(members ...mesh.Member) {
	w.mu.Lock()
	w.view = testView(members...)
	w.mu.Unlock()
	w.records <- struct{}{}
	synctest.Wait()
}

// connect tells of a session that came up, which this node has dialled.
func (w *twins) connect(other byte, remote string) {
	w.mu.Lock()
	w.up = append(w.up, id(other))
	w.mu.Unlock()
	w.sessions <- session.Event{Kind: session.Up, ID: id(other), Remote: netip.MustParseAddrPort(remote), Dialled: true}
	synctest.Wait()
}

// disconnect tells of a session that is lost.
func (w *twins) disconnect(other byte, code uint64, byPeer bool, reason string) {
	w.mu.Lock()
	w.up = slices.DeleteFunc(w.up, func(up identity.NodeID) bool { return up == id(other) })
	w.mu.Unlock()
	w.sessions <- session.Event{Kind: session.Down, ID: id(other), Code: code, ByPeer: byPeer, Reason: reason}
	synctest.Wait()
}

// set changes what a twin shows, and says so.
func (w *twins) set(change func(*twins), news chan struct{}) {
	w.mu.Lock()
	change(w)
	w.mu.Unlock()
	news <- struct{}{}
	synctest.Wait()
}

type twinTunnel struct{ *twins }

func (w twinTunnel) Running() (string, uint16) { return "warren0", place.DefaultPort }

func (w twinTunnel) SetPort(port uint16) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note("port", "%d", port)
	return nil
}

func (w twinTunnel) SetLink(c osnet.Config) error {
	time.Sleep(w.slowLink)
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.failLink
	w.failLink = nil
	w.note("link", "%v routes %v", c.Addrs, c.Routes)
	return err
}

func (w twinTunnel) SetPeers(peers []tunnel.Peer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.peerSets++
	if w.failing != nil {
		return w.failing
	}
	var shown []string
	clear(w.peers)
	for _, p := range peers {
		if p.ID.IsZero() {
			shown = append(shown, fmt.Sprintf("static %d %v %v", p.PublicKey[0], p.AllowedIPs, p.Endpoint))
			continue
		}
		w.peers[p.ID] = p
		shown = append(shown, fmt.Sprintf("%d key %d %v", p.ID[0], p.PublicKey[0], p.AllowedIPs))
	}
	if len(peers) > 20 {
		shown = []string{fmt.Sprint(len(peers))}
	}
	w.note("peers", "%s", strings.Join(shown, ", "))
	return nil
}

func (w twinTunnel) SetWay(peer identity.NodeID, way tunnel.Way) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ways[peer] = way
	text := fmt.Sprintf("%d %v", peer[0], way.Addr)
	if way.Restarted {
		text += " restarted"
	}
	w.happened("way", "%s", text)
	w.handshakeLocked(peer)
}

// handshakeLocked begins one when it can succeed.
func (w *twins) handshakeLocked(peer identity.NodeID) {
	if p, ok := w.peers[peer]; ok && p.Controlling && w.ways[peer].Addr.IsValid() && w.keys[peer] != [32]byte{} {
		w.happened("handshake", "%d", peer[0])
	}
}

func (w twinTunnel) Elsewhere(...netip.Prefix) ([]osnet.Route, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.routes, nil
}

func (w twinTunnel) Gateways() []netip.Addr { return nil }

type twinNames struct{ *twins }

func (w twinNames) Set([]string) {}
func (w twinNames) Answer(name string) (netip.AddrPort, bool) {
	addr, err := netip.ParseAddrPort(name)
	return addr, err == nil
}

type twinRecords struct{ *twins }

func (w twinRecords) View() *mesh.View {
	w.mu.Lock()
	defer w.mu.Unlock()
	view := w.view
	return &view
}

func (w twinRecords) Announce(own mesh.Own) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.view.Members {
		if m := &w.view.Members[i]; m.ID == w.self {
			m.Record.Endpoints, m.Record.Anchors, m.Record.Routes = own.Endpoints, own.Anchors, own.Routes
		}
	}
	w.note("announce", "%v by %s routes %v", own.Endpoints, ids(own.Anchors), own.Routes)
	return nil
}

func (w twinRecords) Standing(other identity.NodeID) error {
	return fmt.Errorf("%d was revoked", other[0])
}
func (w twinRecords) SessionUp(other identity.NodeID, _ bool) {
	w.happened("gossip", "with %d", other[0])
}
func (w twinRecords) Greet(other identity.NodeID) { w.happened("greet", "%d", other[0]) }
func (w twinRecords) HandleProof(by identity.NodeID, records [][]byte) {
	w.happened("proof", "by %d: %s", by[0], records)
}

type twinSessions struct{ *twins }

func (w twinSessions) SetTargets(targets []session.Target) {
	var shown []string
	for _, target := range targets {
		shown = append(shown, fmt.Sprintf("%d%v", target.ID[0], target.Addrs))
	}
	if len(targets) > 20 {
		shown = []string{fmt.Sprint(len(targets))}
	}
	w.note("targets", "%s", strings.Join(shown, " "))
}

func (w twinSessions) Preferred() []identity.NodeID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.up)
}
func (w twinSessions) RTT(identity.NodeID) (time.Duration, bool) { return time.Millisecond, true }
func (w twinSessions) Drop(other identity.NodeID, code uint64, reason string) {
	w.happened("drop", "session with %d: %d %s", other[0], code, reason)
}
func (w twinSessions) Doubt(list ...identity.NodeID) {
	w.happened("doubt", "sessions with %s", ids(list))
}
func (w twinSessions) Redial() { w.happened("redial", "") }

type twinNAT struct{ *twins }

func (w twinNAT) SetPeers(peers []identity.NodeID) {
	w.mu.Lock()
	w.peerSets++
	w.reach = make(map[identity.NodeID]bool)
	for _, peer := range peers {
		w.reach[peer] = true
	}
	w.mu.Unlock()
	if len(peers) > 20 {
		w.note("reach", "%d peers", len(peers))
	} else {
		w.note("reach", "%s", ids(peers))
	}
	for _, peer := range peers {
		w.net.introduce(w.self, peer)
	}
}

func (w twinNAT) Set(local nat.Local) {
	w.mu.Lock()
	w.local = local
	w.mu.Unlock()
	var anchors []identity.NodeID
	for _, a := range local.Anchors {
		anchors = append(anchors, a.ID)
	}
	w.note("local", "network %d anchors %s", local.Network, ids(anchors))
}

func (w twinNAT) Check(peers ...identity.NodeID)       { w.happened("check", "%s", ids(peers)) }
func (w twinNAT) SignalReady(peers ...identity.NodeID) { w.happened("ready", "%s", ids(peers)) }
func (w twinNAT) Introduce(peer identity.NodeID)       { w.happened("introduce", "%d", peer[0]) }
func (w twinNAT) Stirred(peer identity.NodeID)         { w.happened("stirred", "%d", peer[0]) }
func (w twinNAT) PeerChanged(peer identity.NodeID)     { w.happened("changed", "%d", peer[0]) }

// introduce has two nodes find each other once both have the other as a peer: offer and answer, the preshared key in both
// tunnels, then a path on both sides. It goes past both hubs, as in the real program.
func (n *network) introduce(a, b identity.NodeID) {
	n.mu.Lock()
	first, second := n.nodes[a], n.nodes[b]
	n.mu.Unlock()
	if first == nil || second == nil {
		return
	}
	if first.self.Compare(second.self) > 0 {
		first, second = second, first
	}
	if !first.wants(second.self) || !second.wants(first.self) {
		return
	}
	go func() {
		first.happened("offer", "to %d", second.self[0])
		time.Sleep(signalTime)
		key := [32]byte{first.self[0], second.self[0]}
		if !second.adopt(first.self, key) {
			return
		}
		second.happened("answer", "to %d", first.self[0])
		time.Sleep(signalTime)
		if !first.adopt(second.self, key) {
			return
		}
		time.Sleep(signalTime)
		for _, w := range []*twins{first, second} {
			other := first
			if w == first {
				other = second
			}
			w.paths <- nat.Event{Peer: other.self, Path: nat.Path{Kind: nat.Direct, Addr: other.address()}, Controlling: w == first, Reason: "first path"}
		}
	}()
}

func (w *twins) wants(peer identity.NodeID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reach[peer] && w.keys[peer] == [32]byte{}
}

// adopt is what the courier does with a key: the tunnel takes it if it has the peer.
func (w *twins) adopt(peer identity.NodeID, key [32]byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.peers[peer]; !ok {
		w.happened("key", "for %d refused: no such peer", peer[0])
		return false
	}
	w.keys[peer] = key
	w.happened("key", "for %d", peer[0])
	return true
}

func (w *twins) address() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, w.self[0]}), place.DefaultPort)
}

type twinStanding struct{ *twins }

func (w twinStanding) Set(want standing.Desired) {
	w.note("standing", "%v %d helpers", want.Endpoints, len(want.Helpers))
}
func (w twinStanding) Snapshot() *standing.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.stands
	return &out
}
func (w twinStanding) Arrived(id [12]byte) { w.happened("arrived", "%d", id[0]) }
func (w twinStanding) Want()               { w.happened("measure", "") }

type twinStreams struct{ *twins }

func (w twinStreams) Set(want streams.Desired) {
	var anchors []identity.NodeID
	for _, a := range want.Anchors {
		anchors = append(anchors, a.ID)
	}
	w.note("streams", "anchors %s listen %v", ids(anchors), want.Listen)
}
func (w twinStreams) Snapshot() streams.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.udp
}
func (w twinStreams) Answered(server netip.AddrPort)  { w.happened("answered", "%v", server) }
func (w twinStreams) PathSilent(peer identity.NodeID) { w.happened("silent", "%d", peer[0]) }
func (w twinStreams) SessionLost(other identity.NodeID, remote netip.AddrPort) {
	w.happened("lost", "session with %d at %v", other[0], remote)
}
func (w twinStreams) Drop(other identity.NodeID) { w.happened("drop", "stream of %d", other[0]) }

type twinCourier struct{ *twins }

func (w twinCourier) Met(identity.NodeID) {}

func (w twinCourier) Forget(peer identity.NodeID) {
	w.mu.Lock()
	delete(w.keys, peer)
	w.mu.Unlock()
	w.happened("forget", "%d", peer[0])
}

type twinRelays struct{ *twins }

func (w twinRelays) Set(enabled bool, limit int)      { w.note("relay", "%t %d", enabled, limit) }
func (w twinRelays) Follow(anchors []identity.NodeID) { w.note("follow", "%s", ids(anchors)) }
func (w twinRelays) Wanted() []identity.NodeID        { return nil }
func (w twinRelays) Load(identity.NodeID) uint8       { return 0 }
func (w twinRelays) Moved(other identity.NodeID, to netip.AddrPort) {
	w.happened("moved", "%d to %v", other[0], to)
}
func (w twinRelays) Drop(other identity.NodeID) { w.happened("drop", "channels of %d", other[0]) }

type twinNeighbours struct{ *twins }

func (w twinNeighbours) Set(neighbours.Desired) {}
func (w twinNeighbours) Snapshot() neighbours.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heard
}

type twinPaths struct{ *twins }

func (w twinPaths) Keep(id identity.NodeID, addr netip.AddrPort, _ time.Duration) {
	w.note("keep", "%d at %v", id[0], addr)
}
func (w twinPaths) Forget(id identity.NodeID) { w.happened("forget path", "%d", id[0]) }

type twinContacts struct{ *twins }

func (w twinContacts) Add(other identity.NodeID, addr netip.AddrPort) {
	w.mu.Lock()
	w.contacts = append(w.contacts, place.Contact{ID: other, Addr: addr})
	w.mu.Unlock()
	w.happened("contact", "%d at %v", other[0], addr)
}
func (w twinContacts) Snapshot() []place.Contact {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.contacts)
}

type twinEcho struct{ *twins }

func (w twinEcho) Set([]netip.Addr) {}

func id(n byte) identity.NodeID { return identity.NodeID{n} }

// ids shows a list of test IDs.
func ids(list []identity.NodeID) string {
	var out []string
	for _, one := range list {
		out = append(out, fmt.Sprint(one[0]))
	}
	return "[" + strings.Join(out, " ") + "]"
}

// testMember is a member with the overlay addresses that end in n.
func testMember(n byte, endpoints ...string) mesh.Member {
	m := mesh.Member{
		ID: id(n), Name: fmt.Sprint("node-", n), State: mesh.Active,
		Addr4: netip.AddrFrom4([4]byte{100, 70, 0, n}), Addr6: netip.AddrFrom16([16]byte{0: 0xfd, 15: n}),
	}
	m.Record.ID, m.Record.WireGuardKey, m.Record.Instance = m.ID, [32]byte{n}, [8]byte{n}
	for _, e := range endpoints {
		m.Record.Endpoints = append(m.Record.Endpoints, netip.MustParseAddrPort(e))
	}
	return m
}

func testView(members ...mesh.Member) mesh.View {
	return *mesh.NewView(netip.MustParsePrefix("100.70.0.0/16"), netip.MustParsePrefix("fd00::/48"), members...)
}

var errTwin = errors.New("the twin was told to fail")
