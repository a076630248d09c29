package bind

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

const (
	stunQueue   = 256
	letterQueue = 64  // 32 letters
	quicQueue   = 512 // about half a megabyte: one congestion window of a long path

	// maxLanePacket is larger than any STUN or QUIC packet that fits an Ethernet frame.
	maxLanePacket = 2048
)

// lane is one protocol's share of the sockets as a net.PacketConn. Received packets wait in a bounded queue that
// drops the oldest. It outlives closing and opening of the bind: sockets that are away look like a network that
// loses packets, since callers such as quic-go take any error for the end.
//
// Beside net.PacketConn it has the ReadFromUDPAddrPort and WriteToUDPAddrPort of net.UDPConn, which do not allocate.
type lane struct {
	// constant after newLane
	bind    *Bind
	full    Drop
	relayed bool // may send through relay channels
	ready   chan struct{}
	closed  chan struct{}
	writers sync.Pool // of *laneWrite

	readDeadline  deadline
	writeDeadline atomic.Int64 // Unix nanoseconds; 0: none

	// guarded by mu
	mu    sync.Mutex
	ring  []lanePacket // buffers stay with their slots
	head  int
	count int
	ended bool
}

type lanePacket struct {
	buf  []byte
	from netip.AddrPort
}

// laneWrite is what the sockets need to send one packet.
type laneWrite struct {
	bufs [1][]byte
	ep   conn.StdNetEndpoint
}

func newLane(b *Bind, size int, full Drop, relayed bool) *lane {
	return &lane{
		bind: b, full: full, relayed: relayed,
		ready:        make(chan struct{}, 1),
		closed:       make(chan struct{}),
		ring:         make([]lanePacket, size),
		writers:      sync.Pool{New: func() any { return new(laneWrite) }},
		readDeadline: deadline{expired: make(chan struct{})},
	}
}

// push copies p into the queue and never waits.
func (l *lane) push(p []byte, from netip.AddrPort) {
	if len(p) > maxLanePacket {
		l.bind.drops.add(DropTooLarge, 1)
		return
	}
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return
	}
	if l.count == len(l.ring) {
		l.head = (l.head + 1) % len(l.ring)
		l.count--
		l.bind.drops.add(l.full, 1)
	}
	slot := &l.ring[(l.head+l.count)%len(l.ring)]
	slot.buf = append(slot.buf[:0], p...)
	slot.from = from
	l.count++
	l.mu.Unlock()
	l.signal()
}

func (l *lane) signal() {
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

// pop takes the oldest packet out of the queue.
func (l *lane) pop(p []byte) (n int, from netip.AddrPort, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count == 0 {
		return 0, netip.AddrPort{}, false
	}
	slot := &l.ring[l.head]
	n, from = copy(p, slot.buf), slot.from
	l.head = (l.head + 1) % len(l.ring)
	l.count--
	if l.count > 0 {
		l.signal() // another reader may be waiting
	}
	return n, from, true
}

// ReadFromUDPAddrPort is ReadFrom without the allocation.
func (l *lane) ReadFromUDPAddrPort(p []byte) (int, netip.AddrPort, error) {
	for {
		expired := l.readDeadline.wait()
		select {
		case <-l.closed:
			return 0, netip.AddrPort{}, l.fail("read", net.ErrClosed)
		case <-expired:
			return 0, netip.AddrPort{}, l.fail("read", os.ErrDeadlineExceeded)
		default:
		}
		if n, from, ok := l.pop(p); ok {
			return n, from, nil
		}
		select {
		case <-l.ready:
		case <-l.closed:
		case <-expired:
		}
	}
}

// ReadFrom reads one packet; what does not fit p is lost. The address is a *net.UDPAddr of the caller's own.
func (l *lane) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := l.ReadFromUDPAddrPort(p)
	if err != nil {
		return 0, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// WriteTo sends one packet. See WriteToUDPAddrPort.
func (l *lane) WriteTo(p []byte, addr net.Addr) (int, error) {
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, l.fail("write", syscall.EAFNOSUPPORT)
	}
	return l.WriteToUDPAddrPort(p, udp.AddrPort())
}

// WriteToUDPAddrPort sends one packet to an underlay address, by a stream or, in the STUN lane, through a relay channel. It returns
// an error if the lane is closed, the deadline has passed, or the packet is too large; that the system could
// not send it now is only counted.
func (l *lane) WriteToUDPAddrPort(p []byte, addr netip.AddrPort) (int, error) {
	select {
	case <-l.closed:
		return 0, l.fail("write", net.ErrClosed)
	default:
	}
	if at := l.writeDeadline.Load(); at != 0 && nanos() >= at {
		return 0, l.fail("write", os.ErrDeadlineExceeded)
	}
	if !addr.IsValid() {
		return 0, l.fail("write", syscall.EDESTADDRREQ)
	}
	addr = normal(addr)
	w := l.writers.Get().(*laneWrite)
	w.bufs[0], w.ep.AddrPort = p, addr
	var err error
	switch {
	case !IsVirtual(addr.Addr()):
		err = l.bind.inner.Send(w.bufs[:], &w.ep)
	case IsStream(addr.Addr()):
		if s := l.bind.streams.byVirtual(addr); s != nil {
			s.send(w.bufs[:])
		} else {
			l.bind.drops.add(DropStreamGone, 1)
		}
	case l.relayed:
		err = l.bind.out.sendChannel(l.bind.channels.byVirtual(addr), w.bufs[:])
	default:
		err = syscall.ENETUNREACH
	}
	w.bufs[0] = nil
	l.writers.Put(w)
	if err = retried(err); err != nil {
		if errors.Is(err, syscall.EMSGSIZE) {
			return 0, l.fail("write", err)
		}
		l.bind.drops.add(DropSendFailed, 1)
	}
	return len(p), nil
}

func (l *lane) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: l.LocalAddr(), Err: err}
}

// Close ends this lane for good, not the bind.
func (l *lane) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return l.fail("close", net.ErrClosed)
	}
	l.ended = true
	l.count = 0
	close(l.closed)
	return nil
}

// LocalAddr returns the unspecified address with the port of the sockets as it is now.
func (l *lane) LocalAddr() net.Addr {
	return &net.UDPAddr{IP: net.IPv6unspecified, Port: int(l.bind.Port())}
}

// SetDeadline sets both deadlines.
func (l *lane) SetDeadline(t time.Time) error {
	l.readDeadline.set(t)
	return l.SetWriteDeadline(t)
}

// SetReadDeadline also wakes those that are reading.
func (l *lane) SetReadDeadline(t time.Time) error {
	l.readDeadline.set(t)
	return nil
}

// SetWriteDeadline makes writes after t fail; they never wait.
func (l *lane) SetWriteDeadline(t time.Time) error {
	nano := int64(0)
	if !t.IsZero() {
		nano = max(nanosOf(t), 1)
	}
	l.writeDeadline.Store(nano)
	return nil
}

// SetReadBuffer does nothing. It is there because quic-go warns about sockets without it.
func (l *lane) SetReadBuffer(int) error { return nil }

// SetWriteBuffer does nothing. It is there because quic-go warns about sockets without it.
func (l *lane) SetWriteBuffer(int) error { return nil }

// deadline is a channel that closes at a time that may be moved.
type deadline struct {
	mu      sync.Mutex
	timer   *time.Timer
	serial  int // of the last set: a timer that fired too late to be stopped must not close a newer channel
	expired chan struct{}
}

// wait returns the channel that closes when the deadline passes. It stays the same until then.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.expired
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.serial++
	past := !t.IsZero() && !time.Now().Before(t)
	if d.isExpired() != past {
		if past {
			close(d.expired)
		} else {
			d.expired = make(chan struct{})
		}
	}
	if past || t.IsZero() {
		return
	}
	serial := d.serial
	d.timer = time.AfterFunc(time.Until(t), func() { d.expire(serial) })
}

func (d *deadline) expire(serial int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.serial == serial && !d.isExpired() {
		close(d.expired)
	}
}

// isExpired reports whether the channel is closed. The caller holds mu.
func (d *deadline) isExpired() bool {
	select {
	case <-d.expired:
		return true
	default:
		return false
	}
}
