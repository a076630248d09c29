package node

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

// resolveTimeout bounds one look-up: longer than a resolver's own retries.
const resolveTimeout = 10 * time.Second

// lookupPause is how long a name that does not resolve is left alone: the loop asks at every event.
const lookupPause = 20 * time.Second

// resolver turns the endpoints of static peers and of this node into addresses, without making the loop wait: a name
// is looked up in the background, and Changes says when an answer is there.
type resolver struct {
	lookup  func(ctx context.Context, host string) ([]netip.Addr, error)
	changes chan struct{}

	mu      sync.Mutex
	answers map[string]netip.AddrPort // by host:port as written
	pending map[string]bool
	failed  map[string]time.Time // when a name was last looked up in vain
}

func newResolver() *resolver {
	return &resolver{
		lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
		changes: make(chan struct{}, 1), answers: make(map[string]netip.AddrPort), pending: make(map[string]bool), failed: make(map[string]time.Time),
	}
}

// Changes is ready when an answer is another one.
func (r *resolver) Changes() <-chan struct{} { return r.changes }

// Resolve returns the endpoints known now, by the static peer's name, and looks the others up.
func (r *resolver) Resolve(static []StaticPeer) map[string]netip.AddrPort {
	out := make(map[string]netip.AddrPort)
	for _, s := range static {
		if s.Endpoint == "" {
			continue
		}
		if addr, ok := r.resolve(s.Endpoint); ok {
			out[s.Name] = addr
		}
	}
	return out
}

// Endpoints returns the addresses known now of a list of host:port.
func (r *resolver) Endpoints(list []string) (out []netip.AddrPort) {
	for _, text := range list {
		if addr, ok := r.resolve(text); ok {
			out = append(out, addr)
		}
	}
	return out
}

func (r *resolver) resolve(endpoint string) (netip.AddrPort, bool) {
	if addr, err := netip.ParseAddrPort(endpoint); err == nil {
		return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	addr, ok := r.answers[endpoint]
	if !ok {
		r.askLocked(endpoint)
	}
	return addr, ok
}

// Refresh looks all names up again: dynamic addresses change.
func (r *resolver) Refresh() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for endpoint := range r.answers {
		r.askLocked(endpoint)
	}
}

// askLocked starts a look-up unless one is under way. It ends by itself after resolveTimeout. The caller holds mu.
func (r *resolver) askLocked(endpoint string) {
	host, portText, err := net.SplitHostPort(endpoint)
	if err != nil || r.pending[endpoint] || time.Since(r.failed[endpoint]) < lookupPause {
		return
	}
	port, err := net.LookupPort("udp", portText)
	if err != nil {
		return
	}
	r.pending[endpoint] = true
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
		defer cancel()
		addrs, err := r.lookup(ctx, host)
		r.mu.Lock()
		delete(r.pending, endpoint)
		changed := false
		if err != nil {
			r.failed[endpoint] = time.Now()
		}
		if err == nil && len(addrs) > 0 {
			addr := netip.AddrPortFrom(addrs[0].Unmap(), uint16(port))
			changed = r.answers[endpoint] != addr
			r.answers[endpoint] = addr
		}
		r.mu.Unlock()
		if changed {
			select {
			case r.changes <- struct{}{}:
			default:
			}
		}
	}()
}
