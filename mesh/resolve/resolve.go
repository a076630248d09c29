// Package resolve turns names into addresses for a node that must not wait for DNS: the endpoints of static peers, and those at
// which this node is said to be reachable.
//
// It looks names up in the background, again and again, because dynamic addresses change; what an address is good for is
// known to its user.
//
// A Resolver's methods may be called concurrently, and before, during and after Run; none of them but Run waits.
package resolve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Timing.
const (
	// refreshEvery is when a name that was looked up is looked up again: dynamic names have a time to live of about a minute.
	refreshEvery = time.Minute
	// retryAfter is how long a name for which there is no answer is left alone.
	retryAfter = 20 * time.Second
	// timeout bounds one look-up: longer than a resolver's own retries.
	timeout = 10 * time.Second
)

// DNS looks names up. A *net.Resolver is one.
type DNS interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupPort(ctx context.Context, network, service string) (int, error)
}

// Options of a Resolver.
type Options struct {
	DNS DNS // nil: the system's
	// Plain makes an address one that everybody else has (a DNS64 writes IPv4 as IPv6); nil: they are as they are. It must not block.
	Plain  func(netip.AddrPort) netip.AddrPort
	Logger *slog.Logger // nil: none
}

// Resolver keeps the answers to names. See New.
type Resolver struct {
	// Constant after New.
	log     *slog.Logger
	dns     DNS
	plain   func(netip.AddrPort) netip.AddrPort
	poke    chan struct{} // capacity 1: wanted is another one
	changes chan struct{} // capacity 1
	results chan result

	// Owned by Run.
	names   map[string]*name
	looking sync.WaitGroup

	// Atomic. What they lead to is never changed.
	started atomic.Bool
	wanted  atomic.Pointer[[]string]
	answers atomic.Pointer[map[string]netip.AddrPort] // by host:port as written
}

// name is one that is looked after.
type name struct {
	due  time.Time // of the next look-up
	stop func()    // ends the look-up that is under way; nil: none is
}

// result is what came of a look-up.
type result struct {
	text string
	name *name // that it was made for: one that was taken away and given again is another
	addr netip.AddrPort
	err  error
}

// New allocates; nothing is looked up before Run.
func New(o Options) *Resolver {
	if o.DNS == nil {
		o.DNS = net.DefaultResolver
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Resolver{
		log: o.Logger.With("part", "resolve"), dns: o.DNS, poke: make(chan struct{}, 1), changes: make(chan struct{}, 1), results: make(chan result),
		names: make(map[string]*name),
	}
	if r.plain = o.Plain; r.plain == nil {
		r.plain = func(a netip.AddrPort) netip.AddrPort { return a }
	}
	r.wanted.Store(new([]string))
	r.answers.Store(&map[string]netip.AddrPort{})
	return r
}

// Set replaces the list of names, each as host:port. Those that are new are looked up at once, and the answers to those that
// are missing are forgotten. Addresses among them need no look-up. Repeating it changes nothing.
func (r *Resolver) Set(names []string) {
	var wanted []string
	for _, text := range names {
		if _, ok := parse(text); !ok {
			wanted = append(wanted, text)
		}
	}
	r.wanted.Store(&wanted)
	notify(r.poke)
}

// Answer returns the address known now of a name given to Set, or at once of what is an address itself. Of the addresses of a
// name it is the first. An answer that could not be had again is kept.
func (r *Resolver) Answer(name string) (netip.AddrPort, bool) {
	addr, ok := parse(name)
	if !ok {
		addr, ok = (*r.answers.Load())[name]
	}
	return r.plain(addr), ok
}

// Changes returns a channel that gets a value, coalesced, after an answer has become another one. It is never closed.
func (r *Resolver) Changes() <-chan struct{} { return r.changes }

// Run looks names up until ctx ends, and returns nil when no look-up is under way any more. It can be called once.
func (r *Resolver) Run(ctx context.Context) error {
	if r.started.Swap(true) {
		return errors.New("run resolver: called twice")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer r.looking.Wait()
	defer cancel()
	timer := time.NewTimer(refreshEvery)
	defer timer.Stop()
	for {
		r.follow()
		if wake := r.ask(ctx, time.Now()); wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(wake))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.poke:
		case <-timer.C:
		case result := <-r.results:
			r.take(result)
		}
	}
}

// follow makes the names those that are wanted.
func (r *Resolver) follow() {
	wanted := make(map[string]bool)
	for _, text := range *r.wanted.Load() {
		wanted[text] = true
		if r.names[text] == nil {
			r.names[text] = new(name)
		}
	}
	for text, n := range r.names {
		if wanted[text] {
			continue
		}
		if n.stop != nil {
			n.stop()
		}
		delete(r.names, text)
		r.publish(text, netip.AddrPort{})
	}
}

// ask starts the look-ups that are due and returns when the next one is; zero: none is, before one that is under way has ended.
func (r *Resolver) ask(ctx context.Context, now time.Time) (wake time.Time) {
	for text, n := range r.names {
		switch {
		case n.stop != nil:
			continue
		case now.Before(n.due):
			if wake.IsZero() || n.due.Before(wake) {
				wake = n.due
			}
			continue
		}
		n.due = now.Add(refreshEvery)
		ctx, stop := context.WithCancel(ctx)
		n.stop = stop
		r.looking.Go(func() {
			defer stop()
			addr, err := r.look(ctx, text)
			select {
			case r.results <- result{text, n, addr, err}:
			case <-ctx.Done():
			}
		})
	}
	return wake
}

// look asks DNS for one name.
func (r *Resolver) look(ctx context.Context, text string) (netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	host, service, err := net.SplitHostPort(text)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read %s: %w", text, err)
	}
	port, err := r.dns.LookupPort(ctx, "udp", service)
	if err != nil {
		return netip.AddrPort{}, err
	}
	addrs, err := r.dns.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if len(addrs) == 0 {
		return netip.AddrPort{}, fmt.Errorf("look up %s: no address", host)
	}
	return netip.AddrPortFrom(addrs[0].Unmap(), uint16(port)), nil
}

// take notes what came of a look-up.
func (r *Resolver) take(got result) {
	n := r.names[got.text]
	if n != got.name {
		return // not wanted any more
	}
	n.stop = nil
	if got.err == nil {
		r.publish(got.text, got.addr)
		return
	}
	r.log.Debug("name not resolved", "name", got.text, "error", got.err)
	if _, known := (*r.answers.Load())[got.text]; !known {
		n.due = time.Now().Add(retryAfter)
	}
}

// publish makes the answer to a name another one; zero: there is none.
func (r *Resolver) publish(text string, addr netip.AddrPort) {
	before := *r.answers.Load()
	if before[text] == addr {
		return
	}
	after := maps.Clone(before)
	if after[text] = addr; !addr.IsValid() {
		delete(after, text)
	}
	r.answers.Store(&after)
	if addr.IsValid() {
		notify(r.changes)
	}
}

// parse reads what is an address, and no name.
func parse(text string) (netip.AddrPort, bool) {
	addr, err := netip.ParseAddrPort(text)
	if err != nil {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), true
}

// notify leaves a note in a channel of capacity 1.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
