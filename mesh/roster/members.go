package roster

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// Members returns all members, those that have left included, in the order of their admission. The slice is not to be
// changed; it stays as it is when the roster changes.
func (r *Roster) Members() []Member {
	if r.members == nil {
		r.computeMembers()
	}
	return r.members
}

// Member returns one member; false for nodes that are none (see Standing).
func (r *Roster) Member(id identity.NodeID) (Member, bool) {
	members := r.Members()
	i, ok := r.byID[id]
	if !ok {
		return Member{}, false
	}
	return members[i], true
}

// Invites returns all invites of the set, by the time of their making.
func (r *Roster) Invites() []InviteStatus {
	var list []InviteStatus
	for _, e := range r.invites {
		list = append(list, InviteStatus{
			KeyID: e.keyID, Name: e.Certificate.Subject.CommonName, Terms: e.terms, Issuer: identity.IssuerOf(e.Certificate), Created: e.Certificate.NotBefore,
			Used: r.usersOf(e.ref), Revoked: r.inviteRevoked(e) != nil,
		})
	}
	slices.SortFunc(list, func(a, b InviteStatus) int {
		return cmp.Or(a.Created.Compare(b.Created), bytes.Compare(a.KeyID[:], b.KeyID[:]), bytes.Compare(a.Issuer[:], b.Issuer[:]), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// usersOf returns the nodes of the set that came by an invite, in the order of their admission.
func (r *Roster) usersOf(invite ref) []identity.NodeID {
	var users []*entry
	for e := range r.rests[invite] {
		if e.in && e.Node != nil {
			users = append(users, e)
		}
	}
	slices.SortFunc(users, (*entry).compare)
	ids := make([]identity.NodeID, len(users))
	for i, e := range users {
		ids[i] = e.Node.ID
	}
	return ids
}

// inviteRevoked returns why nobody may be admitted with an invite any more because of revocations, or nil.
func (r *Roster) inviteRevoked(invite *entry) *Refusal {
	if refusal := r.revokedText(invite.keyID); refusal != nil {
		return refuse(ReasonInviteRevoked, "invite %s", refusal.Text)
	}
	for up := range invite.above() {
		if refusal := r.revokedText(up.keyID); refusal != nil {
			return refuse(ReasonIssuerRevoked, "invite %s: above it, %s", invite.keyID.Short(), refusal.Text)
		}
	}
	if invite.issuer != nil && invite.issuer.out != nil {
		return refuse(ReasonIssuerRevoked, "invite %s: its maker is no member: %s", invite.keyID.Short(), invite.issuer.out.Text)
	}
	return nil
}

func (r *Roster) computeMembers() {
	var entries []*entry
	for _, e := range r.nodes {
		if r.whyOut(e) == nil {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, (*entry).compare)
	var prefix4 netip.Prefix
	if terms, err := identity.RootTermsOf(r.root); err == nil {
		prefix4 = terms.Prefix4
	}
	members := make([]Member, len(entries))
	r.byID = make(map[identity.NodeID]int, len(entries))
	for i, e := range entries {
		members[i] = r.member(e)
		r.byID[e.Node.ID] = i
	}
	// Those that have left come last and take nothing from those that are here.
	names, addrs := make(map[string]int), make(map[netip.Addr]bool)
	for _, state := range [...]State{Active, Left} {
		for i := range members {
			m := &members[i]
			if m.State != state {
				continue
			}
			m.Name = uniqueName(m.Record.Name, m.ID, names)
			if addr := m.Record.Addr4; isHost(prefix4, addr) && !addrs[addr] {
				m.Addr4, addrs[addr] = addr, true
			}
		}
	}
	r.members = members
}

func (r *Roster) member(e *entry) Member {
	m := Member{
		ID: e.Node.ID, Record: *e.Node, Key: e.Key, Admin: identity.IsAdmin(e.Certificate), AdmittedBy: e.Node.Admission.Signer,
		Admitted: e.Admitted(), Expires: e.Certificate.NotAfter.In(time.UTC), Addr6: identity.Addr6(r.mesh, e.Node.ID),
	}
	if e.issuer != nil {
		m.Tags, m.Invite = e.issuer.terms.Tags, e.issuer.keyID
	}
	if e.Node.Left {
		m.State = Left
	}
	return m
}

// uniqueName returns the wanted name, or with the first of -2, -3 … that nobody has, and takes it. A node that
// wants no name is called after its ID. For each name taken it notes the number to go on with, so that a thousand
// nodes of one name cost no more than others.
func uniqueName(wanted string, id identity.NodeID, taken map[string]int) string {
	if wanted == "" {
		wanted = "node-" + id.Short()[:6]
	}
	name, next := wanted, max(taken[wanted], 2)
	for ; taken[name] > 0; next++ {
		suffix := "-" + strconv.Itoa(next)
		name = wanted[:min(len(wanted), record.MaxName-len(suffix))] + suffix
	}
	taken[wanted] = next
	taken[name] = max(taken[name], 2)
	return name
}

// isHost reports whether addr is one that a node may have in prefix: not its first or last.
func isHost(prefix netip.Prefix, addr netip.Addr) bool {
	if !prefix.IsValid() || !addr.IsValid() || !prefix.Contains(addr) || addr == prefix.Masked().Addr() {
		return false
	}
	return prefix.Contains(addr.Next())
}
