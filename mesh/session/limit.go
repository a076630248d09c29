package session

import (
	"context"
	"errors"
	"hash/maphash"
	"net"
	"net/netip"
	"sync"

	"github.com/quic-go/quic-go"
	"golang.org/x/time/rate"
)

// Limits on what strangers can make this node do. A handshake costs about a millisecond of one core, so the total stays
// below a third of a core; a thousand members that come back at once are all in again after a few seconds.
const (
	handshakesPerSecond  = 300 // in all; more are refused
	handshakeBurst       = 300
	unprovenPerSecond    = 30 // from addresses that have not answered a Retry; more are asked to
	unprovenBurst        = 60
	sourcePerSecond      = 10 // from one IPv4 address, IPv6 /64 or stream
	sourceBurst          = 32
	sourceBuckets        = 256
	maxHalfOpen          = 256 // accepted connections that are not a session yet
	maxUnproven          = 96  // of them, from unproven addresses: forged ones must not fill all places
	maxJoins             = 16  // join connections at once
	forwardsPerSecond    = 400 // messages passed on for one member
	forwardBurst         = 800
	maxSplicesPerSession = 32
	maxSplices           = 256
	spliceRate           = 1 << 20 // bytes per second, of all splices that one member has asked for: a store of 10,000 records takes 5 s
	spliceBurst          = 4 << 20
	maxStreams           = 64 // open bidirectional streams that one member may have here
	maxUniStreams        = 16 // large messages on their way from one member
)

var errTooMany = errors.New("too many connection attempts")

// gate limits handshakes: their rate, and how many are under way.
type gate struct {
	// constant, and guarded by themselves
	seed     maphash.Seed
	all      *rate.Limiter
	unproven *rate.Limiter
	sources  [sourceBuckets]*rate.Limiter // by hash of the source: bounded, and a collision only shares a limit

	mu           sync.Mutex // guards the rest
	halfOpen     int
	unprovenOpen int // of halfOpen, those from unproven addresses
	joins        int
}

func newGate() *gate {
	g := &gate{
		seed: maphash.MakeSeed(), all: rate.NewLimiter(handshakesPerSecond, handshakeBurst),
		unproven: rate.NewLimiter(unprovenPerSecond, unprovenBurst),
	}
	for i := range g.sources {
		g.sources[i] = rate.NewLimiter(sourcePerSecond, sourceBurst)
	}
	return g
}

// wantRetry reports whether a connection attempt must first prove its address (RFC 9000, section 8.1.2).
func (g *gate) wantRetry(net.Addr) bool {
	g.mu.Lock()
	full := g.unprovenOpen >= maxUnproven
	g.mu.Unlock()
	return full || !g.unproven.Allow()
}

// slot is the place of one accepted connection among the half-open ones.
type slot struct{ release func() }

type slotKey struct{}

// enter admits one connection attempt or refuses it. The place is given back when ctx, the connection's, is done, or
// by the release function of the slot in the returned context.
func (g *gate) enter(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	unprovenOpen := 1
	if info.AddrVerified {
		unprovenOpen = 0
	}
	if !g.occupy(1, unprovenOpen) {
		return nil, errTooMany
	}
	leave := sync.OnceFunc(func() { g.occupy(-1, -unprovenOpen) })
	if !g.all.Allow() || info.AddrVerified && !g.source(info.RemoteAddr).Allow() {
		leave()
		return nil, errTooMany
	}
	context.AfterFunc(ctx, leave)
	return context.WithValue(ctx, slotKey{}, &slot{leave}), nil
}

// occupy takes half-open places, or gives them back, and reports whether there was room.
func (g *gate) occupy(n, unproven int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n > 0 && g.halfOpen >= maxHalfOpen {
		return false
	}
	g.halfOpen += n
	g.unprovenOpen += unproven
	return true
}

// discard is where the socket's virtual addresses lie.
var discard = netip.MustParsePrefix("100::/64")

// source returns the bucket of an address.
func (g *gate) source(addr net.Addr) *rate.Limiter {
	from := addrPortOf(addr).Addr()
	bits := 32
	switch {
	case discard.Contains(from):
		bits = 128 // each address stands for a stream of its own (RFC 6666)
	case from.Is6():
		bits = 64 // one host commonly holds a whole /64
	}
	prefix, err := from.Prefix(bits)
	if err != nil {
		prefix = netip.Prefix{}
	}
	return g.sources[maphash.Comparable(g.seed, prefix)%sourceBuckets]
}

// enterJoin takes one of the places of join connections; leaveJoin gives it back.
func (g *gate) enterJoin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.joins >= maxJoins {
		return false
	}
	g.joins++
	return true
}

func (g *gate) leaveJoin() {
	g.mu.Lock()
	g.joins--
	g.mu.Unlock()
}

// leaveHalfOpen gives the place of an accepted connection back early: it is a session now.
func leaveHalfOpen(conn *quic.Conn) {
	if s, ok := conn.Context().Value(slotKey{}).(*slot); ok {
		s.release()
	}
}
