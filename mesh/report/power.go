package report

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// theRoot is what whoever has the root key is called.
const theRoot = "the root"

// Admin is a member that may invite, revoke and promote.
type Admin struct {
	ID       identity.NodeID
	Since    time.Time
	By       identity.KeyID // who made it one: an admin's key, or the root's
	Promoted bool           // it came as a member
}

// Aim is what an act is about.
type Aim struct {
	Act    api.Act
	Target identity.KeyID // of a node or an invite
	Came   identity.KeyID // the invite by which the node came, where that ends too; else zero
	Scope  record.Scope
}

// Take finds what an act is about. The error is one of api's.
func (r *Records) Take(act api.Act, self identity.NodeID) (Aim, error) {
	aim := Aim{Act: act}
	if act.Kind == api.ActDemote {
		aim.Scope = record.ScopePower
	}
	if act.Invite != "" {
		id, err := FindInvite(r.Invites, act.Invite)
		aim.Target, aim.Act.Invite = id, id.String()
		return aim, err
	}
	target, err := Find(r.Members, self, act.Node)
	out, _ := FindRevoked(r.Revoked, act.Node)
	switch {
	case err == nil:
		aim.Target = identity.KeyID(target.ID)
	case act.Kind != api.ActPromote && out != nil && codeOf(err) == api.CodeNotFound:
		aim.Target = out.Target // its word can be ended, and who else goes can be said anew
	default:
		return aim, err
	}
	aim.Act.Node = aim.Target.String()
	if identity.NodeID(aim.Target) == self && act.Kind != api.ActPromote && !act.Root {
		return aim, &api.Error{Code: api.CodeRefused, Message: "a node does not " + act.Kind + " itself", Hint: map[string]string{
			api.ActRevoke: "to go: warren leave", api.ActDemote: "say it on another admin, or with the root key",
		}[act.Kind]}
	}
	if err := r.fits(act, target); err != nil {
		return aim, err
	}
	if act.Kind == api.ActRevoke && !act.KeepInvite && r.open(target.Invite) {
		aim.Came = target.Invite
	}
	return aim, nil
}

// fits says why an act is none for this member.
func (r *Records) fits(act api.Act, target roster.Member) error {
	_, demoted := r.revocation(identity.KeyID(target.ID), record.ScopePower)
	switch {
	case act.Kind == api.ActPromote && target.Admin:
		return &api.Error{Code: api.CodeRefused, Message: target.Name + " is an admin already"}
	case act.Kind == api.ActPromote && demoted != nil:
		return &api.Error{Code: api.CodeRefused, Message: fmt.Sprintf("%s was demoted by %s, which is for good", target.Name, demoted.ByName),
			Hint: "under a new key it can be one again: on " + target.Name + ", warren leave, and warren join with a new token"}
	case act.Kind == api.ActPromote && target.State != roster.Active:
		return &api.Error{Code: api.CodeRefused, Message: target.Name + " has left the mesh"}
	case act.Kind == api.ActDemote && !target.ID.IsZero() && !target.Admin && demoted == nil:
		return &api.Error{Code: api.CodeRefused, Message: target.Name + " is no admin", Hint: "warren admin lists them"}
	}
	return nil
}

func codeOf(err error) api.Code {
	if no, ok := err.(*api.Error); ok {
		return no.Code
	}
	return ""
}

// revocation returns the revocation of a key that counts, of this scope.
func (r *Records) revocation(key identity.KeyID, scope record.Scope) (int, *Revocation) {
	for i := range r.Revoked {
		if r.Revoked[i].Target == key && r.Revoked[i].Scope == scope {
			return i, &r.Revoked[i]
		}
	}
	return -1, nil
}

// open reports whether an invite was not revoked. One that has expired, or is used up, is no use to others, but its key is to whoever kept
// the token and dates back.
func (r *Records) open(invite identity.KeyID) bool {
	return slices.ContainsFunc(r.Invites, func(i Invite) bool { return i.ID == invite && !i.Revoked })
}

// Outlook is what the records say would come of an act, if nobody were kept.
type Outlook struct {
	Below     []identity.NodeID // out with the target
	CameBelow []identity.NodeID // out with the invite by which it came
	Void      []Revocation      // by the target, without effect from then on
	Stands    int               // revocations by the target on which the signer's word has no effect
}

// Consequences says who and what goes with an act, as it is shown before it is done.
func Consequences(aim Aim, look Outlook, m *Mesh, key ed25519.PublicKey, now time.Time) api.Consequences {
	d := disclosure{aim: aim, records: &m.Records, names: NamesOf(m.Records.Members), now: now, target: identity.NodeID(aim.Target)}
	d.below = make(map[identity.NodeID]bool)
	for _, id := range look.Below {
		d.below[id] = id != d.target
	}
	c := api.Consequences{Schema: api.Schema, Act: aim.Act, By: d.names.Of(m.Self), Target: d.party(d.target)}
	if aim.Act.Root {
		c.By = theRoot
	}
	if aim.Act.Invite != "" {
		c.Target = api.Party{ID: aim.Target.String()}
	}
	if aim.Act.Kind == api.ActPromote {
		c.Key = key
		c.Shown = digest(c)
		return c
	}
	c.Others = d.parties(look.Below, d.how)
	for _, r := range look.Void {
		c.Revocations = append(c.Revocations, r.show(d.names))
	}
	if aim.Act.Node != "" {
		c.Demoted, c.Ends = d.demoted(), d.ends()
	}
	if !aim.Came.IsZero() {
		stay := slices.DeleteFunc(slices.Clone(look.CameBelow), func(id identity.NodeID) bool { return id == d.target || d.below[id] })
		c.Came = &api.CameBy{ID: aim.Came.String(), Stay: d.parties(stay, d.cameHow)}
	}
	c.Remarks = d.remarks(look.Stands)
	c.Shown = digest(c)
	return c
}

// digest stands for what is shown.
func digest(c api.Consequences) string {
	c.Shown = ""
	text, err := json.Marshal(c)
	if err != nil {
		panic("internal error: encode consequences: " + err.Error())
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// disclosure is what Consequences looks things up in.
type disclosure struct {
	aim     Aim
	records *Records
	names   Names
	now     time.Time
	target  identity.NodeID // a zero name where it is an invite
	below   map[identity.NodeID]bool
}

// party describes a node, a member or one that was.
func (d *disclosure) party(id identity.NodeID) api.Party {
	for _, m := range d.records.Members {
		if m.ID == id {
			p := api.Party{ID: id.String(), Name: m.Name, Admin: m.Admin, Left: m.State == roster.Left}
			if a := addresses(m); len(a) > 0 {
				p.Address = a[0]
			}
			return p
		}
	}
	p := api.Party{ID: id.String(), Name: id.Short(), Out: true}
	if _, r := d.records.revocation(identity.KeyID(id), record.ScopeWhole); r != nil {
		p.Name = cmp.Or(r.Name, p.Name)
	}
	return p
}

// parties describes nodes, sorted by name, but for the target.
func (d *disclosure) parties(ids []identity.NodeID, how func(roster.Member) string) (out []api.Party) {
	members := make(map[identity.NodeID]roster.Member, len(d.records.Members))
	for _, m := range d.records.Members {
		members[m.ID] = m
	}
	for _, id := range ids {
		if id == d.target {
			continue
		}
		p := d.party(id)
		if m, ok := members[id]; ok {
			p.How = how(m)
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b api.Party) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return out
}

// maker is who made the invite by which a member came; zero for the founder.
func (d *disclosure) maker(invite identity.KeyID) identity.NodeID {
	for _, i := range d.records.Invites {
		if i.ID == invite {
			return identity.NodeID(i.By)
		}
	}
	return identity.NodeID{}
}

// how says why a member depends on the target.
func (d *disclosure) how(m roster.Member) string {
	maker := d.maker(m.Invite)
	switch {
	case m.Invite == d.aim.Target:
		return "came by it"
	case maker == d.target:
		return "came by an invite of " + d.party(d.target).Name
	case m.AdmittedBy == d.target:
		return "admitted by " + d.party(d.target).Name
	case d.below[m.AdmittedBy]:
		return "admitted by " + d.names.Of(m.AdmittedBy)
	case d.below[maker]:
		return "came by an invite of " + d.names.Of(maker)
	}
	return ""
}

// cameHow says why a member depends on the invite by which the target came.
func (d *disclosure) cameHow(m roster.Member) string {
	if m.Invite == d.aim.Came {
		return "came by it"
	}
	return "admitted by " + d.names.Of(m.AdmittedBy)
}

// demoted are the members that the target promoted, and whom these have.
func (d *disclosure) demoted() []api.Party {
	fallen := d.fallen()
	delete(fallen, d.aim.Target)
	var ids []identity.NodeID
	for key := range fallen {
		ids = append(ids, identity.NodeID(key))
	}
	return d.parties(ids, func(roster.Member) string { return "" })
}

// fallen are the keys of those who are admins no more: the target, and whom it has promoted, or they have.
func (d *disclosure) fallen() map[identity.KeyID]bool {
	out := map[identity.KeyID]bool{d.aim.Target: true}
	for before := 0; before < len(out); {
		before = len(out)
		for _, a := range d.records.Admins {
			if a.Promoted && out[a.By] {
				out[identity.KeyID(a.ID)] = true
			}
		}
	}
	return out
}

// ends are the invites of the target that could be used until now.
func (d *disclosure) ends() []api.Invited {
	all := slices.DeleteFunc(slices.Clone(d.records.Invites), func(i Invite) bool { return i.By != d.aim.Target })
	return invites(all, d.names, d.now)
}

// remarks are what a person should know besides.
func (d *disclosure) remarks(stands int) (out []string) {
	name := d.party(d.target).Name
	if d.aim.Act.Node != "" {
		if _, r := d.records.revocation(d.aim.Target, d.aim.Scope); r != nil {
			out = append(out, fmt.Sprintf("%s: that is done already, by %s on %s; this is one more word on it", name, r.ByName, r.Time.UTC().Format("2006-01-02 15:04 UTC")))
		}
	}
	if d.aim.Act.Invite != "" && !d.records.open(d.aim.Target) {
		out = append(out, "it lets nobody in as it is; this is one more word on who stays")
	}
	if stands > 0 {
		out = append(out, fmt.Sprintf("what %s has revoked as an admin stays revoked, %d in all: only an admin above it, and the root key, can undo that", name, stands))
	}
	if d.noAdminLeft() {
		out = append(out, "no admin is left then: only the root key can make one again")
	}
	return out
}

// noAdminLeft reports whether nobody who is sure to stay is an admin.
func (d *disclosure) noAdminLeft() bool {
	before, fallen := false, d.fallen()
	for _, m := range d.records.Members {
		if !m.Admin || m.State != roster.Active {
			continue
		}
		if before = true; !fallen[identity.KeyID(m.ID)] && !d.below[m.ID] {
			return false
		}
	}
	return before
}

// Orders are the revocations that do what was shown and decided. Whoever signs is not in them yet.
func Orders(c api.Consequences, decided api.Commit, now time.Time) (out []record.Revocation, err error) {
	var failed error
	ids := func(parties []api.Party) (keep []record.Prefix) {
		for _, p := range parties {
			id, err := identity.ParseNodeID(p.ID)
			failed = cmp.Or(failed, err)
			keep = append(keep, record.PrefixOf(id))
		}
		return keep
	}
	key := func(text string) identity.KeyID {
		id, err := identity.ParseNodeID(text)
		failed = cmp.Or(failed, err)
		return identity.KeyID(id)
	}
	order := record.Revocation{Target: key(c.Target.ID), Time: now.Unix(), Reason: decided.Reason, Name: c.Target.Name}
	if c.Act.Kind == api.ActDemote {
		order.Scope = record.ScopePower
	}
	var kept []record.Prefix
	if decided.Keep {
		kept = ids(c.Others)
	}
	order.Keep = record.NewPrefixes(kept...)
	if decided.KeepRevoked {
		var stands []record.Prefix
		for _, r := range c.Revocations {
			stands = append(stands, record.PrefixOf(key(r.ID)))
		}
		order.KeepRevoked = record.NewPrefixes(stands...)
	}
	out = append(out, order)
	if c.Came != nil {
		// Who depends on the target depends on its invite as well, and is kept there too.
		out = append(out, record.Revocation{
			Target: key(c.Came.ID), Time: now.Unix(), Reason: decided.Reason, Keep: record.NewPrefixes(append(kept, ids(c.Came.Stay)...)...),
		})
	}
	return out, failed
}
