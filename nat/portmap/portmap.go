// Package portmap keeps a mapping of the shared UDP port, and of the TCP port of that number if that is wanted, open on the
// routers of this host's default routes, by
// whichever of PCP (RFC 6887), NAT-PMP (RFC 6886) and UPnP IGD a router offers; for IPv6, where ports are not
// translated but guarded, it keeps a pinhole by PCP or UPnP's WANIPv6FirewallControl.
//
// It believes what the router says. Whether strangers really get through a mapping is found out by dial-back, and what
// a mapping is used for (a candidate, an anchor's address) is decided, above it. Changes of the network are told to it.
//
// All methods of a Mapper may be called concurrently; Run is called once.
package portmap

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"warren/nat/ranges"
)

// The protocols, as Mapping.Protocol and ProtocolStatus.Name have them.
const (
	PCP    = "PCP"
	NATPMP = "NAT-PMP"
	UPnP   = "UPnP"
)

const (
	// lifetime is what routers are asked for. RFC 6886 recommends two hours for mappings that are renewed at half
	// life; with these a router that has restarted has forgotten the mapping for an hour at the worst, and one of
	// an agent that was killed stays for two. Renewing costs a packet in each direction.
	lifetime = 20 * time.Minute
	// shortest bounds the renewals that a router can ask for by granting next to nothing.
	shortest = 10 * time.Second
	// removal is the time that the routers have to take back what they gave when Run ends.
	removal = 2 * time.Second
	// perFamily bounds the routers that are asked: one with an uplink each.
	perFamily = 2
)

// Options say how to map. All have defaults.
type Options struct {
	// Secret, if there is one, is a lasting secret of this node. A restarted agent can then take over the mapping that
	// the killed one left behind, which PCP allows only to those who know its nonce.
	Secret []byte
	// Network is how routers are reached. Nil: the system's.
	Network Network
	Logger  *slog.Logger
}

// Mapping is one open port of a router.
type Mapping struct {
	Protocol string
	Gateway  netip.Addr
	External netip.AddrPort // what strangers send to, as the router says
	Internal netip.AddrPort // where it arrives
	Expires  time.Time      // renewed long before; zero: the router keeps it until told otherwise
}

// Public reports whether the external address is one of the Internet. If not, another NAT stands behind the router:
// the mapping is of use only for those on that NAT's inside.
func (m Mapping) Public() bool { return ranges.IsPublic(m.External.Addr()) }

// same reports whether only the expiry differs.
func (m Mapping) same(o Mapping) bool {
	m.Expires, o.Expires = time.Time{}, time.Time{}
	return m == o
}

// State is what is known of one protocol at one router.
type State string

// The states. Refused has a reason; the others may have a remark.
const (
	Asking   State = "asking"   // no answer yet, and not yet given up
	Absent   State = "absent"   // the router does not speak it
	Present  State = "present"  // the router speaks it
	Refused  State = "refused"  // the router speaks it, and maps nothing
	Unneeded State = "unneeded" // not asked, because strangers need no mapping
)

// ProtocolStatus is one protocol at one router.
type ProtocolStatus struct {
	Name   string
	State  State
	Reason string // why, in words
}

// RouterStatus is one router.
type RouterStatus struct {
	Gateway   netip.Addr
	Internal  netip.Addr // this host's address on the router's network
	Protocols []ProtocolStatus
	Mapping   *Mapping // nil: none
	Remark    string   // what is odd about it, in words: another NAT behind the router
}

// same reports whether only the expiry differs.
func (r RouterStatus) same(o RouterStatus) bool {
	return r.Gateway == o.Gateway && r.Internal == o.Internal && r.Remark == o.Remark && slices.Equal(r.Protocols, o.Protocols) &&
		(r.Mapping == nil) == (o.Mapping == nil) && (r.Mapping == nil || r.Mapping.same(*o.Mapping))
}

// Status is what Snapshot returns: the routers in the order of their preference.
type Status struct{ Routers []RouterStatus }

// Wanted is what Set has mapped.
type Wanted struct {
	Port uint16 // the shared UDP port; 0: nothing is mapped
	TCP  bool   // the TCP port of the same number too
}

// Mapper keeps the mappings. Make it with New, and let it work with Run.
type Mapper struct {
	// Constant after New.
	o       Options
	only    string // for tests: the only protocol to use; "": all
	events  chan struct{}
	changed chan struct{}

	wanted atomic.Pointer[Wanted] // as Set last said

	// Guarded by mu.
	mu     sync.Mutex
	report map[place]RouterStatus
	order  []place
}

// place is what one mapping is kept for.
type place struct {
	gateway, local netip.Addr
	port           uint16
	tcp            bool
}

// protocol is the number of the transport protocol (IANA).
func (p place) protocol() byte {
	if p.tcp {
		return protocolTCP
	}
	return protocolUDP
}

// New returns a Mapper that does nothing until Run.
func New(o Options) *Mapper {
	if o.Network == nil {
		o.Network = systemNetwork{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Logger = o.Logger.With("part", "portmap")
	m := &Mapper{o: o, events: make(chan struct{}, 1), changed: make(chan struct{}, 1), report: map[place]RouterStatus{}}
	m.wanted.Store(&Wanted{})
	return m
}

// Set says what to map; the same again changes nothing, and before the first call nothing is mapped. It never blocks.
func (m *Mapper) Set(w Wanted) {
	if before := m.wanted.Swap(&w); *before != w {
		m.Changed()
	}
}

// Events returns a channel that gets a value, coalesced, after each change of what Snapshot and TCPMappings return but for
// expiries.
func (m *Mapper) Events() <-chan struct{} { return m.events }

// Changed tells that the network or the port has changed, or that a mapping does not work: everything is asked for
// again at once. What is still right stays mapped meanwhile.
func (m *Mapper) Changed() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// Mappings returns the mappings of the UDP port that hold now, those of the preferred router first.
func (m *Mapper) Mappings() []Mapping { return m.mappings(false) }

// TCPMappings returns those of the TCP port.
func (m *Mapper) TCPMappings() []Mapping { return m.mappings(true) }

func (m *Mapper) mappings(tcp bool) []Mapping {
	var all []Mapping
	for _, r := range m.snapshot(tcp).Routers {
		if r.Mapping != nil {
			all = append(all, *r.Mapping)
		}
	}
	return all
}

// Snapshot returns what is known of the routers, and of the mappings of the UDP port. It is the caller's.
func (m *Mapper) Snapshot() Status { return m.snapshot(false) }

func (m *Mapper) snapshot(tcp bool) Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	var s Status
	for _, p := range m.order {
		r, ok := m.report[p]
		if !ok || p.tcp != tcp {
			continue
		}
		r.Protocols = slices.Clone(r.Protocols)
		if r.Mapping != nil {
			held := *r.Mapping
			r.Mapping = &held
		}
		s.Routers = append(s.Routers, r)
	}
	return s
}

// Run asks the routers, keeps the mappings, and removes them when ctx ends, within two seconds. It returns nil.
func (m *Mapper) Run(ctx context.Context) error {
	lines := map[place]*line{}
	ending := map[place]<-chan struct{}{}
	defer func() {
		for _, l := range lines {
			l.stop()
		}
		for _, l := range lines {
			<-l.done
		}
		for _, done := range ending {
			<-done
		}
		m.arrange(nil)
	}()
	select {
	case <-m.changed: // what was told before is asked for now, and need not be twice
	default:
	}
	for {
		wanted := m.places()
		for p, l := range lines {
			if !slices.Contains(wanted, p) {
				l.stop()
				ending[p] = l.done
				delete(lines, p)
			}
		}
		m.arrange(wanted)
		maps.DeleteFunc(ending, func(_ place, done <-chan struct{}) bool { return isClosed(done) })
		for _, p := range wanted {
			if l, ok := lines[p]; ok {
				l.again()
				continue
			}
			// The same place may just be given back; asking for it must not be overtaken by that.
			lines[p] = startLine(m, p, ending[p])
			delete(ending, p)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.changed:
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// places returns what there is to map now.
func (m *Mapper) places() []place {
	want := m.wanted.Load()
	if want.Port == 0 {
		return nil
	}
	var all []place
	count := map[bool]int{}
	for _, gateway := range m.o.Network.Gateways() {
		gateway = gateway.Unmap()
		if !gateway.IsValid() || gateway.IsUnspecified() || count[gateway.Is4()] == perFamily {
			continue
		}
		local, err := m.o.Network.Source(gateway)
		if err != nil {
			continue // no address of this family on that network, or no longer
		}
		p := place{gateway: gateway, local: local, port: want.Port}
		if !slices.Contains(all, p) {
			count[gateway.Is4()]++
			all = append(all, p)
		}
	}
	if want.TCP {
		for _, p := range all {
			p.tcp = true
			all = append(all, p)
		}
	}
	return all
}

// arrange sets the places that are reported, and forgets the others.
func (m *Mapper) arrange(wanted []place) {
	m.mu.Lock()
	lost := false
	for p := range m.report {
		if !slices.Contains(wanted, p) {
			lost = true
			delete(m.report, p)
		}
	}
	m.order = wanted
	m.mu.Unlock()
	if lost {
		m.tell()
	}
}

// publish stores a line's report, unless the line has been given up.
func (m *Mapper) publish(p place, r RouterStatus) {
	m.mu.Lock()
	if !slices.Contains(m.order, p) {
		m.mu.Unlock()
		return
	}
	before := m.report[p]
	m.report[p] = r
	m.mu.Unlock()
	if !before.same(r) {
		m.tell()
	}
}

func (m *Mapper) tell() {
	select {
	case m.events <- struct{}{}:
	default:
	}
}
