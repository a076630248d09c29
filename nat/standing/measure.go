package standing

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/mesh/session"
	"warren/nat/due"
	"warren/nat/natkind"
	"warren/nat/natprobe"
)

/* What the NAT before this node does is measured when someone asks, and by itself, ten minutes apart at least, where a direct path
 * could not be had. Introductions carry the outcome to the peer (Pack), so that each side can say what stands in the way.
 */

const (
	// measureTime bounds a measurement: a person waits for it.
	measureTime = 3 * time.Second
	// measuredFor is how long one is taken to hold, in a network that has not changed.
	measuredFor = 10 * time.Minute
	// vagueFor is how long one that nobody has helped with is left alone.
	vagueFor = 30 * time.Second
	// toldQueue holds the words of helpers that a measurement has not taken yet: it asks two.
	toldQueue = 4
)

// outcome is a measurement that has ended.
type outcome struct {
	network    uint64 // that it began in
	ipv4, ipv6 Measurement
}

// asked is a helper's word that is waited for.
type asked struct {
	helper identity.NodeID
	told   chan<- natprobe.Told
}

// Vague reports whether a measurement is worth its while: there is none that counts, or it was made too early to find help.
func (s *Standing) Vague() bool {
	got, ok := s.Snapshot().Measured(true)
	age := time.Since(got.At)
	return !ok || age >= measuredFor || got.Report.Filtering == natkind.FilteringUnknown && age > vagueFor
}

// expire forgets measurements that are too old, and returns when one will be.
func (l *loop) expire(now time.Time) (next time.Time) {
	for _, m := range []*Measurement{&l.snap.IPv4, &l.snap.IPv6} {
		switch end := m.At.Add(measuredFor); {
		case m.At.IsZero():
		case now.Before(end):
			next = due.Sooner(next, end)
		default:
			*m = Measurement{}
		}
	}
	return next
}

// measure begins a measurement if one is wanted and none is under way.
func (l *loop) measure(ctx context.Context, now time.Time, d *Desired) {
	l.mu.Lock()
	wanted := l.wanted != nil
	l.mu.Unlock()
	if !wanted || l.cancel != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, measureTime)
	l.cancel = cancel
	hosts, o := l.snap.Hosts, outcome{network: l.snap.Network, ipv4: Measurement{At: now}, ipv6: Measurement{At: now}}
	l.work.Go(func() {
		defer cancel()
		var families sync.WaitGroup
		families.Go(func() { l.measureFamily(ctx, &o.ipv4, true, hosts, d.Servers) })
		families.Go(func() { l.measureFamily(ctx, &o.ipv6, false, hosts, d.Servers) })
		families.Wait()
		l.measured <- o
	})
}

// takeOutcome keeps what was measured, and wakes those who wait for it; unless the network has changed meanwhile: then another
// one begins with the next step.
func (l *loop) takeOutcome(o outcome) {
	l.cancel = nil
	if o.network != l.snap.Network {
		return
	}
	l.snap.IPv4, l.snap.IPv6 = o.ipv4, o.ipv6
	l.publish() // before anybody looks
	l.mu.Lock()
	done := l.wanted
	l.wanted = nil
	l.mu.Unlock()
	close(done)
}

// measureFamily asks anchors anew over one family.
func (s *Standing) measureFamily(ctx context.Context, m *Measurement, v4 bool, hosts []netip.Addr, servers []natprobe.Server) {
	if !slices.ContainsFunc(hosts, func(a netip.Addr) bool { return a.Is4() == v4 }) {
		return
	}
	told := make(chan natprobe.Told, toldQueue)
	local := func(a netip.Addr) bool { return slices.Contains(hosts, a) }
	m.Report, m.Err = natprobe.Measure(ctx, natprobe.Options{
		Sockets: family{s.o.Host, v4}, Servers: serversOf(servers, v4, local), Hosts: hosts, Helpers: asking{s, told}, Told: told,
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, w := range s.waiting {
		if w.told == told {
			delete(s.waiting, id)
		}
	}
}

// asking is what one measurement asks of members; what they say goes to told.
type asking struct {
	s    *Standing
	told chan natprobe.Told
}

func (a asking) Ask(helper identity.NodeID, id [12]byte, addr netip.AddrPort) error {
	a.s.mu.Lock()
	a.s.waiting[id] = asked{helper, a.told}
	a.s.mu.Unlock()
	return a.s.o.Sessions.Send(helper, session.ProtoAsk, encode(message{version: versionTry, id: id, addr: addr}))
}

// serversOf keeps one address of each member for a family, the first that is none of this host's.
func serversOf(servers []natprobe.Server, v4 bool, local func(netip.Addr) bool) (out []natprobe.Server) {
	seen := make(map[identity.NodeID]bool)
	for _, server := range servers {
		if server.Addr.Addr().Is4() == v4 && !seen[server.ID] && !local(server.Addr.Addr()) {
			seen[server.ID] = true
			out = append(out, server)
		}
	}
	return out
}
