package bind

import (
	"cmp"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

/* What the system did not send
 *
 * An error of a send is the word of this machine itself, and the one thing about a network that is certain: no router and no far
 * end has had a part in it. It is kept by what it was and where the packet should have gone, for whoever has to say what is wrong.
 */

// Refusal is why the system did not send.
type Refusal uint8

// The reasons, by the errors of Linux and macOS.
const (
	// Filtered: a rule of this machine's firewall rejects or drops it, or its table of connections is full (EPERM).
	Filtered Refusal = iota
	// Prohibited: a route or a rule of this machine's routing says so, or it is a network's broadcast address (EACCES).
	Prohibited
	// Discarded: a route of this machine leads into nothing, or its source address is gone (EINVAL).
	Discarded
	// NoRoute: no route leads there (ENETUNREACH, EADDRNOTAVAIL, ENETDOWN).
	NoRoute
	// NoHost: a route says that it cannot be reached, or no neighbour has the address (EHOSTUNREACH, EHOSTDOWN).
	NoHost
	// NoBuffer: the interface did not keep up (ENOBUFS, ENOMEM).
	NoBuffer
	// Oversized: larger than the path, as far as this machine knows (EMSGSIZE).
	Oversized
	// Failed: any other error.
	Failed

	refusalKinds
)

// String returns the reason in words.
func (r Refusal) String() string {
	if r >= refusalKinds {
		return "invalid"
	}
	return [refusalKinds]string{
		Filtered: "refused by this machine's firewall", Prohibited: "prohibited by this machine's routing", Discarded: "discarded by this machine's routing",
		NoRoute: "no route", NoHost: "host not reachable", NoBuffer: "no buffer", Oversized: "too large", Failed: "failed",
	}[r]
}

// refusalOf says what an error of a send means.
func refusalOf(err error) Refusal {
	for kind, list := range [refusalKinds][]syscall.Errno{
		Filtered: {syscall.EPERM}, Prohibited: {syscall.EACCES}, Discarded: {syscall.EINVAL},
		NoRoute: {syscall.ENETUNREACH, syscall.EADDRNOTAVAIL, syscall.ENETDOWN}, NoHost: {syscall.EHOSTUNREACH, syscall.EHOSTDOWN},
		NoBuffer: {syscall.ENOBUFS, syscall.ENOMEM}, Oversized: {syscall.EMSGSIZE},
	} {
		if errno := syscall.Errno(0); errors.As(err, &errno) && slices.Contains(list, errno) {
			return Refusal(kind)
		}
	}
	return Failed
}

// Unsent is what the system did not send to one address for one reason.
type Unsent struct {
	To     netip.AddrPort
	Reason Refusal
	Count  uint64 // of sends, each a packet or a batch
	First  time.Time
	Last   time.Time
	// Sent is when something was sent there last since the address is kept; zero: nothing was. Between refusals it says that some packets pass.
	Sent time.Time
}

// maxUnsent bounds the addresses that are kept. Of more the one that was refused longest ago gives way.
const maxUnsent = 64

// unsent keeps what was not sent. While there is nothing it costs a send one look at a pointer.
type unsent struct {
	table atomic.Pointer[map[netip.AddrPort]*refused] // never changed; replaced under mu
	mu    sync.Mutex
}

// refused is what is kept of an address.
type refused struct {
	sent  atomic.Int64 // a moment
	mu    sync.Mutex   // guards the rest
	kinds [refusalKinds]struct {
		count       uint64
		first, last time.Time
	}
}

// last is when anything was refused last.
func (r *refused) last() (at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.kinds {
		if k.last.After(at) {
			at = k.last
		}
	}
	return at
}

// gate is the sockets, with what they refuse kept.
type gate struct {
	conn.Bind
	unsent *unsent
}

// Send implements conn.Bind.
func (g *gate) Send(bufs [][]byte, ep conn.Endpoint) error {
	err := g.Bind.Send(bufs, ep)
	if err == nil && g.unsent.table.Load() == nil {
		return nil
	}
	std, ok := ep.(*conn.StdNetEndpoint)
	if !ok {
		return err
	}
	if rest := retried(err); rest == nil {
		g.unsent.passed(std.AddrPort)
	} else if !errors.Is(rest, net.ErrClosed) {
		g.unsent.add(std.AddrPort, refusalOf(rest))
	}
	return err
}

// passed notes that something was sent.
func (u *unsent) passed(to netip.AddrPort) {
	if table := u.table.Load(); table != nil {
		if r := (*table)[to]; r != nil {
			r.sent.Store(nanos())
		}
	}
}

// add notes a refusal.
func (u *unsent) add(to netip.AddrPort, reason Refusal) {
	now := time.Now()
	r := u.of(to)
	r.mu.Lock()
	defer r.mu.Unlock()
	k := &r.kinds[reason]
	if k.count++; k.count == 1 {
		k.first = now
	}
	k.last = now
}

// of returns what is kept of an address, from now on if nothing was.
func (u *unsent) of(to netip.AddrPort) *refused {
	if table := u.table.Load(); table != nil && (*table)[to] != nil {
		return (*table)[to]
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	next := make(map[netip.AddrPort]*refused)
	if table := u.table.Load(); table != nil {
		maps.Copy(next, *table)
	}
	if next[to] != nil {
		return next[to]
	}
	if len(next) >= maxUnsent {
		var oldest netip.AddrPort
		for a, r := range next {
			if !oldest.IsValid() || r.last().Before(next[oldest].last()) {
				oldest = a
			}
		}
		delete(next, oldest)
	}
	r := new(refused)
	next[to] = r
	u.table.Store(&next)
	return r
}

// Unsent returns what the system has not sent since New, by address and reason, the latest first. Of addresses the 64 that were refused
// last are kept.
func (b *Bind) Unsent() (out []Unsent) {
	table := b.unsent.table.Load()
	if table == nil {
		return nil
	}
	for to, r := range *table {
		sent := timeOf(r.sent.Load())
		r.mu.Lock()
		for kind, k := range r.kinds {
			if k.count > 0 {
				out = append(out, Unsent{To: to, Reason: Refusal(kind), Count: k.count, First: k.first, Last: k.last, Sent: sent})
			}
		}
		r.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Unsent) int {
		return cmp.Or(b.Last.Compare(a.Last), a.To.Compare(b.To), cmp.Compare(a.Reason, b.Reason))
	})
	return out
}
