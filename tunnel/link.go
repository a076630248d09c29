package tunnel

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"warren/tunnel/osnet"
)

// probes tell what size of packets was verified. *fit.Device does.
type probes interface {
	Grown() <-chan struct{}
	Most() int
}

// linked is the interface as the system knows it: its addresses, its routes and its MTU. The kernel may take its time with
// them (netlink waits for locks that the whole system shares, macOS has programs run), and a preshared key that came too late
// costs a handshake: so this has a goroutine of its own, beside that of the device.
type linked struct {
	// constant after newLinked
	name    string
	log     *slog.Logger
	link    osnet.Link
	probes  probes
	resized func()     // tells the device that the interface's MTU may be another
	over    chan error // of capacity 1: why the interface is no more

	// atomic
	trouble atomic.Pointer[string] // why the interface is not what it should be, in words; "": it is

	// owned by run
	config  osnet.Config // as last set
	auto    int          // MTU of the interface when none is configured
	no6     bool         // there is no IPv6
	mending mending
	last    string // what was mended last
}

func newLinked(name string, link osnet.Link, p probes, resized func(), log *slog.Logger) *linked {
	l := &linked{name: name, log: log, link: link, probes: p, resized: resized, over: make(chan error, 1), auto: DefaultMTU}
	l.trouble.Store(new(string))
	return l
}

// run does one call after the other, follows what was verified with the MTU, and puts right what others change, until ctx ends.
func (l *linked) run(ctx context.Context, calls <-chan call[linked]) {
	changes, err := l.link.Watch(ctx)
	if err != nil {
		l.log.Warn("interface not watched", "name", l.name, "error", err) // it is looked at from time to time
	}
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	look := time.NewTimer(time.Hour)
	defer look.Stop()
	for {
		if due := l.mending.due; !due.IsZero() {
			look.Reset(time.Until(due))
		}
		select {
		case c := <-calls:
			c.done <- c.do(l)
		case <-l.probes.Grown():
			l.grow()
		case <-changes:
			l.mending.stir(time.Now())
		case <-poll.C:
			l.mending.stir(time.Now())
		case <-look.C:
			if !l.mending.due.IsZero() {
				l.mend()
			}
		case <-ctx.Done():
			return
		}
	}
}

// set is Tunnel.SetLink.
func (l *linked) set(config osnet.Config) error {
	l.config = config
	err := l.without6(l.apply())
	l.judge(err)
	return err
}

// without6 takes out of an error that there is no IPv6, which is logged once.
func (l *linked) without6(err error) error {
	none := errors.Is(err, osnet.ErrNoIPv6)
	if none && !l.no6 {
		l.log.Warn("IPv6 is switched off on this system, the tunnel carries IPv4 only", "name", l.name)
	}
	l.no6 = none
	if none {
		return without(err, osnet.ErrNoIPv6)
	}
	return err
}

// apply has the kernel do what was last set.
func (l *linked) apply() error {
	config := l.config
	if config.MTU == 0 {
		config.MTU = l.auto
	}
	defer l.resized()
	return l.link.Set(config)
}

// grow makes the interface's MTU the largest size that was verified, if nobody has configured it and only jumbo frames can
// carry that.
func (l *linked) grow() {
	size := l.probes.Most()
	if l.config.MTU != 0 || size <= max(l.auto, ethernet) {
		return
	}
	l.auto = size
	if err := l.apply(); err != nil && !errors.Is(err, osnet.ErrNoIPv6) {
		l.log.Warn("jumbo frames not used", "name", l.name, "error", err)
		return
	}
	l.log.Info("jumbo frames", "name", l.name, "mtu", size)
}

// close leaves what is left to the kernel, which removes it together with the TUN device.
func (l *linked) close() { _ = l.link.Close() }

// without returns err less those of its joined errors that wrap target.
func without(err, target error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	var rest []error
	for _, e := range joined.Unwrap() {
		if !errors.Is(e, target) {
			rest = append(rest, e)
		}
	}
	return errors.Join(rest...)
}
