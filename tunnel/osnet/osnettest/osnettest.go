// Package osnettest has the in-memory twin of package osnet for tests: interfaces that are maps, on a machine that can
// be told to have no IPv6 or to refuse routes.
//
// It leaves timing and the kernel's own rules to the tests of osnet itself, which run in a network namespace (see
// InNamespace, which tests of other packages may use for theirs).
//
// A Machine and its Links may be used by any goroutine.
package osnettest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"

	"warren/tunnel/osnet"
)

// Machine is a set of interfaces.
type Machine struct {
	mu     sync.Mutex
	no6    bool
	taken  map[netip.Prefix]bool
	links  map[string]*link
	routes []osnet.Route
	writes int
}

// New returns a machine without interfaces; Open makes them.
func New() *Machine {
	return &Machine{taken: make(map[netip.Prefix]bool), links: make(map[string]*link)}
}

// Without6 switches IPv6 off.
func (m *Machine) Without6() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.no6 = true
}

// Take has another interface own a route, which Links are refused from then on with os.ErrExist.
func (m *Machine) Take(route netip.Prefix) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.taken[route.Masked()] = true
}

// Reach has other interfaces lead to these networks from now on.
func (m *Machine) Reach(routes ...osnet.Route) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.routes = routes
}

// Routes is osnet.Routes of this machine, without what its Links lead to, and implements tunnel.Links.
func (m *Machine) Routes(except ...string) ([]osnet.Route, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(m.routes), func(r osnet.Route) bool { return slices.Contains(except, r.Interface) }), nil
}

// Writes counts the Sets that changed something.
func (m *Machine) Writes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes
}

// Config returns what the interface has now, sorted; false when it is not open.
func (m *Machine) Config(name string) (osnet.Config, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.links[name]
	if !ok {
		return osnet.Config{}, false
	}
	return l.have, true
}

// Open is osnet.Open of this machine, and implements tunnel.Links.
func (m *Machine) Open(name string) (osnet.Link, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.links[name] != nil {
		return nil, fmt.Errorf("open interface %s: already open in this test", name)
	}
	l := &link{machine: m, name: name, have: osnet.Config{MTU: 1500}}
	m.links[name] = l
	return l, nil
}

// link implements osnet.Link.
type link struct {
	machine *Machine
	name    string
	have    osnet.Config // guarded by machine.mu
}

// Set implements osnet.Link.
func (l *link) Set(config osnet.Config) error {
	want, err := config.Clean()
	if err != nil {
		return fmt.Errorf("set interface %s: %w", l.name, err)
	}
	l.machine.mu.Lock()
	defer l.machine.mu.Unlock()
	if l.machine.links[l.name] != l {
		return fmt.Errorf("read interface %s: %w", l.name, os.ErrNotExist)
	}
	var errs []error
	if l.machine.no6 && want.Drop6() {
		errs = append(errs, fmt.Errorf("set interface %s: %w", l.name, osnet.ErrNoIPv6))
	}
	if !want.Up {
		want.Routes = nil
	}
	want.Routes = slices.DeleteFunc(want.Routes, func(p netip.Prefix) bool {
		if l.machine.taken[p] {
			errs = append(errs, fmt.Errorf("add route %v on interface %s: %w", p, l.name, os.ErrExist))
		}
		return l.machine.taken[p]
	})
	if want.MTU == 0 {
		want.MTU = l.have.MTU
	}
	if !equal(want, l.have) {
		l.machine.writes++
	}
	l.have = want
	return errors.Join(errs...)
}

func equal(a, b osnet.Config) bool {
	return a.MTU == b.MTU && a.Up == b.Up && slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.Routes, b.Routes)
}

// Close implements osnet.Link.
func (l *link) Close() error {
	l.machine.mu.Lock()
	defer l.machine.mu.Unlock()
	delete(l.machine.links, l.name)
	return nil
}
