package node

import (
	"net/netip"
	"slices"
	"time"

	"warren/mesh"
	"warren/mesh/identity"
	"warren/nat/streams"
)

// maxEndpoints bounds what a node says in its record of where strangers reach it.
const maxEndpoints = 6

// planOwn is what this node says of itself. A change costs every member a record, so that what flickers (which sessions are
// up) is only said when what was said before is no longer true.
func planOwn(self mesh.Member, f facts) *mesh.Own {
	own := &mesh.Own{
		Endpoints: self.Record.Endpoints, Streams: self.Record.Streams, Anchors: ownAnchors(self.Record.Anchors, f), Routes: sharedRoutes(f), Addr4: ownAddr4(self, f), Devices: ownDevices(f),
	}
	if f.standing.Settled { // else what was said before it began stands: nobody knows better
		endpoints := slices.Clone(f.standing.Usable)
		own.Endpoints = endpoints[:min(len(endpoints), maxEndpoints)]
		own.Streams = streams.Endpoints(own.Endpoints, f.standing.External, f.standing.TCPMapped, f.port, f.streams.Listening())
	}
	return own
}

// anchorsSettle is how long no session may have come up until more anchors are named: sessions come up together, and each name that is added
// by itself is another record for everybody.
const anchorsSettle = 3 * time.Second

// ownAnchors returns the members through which this node can be reached: those said before as far as their sessions
// are up, then others, anchors first.
func ownAnchors(before []identity.NodeID, f facts) []identity.NodeID {
	var out []identity.NodeID
	for _, id := range before {
		if slices.Contains(f.preferred, id) {
			out = append(out, id)
		}
	}
	settling := slices.ContainsFunc(f.preferred, func(id identity.NodeID) bool {
		s, up := f.sessions[id]
		return up && f.now.Sub(s.since) < anchorsSettle
	})
	if settling && (len(out) > 0 || f.view.Rings().Has(f.self)) {
		return before // one of them is enough to be reached by, and of an anchor all know whom it keeps sessions with
	}
	for _, id := range f.preferred {
		if len(out) < WantedAnchors && !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	if len(out) == 0 {
		return before // nobody could be told otherwise, and it is where this node will come back
	}
	return out[:min(len(out), WantedAnchors)]
}

// sharedRoutes are the addresses of the static peers that other members may reach through this node. That another member has them is
// no reason not to say so: who has them is for the records to decide, and may change.
func sharedRoutes(f facts) (out []netip.Prefix) {
	for _, s := range f.settings.Static {
		if !s.Share {
			continue
		}
		for _, prefix := range s.AllowedIPs {
			if f.view.Routable(prefix) {
				out = append(out, prefix)
			}
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int { return a.Compare(b) })
	return slices.Compact(out)
}

// ownDevices are the devices that this node hosts.
func ownDevices(f facts) (out []mesh.Device) {
	for _, s := range f.settings.Static {
		if !s.Device {
			continue
		}
		d := mesh.Device{Name: s.Name, Tags: s.Tags}
		for _, prefix := range s.AllowedIPs {
			if f.view.Routable(prefix) {
				d.Addrs = append(d.Addrs, prefix.Addr())
			}
		}
		if len(d.Addrs) > 0 {
			out = append(out, d)
		}
	}
	return out
}

// ownAddr4 returns the IPv4 address to claim: the one that this node has, else the first of its own that no other member has, nor a
// route of one.
func ownAddr4(self mesh.Member, f facts) netip.Addr {
	if !f.view.Prefix4.IsValid() || self.Addr4.IsValid() {
		return self.Addr4
	}
	taken, routes := make(map[netip.Addr]bool, len(f.view.Members)), []netip.Prefix(nil)
	for _, other := range f.view.Members {
		if other.ID != f.self {
			taken[other.Addr4] = true
			routes = append(routes, other.Routes...)
		}
	}
	for probe := range identity.MaxProbes {
		addr := identity.Addr4(f.view.Prefix4, f.self, probe)
		if !taken[addr] && !slices.ContainsFunc(routes, func(r netip.Prefix) bool { return r.Contains(addr) }) {
			return addr
		}
	}
	return netip.Addr{}
}
