package stream

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

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
	maxStreams          = 512
	maxPerMember        = 4 // an older one gives way: most likely it is dead
	maxJoins            = 16
	maxJoinsSource      = 4

	// A joiner needs the records of the mesh and little else.
	joinLife     = 30 * time.Second
	joinInRate   = 32 << 10 // bytes per second
	joinInBurst  = 128 << 10
	joinOutRate  = 256 << 10
	joinOutBurst = 1 << 20
)

// gate limits handshakes and joiners: their rate, and how many are under way.
type gate struct {
	handshakes *limit.Sources[netip.Prefix] // constant

	mu       sync.Mutex // guards the rest
	halfOpen places
	joins    places
}

// places counts by source what is under way; as a whole it is bounded by its user.
type places struct {
	all      int
	bySource map[netip.Prefix]int
}

func (p *places) enter(from netip.Prefix, most, mostSource int) bool {
	if p.all >= most || p.bySource[from] >= mostSource {
		return false
	}
	p.all++
	p.bySource[from]++
	return true
}

func (p *places) leave(from netip.Prefix) {
	p.all--
	if p.bySource[from]--; p.bySource[from] == 0 {
		delete(p.bySource, from)
	}
}

func newGate() *gate {
	return &gate{
		handshakes: limit.NewSources[netip.Prefix](
			limit.Rate{PerSecond: handshakesPerSecond, Burst: handshakeBurst}, limit.Rate{PerSecond: sourcePerSecond, Burst: sourceBurst},
		),
		halfOpen: places{bySource: make(map[netip.Prefix]int)}, joins: places{bySource: make(map[netip.Prefix]int)},
	}
}

// enter admits one connection to the handshake; leave gives its place back.
func (g *gate) enter(from netip.Prefix, now time.Time) bool {
	if !g.handshakes.Allow(now, from) {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.halfOpen.enter(from, maxHalfOpen, maxHalfOpenSource)
}

func (g *gate) leave(from netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.halfOpen.leave(from)
}

func (g *gate) enterJoin(from netip.Prefix) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.joins.enter(from, maxJoins, maxJoinsSource)
}

func (g *gate) leaveJoin(from netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.joins.leave(from)
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
