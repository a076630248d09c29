package standing

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/nat/nat64"
	"warren/nat/natkind"
	"warren/nat/natprobe"
	"warren/nat/natprobe/natprobetest"
	"warren/nat/portmap"
	"warren/nat/portmap/portmaptest"
	"warren/nat/reach"
)

const port = 9277

// world is a mesh on an Internet in memory. The first node, home, is behind the NAT; the others are public, and answer STUN.
type world struct {
	t     *testing.T
	net   *natprobetest.Internet
	ctx   context.Context
	tasks sync.WaitGroup
	stop  context.CancelFunc
	home  *node

	mu    sync.Mutex
	nodes map[identity.NodeID]*node
}

// node is one member, and all that its Standing works with.
type node struct {
	*Standing
	w       *world
	id      identity.NodeID
	shared  *natprobetest.Socket
	network chan struct{}
	mapper  *mapper

	mu       sync.Mutex
	hosts    []netip.Addr
	failure  error // of the system
	looks    int   // how often it was asked
	expected map[[12]byte]time.Time
	sights   []natkind.Sighting
	probes   int
	deaf     bool // no session leads there
	noFamily bool // its sockets cannot be opened
	log      []sent
	opened   int
}

// sent is a message of protocol 6 that a node has sent.
type sent struct {
	at  time.Time
	to  identity.NodeID
	raw []byte
}

func newWorld(t *testing.T, o natprobetest.Options) *world {
	w := &world{t: t, net: natprobetest.New(o), nodes: make(map[identity.NodeID]*node)}
	w.ctx, w.stop = context.WithCancel(t.Context())
	w.home = w.add(1, w.net.Home())
	t.Cleanup(w.end) // for tests that end early
	return w
}

// end stops all nodes, and waits for them.
func (w *world) end() {
	w.stop()
	for _, n := range w.nodes {
		n.shared.Close()
	}
	w.tasks.Wait()
}

// add runs a member with these addresses.
func (w *world) add(id byte, hosts ...netip.Addr) *node {
	n := &node{
		w: w, id: identity.NodeID{id}, shared: w.net.Socket(hosts[0], port), network: make(chan struct{}, 1), mapper: newMapper(),
		hosts: hosts, expected: make(map[[12]byte]time.Time),
	}
	var err error
	n.Standing, err = New(Options{Sessions: n, Members: n, STUN: n, Mapper: n.mapper, Host: n, Network: n.network})
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.nodes[n.id] = n
	w.mu.Unlock()
	w.tasks.Go(func() { n.shared.Serve(n.stranger) })
	return n
}

// public runs a member with a public address, which helps and answers STUN: the last byte of its address is its ID.
func (w *world) public(id byte) *node {
	n := w.add(id, netip.AddrFrom4([4]byte{198, 51, 100, id}))
	n.run()
	n.Set(Desired{Port: port})
	return n
}

func (n *node) run() {
	n.w.tasks.Go(func() {
		if err := n.Run(n.w.ctx); err != nil {
			n.w.t.Errorf("got %v from Run, want nil", err)
		}
	})
}

// helped returns desired with all other nodes as servers and helpers.
func (w *world) helped(d Desired) Desired {
	d.Port = port
	for id := range byte(200) {
		other := w.nodes[identity.NodeID{id}]
		if other == nil || other == w.home {
			continue
		}
		d.Helpers = append(d.Helpers, reach.Helper{ID: other.id, Addr: other.shared.Addr().Addr()})
		d.Servers = append(d.Servers, natprobe.Server{ID: other.id, Addr: other.shared.Addr(), Helps: true})
	}
	return d
}

// The node's Sessions: what is sent arrives after the network's latency.

func (n *node) Send(to identity.NodeID, p session.Proto, payload []byte) error {
	if p != session.ProtoAsk {
		n.w.t.Errorf("got protocol %d, want %d", p, session.ProtoAsk)
	}
	n.mu.Lock()
	deaf := n.deaf
	if !deaf {
		n.log = append(n.log, sent{time.Now(), to, slices.Clone(payload)})
	}
	n.mu.Unlock()
	n.w.mu.Lock()
	other := n.w.nodes[to]
	n.w.mu.Unlock()
	if deaf || other == nil {
		return session.ErrNoRoute
	}
	payload = slices.Clone(payload)
	time.AfterFunc(natprobetest.Latency, func() { other.Asked(n.id, payload) })
	return nil
}

func (n *node) Member(id identity.NodeID) bool {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.w.nodes[id] != nil
}

// sentOf counts the messages of a version that the node has sent.
func (n *node) sentOf(version byte) (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.log {
		if m.raw[0] == version {
			count++
		}
	}
	return count
}

// The node's shared socket.

func (n *node) stranger(id [12]byte) {
	n.mu.Lock()
	until, ok := n.expected[id]
	delete(n.expected, id)
	n.mu.Unlock()
	if ok && time.Now().Before(until) {
		n.Arrived(id)
	}
}

func (n *node) Expect(id [12]byte, until time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expected[id] = until
}

func (n *node) Sightings() []natkind.Sighting {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.sights)
}

func (n *node) Ports() natkind.Ports { return natkind.PortsKept }

func (n *node) Probe() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.probes++
}

// The node's host.

func (n *node) Addresses() ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.looks++
	return slices.Clone(n.hosts), n.failure
}

func (n *node) NAT64() nat64.Prefix { return nat64.Prefix{} }

func (n *node) Listen(v4 bool) (net.PacketConn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := slices.IndexFunc(n.hosts, func(a netip.Addr) bool { return a.Is4() == v4 })
	if i < 0 || n.noFamily {
		return nil, &net.OpError{Op: "listen", Net: "udp", Err: syscall.EAFNOSUPPORT}
	}
	n.opened++
	return n.w.net.Socket(n.hosts[i], 0), nil
}

// set changes what the node's surroundings do.
func (n *node) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

// mapper is a Mapper that maps what the test says.
type mapper struct {
	events chan struct{}

	mu      sync.Mutex
	wanted  []portmap.Wanted
	changed int
	status  portmap.Status
	tcp     []portmap.Mapping
}

func newMapper() *mapper { return &mapper{events: make(chan struct{}, 1)} }

func (m *mapper) Set(w portmap.Wanted) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.wanted) == 0 || m.wanted[len(m.wanted)-1] != w {
		m.wanted = append(m.wanted, w)
	}
}

func (m *mapper) Changed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed++
}

func (m *mapper) Snapshot() portmap.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return portmap.Status{Routers: slices.Clone(m.status.Routers)}
}

func (m *mapper) TCPMappings() []portmap.Mapping {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.tcp)
}

func (m *mapper) Events() <-chan struct{} { return m.events }

// maps has the router map the port to external.
func (m *mapper) maps(external netip.AddrPort) {
	m.mu.Lock()
	m.status = portmap.Status{Routers: []portmap.RouterStatus{{Mapping: &portmap.Mapping{External: external}}}}
	m.tcp = []portmap.Mapping{{External: external}}
	m.mu.Unlock()
	m.events <- struct{}{}
}

// after lets time pass.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// news reports whether there was an event, and takes it.
func (n *node) news() bool {
	select {
	case <-n.Events():
		return true
	default:
		return false
	}
}

// state returns what is known of an address.
func (n *node) state(addr netip.AddrPort) reach.State {
	for _, c := range n.Snapshot().Reach {
		if c.Addr == addr {
			return c.State
		}
	}
	return ""
}

func addrs(list ...string) (out []netip.AddrPort) {
	for _, a := range list {
		out = append(out, netip.MustParseAddrPort(a))
	}
	return out
}

var errInterrupted = errors.New("interrupted system call")

// box is the router before home, for a Mapper of its own.
type box struct{ *portmaptest.Router }

func homeRouter() (box, *portmap.Mapper) {
	r := portmaptest.New(portmaptest.Options{Gateway: netip.MustParseAddr("192.168.1.1"), Host: natprobetest.Inside, External: natprobetest.Outside})
	return box{r}, portmap.New(portmap.Options{Network: r})
}

// speak turns on what maps ports.
func (b box) speak() { b.Set(func(o *portmaptest.Options) { o.NATPMP = true }) }
