package portmap

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"warren/nat/ranges"
)

// A protocol is spoken to one router. Its methods are not called concurrently.
type protocol interface {
	name() string
	// probe asks, with no effect on the router, whether it speaks the protocol. The error wraps errAbsent, or is a
	// refusal, which says that it does.
	probe(ctx context.Context) error
	// open makes the mapping or renews it. The protocol has been probed before.
	open(ctx context.Context) (grant, error)
	// close removes whatever open may have made. It may be called without.
	close(ctx context.Context) error
}

// grant is what a router has given.
type grant struct {
	external netip.AddrPort
	life     time.Duration // zero: until it is removed
}

// errAbsent is that the router does not speak a protocol.
var errAbsent = errors.New("no answer")

// refusal is a router's no, in words. Nothing has been mapped.
type refusal string

func (r refusal) Error() string { return string(r) }

// line keeps one mapping at one router.
type line struct {
	// Constant after startLine.
	m      *Mapper
	p      place
	log    *slog.Logger
	cancel context.CancelFunc
	done   chan struct{}
	wake   chan struct{}

	// Owned by run.
	protocols []protocol
	held      protocol // nil: nothing is mapped
	report    RouterStatus
	failures  int
}

// startLine begins to work for a place, once the line that was there before has ended.
func startLine(m *Mapper, p place, after <-chan struct{}) *line {
	ctx, cancel := context.WithCancel(context.Background())
	l := &line{
		m: m, p: p, cancel: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1),
		log:    m.o.Logger.With("gateway", p.gateway, "internal", netip.AddrPortFrom(p.local, p.port)),
		report: RouterStatus{Gateway: p.gateway, Internal: p.local},
	}
	l.protocols = slices.DeleteFunc(protocolsFor(m.o, p), func(x protocol) bool { return m.only != "" && x.name() != m.only })
	for _, x := range l.protocols {
		l.report.Protocols = append(l.report.Protocols, ProtocolStatus{Name: x.name(), State: Asking})
	}
	go func() {
		defer close(l.done)
		defer cancel()
		if after != nil {
			<-after // bounded by removal
		}
		l.run(ctx)
	}()
	return l
}

// stop ends the line; done is closed when the mapping is removed, or the time for that is over.
func (l *line) stop() { l.cancel() }

// again makes the line ask its router at once.
func (l *line) again() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *line) run(ctx context.Context) {
	if l.p.local.Is4() && ranges.IsPublic(l.p.local) {
		for i := range l.report.Protocols {
			l.report.Protocols[i].State = Unneeded
			l.report.Protocols[i].Reason = "this host has a public address itself"
		}
		l.publish()
		<-ctx.Done()
		return
	}
	defer l.remove()
	l.publish()
	for {
		timer := time.NewTimer(l.round(ctx))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-l.wake:
			timer.Stop()
			l.failures = 0 // it may be another router by now, or one that has just started
		case <-timer.C:
		}
	}
}

// round renews what is held, or else asks for it by every protocol, and returns the time until the next one.
func (l *line) round(ctx context.Context) time.Duration {
	if l.held != nil {
		if g, err := l.held.open(ctx); err == nil {
			return l.accept(l.held, g)
		} else if ctx.Err() != nil {
			return 0
		} else {
			l.log.Info("mapping not renewed", "protocol", l.held.name(), "error", err)
			l.note(l.held, stateOf(err), err.Error())
		}
	}
	if wait, ok := l.establish(ctx); ok || ctx.Err() != nil {
		return wait
	}
	l.failures++
	wait := retryAfter(l.failures)
	if l.held != nil {
		// It may still stand: the router may only have been busy.
		left := time.Until(l.report.Mapping.Expires)
		if l.report.Mapping.Expires.IsZero() || left <= 0 {
			l.held, l.report.Mapping, l.report.Remark = nil, nil, ""
			l.log.Info("mapping lost")
			l.publish()
		} else {
			wait = min(wait, left)
		}
	}
	return wait
}

// retryAfter is the ladder of retries: a router that restarts is back in a minute or two, and UPnP may be switched on
// at any time, but asking is never urgent.
func retryAfter(failures int) time.Duration {
	wait := min(15*time.Second<<min(failures-1, 6), 10*time.Minute)
	return wait - rand.N(wait/5)
}

// establish asks for all protocols at once. The first that gives a mapping is kept; the others are only looked at.
func (l *line) establish(ctx context.Context) (next time.Duration, ok bool) {
	type answer struct {
		p   protocol
		err error
	}
	answers := make(chan answer, len(l.protocols))
	var all sync.WaitGroup
	for _, p := range l.protocols {
		all.Go(func() { answers <- answer{p, p.probe(ctx)} })
	}
	defer all.Wait()
	for range l.protocols {
		a := <-answers
		if ctx.Err() != nil {
			return 0, false
		}
		if a.err != nil {
			l.note(a.p, stateOf(a.err), a.err.Error())
			continue
		}
		l.note(a.p, Present, "")
		if ok {
			continue
		}
		g, err := a.p.open(ctx)
		if err != nil {
			l.note(a.p, Refused, err.Error())
			continue
		}
		next, ok = l.accept(a.p, g), true
	}
	return next, ok
}

// stateOf is what a router's failure to do as it was asked says of the protocol: it refuses when it has answered.
func stateOf(err error) State {
	var no refusal
	if errors.As(err, &no) {
		return Refused
	}
	return Absent
}

// accept takes what the router has given, and returns the time of its renewal.
func (l *line) accept(p protocol, g grant) time.Duration {
	now := Mapping{Protocol: p.name(), Gateway: l.p.gateway, External: g.external, Internal: netip.AddrPortFrom(l.p.local, l.p.port)}
	half := lifetime / 2
	if g.life > 0 {
		now.Expires = time.Now().Add(g.life)
		half = max(min(g.life, lifetime)/2, shortest)
	}
	if before := l.report.Mapping; before == nil || !before.same(now) {
		l.log.Info("port mapped", "protocol", now.Protocol, "external", now.External, "public", now.Public())
	}
	l.held, l.report.Mapping, l.report.Remark, l.failures = p, &now, remark(g.external.Addr()), 0
	l.note(p, Present, "")
	return half
}

// note stores what is known of a protocol, and shows it.
func (l *line) note(p protocol, s State, reason string) {
	for i := range l.report.Protocols {
		if l.report.Protocols[i].Name == p.name() {
			l.report.Protocols[i].State, l.report.Protocols[i].Reason = s, reason
		}
	}
	l.publish()
}

// publish hands out a copy of the report.
func (l *line) publish() {
	r := l.report
	r.Protocols = append([]ProtocolStatus(nil), r.Protocols...)
	l.m.publish(l.p, r)
}

// remove gives the router back what it gave, by every protocol that may have made something.
func (l *line) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), removal)
	defer cancel()
	var all sync.WaitGroup
	for _, p := range l.protocols {
		all.Go(func() {
			if err := p.close(ctx); err != nil {
				l.log.Info("mapping not removed", "protocol", p.name(), "error", err)
			}
		})
	}
	all.Wait()
}

// protocolsFor returns what the router of a place may speak.
func protocolsFor(o Options, p place) []protocol {
	if p.gateway.Is4() {
		return []protocol{newPCP(o.Network, p, o.Secret), &natpmp{ask: asker{net: o.Network, place: p}}, newIGD(o.Network, p)}
	}
	return []protocol{newPCP(o.Network, p, o.Secret), newPinhole(o.Network, p)}
}
