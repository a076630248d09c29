// Package portmaptest is a home router in memory that maps ports: a server of PCP, NAT-PMP and UPnP IGD with the one
// host's network that leads to it, for tests of package portmap and of what stands above it in virtual time.
//
// It implements portmap.Network. It forwards no packets: Lookup tells where one would go.
//
// All methods may be called concurrently. It has no goroutine but those that answer an HTTP request.
package portmaptest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Options are the router and its ways. Those that a person could change in its settings are changed with Set.
type Options struct {
	Gateway  netip.Addr // the router's address on the LAN; IPv4 or IPv6
	Host     netip.Addr // of the one host there
	External netip.Addr // IPv4 only: the router's own address on the other side

	PCP, NATPMP, UPnP bool          // what it speaks
	Refuse            bool          // it speaks, and maps nothing
	Closed            bool          // its host answers for closed ports (ICMP) instead of saying nothing
	MaxLife           time.Duration // it grants at most this; 0: what is asked for
	PermanentOnly     bool          // its UPnP knows no leases
	UPnPAt            netip.Addr    // what its UPnP answers come from; zero: Gateway
}

// Entry is one port that is mapped.
type Entry struct {
	External netip.AddrPort
	Internal netip.AddrPort
	TCP      bool      // else UDP
	Protocol string    // by which it was made
	Expires  time.Time // zero: never
	nonce    [12]byte
	id       uint16 // of a pinhole
}

// Router is the router.
type Router struct {
	mu       sync.Mutex
	o        Options
	entries  []Entry
	requests map[string]int
	nextID   uint16
	boot     time.Time
}

// New starts a router.
func New(o Options) *Router {
	return &Router{o: o, requests: map[string]int{}, boot: time.Now()}
}

// Set changes the router's ways.
func (r *Router) Set(change func(*Options)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.o)
}

// Restart makes the router forget all mappings.
func (r *Router) Restart() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries, r.boot = nil, time.Now()
}

// Occupy maps a port for another host of the LAN, for ever.
func (r *Router) Occupy(port uint16) {
	r.mu.Lock()
	defer r.mu.Unlock()
	other := netip.AddrPortFrom(r.o.Host.Next(), port)
	r.entries = append(r.entries, Entry{External: netip.AddrPortFrom(r.o.External, port), Internal: other, Protocol: "other"})
}

// Entries returns what is mapped now.
func (r *Router) Entries() []Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expire()
	return slices.Clone(r.entries)
}

// Lookup returns where a stranger's UDP packet to the address goes; false when it is dropped.
func (r *Router) Lookup(external netip.AddrPort) (netip.AddrPort, bool) {
	return r.lookup(external, false)
}

// LookupTCP is Lookup for TCP.
func (r *Router) LookupTCP(external netip.AddrPort) (netip.AddrPort, bool) {
	return r.lookup(external, true)
}

func (r *Router) lookup(external netip.AddrPort, tcp bool) (netip.AddrPort, bool) {
	for _, e := range r.Entries() {
		if e.External == external && e.TCP == tcp {
			return e.Internal, true
		}
	}
	return netip.AddrPort{}, false
}

// Requests returns how many requests have come by a protocol: "PCP", "NAT-PMP", "SSDP" or "HTTP".
func (r *Router) Requests(protocol string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests[protocol]
}

// expire drops entries whose time is over. r.mu is held.
func (r *Router) expire() {
	now := time.Now()
	r.entries = slices.DeleteFunc(r.entries, func(e Entry) bool { return !e.Expires.IsZero() && !now.Before(e.Expires) })
}

// life returns the lifetime that is granted. r.mu is held.
func (r *Router) life(asked time.Duration) time.Duration {
	if r.o.MaxLife > 0 {
		return min(asked, r.o.MaxLife)
	}
	return asked
}

// external returns the address under which an inside address is reached. r.mu is held.
func (r *Router) external(internal netip.Addr, port uint16) netip.AddrPort {
	if internal.Is6() {
		return netip.AddrPortFrom(internal, port)
	}
	return netip.AddrPortFrom(r.o.External, port)
}

// find returns the index of the first entry for which ok is true, or -1. r.mu is held.
func (r *Router) find(ok func(Entry) bool) int {
	r.expire()
	return slices.IndexFunc(r.entries, ok)
}

// assign makes or renews the mapping of an inside address as PCP and NAT-PMP do: with another port if the one that
// was asked for is taken. r.mu is held.
func (r *Router) assign(internal netip.AddrPort, tcp bool, port uint16, life time.Duration, protocol string, nonce [12]byte) Entry {
	i := r.find(func(e Entry) bool { return e.Internal == internal && e.TCP == tcp })
	if i < 0 {
		for port == 0 || r.find(func(e Entry) bool { return e.External.Port() == port && e.TCP == tcp && internal.Addr().Is4() }) >= 0 {
			port++
		}
		r.entries = append(r.entries, Entry{External: r.external(internal.Addr(), port), Internal: internal, TCP: tcp})
		i = len(r.entries) - 1
	}
	e := &r.entries[i]
	e.External = r.external(internal.Addr(), e.External.Port())
	e.Protocol, e.nonce, e.Expires = protocol, nonce, time.Now().Add(life)
	return *e
}

// release drops the mapping of an inside address. r.mu is held.
func (r *Router) release(internal netip.AddrPort, tcp bool) {
	r.entries = slices.DeleteFunc(r.entries, func(e Entry) bool { return e.Internal == internal && e.TCP == tcp })
}

// Gateways returns the router.
func (r *Router) Gateways() []netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return []netip.Addr{r.o.Gateway}
}

// Source returns the host's address.
func (r *Router) Source(gateway netip.Addr) (netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if gateway != r.o.Gateway {
		return netip.Addr{}, fmt.Errorf("find address towards %v: %w", gateway, syscall.ENETUNREACH)
	}
	return r.o.Host, nil
}

// Dial connects to one of the router's servers.
func (r *Router) Dial(ctx context.Context, network string, local netip.Addr, to netip.AddrPort) (net.Conn, error) {
	r.mu.Lock()
	o := r.o
	r.mu.Unlock()
	if to.Addr() != o.Gateway || local != o.Host {
		return nil, fmt.Errorf("dial %v from %v: %w", to, local, syscall.ENETUNREACH)
	}
	if network == "tcp" {
		if !o.UPnP || to.Port() != portHTTP {
			return nil, fmt.Errorf("dial %v: %w", to, syscall.ECONNREFUSED)
		}
		client, server := net.Pipe()
		go r.serveHTTP(server)
		return client, ctx.Err()
	}
	c := newDatagrams(net.UDPAddrFromAddrPort(to))
	c.handle = func(b []byte, _ netip.AddrPort) {
		switch answer := r.servePCP(b, to.Port(), local); {
		case answer != nil:
			c.deliver(answer)
		case o.Closed && !o.PCP && !o.NATPMP:
			c.fail(syscall.ECONNREFUSED)
		}
	}
	return c, nil
}

// ListenPacket opens a socket that can search for the router.
func (r *Router) ListenPacket(local netip.Addr) (net.PacketConn, error) {
	r.mu.Lock()
	o := r.o
	r.mu.Unlock()
	if local != o.Host {
		return nil, fmt.Errorf("listen on %v: %w", local, syscall.EADDRNOTAVAIL)
	}
	from := o.Gateway
	if o.UPnPAt.IsValid() {
		from = o.UPnPAt
	}
	c := newDatagrams(net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, portSSDP)))
	c.handle = func(b []byte, to netip.AddrPort) {
		if answer := r.serveSSDP(b, to); answer != nil {
			c.deliver(answer)
		}
	}
	return c, nil
}

var errClosed = errors.New("the socket is closed")
