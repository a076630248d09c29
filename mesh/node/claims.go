package node

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh"
	"warren/mesh/identity"
)

/* Who has what on this machine
 *
 * WireGuard gives a key and a prefix to one peer, and a member can name any. The records settle that among members (roster.Member:
 * Routes, KeyTakenBy); they know nothing of what this machine has by itself, and a mistake in them is not to cost a tunnel that is up.
 * So here, in this order:
 *
 *	this node's own key and addresses │ static peers of the config file │ members as they were in the last round │ members, in order
 *
 * Whoever comes later is left out with what the others have, and that is said.
 */

// Conflict is what somebody does not have on this machine because another has it already.
type Conflict struct {
	ID       identity.NodeID // of the member that goes without; zero: it is about this machine alone
	NoTunnel string          // why the member has no tunnel at all; "": it has one
	Text     string          // the whole of it, in words
}

// claims says whose the keys and prefixes are.
type claims struct {
	facts     facts
	static    map[wgtypes.Key]string          // names of static peers
	members   map[wgtypes.Key]identity.NodeID // the member that has a key
	machine   []claim                         // of this node and of static peers
	given     map[netip.Prefix]string         // to members, by name
	conflicts []Conflict
}

// claim is a prefix, and whose it is in words.
type claim struct {
	prefix netip.Prefix
	by     string
}

// newClaims enters what this machine has, and which member has which key.
func newClaims(self mesh.Member, f facts) *claims {
	c := &claims{
		facts: f, static: make(map[wgtypes.Key]string), members: make(map[wgtypes.Key]identity.NodeID, len(f.view.Members)), given: make(map[netip.Prefix]string),
	}
	for _, s := range f.settings.Static {
		c.static[s.PublicKey] = s.Name
		for _, prefix := range s.AllowedIPs {
			if !f.surrounds(prefix) {
				c.machine = append(c.machine, claim{prefix.Masked(), "static peer " + s.Name})
			}
		}
	}
	mine := slices.Clone(f.standing.Hosts)
	for _, prefix := range append(ownPrefixes(self), f.settings.Interface.Addresses...) {
		mine = append(mine, prefix.Addr())
	}
	for _, addr := range mine {
		c.machine = append(c.machine, claim{netip.PrefixFrom(addr, addr.BitLen()), "this machine"})
	}
	for _, before := range []bool{true, false} {
		for _, m := range f.view.Members {
			key := wgtypes.Key(m.Record.WireGuardKey)
			if m.ID == f.self || m.State != mesh.Active || !m.KeyTakenBy.IsZero() || before && f.here.held[key] != m.ID {
				continue
			}
			if _, known := c.members[key]; !known {
				c.members[key] = m.ID
			}
		}
	}
	return c
}

// surrounds reports whether a prefix has a whole overlay network in it: then it is what lies around the mesh, and what members have
// is more specific.
func (f facts) surrounds(prefix netip.Prefix) bool {
	return slices.ContainsFunc(f.overlays(), func(o netip.Prefix) bool { return prefix.Bits() <= o.Bits() && prefix.Contains(o.Addr()) })
}

// nameOf names a member: by its ID when the records do not.
func (f facts) nameOf(id identity.NodeID) string {
	if m, ok := f.view.Member(id); ok && m.Name != "" {
		return m.Name
	}
	return id.Short()
}

// staticPeer reports whether a static peer can have its key.
func (c *claims) staticPeer(s StaticPeer) bool {
	if s.PublicKey != c.facts.here.key {
		return true
	}
	c.conflicts = append(c.conflicts, Conflict{Text: fmt.Sprintf("static peer %s is left out: its public_key is this node's own", s.Name)})
	return false
}

// self tells when no other member has a tunnel with this node.
func (c *claims) self(self mesh.Member) {
	if !self.KeyTakenBy.IsZero() {
		c.conflicts = append(c.conflicts, Conflict{Text: fmt.Sprintf(
			"no member has a tunnel with this node: its WireGuard key is %s's as well; give it another one (private_key_file in the config file, else join anew)", c.facts.nameOf(self.KeyTakenBy))})
	}
}

// member reports whether a member has its key for itself.
func (c *claims) member(m mesh.Member) bool {
	key, whose := wgtypes.Key(m.Record.WireGuardKey), ""
	static, isStatic := c.static[key]
	switch {
	case key == c.facts.here.key:
		whose = "this node's own"
	case isStatic:
		whose = "that of static peer " + static + " of this machine"
	case !m.KeyTakenBy.IsZero():
		whose = c.facts.nameOf(m.KeyTakenBy) + "'s"
	case c.members[key] != m.ID:
		whose = c.facts.nameOf(c.members[key]) + "'s"
	default:
		return true
	}
	why := "its WireGuard key is " + whose
	c.conflicts = append(c.conflicts, Conflict{ID: m.ID, NoTunnel: "no tunnel: " + why, Text: m.Name + " has no tunnel here: " + why})
	return false
}

// allowed returns those of a member's prefixes that it can have.
func (c *claims) allowed(m mesh.Member, prefixes []netip.Prefix) (out []netip.Prefix) {
	var refused []string
	for _, prefix := range prefixes {
		by, taken := c.given[prefix]
		if i := slices.IndexFunc(c.machine, func(mine claim) bool { return mine.prefix.Overlaps(prefix) }); i >= 0 {
			by, taken = fmt.Sprintf("%s has %v", c.machine[i].by, c.machine[i].prefix), true
		}
		if taken {
			refused = append(refused, fmt.Sprintf("%v (%s)", prefix, by))
			continue
		}
		c.given[prefix] = m.Name + " has it"
		out = append(out, prefix)
	}
	if len(refused) > 0 {
		c.conflicts = append(c.conflicts, Conflict{ID: m.ID, Text: fmt.Sprintf("%s goes without %s here", m.Name, strings.Join(refused, ", "))})
	}
	return out
}

// withoutIPv4 returns the facts as they are when the mesh has IPv6 only on this machine.
func (f facts) withoutIPv4() facts {
	view := *f.view
	view.Prefix4, view.Members = netip.Prefix{}, slices.Clone(view.Members)
	for i := range view.Members {
		m := &view.Members[i]
		m.Addr4, m.Routes = netip.Addr{}, slices.DeleteFunc(slices.Clone(m.Routes), func(p netip.Prefix) bool { return p.Addr().Is4() })
	}
	f.view = &view
	return f
}

// ipv4 reports whether the settings want IPv4 in the overlay, and what is in its way on this machine.
func (f facts) ipv4() (wanted bool, conflict string) {
	if wanted = !f.here.noIPv4; f.settings.IPv4 != nil {
		wanted = *f.settings.IPv4
	}
	if !wanted || !f.view.Prefix4.IsValid() {
		return wanted, ""
	}
	self, _ := f.view.Member(f.self)
	for _, r := range f.here.elsewhere {
		if !r.Collides(f.view.Prefix4, self.Addr4) {
			continue
		}
		return true, fmt.Sprintf("the mesh's IPv4 network %v overlaps %v on %s: the mesh goes by IPv6 alone on this machine for as long as that lasts", f.view.Prefix4, r.Prefix, r.Interface)
	}
	return true, ""
}
