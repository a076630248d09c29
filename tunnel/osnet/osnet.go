// Package osnet gives a network interface the addresses, routes and MTU that it should have. A Link is
// told the whole desired configuration again and again; it reads what the kernel has and touches only the
// difference, so that repeating a Set costs a look and changes nothing.
//
// A Link says when somebody else has changed its interface, and makes it whole again (Mend). It goes by the index, not by the name: an
// interface that was renamed gets its name back, as the control socket, the operator's firewall rules and wg(8) go by it; one that was
// moved to another network namespace is fetched back where the process may enter that.
//
// It leaves making the interface to package tunnel (a TUN device lives as long as its file descriptor), and
// the choice of addresses and routes to whoever calls. It never touches another interface, never replaces
// somebody else's route, and removes from its own interface only what it has set there itself or what
// it found there when it was opened, which is what a killed run left behind.
//
// A Link belongs to one goroutine at a time. The functions of the package may be called by any.
package osnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

var (
	// ErrNoIPv6 is wrapped by the error of a Set that has left the IPv6 part of its Config out because IPv6 is
	// switched off in the kernel or on the interface. The IPv4 part has been set.
	ErrNoIPv6 = errors.New("IPv6 is switched off on this system")

	// ErrBusy is wrapped by the error of Claim when a live process holds a TUN device of the name.
	ErrBusy = errors.New("in use by another process")

	// ErrMoved is wrapped by the error of Set and Mend when somebody has moved the interface to another network namespace and it cannot be
	// fetched back.
	ErrMoved = errors.New("moved to another network namespace")

	// ErrForeign is wrapped by the error of Claim when the name belongs to something that is not a TUN device.
	ErrForeign = errors.New("belongs to something else")
)

// minMTU6 is the smallest MTU on which IPv6 works (RFC 8200, section 5); Linux takes all IPv6
// addresses away from an interface below it.
const minMTU6 = 1280

// Limits of an IPv4 MTU: RFC 791's smallest datagram that everyone accepts, and its largest.
const (
	minMTU = 576
	maxMTU = 65535
)

// Config is all that a Link should have.
type Config struct {
	// Addrs are assigned as they stand. No route follows from their length: Routes says all.
	Addrs []netip.Prefix
	// Routes lead into the interface while it is up. Bits below the length are ignored. The default route is refused:
	// it would lead the underlay's own packets into the tunnel.
	Routes []netip.Prefix
	// MTU in bytes; 0 leaves it as it is.
	MTU int
	// Up is the administrative state. A link that is down keeps its addresses and has no routes.
	Up bool
}

// Link is one network interface.
type Link interface {
	// Set makes the interface what the Config says. It does as much as it can: an error names what could
	// not be done (joined, when several), all the rest has been. See ErrNoIPv6.
	Set(Config) error
	// Mend makes the interface again what the last Set said, as far as that succeeded, and returns in words what somebody else had taken
	// away or changed. It is nil when nothing was. The error is as that of Set, and wraps os.ErrNotExist when the interface is gone.
	Mend() (lost []string, err error)
	// Watch returns a channel that gets a value, coalesced, when the interface may have been changed, by whomever, until ctx ends. An error
	// means that the system gives no notice.
	Watch(ctx context.Context) (<-chan struct{}, error)
	// Elsewhere is Routes without what leads into this interface.
	Elsewhere(within ...netip.Prefix) ([]Route, error)
	// Close takes away what the link has set and lets go of the interface, which stays.
	Close() error
}

// Clean checks c and returns it with masked, sorted routes and sorted addresses, without repetitions.
func (c Config) Clean() (Config, error) {
	if c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU) {
		return Config{}, fmt.Errorf("MTU %d: not between %d and %d", c.MTU, minMTU, maxMTU)
	}
	out := Config{MTU: c.MTU, Up: c.Up}
	for _, p := range c.Addrs {
		if a := p.Addr(); !p.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return Config{}, fmt.Errorf("address %v: not one that an interface can have", p)
		}
		out.Addrs = append(out.Addrs, p)
	}
	for _, p := range c.Routes {
		if !p.IsValid() || p.Addr().Is4In6() || p.Addr().IsMulticast() {
			return Config{}, fmt.Errorf("route %v: not a unicast prefix", p)
		}
		if p.Bits() == 0 {
			return Config{}, fmt.Errorf("route %v: the default route would lead the tunnel into itself", p)
		}
		out.Routes = append(out.Routes, p.Masked())
	}
	if c.MTU != 0 && c.MTU < minMTU6 && (slices.ContainsFunc(out.Addrs, is6) || slices.ContainsFunc(out.Routes, is6)) {
		return Config{}, fmt.Errorf("MTU %d: IPv6 needs at least %d", c.MTU, minMTU6)
	}
	out.Addrs, out.Routes = sorted(out.Addrs), sorted(out.Routes)
	return out, nil
}

// is6 reports whether p is an IPv6 prefix.
func is6(p netip.Prefix) bool { return p.Addr().Is6() }

// sorted sorts list in place and returns it without repetitions.
func sorted(list []netip.Prefix) []netip.Prefix {
	slices.SortFunc(list, compare)
	return slices.Compact(list)
}

func compare(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// Route is a network that this machine reaches by an interface, because of an address or a route of it.
type Route struct {
	Prefix    netip.Prefix
	Interface string // its name
}

// Collides reports whether an overlay network would take something away from the route, or the route from it. Default routes, halved
// ones too, take up no room. The route of a single address does not count, as other VPNs have one for each of their peers,
// unless it is own, the address that this node has in the overlay.
func (r Route) Collides(overlay netip.Prefix, own netip.Addr) bool {
	return r.Prefix.Bits() >= 8 && r.Prefix.Overlaps(overlay) && (!r.Prefix.IsSingleIP() || r.Prefix.Addr() == own)
}

// Routes returns what this machine reaches by addresses and routes of its own, as far as it shares addresses with one of the prefixes,
// sorted, each prefix once, so that a new overlay network can be chosen beside it. Of all other routes, of which there may be a
// million, nothing is kept. Default routes, loopback, link-local and multicast are left out.
func Routes(within ...netip.Prefix) ([]Route, error) { return tidied(0, within) }

// tidied is Routes without what leads into the interface with an index.
func tidied(except int, within []netip.Prefix) ([]Route, error) {
	list, err := routes(except, within)
	if err != nil {
		return nil, fmt.Errorf("list local routes: %w", err)
	}
	list = slices.DeleteFunc(list, func(r Route) bool {
		a := r.Prefix.Addr()
		return r.Interface == "" || !r.Prefix.IsValid() || r.Prefix.Bits() == 0 || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.Is4In6() ||
			!slices.ContainsFunc(within, r.Prefix.Overlaps)
	})
	slices.SortStableFunc(list, func(a, b Route) int { return compare(a.Prefix, b.Prefix) })
	return slices.CompactFunc(list, func(a, b Route) bool { return a.Prefix == b.Prefix }), nil
}
