// Package dns64 finds out whether this host reaches IPv4 by a NAT64 only, and by which prefix: it has no IPv4 of its own, and its router
// says (RFC 8781, on Linux), or else its resolver (RFC 7050; the name is asked for as RFC 8880 wants it, by the system's resolver). A host with IPv4 of its own, be it
// by a translator in the system (464XLAT), uses that.
//
// The prefix goes into a nat64.Way, which the sockets read. What else a change means is for whoever hears of it.
//
// All methods may be called concurrently; Run is called once.
package dns64

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"warren/nat/nat64"
)

const (
	// lookEvery is when a host without IPv4 asks again, and one with IPv4 looks whether it still has it: what a notice of a change
	// missed, this mends.
	lookEvery = time.Minute
	// firstRetry is when a resolver is asked again that gave no answer, doubled each time up to lookEvery.
	firstRetry = time.Second
	// timeout bounds one question.
	timeout = 5 * time.Second
)

// DNS looks names up; a *net.Resolver does.
type DNS interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options of a Finder.
type Options struct {
	Way    *nat64.Way // what is found; needed
	DNS    DNS        // nil: the system's
	Logger *slog.Logger
	// Advertised hands on the options of router advertisements until ctx ends, in a goroutine of its own, each with the index of the link
	// and its header of two bytes; nil: nobody hears them.
	Advertised func(ctx context.Context, each func(link int, option []byte)) error
}

// Finder keeps a Way up to date. See New.
type Finder struct {
	// constant after New
	way     *nat64.Way
	dns     DNS
	log     *slog.Logger
	has4    func() bool                                                         // for tests
	adverts func(ctx context.Context, each func(link int, option []byte)) error // nil: not heard
	solicit func()                                                              // for tests
	changed chan struct{}
	events  chan struct{}

	told told
}

// New returns a finder that does nothing until Look or Run.
func New(o Options) *Finder {
	if o.DNS == nil {
		o.DNS = net.DefaultResolver
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Finder{
		way: o.Way, dns: o.DNS, log: o.Logger.With("part", "dns64"), has4: has4, adverts: o.Advertised, solicit: solicit,
		changed: make(chan struct{}, 1), events: make(chan struct{}, 1),
	}
}

// Changed says that the network may be another one. It never blocks.
func (f *Finder) Changed() {
	f.told.doubt(time.Now())
	notify(f.changed)
}

// Events returns a channel that gets a value, coalesced, when the prefix is another one than before.
func (f *Finder) Events() <-chan struct{} { return f.events }

// Run keeps the way up to date until ctx ends; then it returns nil.
func (f *Finder) Run(ctx context.Context) error {
	f.listen(ctx)
	retry := firstRetry
	for {
		if f.adverts != nil && !f.has4() && !f.told.known(time.Now()).IsValid() {
			f.solicit() // the answer comes as a change
		}
		wait := lookEvery
		if known := f.Look(ctx); known {
			retry = firstRetry
		} else {
			wait, retry = retry, min(2*retry, lookEvery)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-f.changed:
			retry = firstRetry
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// Look finds out once, within five seconds. It reports false when the resolver gave no answer: then the way stays as it was.
func (f *Finder) Look(ctx context.Context) (known bool) {
	if f.has4() {
		f.set(nat64.Prefix{})
		return true
	}
	if p := f.told.known(time.Now()); p.IsValid() {
		f.set(p)
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answers, err := f.dns.LookupNetIP(ctx, "ip6", nat64.Name)
	if none, ok := errors.AsType[*net.DNSError](err); err != nil && !(ok && none.IsNotFound) {
		return false
	}
	p, _ := nat64.Find(answers)
	f.set(p)
	return true
}

// Once finds out for a program that does not Run: the resolver and the routers are asked, and these have a second to answer where the resolver
// knows nothing.
func (f *Finder) Once(ctx context.Context) {
	if f.has4() {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.listen(ctx)
	if f.adverts == nil {
		f.Look(ctx)
		return
	}
	f.solicit()
	deadline := time.After(advertTime)
	f.Look(ctx)
	for !f.way.Prefix().IsValid() {
		select {
		case <-f.changed:
			f.Look(ctx)
		case <-deadline:
			return
		case <-ctx.Done():
			return
		}
	}
}

// listen takes what routers advertise, until ctx ends.
func (f *Finder) listen(ctx context.Context) {
	if f.adverts == nil {
		return
	}
	err := f.adverts(ctx, func(link int, option []byte) {
		p, life, ok := nat64.Advertised(option)
		if ok && f.told.take(time.Now(), link, p, life) {
			notify(f.changed)
		}
	})
	if err != nil {
		f.log.Debug("router advertisements not heard", "error", err)
	}
}

func (f *Finder) set(p nat64.Prefix) {
	if !f.way.Set(p) {
		return
	}
	if p.IsValid() {
		f.log.Info("IPv4 by NAT64", "address", p.String())
	} else {
		f.log.Info("no NAT64 any more")
	}
	notify(f.events)
}

// has4 reports whether the system has a way to the IPv4 Internet, from an address that can be answered there. Nothing is sent.
func has4() bool {
	c, err := net.Dial("udp4", netip.AddrPortFrom(nat64.WellKnown[0], 9).String())
	if err != nil {
		return false
	}
	defer c.Close()
	from, ok := c.LocalAddr().(*net.UDPAddr)
	return ok && !from.IP.IsLinkLocalUnicast() // a LAN without DHCP may have a default route that leads nowhere (RFC 3927)
}

// notify leaves a note in a channel of capacity 1.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Packets is a connection that reaches IPv4 by the way, if it has no route of its own. Its addresses are those that everybody else has.
type Packets struct {
	net.PacketConn
	Way *nat64.Way
}

// WriteTo implements net.PacketConn.
func (c Packets) WriteTo(p []byte, to net.Addr) (int, error) {
	udp, ok := to.(*net.UDPAddr)
	if !ok {
		return c.PacketConn.WriteTo(p, to)
	}
	if via, ok := c.Way.Out(udp.AddrPort()); ok {
		return c.PacketConn.WriteTo(p, net.UDPAddrFromAddrPort(via))
	}
	n, err := c.PacketConn.WriteTo(p, to)
	if err != nil && nat64.NoRoute(err) {
		if via, ok := c.Way.Fallback(udp.AddrPort()); ok {
			return c.PacketConn.WriteTo(p, net.UDPAddrFromAddrPort(via))
		}
	}
	return n, err
}

// ReadFrom implements net.PacketConn.
func (c Packets) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(p)
	if udp, ok := from.(*net.UDPAddr); ok && c.Way.Prefix().IsValid() {
		from = net.UDPAddrFromAddrPort(c.Way.In(udp.AddrPort()))
	}
	return n, from, err
}
