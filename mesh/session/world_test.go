package session

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session/sessiontest"
)

// world is a network, a mesh and its nodes, in the order of their IDs.
type world struct {
	t     *testing.T
	net   *sessiontest.Network
	mesh  *sessiontest.Mesh
	nodes []*testNode
}

// testNode is one node of a world: its sessions, and what they told and brought.
type testNode struct {
	w *world
	sessiontest.Node
	addr netip.AddrPort
	conn *sessiontest.PacketConn
	*Sessions
	stop func()

	mu       sync.Mutex
	events   []Event
	greeted  []identity.NodeID
	messages []string
	book     book // its roster; the zero book knows everybody, and no anchors
}

// book is a roster that tests write in. What is read is never changed, only replaced.
type book struct {
	strangers, anchors []identity.NodeID
	anchorsOf          map[identity.NodeID][]identity.NodeID
	others             bool // whoever is no node of the world is a stranger too
	spent              []identity.KeyID
}

// know replaces what a node's roster says.
func (n *testNode) know(b book) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.book = b
}

func (n *testNode) known() book {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.book
}

func (n *testNode) Member(id identity.NodeID) bool {
	b := n.known()
	return !slices.Contains(b.strangers, id) && !(b.others && n.w.index(id) < 0)
}
func (n *testNode) Anchor(id identity.NodeID) bool   { return slices.Contains(n.known().anchors, id) }
func (n *testNode) Spent(invite identity.KeyID) bool { return slices.Contains(n.known().spent, invite) }
func (n *testNode) AnchorsOf(id identity.NodeID) []identity.NodeID {
	return n.known().anchorsOf[id]
}

// by is a book in which dst has these anchors.
func by(dst *testNode, anchors ...*testNode) book {
	b := book{anchorsOf: make(map[identity.NodeID][]identity.NodeID)}
	for _, a := range anchors {
		b.anchorsOf[dst.ID] = append(b.anchorsOf[dst.ID], a.ID)
	}
	return b
}

// newWorld makes n nodes with addresses 10.0.0.1:9277 and so on, none of them started.
func newWorld(t *testing.T, n int, o sessiontest.Options) *world {
	t.Helper()
	mesh, err := sessiontest.NewMesh()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, net: sessiontest.New(o), mesh: mesh}
	for range n {
		node, err := mesh.NewNode()
		if err != nil {
			t.Fatal(err)
		}
		w.nodes = append(w.nodes, &testNode{w: w, Node: node})
	}
	slices.SortFunc(w.nodes, func(a, b *testNode) int { return a.ID.Compare(b.ID) })
	for i, node := range w.nodes {
		node.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 9277)
	}
	return w
}

// notes takes down what comes in, and has streams echo.
type notes struct{ *testNode }

func (n notes) Message(from, _ identity.NodeID, p Proto, payload []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.messages = append(n.messages, fmt.Sprintf("%d %d %s", n.w.index(from), p, payload))
}

func (notes) Stream(_ identity.NodeID, _ Proto, c net.Conn) {
	defer c.Close()
	_, _ = io.Copy(c, c)
}

func (notes) Join(c JoinConn) { c.Close() }

func (n notes) Proof(from identity.NodeID, records [][]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var sizes []int
	for _, record := range records {
		sizes = append(sizes, len(record))
	}
	n.messages = append(n.messages, fmt.Sprintf("%d proof %v", n.w.index(from), sizes))
}

// The rest of what comes in goes to Inbound, while one kind of it goes to a function.
type (
	onMessage struct {
		Inbound
		do func(from, by identity.NodeID, p Proto, payload []byte)
	}
	onStream struct {
		Inbound
		do func(c net.Conn)
	}
	onJoin struct {
		Inbound
		do func(c JoinConn)
	}
)

func (t onMessage) Message(from, by identity.NodeID, p Proto, payload []byte) {
	t.do(from, by, p, payload)
}
func (t onStream) Stream(_ identity.NodeID, _ Proto, c net.Conn) { t.do(c) }
func (t onJoin) Join(c JoinConn)                                 { t.do(c) }

// start runs a node on conn; nil means a public connection at its address.
func (n *testNode) start(conn *sessiontest.PacketConn, edit ...func(*Options)) {
	t := n.w.t
	t.Helper()
	if conn == nil {
		conn = n.w.net.Listen(n.addr)
	}
	n.conn = conn
	o := Options{
		Conn: conn, Self: n.ID, Members: sessiontest.Member{Node: n.Node, Mesh: n.w.mesh}, Roster: n, Inbound: notes{n},
	}
	for _, f := range edit {
		f(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("run of node %d: %v", n.w.index(n.ID), err)
		}
	})
	running.Go(func() {
		for {
			select {
			case e := <-s.Events():
				n.mu.Lock()
				if e.Kind == Greeted {
					n.greeted = append(n.greeted, e.ID)
				} else {
					n.events = append(n.events, e)
				}
				n.mu.Unlock()
			case <-ctx.Done():
				return
			}
		}
	})
	n.Sessions = s
	n.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		conn.Close()
	})
}

// crash stops a node without a word to the others, and frees its address.
func (n *testNode) crash() {
	n.conn.SetDown(true)
	n.stop()
}

func (w *world) stop() {
	for _, n := range w.nodes {
		if n.stop != nil {
			n.stop()
		}
	}
}

// index returns the number of the node with an ID, or -1.
func (w *world) index(id identity.NodeID) int {
	return slices.IndexFunc(w.nodes, func(n *testNode) bool { return n.ID == id })
}

func (n *testNode) target(others ...*testNode) {
	var targets []Target
	for _, o := range others {
		targets = append(targets, Target{ID: o.ID, Addrs: []netip.AddrPort{o.addr}})
	}
	n.SetTargets(targets)
}

func (n *testNode) up(other *testNode) bool {
	_, ok := n.Remote(other.ID)
	return ok
}

// takeEvents returns the events so far and forgets them.
func (n *testNode) takeEvents() []Event {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	events := n.events
	n.events = nil
	return events
}

func (n *testNode) takeMessages() []string {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	messages := n.messages
	n.messages = nil
	return messages
}

// until waits in steps of a millisecond until ok, and returns how long it took.
func (w *world) until(limit time.Duration, what string, ok func() bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			w.t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(start)
}

// kinds writes events short, for comparison.
func (w *world) kinds(events []Event) []string {
	var all []string
	for _, e := range events {
		name := map[EventKind]string{Up: "up", Down: "down", Moved: "moved", Refused: "refused"}[e.Kind]
		all = append(all, fmt.Sprintf("%s %d", name, w.index(e.ID)))
	}
	return all
}

func expect[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func expectList[T comparable](t *testing.T, what string, got []T, want ...T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
