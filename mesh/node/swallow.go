package node

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"warren/mesh/identity"
	"warren/nat/ranges"
	"warren/tunnel/bind"
	"warren/tunnel/osnet"
)

// withoutSwallowing returns the facts without those routes of static peers that would swallow the tunnel or cut this machine off, and
// says which these are: with them on the interface nothing else would work.
func (f facts) withoutSwallowing() (facts, []Conflict) {
	var routes []ranges.Route
	for _, s := range f.settings.Static {
		for _, prefix := range s.AllowedIPs {
			routes = append(routes, ranges.Route{Prefix: prefix, Peer: s.Name})
		}
	}
	if len(routes) == 0 {
		return f, nil
	}
	elsewhere := make([]netip.Prefix, len(f.here.elsewhere))
	for i, r := range f.here.elsewhere {
		elsewhere[i] = r.Prefix
	}
	refused := ranges.Swallowing(routes, f.ground(), elsewhere)
	if len(refused) == 0 {
		return f, nil
	}
	var left []Conflict
	next := 0
	f.settings.Static = slices.Clone(f.settings.Static)
	for i := range f.settings.Static {
		s := &f.settings.Static[i]
		var allowed []netip.Prefix
		for _, prefix := range s.AllowedIPs {
			if why, no := refused[next]; no {
				left = append(left, Conflict{Text: fmt.Sprintf("%v of static peer %s is left out: %s", prefix, s.Name, why)})
			} else {
				allowed = append(allowed, prefix)
			}
			next++
		}
		s.AllowedIPs = allowed
	}
	return f, left
}

// ground is what this machine reaches outside of the tunnel, what changes least first. Of members only addresses at which they were reached count: they can name any.
func (f facts) ground() (out []ranges.Ground) {
	add := func(addr netip.Addr, what string) {
		if addr.IsValid() {
			out = append(out, ranges.Ground{Addr: addr, What: what})
		}
	}
	for _, s := range f.settings.Static {
		add(f.names[s.Endpoint].Addr(), "the endpoint of static peer "+s.Name)
	}
	for _, router := range f.here.gateways {
		add(router, "the router of this network")
	}
	for _, host := range f.standing.Hosts {
		// The address itself is never lost to a route, but the network in which it is.
		if slices.ContainsFunc(f.here.elsewhere, func(r osnet.Route) bool { return r.Prefix.Contains(host) }) {
			add(host, "an address of this machine")
		}
	}
	for _, c := range f.contacts {
		if ranges.IsPublic(c.Addr.Addr()) {
			add(c.Addr.Addr(), "the address of "+f.nameOf(c.ID))
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(f.sessions), identity.NodeID.Compare) {
		if addr := f.sessions[id].remote.Addr(); !bind.IsVirtual(addr) && ranges.IsPublic(addr) {
			add(addr, "the address of "+f.nameOf(id))
		}
	}
	return out
}
