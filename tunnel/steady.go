package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"warren/tunnel/fit"
)

// steadyTUN hides from the device that the interface goes up and down. The device would close its UDP sockets
// with the interface, and those carry STUN and the control sessions too, which must outlive it.
type steadyTUN struct {
	tun.Device
	events chan tun.Event
	mtu    chan struct{} // of capacity 1: it may be another
}

// newSteadyTUN wraps dev. Its goroutine ends when dev is closed.
func newSteadyTUN(dev tun.Device) *steadyTUN {
	t := &steadyTUN{Device: dev, events: make(chan tun.Event), mtu: make(chan struct{}, 1)}
	go func() {
		defer close(t.events)
		for {
			select {
			case e, open := <-dev.Events():
				if !open {
					return
				}
				if e&tun.EventMTUUpdate == 0 {
					continue
				}
			case <-t.mtu:
			}
			t.events <- tun.EventMTUUpdate // the device reads until the channel is closed
		}
	}()
	return t
}

// resized has the device ask for the MTU anew.
func (t *steadyTUN) resized() {
	select {
	case t.mtu <- struct{}{}:
	default:
	}
}

// Events implements tun.Device.
func (t *steadyTUN) Events() <-chan tun.Event { return t.events }

// enduring is a TUN device whose reads end only with it. The device ends at any other error of a read: it would with one packet that says
// wrong things of its own segments, which whoever may open a raw socket can send, and on macOS with one message of the system that was lost.
type enduring struct {
	tun.Device
	complaints *complaints
}

// errorPause is how long a device that cannot be read is left alone; a bad packet is passed over at once.
const errorPause = 100 * time.Millisecond

// Read implements tun.Device.
func (e *enduring) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for {
		n, err := e.Device.Read(bufs, sizes, offset)
		switch {
		case err == nil, n > 0, errors.Is(err, os.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, tun.ErrTooManySegments):
			return n, err
		}
		e.complaints.errorf("read TUN device: %v", err)
		if _, system := errors.AsType[*os.PathError](err); system {
			time.Sleep(errorPause)
		}
	}
}

// socket is a device's, which can be told of probes of the path MTU.
type socket interface {
	conn.Bind
	fit.Sockets
}

// steadyBind keeps the port when a change of it fails. The device closes the old sockets before it opens new ones, and would
// be left with none, whether the change came from us or from wg(8).
type steadyBind struct {
	socket
	log *slog.Logger

	mu      sync.Mutex
	port    uint16 // the last one that opened
	refused error  // why the last one asked for did not open; nil if it did
}

// Open implements conn.Bind.
func (b *steadyBind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	functions, got, err := b.socket.Open(port)
	old := b.Port()
	if err == nil {
		b.note(got, nil)
		return functions, got, nil
	}
	if old == 0 || old == port {
		return nil, 0, err
	}
	functions, got, err2 := b.socket.Open(old)
	if err2 != nil {
		return nil, 0, errors.Join(err, err2)
	}
	b.note(got, fmt.Errorf("open UDP port %d, port %d is kept: %w", port, got, err))
	b.log.Warn("port kept", "wanted", port, "port", got, "error", err)
	return functions, got, nil
}

func (b *steadyBind) note(port uint16, refused error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.port, b.refused = port, refused
}

// Port returns the UDP port that is open, 0 before the first.
func (b *steadyBind) Port() uint16 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.port
}

// refusal returns why the last change of port failed, nil if it did not.
func (b *steadyBind) refusal() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused
}

// complaintInterval is how often the same complaint of the device is logged: some come with every packet.
const complaintInterval = time.Minute

// complaints logs the device's errors, each kind at most once in complaintInterval.
type complaints struct {
	log *slog.Logger
	now func() time.Time

	mu    sync.Mutex
	kinds map[string]*complaint // by format, of which the device has some forty
}

type complaint struct {
	last    time.Time
	skipped int
}

func newComplaints(log *slog.Logger) *complaints {
	return &complaints{log: log, now: time.Now, kinds: make(map[string]*complaint)}
}

// deviceLogger turns the device's two log functions into slog's.
func deviceLogger(log *slog.Logger) *device.Logger {
	c := newComplaints(log)
	logger := &device.Logger{Verbosef: device.DiscardLogf, Errorf: c.errorf}
	if log.Enabled(context.Background(), slog.LevelDebug) {
		logger.Verbosef = func(format string, args ...any) {
			log.Debug("device", "text", fmt.Sprintf(format, args...))
		}
	}
	return logger
}

func (c *complaints) errorf(format string, args ...any) {
	if skipped, due := c.due(format); due {
		c.log.Warn("device complains", "text", fmt.Sprintf(format, args...), "skipped", skipped)
	}
}

// due counts a complaint and reports whether it is time to log one of its kind, and how many were not since the last.
func (c *complaints) due(format string) (skipped int, due bool) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.kinds[format]
	if k == nil {
		k = &complaint{}
		c.kinds[format] = k
	}
	if !k.last.IsZero() && now.Sub(k.last) < complaintInterval {
		k.skipped++
		return 0, false
	}
	skipped, k.last, k.skipped = k.skipped, now, 0
	return skipped, true
}
