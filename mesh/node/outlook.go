package node

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/mesh/roster"
	"warren/mesh/session"
	"warren/mesh/signal"
	"warren/nat"
	"warren/nat/natkind"
	"warren/nat/natprobe"
	"warren/nat/portmap"
	"warren/nat/ranges"
)

/* Where this node stands
 *
 * What the NAT before this node does is measured when someone asks, and by itself, ten minutes apart at least, where a direct
 * path could not be had (package natprobe). Introductions carry the outcome to the peer (nat.Message.NAT), so that each side can
 * say what stands in the way.
 */

const (
	// measureTime bounds a measurement: a person waits for it.
	measureTime = 3 * time.Second
	// measuredFor is how long one is taken to hold, in a network that has not changed.
	measuredFor = 10 * time.Minute
	// vagueFor is how long one that nobody has helped with is left alone.
	vagueFor = 30 * time.Second
	// sightingFor is how long a STUN answer about the shared socket is: anchors are asked once a minute.
	sightingFor = 2 * time.Minute
)

// outlook is what this node knows of the NATs before itself and its peers.
type outlook struct {
	wanted chan struct{}  // a measurement
	helps  chan helpOrder // for other members

	mu       sync.Mutex
	network  int // counts the changes of the network
	measured map[bool]measurement
	told     map[identity.NodeID]toldStanding
	waiting  map[[12]byte]chan<- natprobe.Told
	self     natkind.Self // what introductions say; made anew a second after selfAt
	selfAt   time.Time
}

// measurement is what was found out about one family, by whether that is IPv4.
type measurement struct {
	report  natprobe.Report
	err     error // no socket could be opened
	at      time.Time
	network int
}

// toldStanding is what a peer says of itself, and when it was heard at all.
type toldStanding struct {
	nat    natkind.Self
	at     time.Time // of nat; zero: it has not said
	heard  time.Time
	skewed time.Time // when a signal of it was last refused because of its clock
}

func newOutlook() *outlook {
	return &outlook{
		wanted: make(chan struct{}, 1), helps: make(chan helpOrder, 2*dialBacksPerSecond), measured: make(map[bool]measurement),
		told: make(map[identity.NodeID]toldStanding), waiting: make(map[[12]byte]chan<- natprobe.Told),
	}
}

// want asks for a measurement, unless there is one of this network.
func (o *outlook) want() {
	select {
	case o.wanted <- struct{}{}:
	default:
	}
}

// networkChanged makes what was measured count no more.
func (o *outlook) networkChanged() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.network++
	o.selfAt = time.Time{}
}

// mapped makes introductions say at once that a router maps the port: they carry the address too.
func (o *outlook) mapped() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.selfAt = time.Time{}
}

// latest returns the last measurement of a family, if it counts still.
func (o *outlook) latest(v4 bool) (measurement, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	got, ok := o.measured[v4]
	return got, ok && got.network == o.network && time.Since(got.at) < measuredFor
}

// heard notes a verified introduction of a peer.
func (o *outlook) heard(id identity.NodeID, message nat.Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t := o.told[id]
	t.heard, t.skewed = time.Now(), time.Time{}
	if message.NAT != 0 {
		t.nat, t.at = natkind.Unpack(message.NAT), t.heard
	}
	o.told[id] = t
}

// refused notes a signal that could not be taken. Only what a proven sender has caused is remembered.
func (o *outlook) refused(id identity.NodeID, err error) {
	if !errors.Is(err, signal.ErrClockSkew) {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	t := o.told[id]
	t.skewed = time.Now()
	o.told[id] = t
}

func (o *outlook) of(id identity.NodeID) toldStanding {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.told[id]
}

// vague reports whether a measurement is worth its while: there is none that counts, or it was made too early to find help.
func (o *outlook) vague() bool {
	got, ok := o.latest(true)
	return !ok || got.report.Filtering == natkind.FilteringUnknown && time.Since(got.at) > vagueFor
}

// measureNAT measures when it is wanted, until ctx ends.
func (m *member) measureNAT(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.outlook.wanted:
			if m.outlook.vague() {
				m.measure(ctx)
				m.streams.signs.poke() // the loop tells nat what came of it
			}
		}
	}
}

// measure asks anchors anew, over both families at once, and keeps what comes of it.
func (m *member) measure(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, measureTime)
	defer cancel()
	var families sync.WaitGroup
	for _, v4 := range []bool{true, false} {
		families.Go(func() { m.measureFamily(ctx, v4) })
	}
	families.Wait()
}

func (m *member) measureFamily(ctx context.Context, v4 bool) {
	local := m.hostAddresses()
	o := m.outlook
	o.mu.Lock()
	got := measurement{at: time.Now(), network: o.network}
	o.mu.Unlock()
	if slices.ContainsFunc(local, func(a netip.Addr) bool { return a.Is4() == v4 }) {
		told := make(chan natprobe.Told, 4)
		got.report, got.err = natprobe.Measure(ctx, natprobe.Options{
			Listen: func() (net.PacketConn, error) { return listenFamily(v4) }, Servers: m.stunServers(v4, local),
			Local: func(a netip.Addr) bool { return slices.Contains(local, a) }, Told: told,
			Ask: func(helper identity.NodeID, id [12]byte, addr netip.AddrPort) error {
				o.mu.Lock()
				o.waiting[id] = told
				o.mu.Unlock()
				return m.sessions.Send(helper, session.ProtoAsk, encodeTry(id, addr))
			},
		})
		o.mu.Lock()
		for id, c := range o.waiting {
			if c == told {
				delete(o.waiting, id)
			}
		}
		o.mu.Unlock()
	}
	o.mu.Lock()
	o.measured[v4] = got
	o.mu.Unlock()
}

// listenFamily opens a fresh UDP socket.
func listenFamily(v4 bool) (net.PacketConn, error) {
	if v4 {
		return net.ListenUDP("udp4", nil)
	}
	return net.ListenUDP("udp6", nil)
}

// stunServers lists the anchors on the Internet, one address each, those with a session first, the nearest first.
func (m *member) stunServers(v4 bool, local []netip.Addr) (out []natprobe.Server) {
	table := m.routes.Load()
	for _, other := range m.mesh.View().Members {
		if other.ID == m.self || other.State != roster.Active {
			continue
		}
		for _, addr := range ranges.PublicOf(other.Record.Endpoints) {
			if addr.Addr().Is4() == v4 && !slices.Contains(local, addr.Addr()) {
				out = append(out, natprobe.Server{ID: other.ID, Addr: addr, Helps: table.any()})
				break
			}
		}
	}
	rank := func(s natprobe.Server) int {
		if i := slices.Index(table.preferred, s.ID); i >= 0 {
			return i
		}
		return len(table.preferred)
	}
	slices.SortStableFunc(out, func(a, b natprobe.Server) int { return cmp.Compare(rank(a), rank(b)) })
	return out
}

// ownStanding is standing for introductions: hundreds may leave within a second.
func (m *member) ownStanding(kind nat.Kind) uint32 {
	if kind != nat.KindAsk && kind != nat.KindOffer && kind != nat.KindAnswer {
		return 0
	}
	o := m.outlook
	o.mu.Lock()
	self, old := o.self, time.Since(o.selfAt) > time.Second
	o.mu.Unlock()
	if old {
		self, _ = m.standing()
		o.mu.Lock()
		o.self, o.selfAt = self, time.Now()
		o.mu.Unlock()
	}
	self.UDPBlocked = m.routes.Load().forlorn // not old
	return self.Pack()
}

// standing is what is known of this node without asking anybody, for a peer or a person; at is when it was seen.
func (m *member) standing() (s natkind.Self, at time.Time) {
	// A NAT is IPv4's business; IPv6 counts where it is all there is.
	v4 := slices.ContainsFunc(m.hostAddresses(), netip.Addr.Is4)
	s.Mapping, at = m.sighted(v4)
	if got, ok := m.outlook.latest(v4); ok && got.report.Works() {
		s.Filtering = got.report.Filtering
		// The shared socket was looked at lately; the measurement asked a second port too.
		if s.Mapping == natkind.MappingUnknown || s.Mapping.Dependent() && got.report.Mapping.Dependent() {
			s.Mapping, at = got.report.Mapping, got.at
		}
	}
	s.PortMapping = m.portMapping()
	s.UDPBlocked = m.routes.Load().blocked != ""
	s.Ports = m.nat.Ports()
	return s, at
}

// measuredMapping is what the last measurement says of IPv4, which sees with one anchor what STUN answers do not.
func (m *member) measuredMapping() natkind.Mapping {
	if got, ok := m.outlook.latest(true); ok && got.report.Works() {
		return got.report.Mapping
	}
	return natkind.MappingUnknown
}

// sighted judges the mapping of the shared socket by what anchors on the Internet last said of it.
func (m *member) sighted(v4 bool) (kind natkind.Mapping, at time.Time) {
	local := m.hostAddresses()
	var seen []natkind.Seen
	for _, s := range m.sightings(v4) {
		seen = append(seen, natkind.Seen{Server: s.Server, Mapped: s.Mapped})
		if s.At.After(at) {
			at = s.At
		}
	}
	return natkind.MappingOf(seen, func(a netip.Addr) bool { return slices.Contains(local, a) }), at
}

// sightings are what anchors on the Internet lately said of the shared socket. Other members answer STUN too, but one that came in
// by a port mapping sees that.
func (m *member) sightings(v4 bool) (out []natkind.Sighting) {
	var anchors []netip.AddrPort
	for _, other := range m.mesh.View().Members {
		anchors = append(anchors, ranges.PublicOf(other.Record.Endpoints)...)
	}
	for _, s := range m.nat.Sightings() {
		if s.Server.Addr().Is4() == v4 && slices.Contains(anchors, s.Server) && time.Since(s.At) < sightingFor {
			out = append(out, s)
		}
	}
	return out
}

// portMapping sums up what the routers of this node do: the best counts.
func (m *member) portMapping() natkind.PortMapping {
	if !m.relaying() {
		return natkind.PortMappingOff // as configured: never an anchor
	}
	best := natkind.PortMappingUnknown
	worth := []natkind.PortMapping{natkind.PortMappingUnknown, natkind.PortMappingUnneeded, natkind.PortMappingAbsent, natkind.PortMappingRefused, natkind.PortMappedInside, natkind.PortMapped}
	for _, router := range m.mapper.Snapshot().Routers {
		if kind := portMappingOf(router); slices.Index(worth, kind) > slices.Index(worth, best) {
			best = kind
		}
	}
	return best
}

func portMappingOf(r portmap.RouterStatus) natkind.PortMapping {
	switch {
	case r.Mapping != nil && r.Mapping.Public():
		return natkind.PortMapped
	case r.Mapping != nil:
		return natkind.PortMappedInside
	}
	has := func(s portmap.State) bool {
		return slices.ContainsFunc(r.Protocols, func(p portmap.ProtocolStatus) bool { return p.State == s })
	}
	switch {
	case has(portmap.Refused):
		return natkind.PortMappingRefused
	case has(portmap.Asking):
		return natkind.PortMappingUnknown
	case has(portmap.Unneeded):
		return natkind.PortMappingUnneeded
	case has(portmap.Absent):
		return natkind.PortMappingAbsent
	}
	return natkind.PortMappingUnknown
}
