package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"warren/mesh/identity"
)

const (
	openTimeout  = 5 * time.Second
	spliceIdle   = 2 * time.Minute
	spliceBuffer = 16 << 10
	openTries    = 3
)

// Addr is the address of a stream's end: a node.
type Addr identity.NodeID

// Network returns "warren".
func (a Addr) Network() string { return "warren" }

// String returns the node ID.
func (a Addr) String() string { return identity.NodeID(a).String() }

// stream is a bidirectional QUIC stream as a net.Conn.
type stream struct {
	*quic.Stream
	local, remote Addr
	by            identity.NodeID // the far side of the session that it goes by
	writing       atomic.Int32
}

func (c *stream) LocalAddr() net.Addr  { return c.local }
func (c *stream) RemoteAddr() net.Addr { return c.remote }

func (c *stream) Write(b []byte) (int, error) {
	c.writing.Add(1)
	defer c.writing.Add(-1)
	return c.Stream.Write(b)
}

// CloseWrite tells the far side that nothing more comes; reading goes on.
func (c *stream) CloseWrite() error { return c.Stream.Close() }

// Close ends both directions. What was written still arrives, unless a Write is under way: that one is cut off.
func (c *stream) Close() error {
	c.CancelRead(streamClosed)
	if c.writing.Load() > 0 {
		c.CancelWrite(streamClosed)
		return nil
	}
	return c.Stream.Close()
}

// Open opens a stream to a node: on the session with it, else by members that may reach it, who splice it through. ctx
// bounds the opening only. The stream has half-close (CloseWrite); a spliced one is cut after two minutes without a
// byte. The error wraps ErrNoRoute when no way was found.
func (s *Sessions) Open(ctx context.Context, to identity.NodeID, p Proto) (net.Conn, error) {
	return s.router.open(ctx, to, p)
}

// OpenDirect opens a stream on the session with a node, or not at all: the far side then knows for sure who asks. The
// error wraps ErrNoRoute when there is no session.
func (s *Sessions) OpenDirect(ctx context.Context, to identity.NodeID, p Proto) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	l := s.router.table.link(to)
	if l == nil || p == 0 {
		return nil, fmt.Errorf("open stream to %s: %w", to.Short(), ErrNoRoute)
	}
	return s.router.openOn(ctx, l, header{kind: frameDirect, to: to, proto: p})
}

// Bringer returns the far side of the session by which a stream goes that was given to Inbound or opened here: its other end, which is
// proven then, or a member that forwards it, and then who the other end is, is that one's word only. For other connections, unless they
// have a method of that name themselves, it is zero.
func Bringer(c net.Conn) identity.NodeID {
	if s, ok := c.(interface{ Bringer() identity.NodeID }); ok {
		return s.Bringer()
	}
	return identity.NodeID{}
}

// Bringer is what the function of that name returns.
func (c *stream) Bringer() identity.NodeID { return c.by }

func (r *router) open(ctx context.Context, to identity.NodeID, p Proto) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if p == 0 || to.IsZero() || to == r.self {
		return nil, fmt.Errorf("open stream to %s: %w", to.Short(), ErrNoRoute)
	}
	direct := r.table.link(to)
	if direct != nil && !direct.pulse.doubtful() {
		if c, err := r.openOn(ctx, direct, header{kind: frameDirect, to: to, proto: p}); err == nil {
			return c, nil
		}
	}
	failures := []error{ErrNoRoute}
	tries := 0
	for l := range r.hops(to, true) {
		if tries++; tries > openTries || ctx.Err() != nil {
			break
		}
		c, err := r.openOn(ctx, l, header{kind: frameEnvelope, hops: maxHops, to: to, from: r.self, proto: p})
		if err == nil {
			return c, nil
		}
		if !isNoRoute(err) {
			failures = append(failures, err)
		}
	}
	if direct != nil && direct.pulse.doubtful() {
		if c, err := r.openOn(ctx, direct, header{kind: frameDirect, to: to, proto: p}); err == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("open stream to %s: %w", to.Short(), errors.Join(failures...))
}

// openOn opens a stream on one link. Behind an envelope it waits until the destination has accepted.
func (r *router) openOn(ctx context.Context, l *link, h header) (net.Conn, error) {
	st, err := l.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, fmt.Errorf("open on session with %s: %w", l.id.Short(), err)
	}
	if err := begin(ctx, st, h); err != nil {
		st.CancelRead(streamClosed)
		st.CancelWrite(streamClosed)
		return nil, fmt.Errorf("open by %s: %w", l.id.Short(), err)
	}
	return &stream{Stream: st, local: Addr(r.self), remote: Addr(h.to), by: l.id}, nil
}

func begin(ctx context.Context, st *quic.Stream, h header) error {
	deadline, _ := ctx.Deadline()
	st.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { st.CancelRead(streamClosed) })
	defer stop()
	if _, err := st.Write(h.appendTo(nil)); err != nil {
		return err
	}
	if h.kind == frameEnvelope {
		var answer [1]byte
		if _, err := io.ReadFull(st, answer[:]); err != nil {
			return err
		}
		if answer[0] != streamAccepted {
			return fmt.Errorf("answer %d: %w", answer[0], errMalformed)
		}
	}
	if !stop() {
		return context.Cause(ctx)
	}
	return st.SetDeadline(time.Time{})
}

// readStreams takes in a link's streams.
func (r *router) readStreams(l *link) {
	for {
		st, err := l.conn.AcceptStream(l.conn.Context())
		if err != nil {
			return
		}
		if !l.spawn(func() { r.serveStream(l, st) }) {
			return
		}
	}
}

// serveStream reads a stream's header and delivers the stream, or splices it through.
func (r *router) serveStream(l *link, st *quic.Stream) {
	if !l.meter.stream(!r.roster.Member(l.id)) {
		r.counters.add(dropRate)
		reset(st, streamRefused)
		return
	}
	st.SetDeadline(time.Now().Add(openTimeout))
	h, err := readHeader(st)
	if err != nil {
		r.counters.add(dropMalformed)
		reset(st, streamRefused)
		return
	}
	from := l.id
	if h.kind == frameEnvelope {
		if why := r.checkEnvelope(l, h); why != dropNone {
			r.counters.add(why)
			reset(st, streamRefused)
			return
		}
		if h.to != r.self {
			r.splice(l, st, h)
			return
		}
		if _, err := st.Write([]byte{streamAccepted}); err != nil {
			reset(st, streamRefused)
			return
		}
		from = h.from
	}
	if r.inbound == nil {
		reset(st, streamRefused)
		return
	}
	st.SetDeadline(time.Time{})
	r.inbound.Stream(from, h.proto, &stream{Stream: st, local: Addr(r.self), remote: Addr(from), by: l.id})
}

// splice joins a stream that came over l with one towards its destination and copies until both directions have ended.
func (r *router) splice(l *link, st *quic.Stream, h header) {
	defer r.splices.Add(-1)
	defer l.favours.splices.Add(-1)
	if r.splices.Add(1) > maxSplices || l.favours.splices.Add(1) > maxSplicesPerSession {
		r.counters.add(dropRate)
		reset(st, streamRefused)
		return
	}
	next := r.onward(l, h)
	if next == nil {
		r.counters.add(dropNoRoute)
		reset(st, streamNoRoute)
		return
	}
	ctx, cancel := context.WithTimeout(l.conn.Context(), openTimeout)
	on, err := next.conn.OpenStreamSync(ctx)
	cancel()
	if err != nil {
		reset(st, streamNoRoute)
		return
	}
	h.hops--
	on.SetWriteDeadline(time.Now().Add(openTimeout))
	if _, err := on.Write(h.appendTo(nil)); err != nil {
		reset(on, streamClosed)
		reset(st, streamNoRoute)
		return
	}
	r.counters.add(countSpliced)
	active := newActivity()
	pace := func(n int) { l.favours.pace(l.conn.Context(), n) }
	back := make(chan struct{})
	go func() {
		defer close(back)
		pipe(st, on, active, pace)
	}()
	pipe(on, st, active, pace)
	<-back
}

// activity is when the last byte came, of both directions. It is kept as the time since the beginning: whoever sets the clock ends no stream.
type activity struct {
	began time.Time
	since atomic.Int64 // nanoseconds
}

func newActivity() *activity { return &activity{began: time.Now()} }

func (a *activity) note(now time.Time) { a.since.Store(int64(now.Sub(a.began))) }

// idleAt is when the stream is idle, if nothing more comes.
func (a *activity) idleAt() time.Time { return a.began.Add(time.Duration(a.since.Load()) + spliceIdle) }

// pipe copies from src to dst until src ends or either fails, and hands the end on: FIN as FIN, reset as reset.
// pace is asked before bytes go on.
func pipe(dst, src *quic.Stream, active *activity, pace func(n int)) {
	buf := make([]byte, spliceBuffer)
	for {
		src.SetReadDeadline(active.idleAt())
		n, err := src.Read(buf)
		if n > 0 {
			pace(n)
			now := time.Now()
			active.note(now)
			dst.SetWriteDeadline(now.Add(spliceIdle))
			if _, werr := dst.Write(buf[:n]); werr != nil {
				src.CancelRead(resetCode(werr))
				dst.CancelWrite(streamClosed)
				return
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			dst.Close()
			return
		case isTimeout(err) && active.idleAt().After(time.Now()):
			// the other direction is alive
		default:
			dst.CancelWrite(resetCode(err))
			src.CancelRead(streamClosed)
			return
		}
	}
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// resetCode returns the code with which the other half of a splice is reset.
func resetCode(err error) quic.StreamErrorCode {
	if reset, ok := errors.AsType[*quic.StreamError](err); ok {
		return reset.ErrorCode
	}
	return streamClosed
}

func reset(st *quic.Stream, code quic.StreamErrorCode) {
	st.CancelRead(code)
	st.CancelWrite(code)
}
