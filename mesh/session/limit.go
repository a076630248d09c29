package session

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/time/rate"

	"warren/mesh/identity"
	"warren/nat/limit"
)

// Limits on what strangers can make this node do. A handshake costs about a millisecond of one core, so the total stays
// below two thirds of a core; a thousand members that come back at once are all in again after a few seconds.
//
// Who is a member is not known before the handshake. What is known is where members' sessions came from: those sources have a
// share of their own, so that strangers, from however many addresses, do not keep them out.
const (
	handshakesPerSecond = 300 // in all, from proven addresses; more are refused. As many again from where members were met
	handshakeBurst      = 300
	unprovenPerSecond   = 30 // from addresses that have not answered a Retry; more are asked to
	unprovenBurst       = 60
	sourcePerSecond     = 10 // from one IPv4 address, IPv6 /64 or stream
	sourceBurst         = 32
	maxHalfOpen         = 256 // accepted connections that are not a session yet
	maxHalfOpenFriends  = 64  // beside these, from where members were met
	maxHalfOpenSource   = 32  // of either, from one source; as many again that are not proven to come from it
	maxUnproven         = 96  // of maxHalfOpen, from unproven addresses: forged ones must not fill all places
	retryAbove          = maxHalfOpen / 2
	retryAboveSource    = 8 // unproven ones in the name of one source: beyond, an address has to be proven, and counts apart
	maxJoins            = 32
	maxJoinsSource      = 4
	maxFriends          = 4096 // members whose sources are remembered: those met last

	maxSplicesPerSession = 32
	maxSplices           = 256
	spliceRate           = 1 << 20 // bytes per second, of all splices that one member has asked for: a store of 10,000 records takes 5 s
	spliceBurst          = 4 << 20
	maxStreams           = 64 // open bidirectional streams that one member may have here
	maxUniStreams        = 16 // large messages on their way from one member
)

// quietTime is how long one that is waiting to become something is left in peace when there is no place for others.
const quietTime = 3 * time.Second

var errTooMany = errors.New("too many connection attempts")

var (
	perSource     = limit.Rate{PerSecond: sourcePerSecond, Burst: sourceBurst}
	perSecond     = limit.Rate{PerSecond: handshakesPerSecond, Burst: handshakeBurst}
	unprovenShare = limit.Share{Key: "unproven", Most: maxUnproven}
)

// unproven is the key of what says that it comes from a source, and has not proven it.
type unproven netip.Prefix

// gate limits handshakes: their rate, and how many are under way; and joins.
type gate struct {
	// constant, and guarded by themselves
	unproven *rate.Limiter
	rates    *limit.Sources[netip.Prefix]
	halfOpen *limit.Places[*slot]
	joins    *limit.Places[*quic.Conn]
	met      friends
	friends  struct { // what those have to themselves
		rates    *limit.Sources[netip.Prefix]
		halfOpen *limit.Places[*slot]
	}
}

func newGate() *gate {
	g := &gate{
		unproven: rate.NewLimiter(unprovenPerSecond, unprovenBurst), rates: limit.NewSources[netip.Prefix](perSecond, perSource),
		halfOpen: limit.NewPlaces[*slot](maxHalfOpen, quietTime), joins: limit.NewPlaces[*quic.Conn](maxJoins, quietTime),
		met: friends{from: make(map[identity.NodeID][2]netip.Prefix), count: make(map[netip.Prefix]int)},
	}
	g.friends.rates = limit.NewSources[netip.Prefix](perSecond, perSource)
	g.friends.halfOpen = limit.NewPlaces[*slot](maxHalfOpenFriends, quietTime)
	return g
}

// wantRetry reports whether a connection attempt must first prove its address (RFC 9000, section 8.1.2).
func (g *gate) wantRetry(addr net.Addr) bool {
	return g.halfOpen.Taken(unprovenShare.Key) >= maxUnproven || g.halfOpen.Taken(nil) >= retryAbove ||
		g.halfOpen.Taken(unproven(sourceOf(addr))) >= retryAboveSource || !g.unproven.Allow()
}

// slot is the place of one accepted connection among the half-open ones.
type slot struct {
	places *limit.Places[*slot]      // constant
	conn   atomic.Pointer[quic.Conn] // since the handshake
	gone   atomic.Bool               // it had to give way
}

type slotKey struct{}

// enter admits one connection attempt or refuses it. The place is given back when ctx, the connection's, is done, or
// by leaveHalfOpen.
func (g *gate) enter(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	source, now := sourceOf(info.RemoteAddr), time.Now()
	s, ok := &slot{places: g.halfOpen}, true
	shares := []limit.Share{{Key: source, Most: maxHalfOpenSource}}
	switch {
	case !info.AddrVerified:
		shares = []limit.Share{{Key: unproven(source), Most: maxHalfOpenSource}, unprovenShare}
	case g.met.has(source):
		s.places, ok = g.friends.halfOpen, g.friends.rates.Allow(now, source)
	default:
		ok = g.rates.Allow(now, source)
	}
	if !ok {
		return nil, errTooMany
	}
	out, ok := s.places.Enter(now, s, shares...)
	if !ok {
		return nil, errTooMany
	}
	for _, old := range out {
		old.giveWay()
	}
	context.AfterFunc(ctx, s.leave)
	return context.WithValue(ctx, slotKey{}, s), nil
}

// leave gives the place back.
func (s *slot) leave() { s.places.Leave(s) }

// giveWay ends the connection, at the latest when its handshake is over.
func (s *slot) giveWay() {
	s.gone.Store(true)
	if conn := s.conn.Load(); conn != nil {
		conn.CloseWithError(quic.ApplicationErrorCode(CodeStranger), errTooMany.Error())
	}
}

// hold notes that the handshake is over, and reports whether the connection still has its place.
func (s *slot) hold(conn *quic.Conn) bool {
	s.conn.Store(conn)
	if s.gone.Load() {
		s.giveWay()
	}
	return !s.gone.Load()
}

// slotOf returns the place that an accepted connection has or had.
func slotOf(conn *quic.Conn) *slot {
	s, _ := conn.Context().Value(slotKey{}).(*slot)
	return s
}

// discard is where the socket's virtual addresses lie.
var discard = netip.MustParsePrefix("100::/64")

// sourceOf is what one host, or one stream, is taken to own.
func sourceOf(addr net.Addr) netip.Prefix {
	from := addrPortOf(addr).Addr()
	if discard.Contains(from) {
		return netip.PrefixFrom(from, from.BitLen()) // each address stands for a stream of its own (RFC 6666)
	}
	return limit.Host(from)
}

// friends remembers the two sources that each member was met at last.
type friends struct {
	mu    sync.Mutex // guards the rest
	from  map[identity.NodeID][2]netip.Prefix
	count map[netip.Prefix]int // of members
}

// add notes where a member was met.
func (f *friends) add(id identity.NodeID, addr netip.Addr) {
	source := limit.Host(addr)
	if discard.Contains(addr) || !source.IsValid() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	before, known := f.from[id]
	if before[0] == source {
		return
	}
	if !known && len(f.from) >= maxFriends {
		for other := range f.from { // any one: it will be met again
			f.forget(other)
			break
		}
	}
	f.forget(id)
	now := [2]netip.Prefix{source, before[0]}
	f.from[id] = now
	for _, s := range now {
		f.count[s]++
	}
}

// forget drops a member; the caller holds mu.
func (f *friends) forget(id identity.NodeID) {
	at, known := f.from[id]
	if !known {
		return
	}
	delete(f.from, id)
	for _, s := range at {
		if f.count[s]--; f.count[s] == 0 {
			delete(f.count, s)
		}
	}
}

// has reports whether a member was met there.
func (f *friends) has(source netip.Prefix) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return source.IsValid() && f.count[source] > 0
}

// enterJoin takes one of the places of joins. The one that has not got on for the longest time may have to give way.
func (g *gate) enterJoin(conn *quic.Conn) bool {
	out, ok := g.joins.Enter(time.Now(), conn, limit.Share{Key: sourceOf(conn.RemoteAddr()), Most: maxJoinsSource})
	for _, old := range out {
		old.CloseWithError(quic.ApplicationErrorCode(CodeStranger), tooManyJoins)
	}
	return ok
}

// leaveHalfOpen gives the place of an accepted connection back early: it is something else now.
func leaveHalfOpen(conn *quic.Conn) {
	if s := slotOf(conn); s != nil {
		s.leave()
	}
}
