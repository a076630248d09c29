package node

import (
	"net/netip"

	"warren/mesh"
	"warren/mesh/dns"
	"warren/mesh/zone"
	"warren/tunnel/osnames"
)

// naming is what the mesh's names mean on this machine.
type naming struct {
	served dns.Desired     // where this node answers for them, and to whom
	told   osnames.Desired // what this machine's resolver knows
}

// planNaming names the active members first, then static peers that have addresses in the overlay: a member's name is granted, that of a static
// peer is this machine's word alone.
func planNaming(self mesh.Member, f facts) (out naming) {
	networks := f.overlays()
	names := zone.Options{Domain: f.view.Domain, Self: self.Name, Networks: networks}
	for _, m := range f.view.Members {
		if m.State == mesh.Active {
			names.Hosts = append(names.Hosts, zone.Host{Name: m.Name, Addrs: addrsOf(ownPrefixes(m))})
		}
	}
	out.served.From = networks
	for _, s := range f.settings.Static {
		addrs := addrsOf(s.AllowedIPs)
		names.Hosts = append(names.Hosts, zone.Host{Name: s.Name, Addrs: addrs})
		for _, addr := range addrs {
			out.served.From = append(out.served.From, netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
	z := zone.New(names)
	out.served.Zone, out.served.Addrs = z, addrsOf(ownPrefixes(self))
	out.told = osnames.Desired{Mode: f.settings.Names, Link: f.here.link, Domain: z.Domain(), Reverse: z.Reverse(), Servers: f.here.answering}
	for _, h := range z.Hosts() {
		for _, addr := range h.Addrs {
			out.told.Hosts = append(out.told.Hosts, osnames.Host{Addr: addr, Names: []string{h.Name + "." + z.Domain(), h.Name}})
		}
	}
	return out
}

// addrsOf are the prefixes that are one address each.
func addrsOf(prefixes []netip.Prefix) (out []netip.Addr) {
	for _, p := range prefixes {
		if p.IsSingleIP() {
			out = append(out, p.Addr())
		}
	}
	return out
}
