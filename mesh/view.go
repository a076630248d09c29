package mesh

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
	"warren/mesh/session"
)

// View is what the records say, at one moment. It is made by whoever changes the records, and shared: nothing in it may be
// changed.
type View struct {
	Members  []roster.Member // in the order of their admission, this node and those that have left included
	Revoked  []Revocation
	Invites  []Invite
	Prefix4  netip.Prefix // overlay network; zero: none
	Prefix6  netip.Prefix
	Records  int
	Conflict string // in words: this node's key lives on another machine too; "" when it does not

	members map[identity.NodeID]int
	revoked map[identity.KeyID]int
}

// Revocation is one key that was put out.
type Revocation struct {
	Target identity.KeyID
	Invite bool   // Target is an invite's key, else a node's
	Name   string // of the node, as far as known
	Time   time.Time
	By     identity.KeyID // an admin's, or the root's
	ByName string         // of the admin; "the root" for the root
	Reason string
	Key    record.Key
}

// Text says what happened, in words.
func (r Revocation) Text() string {
	text := fmt.Sprintf("revoked by %s on %s", r.ByName, r.Time.UTC().Format("2 January 2006 at 15:04 UTC"))
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	return text
}

// Invite is one invite and what has become of it.
type Invite struct {
	ID      identity.KeyID
	By      identity.KeyID // who made it: an admin's key, or the root's
	Terms   identity.InviteTerms
	Created time.Time
	Used    []identity.NodeID
	Revoked bool
}

// Member returns a member by its ID.
func (v *View) Member(id identity.NodeID) (roster.Member, bool) {
	i, ok := v.members[id]
	if !ok {
		return roster.Member{}, false
	}
	return v.Members[i], true
}

// RevokedNode returns the revocation of a node's own key.
func (v *View) RevokedNode(id identity.NodeID) (Revocation, bool) {
	i, ok := v.revoked[identity.KeyID(id)]
	if !ok {
		return Revocation{}, false
	}
	return v.Revoked[i], true
}

// NewView returns a view of these members alone.
func NewView(prefix4, prefix6 netip.Prefix, members ...Member) *View {
	v := &View{
		Members: members, Prefix4: prefix4, Prefix6: prefix6,
		members: make(map[identity.NodeID]int, len(members)), revoked: make(map[identity.KeyID]int),
	}
	for i, m := range members {
		v.members[m.ID] = i
	}
	return v
}

// View returns the current view. It takes no lock and costs nothing, so it may be called for each packet and under locks of others.
func (m *Mesh) View() *View { return m.book.view.Load() }

// mesh is the roster that sessions ask.
var _ session.Roster = (*Mesh)(nil)

// Member reports whether a node is an active member: admitted, not put out, and not left.
func (m *Mesh) Member(id identity.NodeID) bool { return m.View().active(id) != nil }

// Anchor reports whether strangers can reach a node, as it says.
func (m *Mesh) Anchor(id identity.NodeID) bool {
	member := m.View().active(id)
	return member != nil && len(member.Record.Endpoints) > 0
}

// AnchorsOf returns the members that a node says it keeps sessions with. The slice is not to be changed.
func (m *Mesh) AnchorsOf(id identity.NodeID) []identity.NodeID {
	if member := m.View().active(id); member != nil {
		return member.Record.Anchors
	}
	return nil
}

// active returns an active member, else nil.
func (v *View) active(id identity.NodeID) *roster.Member {
	if i, ok := v.members[id]; ok && v.Members[i].State == roster.Active {
		return &v.Members[i]
	}
	return nil
}

// Missing returns how many records others have that are being fetched.
func (m *Mesh) Missing() int { return int(max(0, m.missing.Load())) }

// newView reads the roster; the book's lock is held.
func (b *book) newView() *View {
	v := NewView(b.prefix4, b.meshID.Prefix6(), b.roster.Members()...)
	v.Records, v.Conflict = b.roster.Len(), b.own.conflict
	for _, member := range v.Members {
		b.names[identity.KeyID(member.ID)] = member.Name
	}
	invites := make(map[identity.KeyID]bool)
	for _, s := range b.roster.Invites() {
		invites[s.KeyID] = true
		v.Invites = append(v.Invites, Invite{ID: s.KeyID, By: s.Issuer, Terms: s.Terms, Created: s.Created, Used: s.Used, Revoked: s.Revoked})
	}
	for _, r := range b.roster.Revoked() {
		if _, ok := v.revoked[r.Target]; ok {
			continue // revoked twice: the first one counts
		}
		v.revoked[r.Target] = len(v.Revoked)
		v.Revoked = append(v.Revoked, Revocation{
			Target: r.Target, Invite: invites[r.Target], Name: cmp.Or(b.names[r.Target], r.Name), Time: r.At(), By: r.Signer, ByName: b.nameOf(r.Signer),
			Reason: r.Reason, Key: r.Key,
		})
	}
	return v
}

// nameOf returns a name for who signed something.
func (b *book) nameOf(id identity.KeyID) string {
	switch name := b.names[id]; {
	case id == b.rootID:
		return "the root"
	case name != "":
		return name
	}
	return id.Short()
}
