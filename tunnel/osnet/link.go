package osnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// state is what the kernel says about an interface. Addresses leave out link-local ones, routes leave out those that
// the kernel has made by itself.
type state struct {
	addrs  []netip.Prefix
	routes []netip.Prefix
	mtu    int
	up     bool
	ipv6   bool // IPv6 addresses can be set
	off6   bool // IPv6 is switched off on this interface, and not on all of them
	name   string
	master string // the interface that this one was put under: a bridge, a bond, a VRF
	dead   bool   // its carrier is off, so that nothing leaves
	moved  bool   // it is in another network namespace, and nothing else is known
}

// verb says what a step does.
type verb uint8

const (
	fetch verb = iota
	rename
	release
	revive
	enable6
	setMTU
	removeRoute
	removeAddr
	addAddr
	bringUp
	addRoute
	bringDown
)

// verbNames are the words of each verb in errors.
var verbNames = [...]string{"fetch back", "rename to", "take out from under", "switch on the carrier", "switch on IPv6", "set MTU", "remove route", "remove address", "add address", "bring up", "add route", "bring down"}

// step is one change to an interface.
type step struct {
	verb   verb
	prefix netip.Prefix // of the route and address verbs
	mtu    int          // of setMTU
	name   string       // of rename and release: of this interface, of the other one
}

func (s step) String() string {
	switch {
	case s.prefix.IsValid():
		return verbNames[s.verb] + " " + s.prefix.String()
	case s.verb == setMTU:
		return fmt.Sprintf("%s %d", verbNames[s.verb], s.mtu)
	case s.name != "":
		return verbNames[s.verb] + " " + s.name
	}
	return verbNames[s.verb]
}

// mends says in words what a step mends that others have done to an interface.
func (s step) mends(have state) string {
	switch s.verb {
	case fetch:
		return ErrMoved.Error()
	case rename:
		return "renamed to " + have.name
	case release:
		return "put under " + s.name
	case revive:
		return "carrier off"
	case enable6:
		return "IPv6 off"
	case setMTU:
		return fmt.Sprintf("MTU %d", have.mtu)
	case addAddr:
		return "address " + s.prefix.String() + " gone"
	case bringUp:
		return "down"
	case addRoute:
		return "route " + s.prefix.String() + " gone"
	}
	return s.String()
}

// system is the platform's side of one interface.
type system interface {
	read() (state, error)
	apply(step) error
	watch(context.Context) (<-chan struct{}, error)
	elsewhere(within []netip.Prefix) ([]Route, error)
	close() error
}

// passes bounds how often a Set looks again. Two are the rule (change, look). A kernel that drops secondary addresses
// together with their primary makes it three, and an interface that has to be fetched, or to have IPv6 again, one more.
const passes = 4

// link implements Link over a system.
type link struct {
	name   string
	sys    system
	addrs  map[netip.Prefix]bool // ours, and so ours to remove
	routes map[netip.Prefix]bool // likewise
	want   *Config               // of the last Set, clean; nil: there was none
	failed map[step]bool         // of the last Set or Mend
	had6   bool                  // IPv6 addresses could be set once
}

// newLink adopts what stands on the interface now: it is new, or was left by a run that was killed.
func newLink(name string, sys system) (*link, error) {
	have, err := sys.read()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open interface %s: %w", name, err), sys.close())
	}
	l := &link{name: name, sys: sys, addrs: make(map[netip.Prefix]bool), routes: make(map[netip.Prefix]bool), had6: have.ipv6}
	l.adopt(have.addrs, have.routes)
	return l, nil
}

func (l *link) adopt(addrs, routes []netip.Prefix) {
	for _, p := range addrs {
		l.addrs[p] = true
	}
	for _, p := range routes {
		l.routes[p] = true
	}
}

// Set implements Link.
func (l *link) Set(config Config) error {
	want, err := config.Clean()
	if err != nil {
		return fmt.Errorf("set interface %s: %w", l.name, err)
	}
	l.want = &want
	_, err = l.converge()
	return err
}

// Mend implements Link.
func (l *link) Mend() (lost []string, err error) {
	if l.want == nil {
		return nil, nil
	}
	return l.converge()
}

// converge makes the interface what is wanted, and returns in words what it has done, less what could not be done the last time either.
func (l *link) converge() (did []string, err error) {
	var without6 error
	var errs []error
	var last []step
	before, failed := l.failed, make(map[step]bool)
	for range passes {
		have, err := l.sys.read()
		if err != nil {
			return did, fmt.Errorf("read interface %s: %w", l.name, err)
		}
		want := l.want.clone()
		l.had6, without6 = l.had6 || have.ipv6, nil
		steps := l.restore(have)
		if !have.moved {
			// Where it is about to be switched on, it is set in the next pass.
			if !have.ipv6 && want.Drop6() {
				without6 = fmt.Errorf("set interface %s: %w", l.name, ErrNoIPv6)
			}
			steps = append(steps, l.plan(have, want)...)
		}
		if slices.Equal(steps, last) {
			break // done, or what is left was just refused
		}
		for _, s := range steps {
			if text := s.mends(have); !before[s] && !slices.Contains(did, text) {
				did = append(did, text)
			}
		}
		errs, last = l.apply(steps, failed), steps
		if have.moved && len(errs) > 0 {
			break // nothing can be done with it where it is
		}
	}
	l.failed = failed
	return did, errors.Join(append(errs, without6)...)
}

func (c *Config) clone() Config {
	out := *c
	out.Addrs, out.Routes = slices.Clone(c.Addrs), slices.Clone(c.Routes)
	return out
}

// restore returns the steps that make the interface this one again: here, with its name, under no other, with a carrier and with IPv6.
// IPv6 that was never there is left off, as it is on all interfaces of many containers, and so is what was switched off for the whole machine.
func (l *link) restore(have state) (steps []step) {
	if have.moved {
		return []step{{verb: fetch}}
	}
	if have.name != "" && have.name != l.name {
		steps = append(steps, step{verb: rename, name: l.name})
	}
	if have.master != "" {
		steps = append(steps, step{verb: release, name: have.master})
	}
	if have.dead {
		steps = append(steps, step{verb: revive})
	}
	if l.had6 && have.off6 {
		steps = append(steps, step{verb: enable6})
	}
	return steps
}

// Drop6 takes all IPv6 out of c and reports whether there was any.
func (c *Config) Drop6() bool {
	before := len(c.Addrs) + len(c.Routes)
	c.Addrs = slices.DeleteFunc(c.Addrs, is6)
	c.Routes = slices.DeleteFunc(c.Routes, is6)
	return len(c.Addrs)+len(c.Routes) < before
}

// Close implements Link.
func (l *link) Close() error {
	have, err := l.sys.read()
	if err != nil {
		return l.sys.close() // the interface is gone, and all that was on it
	}
	var errs []error
	if !have.moved {
		errs = l.apply(l.plan(have, Config{Up: have.up}), make(map[step]bool))
	}
	if err := l.sys.close(); err != nil {
		errs = append(errs, fmt.Errorf("close interface %s: %w", l.name, err))
	}
	return errors.Join(errs...)
}

// Watch implements Link.
func (l *link) Watch(ctx context.Context) (<-chan struct{}, error) { return l.sys.watch(ctx) }

// Elsewhere implements Link.
func (l *link) Elsewhere(within ...netip.Prefix) ([]Route, error) { return l.sys.elsewhere(within) }

// apply does the steps in order, going on after those that fail, and notes which have.
func (l *link) apply(steps []step, failed map[step]bool) (errs []error) {
	for _, s := range steps {
		if err := l.sys.apply(s); err != nil {
			failed[s] = true
			errs = append(errs, fmt.Errorf("%v on interface %s: %w", s, l.name, err))
			continue
		}
		switch s.verb {
		case removeAddr:
			delete(l.addrs, s.prefix)
		case removeRoute:
			delete(l.routes, s.prefix)
		case addAddr:
			l.addrs[s.prefix] = true
		case addRoute:
			l.routes[s.prefix] = true
		}
	}
	return errs
}

// plan returns the steps from have to want, in the order that works: the MTU before IPv6 addresses; old addresses
// after new ones, because with its last address an interface loses its routes (but before, if only their
// length differs); addresses and up before routes.
func (l *link) plan(have state, want Config) []step {
	if !want.Up {
		want.Routes = nil
	}
	var steps []step
	if want.MTU != 0 && want.MTU != have.mtu {
		steps = append(steps, step{verb: setMTU, mtu: want.MTU})
	}
	steps = appendStale(steps, removeRoute, have.routes, want.Routes, l.routes)
	var before, after []netip.Prefix
	for _, p := range have.addrs {
		if slices.ContainsFunc(want.Addrs, func(w netip.Prefix) bool { return w.Addr() == p.Addr() }) {
			before = append(before, p)
		} else {
			after = append(after, p)
		}
	}
	steps = appendStale(steps, removeAddr, before, want.Addrs, l.addrs)
	steps = appendMissing(steps, addAddr, have.addrs, want.Addrs, l.addrs)
	steps = appendStale(steps, removeAddr, after, want.Addrs, l.addrs)
	switch {
	case want.Up && !have.up:
		steps = append(steps, step{verb: bringUp})
	case !want.Up && have.up:
		steps = append(steps, step{verb: bringDown})
	}
	return appendMissing(steps, addRoute, have.routes, want.Routes, l.routes)
}

// appendStale appends the removal of what is there, ours and not wanted.
func appendStale(steps []step, v verb, have, want []netip.Prefix, ours map[netip.Prefix]bool) []step {
	for _, p := range have {
		if ours[p] && !slices.Contains(want, p) {
			steps = append(steps, step{verb: v, prefix: p})
		}
	}
	return steps
}

// appendMissing appends the addition of what is wanted and not there. What is wanted and there is ours from now on.
func appendMissing(steps []step, v verb, have, want []netip.Prefix, ours map[netip.Prefix]bool) []step {
	for _, p := range want {
		if slices.Contains(have, p) {
			ours[p] = true
			continue
		}
		steps = append(steps, step{verb: v, prefix: p})
	}
	return steps
}
