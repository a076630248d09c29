package osnet

import (
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
}

// verb says what a step does.
type verb uint8

const (
	setMTU verb = iota
	removeRoute
	removeAddr
	addAddr
	bringUp
	addRoute
	bringDown
)

// verbNames are the words of each verb in errors.
var verbNames = [...]string{"set MTU", "remove route", "remove address", "add address", "bring up", "add route", "bring down"}

// step is one change to an interface.
type step struct {
	verb   verb
	prefix netip.Prefix // of the route and address verbs
	mtu    int          // of setMTU
}

func (s step) String() string {
	switch {
	case s.prefix.IsValid():
		return verbNames[s.verb] + " " + s.prefix.String()
	case s.verb == setMTU:
		return fmt.Sprintf("%s %d", verbNames[s.verb], s.mtu)
	}
	return verbNames[s.verb]
}

// system is the platform's side of one interface.
type system interface {
	read() (state, error)
	apply(step) error
	close() error
}

// passes bounds how often a Set looks again. Two are the rule (change, look); a kernel that drops secondary addresses
// together with their primary makes it three.
const passes = 3

// link implements Link over a system.
type link struct {
	name   string
	sys    system
	addrs  map[netip.Prefix]bool // ours, and so ours to remove
	routes map[netip.Prefix]bool // likewise
}

// newLink adopts what stands on the interface now: it is new, or was left by a run that was killed.
func newLink(name string, sys system) (*link, error) {
	have, err := sys.read()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open interface %s: %w", name, err), sys.close())
	}
	l := &link{name: name, sys: sys, addrs: make(map[netip.Prefix]bool), routes: make(map[netip.Prefix]bool)}
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
	var without6 error
	var errs []error
	var last []step
	for range passes {
		have, err := l.sys.read()
		if err != nil {
			return fmt.Errorf("read interface %s: %w", l.name, err)
		}
		if !have.ipv6 && want.Drop6() {
			without6 = fmt.Errorf("set interface %s: %w", l.name, ErrNoIPv6)
		}
		steps := l.plan(have, want)
		if slices.Equal(steps, last) {
			break // done, or what is left was just refused
		}
		errs, last = l.apply(steps), steps
	}
	return errors.Join(append(errs, without6)...)
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
	errs := l.apply(l.plan(have, Config{Up: have.up}))
	if err := l.sys.close(); err != nil {
		errs = append(errs, fmt.Errorf("close interface %s: %w", l.name, err))
	}
	return errors.Join(errs...)
}

// apply does the steps in order, going on after those that fail.
func (l *link) apply(steps []step) (errs []error) {
	for _, s := range steps {
		if err := l.sys.apply(s); err != nil {
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
