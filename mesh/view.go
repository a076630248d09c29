package mesh

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/rings"
	"warren/mesh/roster"
)

// View is what the records say, at one moment. It is made by whoever changes the records, and shared: nothing in it may be
// changed.
type View struct {
	Members  []roster.Member // in the order of their admission, this node and those that have left included
	Revoked  []Revocation
	Invites  []Invite
	Admins   []Admin      // by the time since which they are
	Prefix4  netip.Prefix // overlay network; zero: none
	Prefix6  netip.Prefix
	Domain   string // under which the members have names; "": not known
	Records  int
	Conflict string // in words: this node's key lives on another machine too; "" when it does not

	rings   func() *rings.Rings // of the anchors, made when first asked for; nil: of nobody
	members map[identity.NodeID]int
	revoked map[identity.KeyID]int
}

// Revocation is one key that was put out, or one admin that was demoted.
type Revocation struct {
	Target identity.KeyID
	Scope  record.Scope
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
	what := "revoked"
	if r.Scope == record.ScopePower {
		what = "demoted"
	}
	text := fmt.Sprintf("%s by %s on %s", what, r.ByName, r.Time.UTC().Format("2 January 2006 at 15:04 UTC"))
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

// Admin is a member that may invite, revoke and promote.
type Admin struct {
	ID       identity.NodeID
	Since    time.Time
	By       identity.KeyID // who made it one: an admin's key, or the root's
	Promoted bool           // it came as a member
}

// Member returns a member by its ID.
func (v *View) Member(id identity.NodeID) (roster.Member, bool) {
	i, ok := v.members[id]
	if !ok {
		return roster.Member{}, false
	}
	return v.Members[i], true
}

// RevokedNode returns the revocation by which a node's own key is out.
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
	v.rings = sync.OnceValue(func() *rings.Rings { return ringsOf(v.Members) })
	return v
}

// Rings returns the anchors as they keep sessions with each other.
func (v *View) Rings() *rings.Rings {
	if v.rings == nil {
		return ringsOf(v.Members)
	}
	return v.rings()
}

func ringsOf(members []Member) *rings.Rings {
	var anchors []identity.NodeID
	for _, m := range members {
		if m.State == roster.Active && len(m.Record.Endpoints) > 0 {
			anchors = append(anchors, m.ID)
		}
	}
	return rings.New(anchors)
}

// others returns the active members beside one.
func (v *View) others(self identity.NodeID) []identity.NodeID {
	var ids []identity.NodeID
	for _, member := range v.Members {
		if member.ID != self && member.State == roster.Active {
			ids = append(ids, member.ID)
		}
	}
	return ids
}
