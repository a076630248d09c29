package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"warren/config"
	"warren/mesh/api"
)

// party is this node, a peer or a node that was thrown out, as far as the status tells who that is.
type party struct {
	api.Peer
	self    bool
	revoked *api.Revoked
}

// parties are all that a status knows, this node first.
func parties(s api.Status) []party {
	me := s.Self
	all := []party{{self: true, Peer: api.Peer{
		ID: me.ID, Name: me.Name, Addresses: me.Addresses, PublicKey: me.PublicKey, Version: s.Version, State: s.State, Admin: me.Admin, Anchor: me.Anchor, Tags: me.Tags,
		Path: api.Path{Kind: api.PathNone}, Origin: api.Origin{Power: me.Power},
	}}}
	for _, p := range s.Peers {
		all = append(all, party{Peer: p})
	}
	for _, r := range s.Revoked {
		if r.Kind == "node" && r.Scope == api.ScopeWhole {
			all = append(all, party{Peer: api.Peer{ID: r.ID, Name: r.Name, State: "revoked", Path: api.Path{Kind: api.PathNone}}, revoked: &r})
		}
	}
	return all
}

// minID is how much of an ID is enough to ask for it.
const minID = 4

// find looks for who is meant by a name, an overlay address, a WireGuard key, an ID or the start of one. An address stands for whoever
// has it, or the most specific route to it; an underlay address for whom packets are exchanged there with.
func find(s api.Status, text string) (party, error) {
	all := parties(s)
	word := strings.ToLower(strings.TrimSuffix(strings.TrimSpace(text), "."))
	if s.Mesh != nil && s.Mesh.Domain != "" {
		word = strings.TrimSuffix(word, "."+s.Mesh.Domain)
	}
	if addr, at := addressIn(word); addr.IsValid() {
		return owner(all, text, addr, at)
	}
	var found []party
	for _, p := range all {
		if word != "" && (p.ID == word || p.PublicKey == strings.TrimSpace(text)) {
			return p, nil
		}
		if p.Name != "" && p.Name == word || p.ID != "" && len(word) >= minID && strings.HasPrefix(p.ID, word) {
			found = append(found, p)
		}
	}
	// Who is out keeps no name: a member that has it now is the one that is meant.
	if len(found) > 1 {
		if here := slices.DeleteFunc(slices.Clone(found), func(p party) bool { return p.revoked != nil || p.State == api.PeerLeft }); len(here) > 0 {
			found = here
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return party{}, unknownParty(all, text, word)
	}
	var ids []string
	for _, p := range found[:min(4, len(found))] {
		ids = append(ids, fmt.Sprintf("%s (%s)", p.Name, p.ID))
	}
	return party{}, hinted(fmt.Errorf("%q may mean several: %s", text, strings.Join(ids, ", ")), "say the whole ID")
}

func unknownParty(all []party, text, word string) error {
	var names []string
	for _, p := range all {
		if p.Name != "" {
			names = append(names, p.Name)
		}
	}
	hint := "see: warren peers --all"
	if near := config.Nearest(word, names); near != "" {
		hint = "did you mean " + near + "? " + hint
	}
	return hinted(fmt.Errorf("nobody is called %q", text), hint)
}

// addressIn reads an address as people copy it: with a port, in brackets, with a prefix length, or as a URL's host. at is the whole of an
// underlay address where there is a port.
func addressIn(text string) (addr netip.Addr, at netip.AddrPort) {
	text = strings.TrimPrefix(strings.TrimPrefix(text, "http://"), "https://")
	if whole, err := netip.ParseAddrPort(text); err == nil {
		return whole.Addr().Unmap(), netip.AddrPortFrom(whole.Addr().Unmap(), whole.Port())
	}
	text, _, _ = strings.Cut(text, "/")
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	if err != nil {
		return netip.Addr{}, netip.AddrPort{}
	}
	return addr.Unmap().WithZone(""), netip.AddrPort{}
}

// owner is who has an address.
func owner(all []party, text string, addr netip.Addr, at netip.AddrPort) (party, error) {
	best, bits := -1, -1
	for i, p := range all {
		if slices.Contains(p.Addresses, addr) {
			return p, nil
		}
		for _, route := range p.Routes {
			if route.Contains(addr) && route.Bits() > bits {
				best, bits = i, route.Bits()
			}
		}
	}
	if best >= 0 {
		return all[best], nil
	}
	var there []party
	for _, p := range all {
		if p.Path.Kind == api.PathDirect && p.Path.Address.Addr().Unmap() == addr && (!at.IsValid() || p.Path.Address.Port() == at.Port()) {
			there = append(there, p)
		}
	}
	switch len(there) {
	case 1:
		return there[0], nil
	case 0:
		return party{}, hinted(fmt.Errorf("no node has the address %s", text), "see: warren peers")
	}
	var names []string
	for _, p := range there {
		names = append(names, fmt.Sprintf("%s (%s)", p.Name, p.Path.Address))
	}
	return party{}, hinted(fmt.Errorf("several nodes are reached at %s: %s", text, strings.Join(names, ", ")), "say the port as well")
}

// whoisCommand tells whose an address is.
type whoisCommand struct {
	dirs *dirs
	con  *console
}

func (c whoisCommand) cobra() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "whois ADDRESS|NAME|KEY|ID",
		Short: "Tell whose an address, a name, a WireGuard key or an ID is",
		Long: "Tell which node has an overlay address (or a route to it), is reached at an underlay address, has a WireGuard key, or\n" +
			"is called so. A port after the address is fine.",
		Example:           "  warren whois 100.71.0.2\n  warren whois 203.0.113.6:9277 --json",
		Args:              exactly(1, "ADDRESS|NAME|KEY|ID"),
		ValidArgsFunction: completeParties(c.dirs),
		RunE: func(cmd *cobra.Command, args []string) error {
			status, err := c.dirs.status(cmd.Context())
			if err != nil {
				return err
			}
			who, err := find(status, args[0])
			if err != nil {
				return err
			}
			return c.con.who(who, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// who prints what is known of who somebody is.
func (c *console) who(p party, asJSON bool) error {
	if asJSON {
		return c.printJSON(struct {
			Schema  int          `json:"schema"`
			Self    bool         `json:"self"`
			Node    api.Peer     `json:"node"`
			Revoked *api.Revoked `json:"revoked"` // null: it is not
		}{api.Schema, p.self, p.Peer, p.revoked})
	}
	var f facts
	name := p.Name
	if p.self {
		name = strings.TrimSpace(name + " (this node)")
	}
	f.add("name", name)
	if p.revoked != nil {
		f.add("role", "revoked by "+p.revoked.By+" on "+p.revoked.Time.UTC().Format("2006-01-02 15:04 UTC")+comma(p.revoked.Reason))
		f.add("ID", p.ID)
		f.print(c.out, screenOf(c.out).listed())
		return nil
	}
	f.add("role", role(p.Peer))
	f.add("addresses", joinAddrs(p.Addresses))
	f.add("routes", joined(p.Routes))
	if !p.self {
		f.add("state", p.State)
		f.add("path", shownPath(p.Path))
	}
	f.add("ID", p.ID)
	f.add("key", p.PublicKey)
	f.add("tags", strings.Join(p.Tags, ", "))
	f.add("version", p.Version)
	f.add("admitted by", p.AdmittedBy)
	f.print(c.out, screenOf(c.out).listed())
	return nil
}

func joined[T fmt.Stringer](list []T) string {
	var texts []string
	for _, item := range list {
		texts = append(texts, item.String())
	}
	return strings.Join(texts, ", ")
}

// completeParties offers all names, that of this node included.
func completeParties(d *dirs) cobra.CompletionFunc {
	return completeStatus(d, func(s api.Status) (found []string) {
		for _, p := range parties(s) {
			if p.Name != "" && p.revoked == nil && p.State != api.PeerLeft {
				found = append(found, clean(p.Name))
			}
		}
		return found
	})
}

// ipCommand prints overlay addresses and nothing else, for scripts.
type ipCommand struct {
	dirs *dirs
	con  *console
}

func (c ipCommand) cobra() *cobra.Command {
	var asJSON, only4, only6 bool
	cmd := &cobra.Command{
		Use:   "ip [NAME]",
		Short: "Print the overlay addresses of this node, or of another one",
		Long:  "Print the overlay addresses of this node, or of the one that is named, a line each, IPv4 first.",
		Example: "  warren ip\n" +
			"  ssh me@$(warren ip -4 nas)",
		Args:              between(0, 1, "[NAME]"),
		ValidArgsFunction: completeParties(c.dirs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if only4 && only6 {
				return &usageError{message: "ip: --ipv4 and --ipv6: say one of them"}
			}
			status, err := c.dirs.status(cmd.Context())
			if err != nil {
				return err
			}
			who := parties(status)[0]
			if len(args) == 1 {
				if who, err = find(status, args[0]); err != nil {
					return err
				}
			}
			addrs := slices.DeleteFunc(slices.Clone(who.Addresses), func(a netip.Addr) bool { return only4 && !a.Is4() || only6 && a.Is4() })
			if asJSON {
				return c.con.printJSON(struct {
					Schema    int          `json:"schema"`
					Name      string       `json:"name"`
					Addresses []netip.Addr `json:"addresses"`
				}{api.Schema, who.Name, append([]netip.Addr{}, addrs...)})
			}
			if len(addrs) == 0 {
				kind := map[[2]bool]string{{true, false}: " IPv4", {false, true}: " IPv6"}[[2]bool{only4, only6}]
				return fmt.Errorf("%s has no%s address", who.Name, kind)
			}
			for _, addr := range addrs {
				fmt.Fprintln(c.con.out, addr)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVarP(&only4, "ipv4", "4", false, "only the IPv4 address")
	cmd.Flags().BoolVarP(&only6, "ipv6", "6", false, "only the IPv6 address")
	return cmd
}
