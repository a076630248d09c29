package standing

import (
	"net/netip"
	"slices"
	"time"

	"warren/nat/natkind"
	"warren/nat/natprobe"
	"warren/nat/portmap"
)

const (
	// sightingFor is how long a STUN answer about the shared socket counts: anchors are asked once a minute.
	sightingFor = 2 * time.Minute
	// toldFor is how long what introductions say is used again: hundreds may leave within a second.
	toldFor = time.Second
)

// told is what introductions say.
type told struct {
	self natkind.Self
	seen time.Time
	of   *Snapshot // that it was made from
	at   time.Time // when
}

// Self is what is known of this node without asking anybody, for a peer or a person; at is when it was seen, zero for never. It is
// a second old at most, and never older than Snapshot.
func (s *Standing) Self() (self natkind.Self, at time.Time) {
	now, snap := time.Now(), s.Snapshot()
	t := s.told.Load()
	if t == nil || t.of != snap || now.Sub(t.at) > toldFor {
		t = &told{of: snap, at: now}
		t.self, t.seen = s.judge(now, snap)
		s.told.Store(t)
	}
	self = t.self
	if d := s.desired.Load(); d != nil {
		self.UDPBlocked = d.UDPBlocked
	}
	return self, t.seen
}

// Pack is Self as introductions carry it (natkind.Self.Pack).
func (s *Standing) Pack() uint32 {
	self, _ := s.Self()
	return self.Pack()
}

// judge puts together what the shared socket, the routers and the last measurement have shown.
func (s *Standing) judge(now time.Time, snap *Snapshot) (self natkind.Self, at time.Time) {
	// A NAT is IPv4's business; IPv6 counts where it is all there is.
	v4 := slices.ContainsFunc(snap.Hosts, netip.Addr.Is4)
	self.Mapping, at = s.sighted(now, snap, v4)
	if got, ok := snap.Measured(v4); ok && got.Report.Works() {
		self.Filtering = got.Report.Filtering
		// The shared socket was looked at lately; the measurement asked a second port too.
		if self.Mapping == natkind.MappingUnknown || self.Mapping.Dependent() && got.Report.Mapping.Dependent() {
			self.Mapping, at = got.Report.Mapping, got.At
		}
	}
	self.PortMapping = snap.PortMapping
	self.Ports = s.o.STUN.Ports()
	self.PortTaken = snap.Taken.Port != 0
	return self, at
}

// sighted judges the mapping of the shared socket by what anchors on the Internet last said of it.
func (s *Standing) sighted(now time.Time, snap *Snapshot, v4 bool) (kind natkind.Mapping, at time.Time) {
	var seen []natkind.Seen
	for _, one := range s.sightings(now, v4) {
		seen = append(seen, natkind.Seen{Server: one.Server, Mapped: one.Mapped})
		if one.At.After(at) {
			at = one.At
		}
	}
	return natkind.MappingOf(seen, func(a netip.Addr) bool { return slices.Contains(snap.Hosts, a) }), at
}

// Sightings are what anchors on the Internet lately said of the shared socket, over one family. Other members answer STUN too, but
// one that came in by a port mapping sees that.
func (s *Standing) Sightings(v4 bool) []natkind.Sighting { return s.sightings(time.Now(), v4) }

func (s *Standing) sightings(now time.Time, v4 bool) (out []natkind.Sighting) {
	d := s.desired.Load()
	if d == nil {
		return nil
	}
	for _, one := range s.o.STUN.Sightings() {
		anchor := slices.ContainsFunc(d.Servers, func(server natprobe.Server) bool { return server.Addr == one.Server })
		if one.Server.Addr().Is4() == v4 && anchor && now.Sub(one.At) < sightingFor {
			out = append(out, one)
		}
	}
	return out
}

// portMapping sums up what the routers of this node do: the best counts.
func portMapping(mode Mode, routers []portmap.RouterStatus) natkind.PortMapping {
	if mode == Never {
		return natkind.PortMappingOff // as configured
	}
	best := natkind.PortMappingUnknown
	worth := []natkind.PortMapping{natkind.PortMappingUnknown, natkind.PortMappingUnneeded, natkind.PortMappingAbsent, natkind.PortMappingRefused, natkind.PortMappedInside, natkind.PortMapped}
	for _, router := range routers {
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
