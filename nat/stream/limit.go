package stream

import (
	"hash/maphash"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits on what strangers can make this node do. A handshake costs half a millisecond of one core.
const (
	handshakesPerSecond = 100
	handshakeBurst      = 200
	sourcePerSecond     = 10 // from one IPv4 address or IPv6 /64: a whole office may be behind it
	sourceBurst         = 50
	sourceBuckets       = 256
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

// bucket is a token bucket. It is not safe for concurrent use.
type bucket struct {
	tokens float64
	last   time.Time
}

func (b *bucket) fill(now time.Time, rate, burst float64) {
	if b.last.IsZero() {
		b.tokens = burst
	} else {
		b.tokens = min(burst, b.tokens+now.Sub(b.last).Seconds()*rate)
	}
	b.last = now
}

// take reports whether one more event fits rate events per second with bursts of burst.
func (b *bucket) take(now time.Time, rate, burst float64) bool {
	b.fill(now, rate, burst)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// spend takes n tokens, into debt, and returns how long to wait until the debt is paid.
func (b *bucket) spend(now time.Time, n int, rate, burst float64) time.Duration {
	b.fill(now, rate, burst)
	b.tokens -= float64(n)
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(-b.tokens / rate * float64(time.Second))
}

// gate limits handshakes and joiners: their rate, and how many are under way.
type gate struct {
	seed maphash.Seed // constant

	mu       sync.Mutex // guards the rest
	all      bucket
	sources  [sourceBuckets]bucket // by hash: bounded, and a collision only shares a limit
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
		seed:     maphash.MakeSeed(),
		halfOpen: places{bySource: make(map[netip.Prefix]int)}, joins: places{bySource: make(map[netip.Prefix]int)},
	}
}

// enter admits one connection to the handshake; leave gives its place back.
func (g *gate) enter(from netip.Prefix, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.sources[maphash.Comparable(g.seed, from)%sourceBuckets].take(now, sourcePerSecond, sourceBurst) ||
		!g.all.take(now, handshakesPerSecond, handshakeBurst) {
		return false
	}
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
	ip := tcp.AddrPort().Addr().Unmap()
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	prefix, _ := ip.Prefix(bits) // zero for what is no address
	return prefix
}

// limited is a joiner's stream: slow, and over after joinLife whatever happens.
type limited struct {
	net.Conn
	closed chan struct{}
	once   sync.Once
	in     bucket // owned by the reader
	out    bucket // owned by the writer
}

func newLimited(c net.Conn) *limited {
	c.SetDeadline(time.Now().Add(joinLife))
	return &limited{Conn: c, closed: make(chan struct{})}
}

func (c *limited) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.pause(c.in.spend(time.Now(), n, joinInRate, joinInBurst))
	return n, err
}

func (c *limited) Write(p []byte) (int, error) {
	c.pause(c.out.spend(time.Now(), len(p), joinOutRate, joinOutBurst))
	return c.Conn.Write(p)
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
