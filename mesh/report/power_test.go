package report

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// The nodes of these tests: a, this one, founded the mesh. It invited boss, an admin, who invited one and promoted two. one admitted two, who
// came by a's invite, and gone has left.
var (
	boss, one, two, gone    = identity.NodeID{11}, identity.NodeID{12}, identity.NodeID{13}, identity.NodeID{14}
	byA, byBoss, spent      = identity.KeyID{21}, identity.KeyID{22}, identity.KeyID{23}
	old, theRootKey         = identity.KeyID{31}, identity.KeyID{32}
	aKey, bossKey           = identity.KeyID(idA), identity.KeyID(boss)
	bossParty, oneParty     = partyOf(boss, "boss"), partyOf(one, "one")
	twoParty, goneParty     = partyOf(two, "two"), partyOf(gone, "gone")
	revokedOld, demotedGone = Revocation{Target: old, Name: "old", Time: ago(time.Hour), By: bossKey, ByName: "boss"}, Revocation{
		Target: identity.KeyID(gone), Scope: record.ScopePower, Name: "gone", Time: ago(time.Hour), By: aKey, ByName: "a"}
)

func partyOf(id identity.NodeID, name string) api.Party {
	return api.Party{ID: id.String(), Name: name, Address: member(id, name).Addr4}
}

func power() *Mesh {
	m := meshOf(nil)
	with := func(id identity.NodeID, name string, change func(*roster.Member)) {
		made := member(id, name)
		change(&made)
		m.Records.Members = append(m.Records.Members, made)
	}
	m.Records.Members = nil
	with(idA, "a", func(m *roster.Member) { m.Admin = true })
	with(boss, "boss", func(m *roster.Member) { m.Admin, m.Invite, m.AdmittedBy = true, byA, idA })
	with(one, "one", func(m *roster.Member) { m.Invite, m.AdmittedBy = byBoss, idA })
	with(two, "two", func(m *roster.Member) { m.Admin, m.Invite, m.AdmittedBy = true, byA, one })
	with(gone, "gone", func(m *roster.Member) { m.State, m.Invite, m.AdmittedBy = roster.Left, spent, boss })
	m.Records.Root = theRootKey
	m.Records.Admins = []Admin{{ID: idA, By: theRootKey}, {ID: boss, By: aKey}, {ID: two, By: bossKey, Promoted: true}}
	terms := func(uses int) identity.InviteTerms {
		return identity.InviteTerms{Uses: uses, Expires: now.Add(time.Hour)}
	}
	m.Records.Invites = []Invite{
		{ID: byA, By: aKey, Terms: terms(5), Used: 2}, {ID: byBoss, By: bossKey, Terms: terms(2), Used: 1}, {ID: spent, By: aKey, Terms: terms(1), Used: 1, Revoked: true},
	}
	m.Records.Revoked = []Revocation{revokedOld, demotedGone}
	return m
}

func how(p api.Party, text string) api.Party { p.How = text; return p }

func admin(p api.Party) api.Party { p.Admin = true; return p }

func TestConsequencesOfRevokingAnAdmin(t *testing.T) {
	m := power()
	aim, err := m.Records.Take(api.Act{Kind: api.ActRevoke, Node: "boss"}, idA)
	if err != nil || aim.Target != bossKey || aim.Came != byA || aim.Scope != record.ScopeWhole || aim.Act.Node != boss.String() {
		t.Fatalf("got %+v, %v, want boss, and the invite by which it came", aim, err)
	}
	look := Outlook{Below: []identity.NodeID{one, two, gone}, CameBelow: []identity.NodeID{boss, one, two, gone}, Void: []Revocation{revokedOld}}
	c := Consequences(aim, look, m, nil, now)
	left := goneParty
	left.Left = true
	check := func(what string, got, want []api.Party) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
	}
	check("target", []api.Party{c.Target}, []api.Party{admin(bossParty)})
	check("others", c.Others, []api.Party{how(left, "admitted by boss"), how(oneParty, "came by an invite of boss"), how(admin(twoParty), "admitted by one")})
	check("demoted", c.Demoted, []api.Party{admin(twoParty)})
	if len(c.Revocations) != 1 || c.Revocations[0].ID != old.String() || c.Revocations[0].Scope != api.ScopeWhole || c.By != "a" {
		t.Errorf("revocations: got %+v by %q, want that of old, by a", c.Revocations, c.By)
	}
	if len(c.Ends) != 1 || c.Ends[0].ID != byBoss.String() {
		t.Errorf("ends: got %+v, want the invite of boss", c.Ends)
	}
	// All of those who came by the same invite depend on boss as well: nobody is left to be listed there.
	if c.Came == nil || c.Came.ID != byA.String() || len(c.Came.Stay) != 0 || len(c.Remarks) != 0 {
		t.Errorf("got %+v, remarks %q, want the invite of a, and nothing to remark", c.Came, c.Remarks)
	}
	// Whatever differs in what is shown shows in what stands for it.
	for name, change := range map[string]func(*Outlook){
		"one fewer": func(l *Outlook) { l.Below = l.Below[:2] }, "no word of its": func(l *Outlook) { l.Void = nil },
		"its word stands": func(l *Outlook) { l.Stands = 1 }, "one more by the invite": func(l *Outlook) { l.CameBelow = append(slices.Clone(l.CameBelow), idGate) },
	} {
		other := look
		change(&other)
		if again := Consequences(aim, other, m, nil, now); again.Shown == c.Shown || again.Shown == "" {
			t.Errorf("%s: it is not told from what was shown", name)
		}
	}
	if again := Consequences(aim, look, power(), nil, now); again.Shown != c.Shown {
		t.Error("the same is told from what was shown")
	}
}

func TestConsequencesElsewhere(t *testing.T) {
	m := power()
	// An invite: who came by it, and whom those let in.
	aim, err := m.Records.Take(api.Act{Kind: api.ActRevoke, Invite: byA.String()[:8]}, idA)
	if err != nil {
		t.Fatal(err)
	}
	c := Consequences(aim, Outlook{Below: []identity.NodeID{boss, one, two}}, m, nil, now)
	want := []api.Party{how(admin(bossParty), "came by it"), how(oneParty, "came by an invite of boss"), how(admin(twoParty), "came by it")}
	if c.Target != (api.Party{ID: byA.String()}) || !slices.Equal(c.Others, want) || c.Came != nil || c.Ends != nil || c.Demoted != nil {
		t.Errorf("an invite: got %+v, want %+v", c, want)
	}
	if aim, err = m.Records.Take(api.Act{Kind: api.ActRevoke, Invite: spent.String()}, idA); err != nil {
		t.Fatal(err)
	}
	if c = Consequences(aim, Outlook{}, m, nil, now); len(c.Remarks) != 1 || !strings.Contains(c.Remarks[0], "lets nobody in as it is") {
		t.Errorf("an invite that has ended: got remarks %q, want that", c.Remarks)
	}
	// The invite by which a node came has other users.
	aim, err = m.Records.Take(api.Act{Kind: api.ActRevoke, Node: two.String()}, idA)
	if err != nil {
		t.Fatal(err)
	}
	c = Consequences(aim, Outlook{CameBelow: []identity.NodeID{boss, one, two}}, m, nil, now)
	if c.Came == nil || !slices.Equal(c.Came.Stay, []api.Party{how(admin(bossParty), "came by it"), how(oneParty, "admitted by a")}) {
		t.Errorf("the invite of a node: got %+v, want boss and one to stay", c.Came)
	}
	// The last admin goes.
	m.Records.Members = slices.DeleteFunc(m.Records.Members, func(other roster.Member) bool { return other.ID == idA })
	aim, err = m.Records.Take(api.Act{Kind: api.ActDemote, Node: "boss", Root: true}, idA)
	if err != nil || aim.Scope != record.ScopePower || !aim.Came.IsZero() {
		t.Fatalf("demote: got %+v, %v", aim, err)
	}
	c = Consequences(aim, Outlook{Below: []identity.NodeID{one}, Stands: 1}, m, nil, now)
	if c.By != theRoot || len(c.Remarks) != 2 || !strings.Contains(c.Remarks[0], "stays revoked") || !strings.Contains(c.Remarks[1], "no admin is left") {
		t.Errorf("demote: got remarks %q by %s, want that its word stands, and that no admin is left", c.Remarks, c.By)
	}
	// To promote, the key is told.
	key := ed25519.PublicKey(make([]byte, ed25519.PublicKeySize))
	aim, err = m.Records.Take(api.Act{Kind: api.ActPromote, Node: "one"}, idA)
	if err != nil {
		t.Fatal(err)
	}
	if c = Consequences(aim, Outlook{}, m, key, now); !key.Equal(ed25519.PublicKey(c.Key)) || c.Target != oneParty || c.Others != nil || c.Shown == "" {
		t.Errorf("promote: got %+v, want one and its key", c)
	}
}

// What is asked for has to fit whom it is about, and it is said why it does not.
func TestTake(t *testing.T) {
	for _, tt := range []struct {
		act  api.Act
		want string // part of the refusal; "" for none
	}{
		{api.Act{Kind: api.ActRevoke, Node: "a"}, "does not revoke itself"},
		{api.Act{Kind: api.ActRevoke, Node: "a", Root: true}, ""},
		{api.Act{Kind: api.ActDemote, Node: "a"}, "does not demote itself"},
		{api.Act{Kind: api.ActDemote, Node: "a", Root: true}, ""},
		{api.Act{Kind: api.ActDemote, Node: "one"}, "one is no admin"},
		{api.Act{Kind: api.ActDemote, Node: "two"}, ""},
		{api.Act{Kind: api.ActDemote, Node: "gone"}, ""}, // once more, by another
		{api.Act{Kind: api.ActPromote, Node: "two"}, "an admin already"},
		{api.Act{Kind: api.ActPromote, Node: "gone"}, "demoted by a, which is for good"},
		{api.Act{Kind: api.ActPromote, Node: "old"}, "no member is called"},
		{api.Act{Kind: api.ActRevoke, Node: "old"}, ""}, // once more, by another
		{api.Act{Kind: api.ActRevoke, Node: "nobody"}, "no member is called"},
		{api.Act{Kind: api.ActRevoke, Invite: "zzzz"}, "no invite"},
	} {
		_, err := power().Records.Take(tt.act, idA)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.act, err, tt.want)
		}
		if _, ok := errors.AsType[*api.Error](err); err != nil && !ok {
			t.Errorf("%+v: got %T, want an error of the API", tt.act, err)
		}
	}
	aim, err := power().Records.Take(api.Act{Kind: api.ActRevoke, Node: "two", KeepInvite: true}, idA)
	if err != nil || !aim.Came.IsZero() {
		t.Errorf("with its invite left: got %+v, %v", aim, err)
	}
	if aim, err = power().Records.Take(api.Act{Kind: api.ActRevoke, Node: "gone"}, idA); err != nil || !aim.Came.IsZero() {
		t.Errorf("an invite that has ended: got %+v, %v, want it not to be ended again", aim, err)
	}
}

// The records list those who were shown and stay, and nobody else.
func TestOrders(t *testing.T) {
	prefix := func(ids ...identity.NodeID) record.Prefixes {
		var out []record.Prefix
		for _, id := range ids {
			out = append(out, record.PrefixOf(id))
		}
		return record.NewPrefixes(out...)
	}
	c := api.Consequences{
		Act: api.Act{Kind: api.ActRevoke}, Target: bossParty, Others: []api.Party{oneParty, twoParty}, Revocations: []api.Revoked{{ID: old.String()}},
		Came: &api.CameBy{ID: byA.String(), Stay: []api.Party{goneParty}},
	}
	demote := c
	demote.Act.Kind, demote.Came = api.ActDemote, nil
	stands := record.NewPrefixes(record.PrefixOf(old))
	for name, tt := range map[string]struct {
		c    api.Consequences
		with api.Commit
		want []record.Revocation
	}{
		"all stays": {c, api.Commit{Keep: true, KeepRevoked: true, Reason: "lost"}, []record.Revocation{
			{Target: bossKey, Reason: "lost", Name: "boss", Keep: prefix(one, two), KeepRevoked: stands}, {Target: byA, Reason: "lost", Keep: prefix(one, two, gone)},
		}},
		"its word goes": {c, api.Commit{Keep: true}, []record.Revocation{{Target: bossKey, Name: "boss", Keep: prefix(one, two)}, {Target: byA, Keep: prefix(one, two, gone)}}},
		"all goes":      {c, api.Commit{}, []record.Revocation{{Target: bossKey, Name: "boss"}, {Target: byA, Keep: prefix(gone)}}},
		"demote":        {demote, api.Commit{Keep: true, KeepRevoked: true}, []record.Revocation{{Target: bossKey, Scope: record.ScopePower, Name: "boss", Keep: prefix(one, two), KeepRevoked: stands}}},
	} {
		got, err := Orders(tt.c, tt.with, now)
		for i := range tt.want {
			tt.want[i].Time = now.Unix()
		}
		if err != nil || fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, tt.want)
		}
	}
	c.Others = append(c.Others, api.Party{ID: "none"})
	if _, err := Orders(c, api.Commit{Keep: true}, now); !errors.Is(err, identity.ErrBadID) {
		t.Errorf("an ID that is none: got %v, want %v", err, identity.ErrBadID)
	}
}

func TestStatusShowsPower(t *testing.T) {
	m := power()
	m.RootKey = RootKey{Here: true}
	s := Status(Agent{Now: now, Mesh: m})
	if s.RootKey == nil || !s.RootKey.Here || s.RootKey.Exported != nil {
		t.Errorf("root key: got %+v, want it here and never exported", s.RootKey)
	}
	var got []string
	for _, a := range s.Admins {
		got = append(got, strings.TrimSpace(a.Name+" by "+a.By+" "+a.Power))
	}
	if want := []string{"a by the root", "boss by a", "two by boss promoted"}; !slices.Equal(got, want) {
		t.Errorf("admins: got %q, want %q", got, want)
	}
	powers := make(map[string]string)
	for _, p := range s.Peers {
		powers[p.Name] = p.Power
	}
	if powers["two"] != api.PowerPromoted || powers["gone"] != api.PowerDemoted || powers["boss"] != "" || powers["one"] != "" {
		t.Errorf("got %v, want two promoted and gone demoted", powers)
	}
}

// The warning is for the machine that can do something about it, while it is needed.
func TestOnlyAdminWarning(t *testing.T) {
	alone := func(m *Mesh) {
		m.Records.Members = slices.DeleteFunc(m.Records.Members, func(other roster.Member) bool { return other.Admin && other.ID != idA })
	}
	for name, tt := range map[string]struct {
		change func(*Mesh)
		want   bool
	}{
		"one admin, never exported":  {func(m *Mesh) { alone(m); m.RootKey.Here = true }, true},
		"exported":                   {func(m *Mesh) { alone(m); m.RootKey = RootKey{Here: true, Exported: now} }, false},
		"exported and removed":       {func(m *Mesh) { alone(m); m.RootKey = RootKey{Exported: now} }, false},
		"another machine's business": {alone, false},
		"another admin":              {func(m *Mesh) { m.RootKey.Here = true }, false},
		"another admin that has left": {func(m *Mesh) {
			m.RootKey.Here = true
			for i := range m.Records.Members {
				if m.Records.Members[i].Admin && m.Records.Members[i].ID != idA {
					m.Records.Members[i].State = roster.Left
				}
			}
		}, true},
	} {
		m := power()
		tt.change(m)
		got := slices.ContainsFunc(Status(Agent{Now: now, Mesh: m}).Warnings, func(text string) bool { return strings.Contains(text, "export-root") })
		if got != tt.want {
			t.Errorf("%s: got a warning %t, want %t", name, got, tt.want)
		}
	}
}

// An invite that was used too often stays in the list, expired or not, until somebody has done something about it.
func TestInvitesUsedTooOften(t *testing.T) {
	terms := identity.InviteTerms{Uses: 2, Expires: now.Add(time.Hour)}
	over := identity.InviteTerms{Uses: 2, Expires: ago(time.Hour)}
	all := []Invite{
		{ID: identity.KeyID{1}, Terms: terms, Used: 1}, {ID: identity.KeyID{2}, Terms: terms, Used: 2}, {ID: identity.KeyID{3}, Terms: terms, Used: 3},
		{ID: identity.KeyID{4}, Terms: over, Used: 1}, {ID: identity.KeyID{5}, Terms: over, Used: 4}, {ID: identity.KeyID{6}, Terms: terms, Used: 5, Revoked: true},
	}
	var got []int
	for _, i := range invites(all, nil, now) {
		got = append(got, i.Used)
	}
	if want := []int{1, 3, 4}; !slices.Equal(got, want) {
		t.Errorf("got invites used %v times, want %v", got, want)
	}
	m := meshOf(func(m *Mesh) { m.Records.Invites = all })
	count := 0
	for _, text := range Status(Agent{Now: now, Mesh: m}).Warnings {
		if strings.Contains(text, "and allows 2") {
			count++
		}
	}
	if count != 2 {
		t.Errorf("got %d warnings of them, want 2", count)
	}
}
