package session

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"warren/mesh/identity"
)

const (
	firstBackOff = 200 * time.Millisecond
	maxBackOff   = 30 * time.Second
	stagger      = 50 * time.Millisecond // between the starts of two addresses of one target (RFC 8305, section 5, is slower)
	shortDial    = 1500 * time.Millisecond
	longDial     = 4 * time.Second
	longDialEach = 4 // most rounds are short, for QUIC's own repetitions soon get too far apart; every fourth is for long ways
	helloTimeout = 3 * time.Second
	refusalDelay = 20 * time.Millisecond
	maxAddresses = 8
	steadyAfter  = 5 * time.Second // a session that lived this long is redialled at once, with the ladder reset
)

var errWoken = errors.New("interrupted: addresses or network changed")

// target is a node to keep a session with, and how dialling it goes.
type target struct {
	id   identity.NodeID // constant
	wake chan struct{}   // constant; capacity 1: start over now

	mu       sync.Mutex // guards the rest
	addrs    []netip.AddrPort
	attempts int
	lastErr  error
	next     time.Time
}

func newTarget(id identity.NodeID) *target {
	return &target{id: id, wake: make(chan struct{}, 1)}
}

// set takes new addresses and reports whether they differ from the old ones.
func (t *target) set(addrs []netip.AddrPort) bool {
	clean := make([]netip.AddrPort, 0, len(addrs))
	for _, a := range addrs {
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		if a.IsValid() && a.Port() != 0 && !slices.Contains(clean, a) && len(clean) < maxAddresses {
			clean = append(clean, a)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	// The order may differ: a good address moves to the front.
	same := len(clean) == len(t.addrs) && !slices.ContainsFunc(clean, func(a netip.AddrPort) bool { return !slices.Contains(t.addrs, a) })
	if !same {
		t.addrs = clean
	}
	return !same
}

// rouse makes the dial loop start over.
func (t *target) rouse() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// good moves the address of a session to the front and forgets the failures.
func (t *target) good(addr netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.addrs, addr); i > 0 {
		t.addrs = slices.Insert(slices.Delete(slices.Clone(t.addrs), i, i+1), 0, addr)
	}
	t.attempts, t.next = 0, time.Time{}
}

// failed notes why a dial or a session ended.
func (t *target) failed(err error, dial bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastErr = err
	if dial {
		t.attempts++
	}
}

// pause waits for the next rung of the ladder; it reports true when the loop was roused instead.
func (t *target) pause(ctx context.Context, wait time.Duration) bool {
	t.mu.Lock()
	t.next = time.Now().Add(wait)
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		t.next = time.Time{}
		t.mu.Unlock()
	}()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return false
	case <-t.wake:
		return true
	}
}

// backOff is the ladder of waits: 0.2 s, a fifth longer each time up to 30 s, each with a quarter of jitter either way. With
// the time of the dials the wait is about a tenth of the outage: one of a minute is over some seconds after its cause.
type backOff struct{ last time.Duration }

func (b *backOff) reset() { b.last = 0 }

func (b *backOff) next() time.Duration {
	b.last = min(max(b.last+b.last/5, firstBackOff), maxBackOff)
	return b.last*3/4 + rand.N(b.last/2)
}

// keep is a target's goroutine: it sees to a session with the target until ctx is done.
func (s *Sessions) keep(ctx context.Context, t *target) {
	var ladder backOff
	for ctx.Err() == nil {
		if l := s.table.link(t.id); l != nil {
			select {
			case <-ctx.Done():
				return
			case <-l.pulse.overdue:
				if err := s.dial(ctx, t); err != nil && !errors.Is(err, errWoken) && ctx.Err() == nil {
					t.failed(err, false)
				}
				continue
			case <-l.gone: // out of the table
			}
			t.failed(context.Cause(l.conn.Context()), false)
			if time.Since(l.since) >= steadyAfter {
				ladder.reset()
				continue
			}
		} else {
			err := s.dial(ctx, t)
			if err == nil || ctx.Err() != nil {
				continue
			}
			if errors.Is(err, errWoken) {
				ladder.reset()
				continue
			}
			t.failed(err, true)
			s.tellRefusal(t.id, err)
		}
		if s.table.link(t.id) == nil && t.pause(ctx, ladder.next()) {
			ladder.reset()
		}
	}
}

// dialled is what one attempt at one address came to.
type dialled struct {
	conn *quic.Conn
	addr netip.AddrPort
	err  error
}

// dial makes one session with the target, racing its addresses.
func (s *Sessions) dial(ctx context.Context, t *target) error {
	t.mu.Lock()
	addrs, limit := slices.Clone(t.addrs), shortDial
	if t.attempts%longDialEach == longDialEach-1 {
		limit = longDial
	}
	t.mu.Unlock()
	if len(addrs) == 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.wake:
			return errWoken
		}
	}
	dctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	won, err := s.dialler.race(dctx, t, addrs)
	if err != nil {
		return err
	}
	far, err := s.dialler.greet(ctx, won.conn)
	if err != nil {
		won.conn.CloseWithError(quic.ApplicationErrorCode(CodeProtocol), "no hello")
		return fmt.Errorf("greet %v: %w", won.addr, err)
	}
	l := newLink(won.conn, t.id, far, true, &s.wait, func() { s.counters.add(dropQueueFull) })
	t.good(won.addr)
	err = s.adopt(l)
	if ctx.Err() != nil {
		l.close(CodeUnneeded, unneeded)
	}
	return err
}

// dialler makes connections. Its methods may be called concurrently.
type dialler struct {
	credential func() tls.Certificate
	verify     func(chain []*x509.Certificate) (identity.NodeID, error)
	transport  *quic.Transport
	lane       *lane
	instance   instance
	wait       *sync.WaitGroup
}

// race dials all addresses, one after the other but not waiting for each, and returns the first connection.
func (d *dialler) race(ctx context.Context, t *target, addrs []netip.AddrPort) (dialled, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	results := make(chan dialled, len(addrs))
	started, ended := 0, 0
	start := func() {
		addr := addrs[started]
		started++
		d.wait.Go(func() {
			conn, err := d.attempt(ctx, t.id, addr)
			results <- dialled{conn, addr, err}
		})
	}
	finish := func(cause error) {
		cancel(cause)
		late := started - ended
		d.wait.Go(func() {
			for range late {
				if r := <-results; r.conn != nil {
					r.conn.CloseWithError(quic.ApplicationErrorCode(CodeDuplicate), "another address was faster")
				}
			}
		})
	}
	start()
	next := time.NewTicker(stagger)
	defer next.Stop()
	var failures []error
	for ended < started || started < len(addrs) {
		select {
		case r := <-results:
			ended++
			if r.err == nil {
				finish(context.Canceled)
				return r, nil
			}
			failures = append(failures, fmt.Errorf("dial %v: %w", r.addr, r.err))
			if started < len(addrs) {
				start()
			}
		case <-next.C:
			if started < len(addrs) {
				start()
			}
		case <-t.wake:
			finish(errWoken)
			return dialled{}, errWoken
		}
	}
	cancel(nil)
	return dialled{}, errors.Join(failures...)
}

// attempt dials one address and checks that it is the node id that answers, as a member.
func (d *dialler) attempt(ctx context.Context, id identity.NodeID, addr netip.AddrPort) (*quic.Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := d.lane.watch(addr, func(err error) { cancel(err) })
	defer stop()
	var refusal error
	config := dialTLS(d.credential, id, d.verify, func(err error) { refusal = err })
	conn, err := d.transport.Dial(ctx, net.UDPAddrFromAddrPort(addr), config, quicConfig())
	if err != nil {
		return nil, err
	}
	if refusal != nil {
		told := refusalOf(refusal)
		// Until the far side has finished the handshake too, QUIC would hide the reason from it (RFC 9000, section 10.2.3).
		select {
		case <-time.After(min(max(3*conn.ConnectionStats().SmoothedRTT, refusalDelay), time.Second)):
		case <-ctx.Done():
		}
		conn.CloseWithError(quic.ApplicationErrorCode(told.Code), cleanReason(told.Reason))
		return nil, refusal
	}
	return conn, nil
}

// greet says hello on a dialled connection. Only with the answer it is certain that the far side has accepted our
// certificate, and only with our hello that we have chosen this connection among those raced.
func (d *dialler) greet(ctx context.Context, conn *quic.Conn) (instance, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	st, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return instance{}, err
	}
	deadline, _ := ctx.Deadline()
	st.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { st.CancelRead(streamClosed) })
	defer stop()
	if _, err := st.Write(appendHello(nil, d.instance)); err != nil {
		return instance{}, err
	}
	st.Close()
	return readHello(st)
}
