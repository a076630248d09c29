package stream

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"warren/mesh/identity"
	"warren/nat/limit"
)

// Limits on what strangers can make this node do. A handshake costs half a millisecond of one core.
const (
	handshakesPerSecond = 100
	handshakeBurst      = 200
	sourcePerSecond     = 10 // from one IPv4 address or IPv6 /64: a whole office may be behind it
	sourceBurst         = 50
	maxHalfOpen         = 128 // connections that have not finished the handshake
	maxHalfOpenSource   = 32  // of them from one source: who dawdles (slow loris) must not fill all places
	maxStreams          = 512 // of members
	maxPerMember        = 4   // an older one gives way: most likely it is dead
	maxJoins            = 32
	maxJoinsSource      = 4

	// Whoever holds an invite, an old one too, can make as many identities as it likes. What is honest is a member within seconds.
	maxStrangers       = 32 // streams of nodes that are no members by the records
	maxStrangersInvite = 2
	maxStrangersSource = 4
	strangerTime       = 30 * time.Second // to become a member
	strangerSpentTime  = 5 * time.Second  // by an invite all uses of which are taken
	strangersLook      = time.Second

	// quietTime is how long a joiner or stranger is left in peace when there is no place for others.
	quietTime = 3 * time.Second

	// A joiner needs the records of the mesh and little else.
	joinLife     = 30 * time.Second
	joinInRate   = 32 << 10 // bytes per second
	joinInBurst  = 128 << 10
	joinOutRate  = 256 << 10
	joinOutBurst = 1 << 20
)

// gate limits handshakes, joiners and strangers: their rate, and how many are under way. A connection that has to give way to another
// is closed.
type gate struct {
	// constant, and guarded by themselves
	handshakes *limit.Sources[netip.Prefix]
	halfOpen   *limit.Places[net.Conn]
	joins      *limit.Places[net.Conn]
	strangers  *limit.Places[net.Conn]
}

func newGate() *gate {
	return &gate{
		handshakes: limit.NewSources[netip.Prefix](
			limit.Rate{PerSecond: handshakesPerSecond, Burst: handshakeBurst}, limit.Rate{PerSecond: sourcePerSecond, Burst: sourceBurst},
		),
		halfOpen:  limit.NewPlaces[net.Conn](maxHalfOpen, quietTime),
		joins:     limit.NewPlaces[net.Conn](maxJoins, quietTime),
		strangers: limit.NewPlaces[net.Conn](maxStrangers, quietTime),
	}
}

// enter admits one connection to the handshake.
func (g *gate) enter(c net.Conn, now time.Time) bool {
	from := sourceOf(c.RemoteAddr())
	return g.handshakes.Allow(now, from) && takes(g.halfOpen, c, now, limit.Share{Key: from, Most: maxHalfOpenSource})
}

func (g *gate) enterJoin(c net.Conn, now time.Time) bool {
	return takes(g.joins, c, now, limit.Share{Key: sourceOf(c.RemoteAddr()), Most: maxJoinsSource})
}

func (g *gate) enterStranger(c net.Conn, invite identity.KeyID, now time.Time) bool {
	return takes(g.strangers, c, now,
		limit.Share{Key: sourceOf(c.RemoteAddr()), Most: maxStrangersSource}, limit.Share{Key: invite, Most: maxStrangersInvite})
}

// takes takes a place for a connection, and closes those that give way to it.
func takes(places *limit.Places[net.Conn], c net.Conn, now time.Time, shares ...limit.Share) bool {
	out, ok := places.Enter(now, c, shares...)
	for _, old := range out {
		old.Close()
	}
	return ok
}

// sourceOf returns what one host is taken to own: an IPv4 address, or an IPv6 /64.
func sourceOf(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	return limit.Host(tcp.AddrPort().Addr())
}

// limited is a joiner's stream: slow, and over after joinLife whatever happens.
type limited struct {
	net.Conn
	closed chan struct{}
	once   sync.Once
	in     *rate.Limiter
	out    *rate.Limiter
}

func newLimited(c net.Conn) *limited {
	c.SetDeadline(time.Now().Add(joinLife))
	return &limited{
		Conn: c, closed: make(chan struct{}), in: rate.NewLimiter(joinInRate, joinInBurst), out: rate.NewLimiter(joinOutRate, joinOutBurst),
	}
}

func (c *limited) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.pause(spend(c.in, n))
	return n, err
}

func (c *limited) Write(p []byte) (int, error) {
	c.pause(spend(c.out, len(p)))
	return c.Conn.Write(p)
}

// spend takes n tokens, into debt, and returns how long to wait until the debt is paid.
func spend(l *rate.Limiter, n int) (wait time.Duration) {
	now := time.Now()
	for n > 0 { // no more than a burst can be reserved at once
		part := min(n, l.Burst())
		wait = l.ReserveN(now, part).DelayFrom(now)
		n -= part
	}
	return wait
}

// pause waits unless the stream is closed.
func (c *limited) pause(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.closed:
	}
}

func (c *limited) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
