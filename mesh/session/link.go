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

	"warren/mesh/identity"
	"warren/nat/due"
)

const (
	smallQueue   = 256 // datagrams waiting towards one peer
	largeQueue   = 32  // large messages waiting towards one peer
	largeTimeout = 10 * time.Second
	// maxDatagram is what fits a QUIC packet of 1,200 bytes: header 1 + connection ID 12 + packet number 4, tag 16, frame 3,
	// and a reserve for longer connection IDs of other implementations. Such a packet passes any IPv6 path (1,280).
	maxDatagram = 1150

	checkTimeout = 1600 * time.Millisecond
	busyTimeout  = 10 * time.Second // the most that a check takes on a machine that is late with everything
	checkPause   = 5 * time.Second  // between checks that incoming messages cause
	doubtPause   = time.Second      // between checks that paths in doubt cause
	doubtQuiet   = 100 * time.Millisecond

	// Of a far side that is late with its answers, checks that come often take a tenth of the time.
	checkShare    = 10
	maxCheckPause = 10 * time.Second
	maxReason     = 256
)

// checkTimes is when an unanswered ping is repeated: a lost one costs little, and five lost in a row mean a dead path.
// The second comes soon: a far side that sees the first come from a new address proves that before it answers there.
var checkTimes = [...]time.Duration{0, 60 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1200 * time.Millisecond}

// overdueAt is the ping at which whoever wants the session dials anew beside it, when three round trips have passed and this machine is not
// late itself: two round trips within a continent have passed, and ending the session is not yet due.
const overdueAt = 3

// link is one QUIC connection with a verified member, after its hello.
type link struct {
	// constant
	id       identity.NodeID
	instance instance // set before the link is in the table
	dialled  bool
	conn     *quic.Conn
	chain    []*x509.Certificate
	since    time.Time
	near     time.Duration // the round trip when the link came up: an order that does not change by itself
	small    outbox
	large    outbox
	wait     *sync.WaitGroup // of the owner
	gone     chan struct{}   // closed when the link has ended and is out of the table
	pulse    *pulse
	favours  *favours
	meter    *meter
	patience time.Duration // set before the link is known: of a stranger, to become a member

	stranger atomic.Bool // this is a session that a node has dialled which is no member by the records

	remote netip.AddrPort // guarded by the table's mu: the far side's address as last told

	mu    sync.Mutex // guards ended
	ended bool
}

func newLink(conn *quic.Conn, id identity.NodeID, dialled bool, wait *sync.WaitGroup, dropped func()) *link {
	now := time.Now()
	l := &link{
		id: id, dialled: dialled, conn: conn, chain: conn.ConnectionState().TLS.PeerCertificates,
		since: now, near: conn.ConnectionStats().SmoothedRTT, wait: wait, gone: make(chan struct{}), remote: addrPortOf(conn.RemoteAddr()),
		pulse: newPulse(now, func() uint64 { return conn.ConnectionStats().PacketsReceived }), favours: newFavours(), meter: newMeter(),
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

// better reports whether l is the better one to send by when nothing is known about where the two lead. What this side
// dialled is most likely an anchor; what dialled this side is not.
func (l *link) better(other *link) bool {
	switch {
	case l.pulse.doubtful() != other.pulse.doubtful():
		return other.pulse.doubtful()
	case l.dialled != other.dialled:
		return l.dialled
	default:
		return l.rtt() < other.rtt()
	}
}

func (l *link) rtt() time.Duration { return l.conn.ConnectionStats().SmoothedRTT }

// check pings the far side and starts then when it answers; without an answer the link is closed. It returns at once.
func (l *link) check(then func()) {
	l.pulse.checks.Add(1)
	if !l.spawn(func() {
		alive := l.ping()
		l.pulse.checks.Add(-1)
		switch {
		case !alive:
			l.close(CodeUnresponsive, "no answer to checks")
		case then != nil:
			then()
		}
	}) {
		l.pulse.checks.Add(-1)
	}
}

// checkSoon is check for reasons that come often: it does nothing within pause of the last time.
func (l *link) checkSoon(pause time.Duration) {
	if l.pulse.due(pause) {
		l.check(nil)
	}
}

// ping reports whether the far side answers in time.
func (l *link) ping() bool {
	h := header{kind: framePing, nonce: rand.Uint64()}
	answered, forget := l.pulse.expect(h.nonce)
	defer forget()
	start, planned := time.Now(), time.Duration(0)
	rtt := l.rtt()
	limit, busy := max(checkTimeout, 4*rtt), false
	timer := time.NewTimer(planned)
	defer timer.Stop()
	told := false
	for next := 0; ; {
		select {
		case <-answered:
			l.pulse.settled(time.Since(start))
			return true
		case <-l.conn.Context().Done():
			return false
		case <-timer.C:
		}
		// The answer may lie unread for as long as this machine is busy.
		if late := time.Since(start) - planned; late >= due.Busy {
			busy = true
			limit = min(limit+2*late, busyTimeout)
		}
		if time.Since(start) >= limit {
			return false
		}
		l.push(h.appendTo(nil))
		if next >= overdueAt && !told && !busy && time.Since(start) >= 3*rtt {
			told = true
			notify(l.pulse.overdue)
		}
		next++
		planned = limit
		if next < len(checkTimes) {
			planned = checkTimes[next]
		}
		timer.Reset(planned - time.Since(start))
	}
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
