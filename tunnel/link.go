package tunnel

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"

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
	name   string
	log    *slog.Logger
	link   osnet.Link
	probes probes

	// atomic
	facts atomic.Pointer[linkFacts]

	// owned by run
	config osnet.Config // as last set
	auto   int          // MTU of the interface when none is configured
	said6  bool         // that there is no IPv6
}

// linkFacts are what the sizes of packets have to know of the link that was last asked for.
type linkFacts struct {
	self netip.Addr // this node's IPv6 address inside the tunnel
	mtu  int        // as configured; 0: it is not
}

func newLinked(name string, link osnet.Link, p probes, log *slog.Logger) *linked {
	l := &linked{name: name, log: log, link: link, probes: p, auto: DefaultMTU}
	l.facts.Store(new(linkFacts))
	return l
}

// run does one call after the other, and follows what was verified with the MTU, until ctx ends.
func (l *linked) run(ctx context.Context, calls <-chan call[linked]) {
	for {
		select {
		case c := <-calls:
			c.done <- c.do(l)
		case <-l.probes.Grown():
			l.grow()
		case <-ctx.Done():
			return
		}
	}
}

// set is Tunnel.SetLink.
func (l *linked) set(config osnet.Config) error {
	l.config = config
	facts := linkFacts{mtu: config.MTU}
	for _, p := range config.Addrs {
		if p.Addr().Is6() && !facts.self.IsValid() {
			facts.self = p.Addr()
		}
	}
	l.facts.Store(&facts)
	err := l.apply()
	if !errors.Is(err, osnet.ErrNoIPv6) {
		return err
	}
	if !l.said6 {
		l.said6 = true
		l.log.Warn("IPv6 is switched off on this system, the tunnel carries IPv4 only", "name", l.name)
	}
	return without(err, osnet.ErrNoIPv6)
}

// apply has the kernel do what was last set.
func (l *linked) apply() error {
	config := l.config
	if config.MTU == 0 {
		config.MTU = l.auto
	}
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
