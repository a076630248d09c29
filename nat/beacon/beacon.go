// Package beacon lets the members of a mesh find each other on a local network with no anchor and no Internet, and a
// joiner find a member there: small multicast packets that strangers can neither read nor tell from each other.
//
// What it finds are hints. Who is at an address is proven by the session that mesh/node has dialled there; which keys
// are known, how much is wanted, and which interfaces count, it is told by mesh/node.
//
// A Beacon's methods may be called concurrently, before, during and after Run.
package beacon

import (
	"context"
	"crypto/rand"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"warren/mesh/identity"
)

// Port is the UDP port of beacons: a port of their own, since many programs on one host may share one for multicast, and
// none could share the agent's. On a telephone's keys it spells WLAN.
const Port = 9526

// The groups. Beacons go no further than the link that they are sent on (hop limit 1), whatever routers are set up to do.
var (
	// Group4 is of the IPv4 local scope (RFC 2365, section 6.1).
	Group4 = netip.AddrFrom4([4]byte{239, 255, 95, 26})
	// Group6 is of link-local scope, and transient: assigned by nobody (RFC 4291, section 2.7).
	Group6 = netip.MustParseAddr("ff12::5752:4e52:9526")
)

// Network opens what beacons travel by. The system's is in network.go, one in memory in beacontest.
type Network interface {
	Open(links []Link) (Conn, error)
}

// Conn sends and receives beacons on the links that it was opened for.
type Conn interface {
	// Receive blocks until a packet comes. Its error means that the Conn is closed or broken.
	Receive() (Packet, error)
	// Send does not block. Its error concerns this packet alone.
	Send(Send) error
	Close() error
}

// Options are what a Beacon is made of.
type Options struct {
	Self    identity.NodeID // zero: a joiner, which has none yet
	Network Network         // nil: the system's
	Logger  *slog.Logger    // nil: none
}

// Sizes of the queues. Packets that do not fit are dropped and counted; what was found is told again by later beacons.
const (
	inboxSize = 256
	foundSize = 64
	// reopen is the pause before a socket that could not be opened is tried again.
	reopen = 5 * time.Second
)

// Beacon speaks and listens. See New.
type Beacon struct {
	// Constant after New.
	log     *slog.Logger
	network Network
	poke    chan struct{}
	found   chan Found

	// Owned by Run.
	machine *Machine
	conn    Conn
	links   []Link // that conn was opened for
	inbox   chan Packet
	broken  chan Conn // whose Receive has failed
	retry   time.Time // when to open again
	readers sync.WaitGroup

	mu      sync.Mutex
	desired State
	drops   map[string]uint64
}

// New allocates; nothing runs before Run.
func New(o Options) *Beacon {
	if o.Network == nil {
		o.Network = system{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Beacon{
		log: o.Logger.With("part", "beacon"), network: o.Network, poke: make(chan struct{}, 1), found: make(chan Found, foundSize),
		machine: NewMachine(o.Self, systemRand()), inbox: make(chan Packet, inboxSize), broken: make(chan Conn), drops: make(map[string]uint64),
	}
}

func systemRand() Rand {
	return Rand{
		Nonce: func() (n [nonceSize]byte) { rand.Read(n[:]); return n },
		Upto:  func(n int64) int64 { return mathrand.Int64N(max(1, n)) },
	}
}

// Set says what is wanted from now on. Repeating it changes nothing.
func (b *Beacon) Set(s State) {
	b.mu.Lock()
	b.desired = s
	b.mu.Unlock()
	select {
	case b.poke <- struct{}{}:
	default:
	}
}

// Found returns the channel of members heard. It is never closed. What a slow reader misses comes again.
func (b *Beacon) Found() <-chan Found { return b.found }

// Dropped returns the number of beacons dropped so far, by reason.
func (b *Beacon) Dropped() map[string]uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.drops)
}

// Run speaks and listens until ctx ends, and returns nil when all is closed.
func (b *Beacon) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer b.readers.Wait()
	defer b.close()
	defer cancel()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		b.follow(ctx)
		sends, wake := b.machine.Step(time.Now())
		b.send(sends)
		b.publish()
		if b.conn == nil && !b.retry.IsZero() && (wake.IsZero() || b.retry.Before(wake)) {
			wake = b.retry
		}
		if wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(wake))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-b.poke:
		case p := <-b.inbox:
			now := time.Now()
			b.machine.Receive(now, p)
			for range len(b.inbox) { // a flood costs one round
				b.machine.Receive(now, <-b.inbox)
			}
		case conn := <-b.broken:
			if conn == b.conn {
				b.close()
				b.retry = time.Now().Add(reopen)
			}
		}
	}
}

// follow hands the wanted state to the machine, and opens the sockets for its links: new ones for new links, so that
// not even a source port goes along from one network to the next.
func (b *Beacon) follow(ctx context.Context) {
	b.mu.Lock()
	s := b.desired
	b.mu.Unlock()
	if len(s.Members)+len(s.Invites) == 0 {
		s.Links = nil // nothing to say, and nothing that could be understood
	}
	b.machine.Set(s)
	same := equalLinks(s.Links, b.links)
	if same && (b.conn != nil || time.Now().Before(b.retry) || len(s.Links) == 0) {
		return
	}
	b.close()
	b.links = s.Links
	if len(s.Links) == 0 {
		return
	}
	conn, err := b.network.Open(s.Links)
	if err != nil {
		if b.retry.IsZero() || !same {
			b.log.Warn("no beacons", "error", err)
		}
		b.retry = time.Now().Add(reopen)
		return
	}
	b.conn, b.retry = conn, time.Time{}
	b.machine.Restart()
	b.readers.Go(func() { b.read(ctx, conn) })
}

func (b *Beacon) close() {
	if b.conn != nil {
		b.conn.Close()
		b.conn = nil
	}
}

// read is the goroutine of one Conn: it ends when that is closed.
func (b *Beacon) read(ctx context.Context, conn Conn) {
	for {
		p, err := conn.Receive()
		if err != nil {
			select {
			case b.broken <- conn:
			case <-ctx.Done():
			}
			return
		}
		select {
		case b.inbox <- p:
		default:
			b.count("queue full")
		}
	}
}

func (b *Beacon) send(sends []Send) {
	if b.conn == nil {
		return
	}
	for _, s := range sends {
		if err := b.conn.Send(s); err != nil {
			b.count("not sent")
			b.log.Debug("beacon not sent", "error", err)
		}
	}
}

func (b *Beacon) count(reason string) {
	b.mu.Lock()
	b.drops[reason]++
	b.mu.Unlock()
}

// publish hands out what was found, and the counters.
func (b *Beacon) publish() {
	for _, f := range b.machine.Take() {
		select {
		case b.found <- f:
		default:
			b.count("nobody reads")
		}
	}
	drops := b.machine.takeDrops()
	b.mu.Lock()
	defer b.mu.Unlock()
	for reason, n := range drops {
		b.drops[reason] += n
	}
}

func equalLinks(a, b []Link) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !a[i].equal(b[i]) {
			return false
		}
	}
	return true
}
