package session

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/quic-go/quic-go"
	"golang.org/x/time/rate"

	"warren/mesh/identity"
)

const (
	smallQueue   = 256 // datagrams waiting towards one peer
	largeQueue   = 32  // large messages waiting towards one peer
	largeTimeout = 10 * time.Second
	// maxDatagram is what fits a QUIC packet of 1,200 bytes: header 1 + connection ID 12 + packet number 4, tag 16, frame 3,
	// and a reserve for longer connection IDs of other implementations. Such a packet passes any IPv6 path (1,280).
	maxDatagram = 1150

	checkTimeout = 1600 * time.Millisecond
	checkPause   = 5 * time.Second // between checks that incoming messages cause
	doubtPause   = time.Second     // between checks that paths in doubt cause
	doubtQuiet   = 100 * time.Millisecond
	// recent is how lately a frame must have come in for a signal to rely on this one way.
	recent    = 300 * time.Millisecond
	maxReason = 256
)

// checkTimes is when an unanswered ping is repeated: a lost one costs little, and five lost in a row mean a dead path.
// The second comes soon: a far side that sees the first come from a new address proves that before it answers there.
var checkTimes = [...]time.Duration{0, 60 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1200 * time.Millisecond}

// overdueAt is the ping at which whoever wants the session dials anew beside it: two round trips within a continent have
// passed, and ending the session is not yet due.
const overdueAt = 3

// link is one QUIC connection with a verified member, after its hello.
type link struct {
	// constant
	id       identity.NodeID
	instance instance
	dialled  bool
	conn     *quic.Conn
	chain    []*x509.Certificate
	since    time.Time
	near     time.Duration // the round trip when the link came up: an order that does not change by itself
	small    outbox
	large    outbox
	wait     *sync.WaitGroup // of the owner
	gone     chan struct{}   // closed when the link has ended and is out of the table
	overdue  chan struct{}   // capacity 1: the answer to a check is
	forwards *rate.Limiter   // messages passed on for it
	spliced  *rate.Limiter   // bytes of its splices

	remote netip.AddrPort // guarded by the table's mu: the far side's address as last told

	// atomic
	checks  atomic.Int32 // under way: the link is doubtful
	heard   atomic.Int64 // of the last frame, as nanoseconds after since
	evaded  atomic.Int64 // of the last message of the far side that came another way, likewise
	splices atomic.Int32

	mu        sync.Mutex // guards the rest
	ended     bool
	pongs     map[uint64]chan struct{}
	lastCheck time.Time
}

func newLink(conn *quic.Conn, id identity.NodeID, far instance, dialled bool, wait *sync.WaitGroup, dropped func()) *link {
	l := &link{
		id: id, instance: far, dialled: dialled, conn: conn, chain: conn.ConnectionState().TLS.PeerCertificates,
		since: time.Now(), near: conn.ConnectionStats().SmoothedRTT, wait: wait, pongs: make(map[uint64]chan struct{}), gone: make(chan struct{}), overdue: make(chan struct{}, 1), remote: addrPortOf(conn.RemoteAddr()),
		forwards: rate.NewLimiter(forwardsPerSecond, forwardBurst), spliced: rate.NewLimiter(spliceRate, spliceBurst),
	}
	l.small = outbox{limit: smallQueue, send: l.sendSmall, spawn: l.spawn, drop: dropped}
	l.large = outbox{limit: largeQueue, send: l.sendLarge, spawn: l.spawn, drop: dropped}
	return l
}

// spawn starts a goroutine that the owner waits for, unless the link has ended.
func (l *link) spawn(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.wait.Go(f)
	return true
}

// end is called by the link's last own goroutine: nothing is queued or started from here on.
func (l *link) end() {
	l.small.close()
	l.large.close()
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
}

// push queues a frame, which the link then owns; false when the link is closed.
func (l *link) push(frame []byte) bool {
	if len(frame) > maxDatagram {
		return l.large.push(frame)
	}
	return l.small.push(frame)
}

func (l *link) sendSmall(frame []byte) error {
	err := l.conn.SendDatagram(frame)
	if tooLarge := (*quic.DatagramTooLargeError)(nil); errors.As(err, &tooLarge) {
		l.large.push(frame)
		return nil
	}
	return err
}

func (l *link) sendLarge(frame []byte) error {
	ctx, cancel := context.WithTimeout(l.conn.Context(), largeTimeout)
	defer cancel()
	st, err := l.conn.OpenUniStreamSync(ctx)
	if err != nil {
		return l.conn.Context().Err() // a peer that takes no stream loses this message, not the session
	}
	st.SetWriteDeadline(time.Now().Add(largeTimeout))
	if _, err := st.Write(frame); err != nil {
		st.CancelWrite(streamClosed)
		return l.conn.Context().Err()
	}
	return st.Close()
}

// close closes the connection; the far side sees code and reason.
func (l *link) close(code uint64, reason string) {
	l.conn.CloseWithError(quic.ApplicationErrorCode(code), cleanReason(reason))
}

// doubtful reports whether a check of the link is under way: it may be dead.
func (l *link) doubtful() bool { return l.checks.Load() > 0 }

// better reports whether l is the better one to send by when nothing is known about where the two lead. What this side
// dialled is most likely an anchor; what dialled this side is not.
func (l *link) better(other *link) bool {
	switch {
	case l.doubtful() != other.doubtful():
		return other.doubtful()
	case l.dialled != other.dialled:
		return l.dialled
	default:
		return l.rtt() < other.rtt()
	}
}

func (l *link) rtt() time.Duration { return l.conn.ConnectionStats().SmoothedRTT }

// check pings the far side and starts then when it answers; without an answer the link is closed. It returns at once.
func (l *link) check(then func()) {
	l.checks.Add(1)
	if !l.spawn(func() {
		alive := l.ping()
		l.checks.Add(-1)
		switch {
		case !alive:
			l.close(CodeUnresponsive, "no answer to checks")
		case then != nil:
			then()
		}
	}) {
		l.checks.Add(-1)
	}
}

// hear notes that a frame came in.
func (l *link) hear() { l.heard.Store(int64(time.Since(l.since))) }

// quiet is how long no frame has come in.
func (l *link) quiet() time.Duration { return time.Since(l.since) - time.Duration(l.heard.Load()) }

// evade notes that the far side sent something another way: it may have found this one dead.
func (l *link) evade() { l.evaded.Store(int64(time.Since(l.since))) }

// sure reports whether what is sent now will most likely arrive.
func (l *link) sure() bool {
	return !l.doubtful() && l.quiet() < recent && l.heard.Load() >= l.evaded.Load()
}

// checkSoon is check for reasons that come often: it does nothing within pause of the last time.
func (l *link) checkSoon(pause time.Duration) {
	now := time.Now()
	l.mu.Lock()
	due := now.Sub(l.lastCheck) >= pause
	if due {
		l.lastCheck = now
	}
	l.mu.Unlock()
	if due {
		l.check(nil)
	}
}

// ping reports whether the far side answers in time.
func (l *link) ping() bool {
	h := header{kind: framePing, nonce: rand.Uint64()}
	answered := make(chan struct{})
	l.mu.Lock()
	l.pongs[h.nonce] = answered
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.pongs, h.nonce)
		l.mu.Unlock()
	}()
	start := time.Now()
	limit := max(checkTimeout, 4*l.rtt())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for next := 0; ; {
		select {
		case <-answered:
			return true
		case <-l.conn.Context().Done():
			return false
		case <-timer.C:
		}
		if time.Since(start) >= limit {
			return false
		}
		l.push(h.appendTo(nil))
		if next == overdueAt {
			notify(l.overdue)
		}
		next++
		if next < len(checkTimes) {
			timer.Reset(checkTimes[next] - time.Since(start))
		} else {
			timer.Reset(limit - time.Since(start))
		}
	}
}

// pong takes the answer to a ping.
func (l *link) pong(nonce uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if answered, ok := l.pongs[nonce]; ok {
		delete(l.pongs, nonce)
		close(answered)
	}
}

// mayForward reports whether one more message may be passed on for the far side now.
func (l *link) mayForward() bool { return l.forwards.Allow() }

// pace waits until n more bytes, at most spliceBuffer, may be spliced for the far side, or its connection has ended.
func (l *link) pace(n int) {
	_ = l.spliced.WaitN(l.conn.Context(), n) // the copying fails by itself then
}

// closeCause says why a connection ended, in the terms of Event.
func closeCause(err error) (code uint64, reason string, byPeer bool) {
	if app, ok := errors.AsType[*quic.ApplicationError](err); ok {
		return uint64(app.ErrorCode), cleanReason(app.ErrorMessage), app.Remote
	}
	if _, ok := errors.AsType[*quic.IdleTimeoutError](err); ok {
		return CodeLost, fmt.Sprintf("nothing heard for %v", idleTimeout), false
	}
	if _, ok := errors.AsType[*quic.StatelessResetError](err); ok {
		return CodeLost, "the node restarted", false
	}
	if err == nil {
		return CodeLost, "closed", false
	}
	return CodeLost, cleanReason(err.Error()), false
}

// cleanReason bounds a text that the far side may have chosen, and keeps only what can be printed.
func cleanReason(text string) string {
	text = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text[:min(len(text), 4*maxReason)])
	for len(text) > maxReason {
		cut := maxReason
		for cut > 0 && text[cut]&0xc0 == 0x80 {
			cut--
		}
		text = text[:cut]
	}
	return text
}
