package roster

import (
	"crypto/x509"
	"net/netip"
	"strconv"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// directory lists the members, and gives each the name and the address by which the others know it.
type directory struct {
	// constant
	mesh     identity.MeshID
	prefix4  netip.Prefix
	standing *standing

	members []Member // nil before the first use
	byID    map[identity.NodeID]int
	as      uint64 // the state of standing that they are of
}

func newDirectory(root *x509.Certificate, mesh identity.MeshID, s *standing) *directory {
	d := &directory{mesh: mesh, standing: s}
	if terms, err := identity.RootTermsOf(root); err == nil {
		d.prefix4 = terms.Prefix4
	}
	return d
}

// all returns all members, those that have left included, in the order of their admission.
func (d *directory) all() []Member {
	if d.members == nil || d.as != d.standing.changes {
		d.read()
		d.as = d.standing.changes
	}
	return d.members
}

func (d *directory) find(id identity.NodeID) (Member, bool) {
	members := d.all()
	i, ok := d.byID[id]
	if !ok {
		return Member{}, false
	}
	return members[i], true
}

// read makes the list anew; the old one is in others' hands.
func (d *directory) read() {
	entries := d.standing.members()
	d.members, d.byID = make([]Member, len(entries)), make(map[identity.NodeID]int, len(entries))
	for i, e := range entries {
		d.members[i] = d.member(e)
		d.byID[e.Node.ID] = i
	}
	// Those that have left come last and take nothing from those that are here.
	names, addrs := takenNames{}, make(map[netip.Addr]bool)
	for _, state := range [...]State{Active, Left} {
		for i := range d.members {
			m := &d.members[i]
			if m.State != state {
				continue
			}
			m.Name = names.take(m.Record.Name, m.ID)
			if addr := m.Record.Addr4; isHost(d.prefix4, addr) && !addrs[addr] {
				m.Addr4, addrs[addr] = addr, true
			}
		}
	}
}

func (d *directory) member(e *entry) Member {
	m := Member{
		ID: e.Node.ID, Record: *e.Node, Key: e.Key, Admin: d.standing.adminBy(e) != nil, AdmittedBy: e.Node.Admission.Signer,
		Admitted: e.Admitted(), Expires: e.Certificate.NotAfter.In(time.UTC), Addr6: identity.Addr6(d.mesh, e.Node.ID),
	}
	if e.issuer != nil {
		m.Tags, m.Invite = e.issuer.terms.Tags, e.issuer.keyID
	}
	if e.Node.Left {
		m.State = Left
	}
	return m
}

// takenNames are the names that somebody has, each with the number to go on with when somebody else wants it, so that a thousand
// nodes of one name cost no more than others.
type takenNames map[string]int

// take returns the wanted name, or with the first of -2, -3 … that nobody has, and takes it. A node that
// wants no name is called after its ID.
func (n takenNames) take(wanted string, id identity.NodeID) string {
	if wanted == "" {
		wanted = "node-" + id.Short()[:6]
	}
	name, next := wanted, max(n[wanted], 2)
	for ; n[name] > 0; next++ {
		suffix := "-" + strconv.Itoa(next)
		name = wanted[:min(len(wanted), record.MaxName-len(suffix))] + suffix
	}
	n[wanted] = next
	n[name] = max(n[name], 2)
	return name
}

// isHost reports whether addr is one that a node may have in prefix: not its first or last.
func isHost(prefix netip.Prefix, addr netip.Addr) bool {
	if !prefix.IsValid() || !addr.IsValid() || !prefix.Contains(addr) || addr == prefix.Masked().Addr() {
		return false
	}
	return prefix.Contains(addr.Next())
}
