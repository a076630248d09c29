// Package osnettest has the in-memory twin of package osnet for tests: interfaces that are maps, on a machine that can
// be told to have no IPv6 or to refuse routes.
//
// It leaves timing and the kernel's own rules to the tests of osnet itself, which run in a network namespace (see
// InNamespace, which tests of other packages may use for theirs).
//
// A Machine and its Links may be used by any goroutine.
package osnettest

import (
	"context"
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
	deaf   bool
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

// Disturb has somebody else change what an interface has. Its Link is told.
func (m *Machine) Disturb(name string, change func(have *osnet.Config)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.links[name]; l != nil {
		change(&l.have)
		l.tell()
	}
}

// Remove has somebody else remove an interface. Its Link is told.
func (m *Machine) Remove(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.links[name]; l != nil {
		delete(m.links, name)
		l.tell()
	}
}

// Deaf has Watch tell of nothing from now on, as a system does that gives no notice.
func (m *Machine) Deaf() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deaf = true
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

// Open is osnet.Open of this machine, and implements tunnel.Links. The file is not used.
func (m *Machine) Open(name string, _ *os.File) (osnet.Link, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.links[name] != nil {
		return nil, fmt.Errorf("open interface %s: already open in this test", name)
	}
	l := &link{machine: m, name: name, have: osnet.Config{MTU: 1500}, changes: make(chan struct{}, 1)}
	m.links[name] = l
	return l, nil
}

// link implements osnet.Link.
type link struct {
	machine *Machine
	name    string
	changes chan struct{} // of capacity 1

	// guarded by machine.mu
	have osnet.Config
	want *osnet.Config // of the last Set
	// refused is what it could not have then.
	refused []netip.Prefix
}

// tell is called with machine.mu held.
func (l *link) tell() {
	if l.machine.deaf {
		return
	}
	select {
	case l.changes <- struct{}{}:
	default:
	}
}

// Watch implements osnet.Link.
func (l *link) Watch(context.Context) (<-chan struct{}, error) { return l.changes, nil }

// Elsewhere implements osnet.Link.
func (l *link) Elsewhere(within ...netip.Prefix) ([]osnet.Route, error) {
	l.machine.mu.Lock()
	defer l.machine.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.machine.routes), func(r osnet.Route) bool {
		return r.Interface == l.name || !slices.ContainsFunc(within, r.Prefix.Overlaps)
	}), nil
}

// Mend implements osnet.Link.
func (l *link) Mend() (lost []string, err error) {
	l.machine.mu.Lock()
	want, have, refused := l.want, l.have, l.refused
	l.machine.mu.Unlock()
	if want == nil {
		return nil, nil
	}
	missing := func(what string, want, have []netip.Prefix) {
		for _, p := range want {
			if !slices.Contains(have, p) && !slices.Contains(refused, p) {
				lost = append(lost, fmt.Sprintf("%s %v gone", what, p))
			}
		}
	}
	if want.MTU != 0 && want.MTU != have.MTU {
		lost = append(lost, fmt.Sprintf("MTU %d", have.MTU))
	}
	missing("address", want.Addrs, have.Addrs)
	if want.Up && !have.Up {
		lost = append(lost, "down")
	}
	missing("route", want.Routes, have.Routes)
	return lost, l.Set(*want)
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
	asked := config
	l.want, l.refused = &asked, nil
	var errs []error
	if l.machine.no6 && want.Drop6() {
		errs = append(errs, fmt.Errorf("set interface %s: %w", l.name, osnet.ErrNoIPv6))
	}
	if !want.Up {
		want.Routes = nil
	}
	want.Routes = slices.DeleteFunc(want.Routes, func(p netip.Prefix) bool {
		if l.machine.taken[p] {
			l.refused = append(l.refused, p)
			errs = append(errs, fmt.Errorf("add route %v on interface %s: %w", p, l.name, os.ErrExist))
		}
		return l.machine.taken[p]
	})
	if want.MTU == 0 {
		want.MTU = l.have.MTU
	}
	if !equal(want, l.have) {
		l.machine.writes++
		l.tell() // the system tells of one's own changes too
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
