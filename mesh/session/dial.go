package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"warren/mesh/identity"
	"warren/nat/due"
)

const (
	// Between the starts of two addresses of one target: soon while there is no session, as RFC 8305, section 5, has it once there is
	// one, and late after somebody has answered, who may only be busy. Each start is a handshake at both ends.
	urgentStagger = 50 * time.Millisecond
	stagger       = 250 * time.Millisecond
	heardStagger  = time.Second
	busyStagger   = 500 * time.Millisecond // on a machine that is late with its own dials

	helloTimeout  = 3 * time.Second
	helloPatience = 10 * time.Second // of who dials: a far side that has shaken hands is there, however busy
	refusalDelay  = 20 * time.Millisecond
)

var errWoken = errors.New("interrupted: addresses or network changed")

// dialled is what one attempt at one address came to.
type dialled struct {
	conn *quic.Conn
	addr netip.AddrPort
	err  error
}

// haste is how much there is in one dial.
type haste struct {
	limit   time.Duration // for any answer
	stagger time.Duration // between addresses
}

// dialler makes connections. Its methods may be called concurrently.
type dialler struct {
	members   Members
	transport *quic.Transport
	lane      *lane
	instance  instance
	proofs    *proofs
	wait      *sync.WaitGroup
}

// race dials all addresses, one after the other but not waiting for each, and returns the first connection. One of them has to answer
// within the limit; then they have as long as handshakes may take, and new addresses are no reason to begin again. heard is set by the
// first packet that comes from any.
func (d *dialler) race(ctx context.Context, t *target, addrs []netip.AddrPort, h haste, heard *atomic.Bool) (dialled, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	results := make(chan dialled, len(addrs))
	started, ended := 0, 0
	var last time.Time
	start := func() {
		addr := addrs[started]
		started++
		last = time.Now()
		d.wait.Go(func() {
			conn, err := d.attempt(ctx, t.id, addr, heard)
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
	begin := time.Now()
	silence := time.AfterFunc(h.limit, func() {
		late := time.Since(begin) - h.limit
		time.AfterFunc(late, func() { // the answer may lie unread for as long as this machine is busy
			if !heard.Load() {
				cancel(context.DeadlineExceeded)
			}
		})
	})
	defer silence.Stop()
	start()
	next, stall := time.NewTimer(d.stagger(h)), time.NewTicker(shortDial)
	defer next.Stop()
	defer stall.Stop()
	defer t.stalled(true)
	waited := false
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
		case at := <-next.C:
			d.lane.late(time.Now(), time.Since(at))
			switch {
			case heard.Load() && !waited:
				waited = true
				next.Reset(heardStagger)
			case time.Since(last) < d.stagger(h):
				next.Reset(d.stagger(h) - time.Since(last)) // answers take longer than was known
			case started < len(addrs):
				start()
				next.Reset(d.stagger(h))
			}
		case at := <-stall.C:
			// Two round trips were due long ago. It goes on all the same.
			if heard.Load() && time.Since(begin) >= 2*shortDial && time.Since(at) < due.Busy {
				t.stalled(false)
			}
		case <-t.wake:
			if !heard.Load() {
				finish(errWoken)
				return dialled{}, errWoken
			}
		case <-t.anew:
			finish(errWoken)
			return dialled{}, errWoken
		}
	}
	cancel(nil)
	return dialled{}, errors.Join(failures...)
}

// stagger is the time between the starts of two addresses: at least as long as first answers take at present, and a quarter (RFC 8305, section 5,
// has it follow what was measured). Most that do not answer sooner are far away or busy, and a second handshake keeps them so.
func (d *dialler) stagger(h haste) time.Duration {
	now := time.Now()
	least := h.stagger
	if d.lane.isBusy(now) {
		least = max(least, busyStagger)
	}
	return d.lane.answers().Spacing(now, least, heardStagger)
}

// attempt dials one address and checks that it is the node id that answers, as a member.
func (d *dialler) attempt(ctx context.Context, id identity.NodeID, addr netip.AddrPort, heard *atomic.Bool) (*quic.Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := d.lane.watch(addr, func(err error) { cancel(err) }, heard)
	defer stop()
	var refusal error
	config := dialTLS(d.members, id, func(err error) { refusal = err })
	conn, err := d.transport.Dial(ctx, net.UDPAddrFromAddrPort(addr), config, quicConfig())
	if err != nil {
		return nil, err
	}
	if refusal != nil {
		told := refusalOf(refusal)
		if len(told.Proof) > 0 {
			d.proofs.open(conn, told)
			return nil, refusal
		}
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
//
// said is called when the hello is on its way: what follows it on the same connection comes to the far side together with it, once that has
// taken the certificate, and else to nobody.
func (d *dialler) greet(ctx context.Context, conn *quic.Conn, said func()) (instance, error) {
	ctx, cancel := context.WithTimeout(ctx, helloPatience)
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
	said()
	return readHello(st)
}
