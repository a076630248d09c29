package noise

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/crypto/curve25519"
	"golang.zx2c4.com/wireguard/tai64n"
)

const second = Instant(time.Second)

// sim is a network of two nodes in virtual time. Each node is an engine in small: it keeps what cannot be sealed, and steps its
// peer when it should.
type sim struct {
	t     testing.TB
	agree agreement
	now   Instant
	seq   int
	queue events
	rng   *rand.Rand
	bytes *rand.ChaCha8
	nodes [2]*node
	// link says after what times a message arrives, once for each copy.
	link func(from int, msg []byte) []time.Duration
	log  func(format string, args ...any)
}

type event struct {
	at  Instant
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// node is one of the two.
type node struct {
	sim     *sim
	id      int
	private PrivateKey
	other   PublicKey
	psk     PresharedKey
	persist time.Duration
	m       *Machine
	p       *Peer
	wall    time.Duration // how far the calendar is off
	load    bool          // it says that it is under load
	armed   Instant
	life    int // counts restarts

	staged [][]byte
	number uint64         // of the last packet
	got    map[uint64]int // numbers of packets, and how often they came
	counts map[Kind]int
	drops  map[Drop]int
	acts   []Action // of all time, if kept
	keep   bool
	hasty  string // what was wrong with the times of initiations
	begun  Instant
}

var calendar = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func testKey(b byte) (k PrivateKey) {
	for i := range k {
		k[i] = b + byte(i)
	}
	return k
}

// newSim makes two nodes that know each other, on a network of 10 ms.
func newSim(t testing.TB, seed uint64) *sim { return newSimWith(t, seed, curve25519.X25519) }

// toy is a group in which agreeing costs nothing and protects nothing: the numbers below a prime of 31 bits.
func toy(scalar, point []byte) ([]byte, error) {
	const prime = 1<<31 - 1
	base, n, result := binary.LittleEndian.Uint64(point)%prime, binary.LittleEndian.Uint32(scalar)|1, uint64(1)
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			result = result * base % prime
		}
		base = base * base % prime
	}
	return binary.LittleEndian.AppendUint64(make([]byte, 0, 32), result)[:32], nil
}

func newSimWith(t testing.TB, seed uint64, agree agreement) *sim {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	s := &sim{t: t, agree: agree, now: second, rng: rand.New(rand.NewPCG(seed, 1)), bytes: rand.NewChaCha8(key)}
	s.link = func(int, []byte) []time.Duration { return []time.Duration{10 * time.Millisecond} }
	s.log = func(string, ...any) {}
	a, b := testKey(1), testKey(101)
	if !less(a.public(agree), b.public(agree)) {
		a, b = b, a // node 0 has the lesser key
	}
	for i, k := range []PrivateKey{a, b} {
		s.nodes[i] = &node{sim: s, id: i, private: k, counts: map[Kind]int{}, drops: map[Drop]int{}, got: map[uint64]int{}}
	}
	s.nodes[0].other, s.nodes[1].other = b.public(agree), a.public(agree)
	for _, n := range s.nodes {
		n.start(tai64n.Timestamp{})
	}
	return s
}

func (s *sim) at(when Instant, do func()) {
	s.seq++
	heap.Push(&s.queue, event{max(when, s.now), s.seq, do})
}

// run lets time pass.
func (s *sim) run(d time.Duration) { s.until(s.now.Add(d)) }

func (s *sim) until(end Instant) {
	for len(s.queue) > 0 && s.queue[0].at <= end {
		e := heap.Pop(&s.queue).(event)
		s.now = e.at
		e.do()
	}
	s.now = end
}

func (n *node) start(after tai64n.Timestamp) {
	m, err := newMachine(Options{Private: n.private, Random: n.sim.bytes, After: after}, n.sim.agree)
	if err != nil {
		n.sim.t.Fatal(err)
	}
	p, err := m.Add(n.other)
	if err != nil {
		n.sim.t.Fatal(err)
	}
	n.m, n.p, n.staged, n.armed, n.begun = m, p, nil, Never, longAgo
	n.life++
	p.SetPresharedKey(n.psk)
	if n.persist > 0 {
		p.SetPersistent(n.persist, n.sim.now)
	}
	n.arm()
}

func (n *node) moment() Moment {
	return Moment{n.sim.now, calendar.Add(time.Duration(n.sim.now) + n.wall)}
}

// arm sees to it that the peer is stepped in time.
func (n *node) arm() {
	at := n.p.Next()
	if at >= n.armed {
		return
	}
	n.armed = at
	life := n.life
	n.sim.at(at, func() {
		if n.life != life || n.armed != at {
			return
		}
		n.armed = Never
		n.step()
	})
}

func (n *node) step() { n.act(n.p.Step(n.moment(), nil)) }

func (n *node) act(acts []Action) {
	for _, a := range acts {
		n.counts[a.Kind]++
		n.sim.log("%v %d: action %d attempt %d", time.Duration(n.sim.now), n.id, a.Kind, a.Attempt)
		if n.keep {
			n.acts = append(n.acts, a)
		}
		switch a.Kind {
		case SendInitiation:
			if d := n.sim.now.Sub(n.begun); d < RekeyTimeout {
				n.hasty = fmt.Sprintf("node %d: %v between two initiations", n.id, d)
			}
			n.begun = n.sim.now
			n.transmit(a.Packet)
		case Ready:
			for staged := n.staged; len(staged) > 0; staged = staged[1:] {
				n.staged = nil
				n.seal(staged[0])
			}
		case GaveUp, Zeroed:
			n.staged = nil
		default:
			n.transmit(a.Packet)
		}
	}
	n.arm()
}

func (n *node) transmit(msg []byte) {
	for _, d := range n.sim.link(n.id, msg) {
		msg := append([]byte(nil), msg...)
		n.sim.at(n.sim.now.Add(d), func() { n.sim.nodes[1-n.id].receive(msg) })
	}
}

// send sends one packet through the tunnel and returns its number.
func (n *node) send() uint64 {
	n.number++
	b := make([]byte, 16)
	binary.LittleEndian.PutUint64(b, n.number)
	n.seal(b)
	return n.number
}

func (n *node) seal(plain []byte) {
	msg, signal := n.p.Seal(nil, plain, n.sim.now)
	if signal&NoKey != 0 {
		if n.staged = append(n.staged, plain); len(n.staged) > 128 {
			n.staged = n.staged[1:]
		}
	} else {
		n.transmit(msg)
	}
	if signal&Wake != 0 {
		n.step()
	}
}

var (
	source   = netip.MustParseAddrPort("192.0.2.1:9277")
	noSource netip.AddrPort
)

func (n *node) receive(msg []byte) {
	if TypeOf(msg) == Transport {
		o := n.m.Open(msg[HeaderSize:HeaderSize], msg, n.sim.now)
		n.drops[o.Drop]++
		if len(o.Plain) > 0 {
			n.got[binary.LittleEndian.Uint64(o.Plain)]++
		}
		if o.Signal&Wake != 0 {
			n.step()
		}
		return
	}
	r, acts := n.m.Receive(msg, source, n.load, n.moment(), nil)
	n.drops[r.Drop]++
	n.sim.log("%v %d: received %d: %v", time.Duration(n.sim.now), n.id, r.Type, r.Drop)
	n.act(acts)
}

// session names what a node seals with, so that both name the same one alike.
func (n *node) session() string {
	k := n.p.keys.Load().sending()
	if k == nil || n.sim.now.Sub(k.created) >= RejectAfterTime {
		return ""
	}
	if k.initiator {
		return fmt.Sprintf("%d: %08x %08x", n.id, k.local, k.remote)
	}
	return fmt.Sprintf("%d: %08x %08x", 1-n.id, k.remote, k.local)
}
