package nat

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/nat/natkind"
	"warren/nat/path"
)

// sim is a network in memory: hosts, NATs before them, signalling and a relay, all with one latency.
// NAT kinds differ only in what is in the keys of their maps (RFC 4787).
type sim struct {
	t        *testing.T
	mu       sync.Mutex
	latency  time.Duration
	hosts    map[netip.Addr]*simHost     // by public address, or behind a NAT
	more     map[netip.AddrPort]*simHost // further sockets of hosts
	boxes    map[netip.Addr]*simNAT      // by public address
	nodes    map[identity.NodeID]*simNode
	scripts  map[identity.NodeID]func(Message) // peers that tests play; called for each signal to them, under mu
	relays   map[netip.AddrPort]*simChannel
	cut      bool                                                   // signalling by sessions
	met      map[identity.NodeID]map[identity.NodeID]netip.AddrPort // what nodes that start remember of others
	letters  int                                                    // that went straight
	astray   int                                                    // those that came to somebody else
	packets  int
	tap      func(from *simHost, to netip.AddrPort)     // called for each packet, under mu; nil: none
	weigh    func(raw []byte, to netip.AddrPort)        // the same; nil: none
	late     bool                                       // the next packet was mangled before
	from     *simHost                                   // of the packet on its way, for mangle
	mangle   func(raw []byte, to netip.AddrPort) []byte // what becomes of a packet on its way, empty: it is lost; nil: nothing
	blocked  *simHost                                   // what it sends is lost; nil: none
	measured natkind.Mapping                            // what nodes know of their NATs beside STUN answers
}

type simHost struct {
	sim  *sim
	addr netip.AddrPort
	box  *simNAT // nil: public
	in   chan simPacket
	done chan struct{}
	once sync.Once
	last time.Time // of arrival
}

type simPacket struct {
	raw  []byte
	from netip.AddrPort
}

type simNode struct {
	*NAT
	sim      *sim
	id       identity.NodeID
	host     *simHost
	local    Local // as last set
	mu       sync.Mutex
	path     Path
	restarts int
	events   int
	news     []News
	sending  bool // all the time, to all peers
	stop     context.CancelFunc
	stopped  chan error
}

type simChannel struct {
	anchor, owner, peer identity.NodeID
}

func newSim(t *testing.T) *sim {
	return &sim{
		t: t, latency: 5 * time.Millisecond, hosts: map[netip.Addr]*simHost{}, more: map[netip.AddrPort]*simHost{}, boxes: map[netip.Addr]*simNAT{},
		nodes: map[identity.NodeID]*simNode{}, relays: map[netip.AddrPort]*simChannel{},
	}
}

func (s *sim) host(box *simNAT, n byte) *simHost {
	addr := netip.AddrFrom4([4]byte{198, 51, 100, n})
	if box != nil {
		addr = netip.AddrFrom4([4]byte{192, 168, box.addr.As4()[3], n})
	}
	h := &simHost{sim: s, addr: netip.AddrPortFrom(addr, 9277), box: box, in: make(chan simPacket, 256), done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosts[addr] = h
	return h
}

// send carries one packet to where it ends up, if anywhere.
func (s *sim) send(h *simHost, raw []byte, to netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h == s.blocked {
		return
	}
	s.packets++
	if s.tap != nil {
		s.tap(h, to)
	}
	if s.weigh != nil {
		s.weigh(raw, to)
	}
	if s.from = h; s.mangle != nil {
		if raw = s.mangle(raw, to); len(raw) == 0 {
			return
		}
	}
	packet := simPacket{raw: append([]byte(nil), raw...), from: h.addr}
	var dst *simHost
	if to.Addr().Is6() {
		dst, packet.from = s.relay(h, to)
	} else {
		dst, packet.from = s.route(h, to)
	}
	if dst == nil {
		return
	}
	// The same nanosecond would be any order; a network mostly keeps it.
	at := time.Now().Add(s.latency)
	if !at.After(dst.last) {
		at = dst.last.Add(time.Microsecond)
	}
	dst.last = at
	time.AfterFunc(time.Until(at), func() {
		s.mu.Lock()
		in := dst.in // of whoever runs there then
		s.mu.Unlock()
		select {
		case in <- packet:
		default:
		}
	})
}

func (s *sim) route(h *simHost, to netip.AddrPort) (*simHost, netip.AddrPort) {
	from := h.addr
	if dst := s.hosts[to.Addr()]; dst != nil && dst.box != nil && dst.box == h.box {
		return dst, from // the same LAN
	}
	if to.Addr().IsPrivate() {
		return nil, from
	}
	if h.box != nil {
		from = h.box.outbound(h.addr, to)
	}
	if box := s.boxes[to.Addr()]; box != nil && box != h.box {
		inside, ok := box.inbound(from, to)
		if !ok {
			return nil, from
		}
		return s.socket(inside), from
	}
	return s.socket(to), from
}

func (s *sim) owner(h *simHost) identity.NodeID {
	for id, n := range s.nodes {
		if n.host == h {
			return id
		}
	}
	return identity.NodeID{}
}

// relay passes a packet through the anchor when both sides have their channel.
func (s *sim) relay(h *simHost, to netip.AddrPort) (*simHost, netip.AddrPort) {
	c := s.relays[to]
	if c == nil || c.owner != s.owner(h) {
		return nil, to
	}
	for virtual, back := range s.relays {
		if back.anchor == c.anchor && back.owner == c.peer && back.peer == c.owner {
			return s.nodes[c.peer].host, virtual
		}
	}
	return nil, to
}

func (h *simHost) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case packet := <-h.in:
		return copy(p, packet.raw), net.UDPAddrFromAddrPort(packet.from), nil
	case <-h.done:
		return 0, nil, os.ErrDeadlineExceeded
	}
}

func (h *simHost) WriteTo(p []byte, addr net.Addr) (int, error) {
	h.sim.send(h, p, addr.(*net.UDPAddr).AddrPort())
	return len(p), nil
}

func (h *simHost) Close() error                     { return nil }
func (h *simHost) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(h.addr) }
func (h *simHost) SetDeadline(time.Time) error      { return nil }
func (h *simHost) SetWriteDeadline(time.Time) error { return nil }

// SetReadDeadline ends the reader: Run sets it only at its end.
func (h *simHost) SetReadDeadline(at time.Time) error {
	if at.IsZero() {
		return nil
	}
	h.once.Do(func() { close(h.done) })
	return nil
}

// move puts the host behind another NAT, or none, with a new address.
func (s *sim) move(h *simHost, box *simNAT, n byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.hosts, h.addr.Addr())
	h.box = box
	h.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, n}), 9277)
	if box != nil {
		h.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, box.addr.As4()[3], n}), 9277)
	}
	s.hosts[h.addr.Addr()] = h
}

// Open and Close make a simNode the relay control of its own NAT.
func (n *simNode) Open(_ context.Context, anchor, peer identity.NodeID) (netip.AddrPort, error) {
	n.sim.mu.Lock()
	defer n.sim.mu.Unlock()
	if n.sim.nodes[anchor] == nil {
		return netip.AddrPort{}, fmt.Errorf("no session")
	}
	virtual := netip.AddrPortFrom(netip.AddrFrom16([16]byte{1, 12: anchor[0], 13: n.id[1], 14: n.id[0], 15: peer[0]}), uint16(peer[1])+1)
	n.sim.relays[virtual] = &simChannel{anchor: anchor, owner: n.id, peer: peer}
	return virtual, nil
}

type simRelay struct{ *simNode }

func (r simRelay) Close(virtual netip.AddrPort) {
	r.sim.mu.Lock()
	defer r.sim.mu.Unlock()
	delete(r.sim.relays, virtual)
}

func simID(n int) identity.NodeID { return identity.NodeID{byte(n), byte(n >> 8), 7} }

// start runs a node on the host. anchors are asked for addresses and relay.
func (s *sim) start(h *simHost, id identity.NodeID, anchors ...*simNode) *simNode {
	n := s.run(h, id, anchors...)
	n.Set(n.local)
	return n
}

// run is start for a node that knows nothing of itself yet.
func (s *sim) run(h *simHost, id identity.NodeID, anchors ...*simNode) *simNode {
	s.mu.Lock()
	h.in, h.done, h.once = make(chan simPacket, 256), make(chan struct{}), sync.Once{}
	s.mu.Unlock()
	n := &simNode{sim: s, id: id, host: h, stopped: make(chan error, 1)}
	instance := [8]byte{1}
	if old := s.nodes[id]; old != nil {
		instance = old.o.Instance
		instance[0]++
	}
	var err error
	n.NAT, err = New(Options{
		Self: id, Instance: instance, STUN: h, Signals: n, Traffic: n, Relay: simRelay{n}, Sockets: h, Met: s.met[id], Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	n.local = Local{Network: 1, Port: 9277, Hosts: []netip.Addr{h.addr.Addr()}, Mapping: s.measured}
	for _, a := range anchors {
		n.local.Anchors = append(n.local.Anchors, Anchor{ID: a.id, Addr: a.host.addr, RTT: 10 * time.Millisecond})
	}
	s.mu.Lock()
	s.nodes[id] = n
	s.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	go func() { n.stopped <- n.Run(ctx) }()
	go n.follow(ctx)
	return n
}

// Activity makes a simNode the Traffic of its own NAT.
func (n *simNode) Activity(identity.NodeID) (lastTx, lastRx time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sending {
		return time.Now(), time.Time{}
	}
	return time.Time{}, time.Time{}
}

// networkChanged tells a node that it was moved.
func (n *simNode) networkChanged() {
	n.local.Network++
	n.local.Hosts = []netip.Addr{n.host.addr.Addr()}
	n.Set(n.local)
}

func (n *simNode) follow(ctx context.Context) {
	for {
		select {
		case e := <-n.Events():
			n.mu.Lock()
			n.path = e.Path
			n.events++
			if e.PeerRestarted {
				n.restarts++
			}
			n.mu.Unlock()
		case news := <-n.News():
			n.mu.Lock()
			n.news = append(n.news, news)
			n.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// seen returns how many events were told.
func (n *simNode) seen() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.events
}

func (n *simNode) current() Path {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.path
}

// Send makes a simNode the Signals of its own NAT: it carries a message, encoded and back.
func (n *simNode) Send(to identity.NodeID, m Message) error {
	n.sim.mu.Lock()
	defer n.sim.mu.Unlock()
	if script := n.sim.scripts[to]; script != nil {
		script(m)
		return nil
	}
	peer := n.sim.nodes[to]
	if m.Straight.IsValid() {
		return n.straight(to, m)
	}
	if n.sim.cut || peer == nil {
		return fmt.Errorf("no anchor session")
	}
	raw, err := m.Encode()
	if err != nil {
		return err
	}
	from := n.id
	time.AfterFunc(2*n.sim.latency, func() {
		if m, err := path.Decode(raw); err == nil {
			peer.Deliver(from, m)
		}
	})
	return nil
}

// straight carries a letter, which whoever it is not for cannot read. The caller holds the sim's mu.
func (n *simNode) straight(to identity.NodeID, m Message) error {
	s := n.sim
	s.letters++
	raw, err := m.Encode()
	if err != nil {
		return err
	}
	dst, from := s.route(n.host, m.Straight)
	sender := n.id
	if s.from = n.host; dst == nil || s.mangle != nil && len(s.mangle(raw, m.Straight)) == 0 {
		return nil
	}
	time.AfterFunc(s.latency, func() {
		s.mu.Lock()
		reader := s.nodes[s.owner(dst)]
		if reader != nil && reader.id != to {
			s.astray++
		}
		s.mu.Unlock()
		if m, err := path.Decode(raw); err == nil && reader != nil && reader.id == to {
			m.Straight = from
			reader.Deliver(sender, m)
		}
	})
	return nil
}

// halt ends a node and checks that it ends well.
func (n *simNode) halt() {
	n.stop()
	if err := <-n.stopped; err != nil {
		n.sim.t.Errorf("run: got error %v, want none", err)
	}
}

// until polls until cond holds and returns the time that took.
func (s *sim) until(what string, limit time.Duration, cond func() bool) time.Duration {
	s.t.Helper()
	begin := time.Now()
	for !cond() {
		if time.Since(begin) > limit {
			for _, n := range s.nodes {
				for id, st := range n.Snapshot() {
					s.t.Logf("%s → %s: %s %s: %s", n.id.Short(), id.Short(), st.State, st.Path.Addr, st.Reason)
				}
			}
			for _, n := range s.nodes {
				n.halt()
			}
			s.t.Fatalf("after %s: %s: still not", limit, what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(begin)
}
