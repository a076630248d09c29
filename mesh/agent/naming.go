package agent

import (
	"context"
	"net/netip"
	"reflect"
	"slices"

	"warren/mesh"
	"warren/mesh/dns"
	"warren/mesh/identity"
	"warren/mesh/node"
	"warren/mesh/zone"
	"warren/tunnel/osnames"
)

// naming keeps what the mesh's names mean in step with the records, and has two owners know it: the one that answers for them, and the one that has
// this machine's resolver ask there.
type naming struct {
	a        *agent
	self     identity.NodeID
	dns      *dns.Server
	resolver *osnames.Names

	// owned by Run: of what the last ones were made
	view   *mesh.View
	board  *node.Board
	served dns.Desired
	told   osnames.Desired
}

// Run follows the records until ctx ends.
func (n *naming) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.a.hub.Boards():
		case <-n.dns.Events():
		}
		view, board := n.a.parts.records.View(), n.a.hub.Board()
		if n.board == nil || view != n.view || board.NoIPv4 != n.board.NoIPv4 || !reflect.DeepEqual(board.Settings, n.board.Settings) {
			n.served, n.told = namesOf(view, n.self, board) // of a thousand members it takes a millisecond, and boards come ten times a second
		}
		n.view, n.board = view, board
		n.told.Link, n.told.Servers = n.a.tunnel.Name(), n.dns.Snapshot().Addrs
		n.dns.Set(n.served)
		n.resolver.Set(n.told)
	}
}

// namesOf names the active members first, then the devices that they host, then static peers that have addresses in the overlay: a member's name is granted, that of a static peer is
// this machine's word alone.
func namesOf(view *mesh.View, self identity.NodeID, board *node.Board) (served dns.Desired, told osnames.Desired) {
	own, _ := view.Member(self)
	names := zone.Options{Domain: view.Domain, Self: own.Name}
	for _, p := range []netip.Prefix{view.Prefix4, view.Prefix6} {
		if p.IsValid() && !(board.NoIPv4 && p.Addr().Is4()) {
			names.Networks = append(names.Networks, p)
		}
	}
	addrsOf := func(m mesh.Member) (out []netip.Addr) {
		for _, addr := range []netip.Addr{m.Addr4, m.Addr6} {
			if addr.IsValid() && !(board.NoIPv4 && addr.Is4()) {
				out = append(out, addr)
			}
		}
		return out
	}
	for _, m := range view.Members {
		if m.State == mesh.Active {
			names.Hosts = append(names.Hosts, zone.Host{Name: m.Name, Addrs: addrsOf(m)})
		}
	}
	for _, m := range view.Members {
		if m.State != mesh.Active {
			continue
		}
		for _, d := range m.Record.Devices { // only what is routed to their host is theirs
			h := zone.Host{Name: d.Name}
			for _, addr := range d.Addrs {
				if slices.ContainsFunc(m.Routes, func(p netip.Prefix) bool { return p.IsSingleIP() && p.Addr() == addr }) {
					h.Addrs = append(h.Addrs, addr)
				}
			}
			names.Hosts = append(names.Hosts, h)
		}
	}
	served.From = append(served.From, names.Networks...)
	for _, s := range board.Settings.Static {
		h := zone.Host{Name: s.Name}
		for _, p := range s.AllowedIPs {
			if p.IsSingleIP() {
				h.Addrs, served.From = append(h.Addrs, p.Addr()), append(served.From, p)
			}
		}
		names.Hosts = append(names.Hosts, h)
	}
	z := zone.New(names)
	served.Zone, served.Addrs = z, addrsOf(own)
	told = osnames.Desired{Mode: osnames.Mode(board.Settings.Names), Domain: z.Domain(), Reverse: z.Reverse()}
	for _, h := range z.Hosts() {
		for _, addr := range h.Addrs {
			told.Hosts = append(told.Hosts, osnames.Host{Addr: addr, Names: []string{h.Name + "." + z.Domain(), h.Name}})
		}
	}
	return served, told
}
