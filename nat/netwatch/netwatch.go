// Package netwatch knows the host's own underlay addresses and says when they, or the default routes,
// change, and when the machine has slept.
//
// It leaves out what is no underlay: loopback and link-local addresses (except of IPv4 where an interface has no
// other: a LAN without DHCP, RFC 3927), containers' bridges, and the interfaces of other VPNs. On Linux the kernel says what an
// interface is, and its name decides nothing; macOS says little, and names of a known word with a number decide. Who the
// peers are and what a change means for them is package nat's.
//
// Its functions may be called concurrently.
package netwatch

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

const (
	// quiet lets the several notices of one change arrive before the system is looked at; busy bounds
	// that while they keep coming.
	quiet = 50 * time.Millisecond
	busy  = 300 * time.Millisecond
	// sleepCheck is how often the clocks are compared, asleep what they must differ by. Timers stand
	// still while a machine sleeps; the wall clock does not.
	sleepCheck = 5 * time.Second
	asleep     = 4 * time.Second
	// pollEvery is how often the system is looked at without a notice.
	pollEvery = 30 * time.Second
	// lookAgain is when the system is asked again that could not be asked.
	lookAgain = time.Second
	// maxPerInterface bounds an interface's addresses of one family: privacy extensions make many.
	maxPerInterface = 3
)

// network is what a change is a change of.
type network struct {
	addrs  []netip.Addr
	routes []string // the default routes, in a canonical text
}

func (n network) equal(o network) bool {
	return slices.Equal(n.addrs, o.addrs) && slices.Equal(n.routes, o.routes)
}

// link is an interface as the platform's file reports it.
type link struct {
	name    string
	virtual bool // a tunnel, or a network of containers or virtual machines: what it is says so, not what it begins with
	gateway bool // a default route leaves through it
	addrs   []netip.Addr
}

// Addresses returns the addresses that may be offered to peers, best first: those of interfaces with a
// default route, IPv4 before IPv6. skip reports the names of interfaces to leave out besides the known
// virtual ones (the node's own TUN device); it may be nil. An error says that the system could not be asked just now.
func Addresses(skip func(ifname string) bool) ([]netip.Addr, error) {
	links, _, err := query()
	if err != nil {
		return nil, fmt.Errorf("look for this host's addresses: %w", err)
	}
	return choose(links, skip), nil
}

// Watch returns a channel that gets a value, coalesced, after each change of what Addresses(skip)
// returns or of the default routes, and after a sleep of the machine. The first change is told at once; while
// more follow they are told seldom, so that an interface that flaps does not start one recovery after the
// other; whoever goes to other networks again and again waits a second at most. What has changed and changed back is told too: the link
// may lead elsewhere now. What no notice told of is found within half a minute. The channel is closed when ctx ends. An error means that
// the system gives no notice of changes.
func Watch(ctx context.Context, skip func(ifname string) bool) (<-chan struct{}, error) {
	notices, err := subscribe(ctx)
	if err != nil {
		return nil, err
	}
	changes := make(chan struct{}, 1)
	look := func() (network, bool) {
		links, routes, err := query()
		return network{addrs: choose(links, skip), routes: routes}, err == nil
	}
	first, _ := look()
	go watch(ctx, notices, first, look, changes) // ends with ctx
	return changes, nil
}

// watch turns notices into changes from what was there first.
func watch(ctx context.Context, notices <-chan struct{}, first network, look func() (network, bool), changes chan<- struct{}) {
	defer close(changes)
	p := pace{now: first, known: first}
	ticker := time.NewTicker(sleepCheck)
	defer ticker.Stop()
	held := time.NewTimer(time.Hour)
	defer held.Stop()
	last := time.Now()
	looked := last
	for {
		slept := false
		select {
		case <-ctx.Done():
			return
		case <-notices:
			settle(ctx, notices)
		case <-held.C:
		case <-ticker.C:
			now := time.Now()
			slept = hasSlept(now.Sub(last), now.Round(0).Sub(last.Round(0)))
			last = now
			if !slept && now.Sub(looked) < pollEvery {
				continue
			}
		}
		now := time.Now()
		looked = now
		seen, ok := look()
		if ok {
			p.see(now, seen)
		}
		if slept || p.ready(now) {
			p.told(now)
			select {
			case changes <- struct{}{}:
			default:
			}
		}
		switch at := p.due(); {
		case !ok:
			held.Reset(lookAgain)
		case !at.IsZero():
			held.Reset(time.Until(at))
		}
	}
}

// settle waits until notices pause.
func settle(ctx context.Context, notices <-chan struct{}) {
	limit := time.NewTimer(busy)
	defer limit.Stop()
	for {
		pause := time.NewTimer(quiet)
		select {
		case <-notices:
			pause.Stop()
			continue
		case <-pause.C:
		case <-limit.C:
			pause.Stop()
		case <-ctx.Done():
			pause.Stop()
		}
		return
	}
}

// hasSlept compares the time that passed by the monotonic and by the wall clock.
func hasSlept(monotonic, wall time.Duration) bool { return wall-monotonic >= asleep }

// choose filters and orders. The order is stable as long as the system's is.
func choose(links []link, skip func(string) bool) []netip.Addr {
	var ranked [5][]netip.Addr // gateway IPv4, gateway IPv6, other IPv4, other IPv6, IPv4 link-local
	for _, l := range links {
		if l.virtual || skip != nil && skip(l.name) {
			continue
		}
		var count [2]int
		for _, addr := range l.addrs {
			addr = addr.Unmap().WithZone("")
			family := 0
			if addr.Is6() {
				family = 1
			}
			selfAssigned := addr.Is4() && addr.IsLinkLocalUnicast() && l.selfAssigned()
			if !addr.IsGlobalUnicast() && !selfAssigned || count[family] == maxPerInterface {
				continue
			}
			count[family]++
			rank := family
			switch {
			case selfAssigned:
				rank = 4
			case !l.gateway:
				rank += 2
			}
			ranked[rank] = append(ranked[rank], addr)
		}
	}
	var all []netip.Addr
	for _, list := range ranked {
		for _, addr := range list {
			if !slices.Contains(all, addr) {
				all = append(all, addr)
			}
		}
	}
	return all
}

// selfAssigned reports whether the interface has no IPv4 address but link-local ones.
func (l link) selfAssigned() bool {
	return !slices.ContainsFunc(l.addrs, func(a netip.Addr) bool { return a.Unmap().Is4() && a.IsGlobalUnicast() })
}
