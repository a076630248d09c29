package report

import (
	"errors"
	"strings"
	"testing"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

func TestNear(t *testing.T) {
	names := []string{"gate", "gamma", "laptop", "laptop-2", "nas", "b"}
	for text, want := range map[string]string{
		"gate": "gate", "gaet": "gate", "Laptop": "laptop laptop-2", "lap": "laptop laptop-2", "nass": "nas", "printer": "", "c": "b", "gat": "gate",
	} {
		if got := strings.Join(near(text, names), " "); got != want {
			t.Errorf("near %q: got %q, want %q", text, got, want)
		}
	}
}

func TestFind(t *testing.T) {
	one, other := identity.NodeID{3: 1}, identity.NodeID{3: 2}
	members := []roster.Member{member(idA, "a"), member(idB, "laptop"), member(one, "x"), member(other, "y")}
	for _, tt := range []struct {
		text string
		want identity.NodeID
		code api.Code // of the error; "" for none
		hint string
	}{
		{"laptop", idB, "", ""},
		{"100.70.0.2", idB, "", ""},
		{idB.String()[:4], idB, "", ""},
		{strings.ToUpper(idB.Short()), idB, "", ""},
		{idB.String()[:3], identity.NodeID{}, api.CodeNotFound, "warren peers"},
		{"aaaa", identity.NodeID{}, api.CodeAmbiguous, "say the whole ID"},
		{"laptp", identity.NodeID{}, api.CodeNotFound, "did you mean laptop? warren peers"},
		{"b", identity.NodeID{}, api.CodeNotFound, "did you mean x or y?"},
	} {
		got, err := Find(members, idA, tt.text)
		if got.ID != tt.want {
			t.Errorf("%s: got %s, want %s", tt.text, got.ID.Short(), tt.want.Short())
		}
		no, ok := errors.AsType[*api.Error](err)
		if ok != (tt.code != "") || ok && (no.Code != tt.code || !strings.HasPrefix(no.Hint, tt.hint)) {
			t.Errorf("%s: got %+v, want %q with hint %q", tt.text, err, tt.code, tt.hint)
		}
	}
}

// A member is called what it wants. One that takes the ID, the start of the ID, the address or the name of another for its name is never
// hit, nor spared, in its place without a word: a whole ID is its owner's, and of all else both are named.
func TestFindIsNotFooledByNames(t *testing.T) {
	victim, liar := idB, identity.NodeID{9}
	id := victim.String()
	for _, name := range []string{id, id[:4], victim.Short(), strings.ToUpper(id), "100.70.0.2", "nas"} {
		at := member(victim, "nas")
		for _, members := range [][]roster.Member{{member(idA, "a"), at, member(liar, name)}, {member(liar, name), at, member(idA, "a")}} {
			for _, text := range []string{id, strings.ToUpper(id)} {
				if got, err := Find(members, idA, text); err != nil || got.ID != victim {
					t.Errorf("one calls itself %s; find %s: got %s, %v, want the owner of the ID", name, text, got.ID.Short(), err)
				}
			}
			if got, err := Find(members, idA, liar.String()); err != nil || got.ID != liar {
				t.Errorf("one calls itself %s; find it by its ID: got %s, %v", name, got.ID.Short(), err)
			}
			if len(name) == len(id) { // a whole ID
				if got, err := Find([]roster.Member{member(liar, name)}, idA, name); err == nil {
					t.Errorf("one calls itself by the ID of a node that is no member; find that: got %s, want nobody", got.ID.Short())
				}
				continue
			}
			_, err := Find(members, idA, name)
			no, ok := errors.AsType[*api.Error](err)
			if !ok || no.Code != api.CodeAmbiguous || !strings.Contains(no.Message, id) || !strings.Contains(no.Message, liar.String()) {
				t.Errorf("one calls itself %s; find %s: got %v, want that it may be both, with their IDs", name, name, err)
			}
		}
	}
}

func TestFindStatic(t *testing.T) {
	a := Agent{Static: []Static{{Name: "phone", PublicKey: "k1="}, {Name: "b", PublicKey: "k2="}}, Mesh: meshOf(nil)}
	for text, want := range map[string]string{"phone": "k1=", "k2=": "k2=", "gate": "", "b": "ambiguous"} {
		got, err := a.FindStatic(text)
		if (err != nil) != (want == "ambiguous") || got != nil && got.PublicKey != want || got == nil && err == nil && want != "" {
			t.Errorf("%s: got %+v, %v, want %q", text, got, err, want)
		}
	}
	a.Mesh = nil
	if got, err := a.FindStatic("b"); err != nil || got == nil {
		t.Errorf("without a mesh: got %v, %v, want it", got, err)
	}
}

func TestFindRevoked(t *testing.T) {
	one, two := identity.KeyID{2}, identity.KeyID{4}
	revoked := []Revocation{
		{Target: identity.KeyID{1}, Name: "x", Invite: true}, {Target: one, Name: "old"}, {Target: two, Name: one.Short()},
		{Target: one, Name: "old", Scope: record.ScopePower}, {Target: identity.KeyID{7}, Name: "demoted", Scope: record.ScopePower},
		{Target: identity.KeyID{5}, Name: "twice"}, {Target: identity.KeyID{6}, Name: "twice"},
	}
	for _, tt := range []struct {
		text      string
		want      identity.KeyID
		ambiguous bool
	}{
		{"old", one, false}, {"x", identity.KeyID{}, false}, {one.String(), one, false}, {one.String()[:3], identity.KeyID{}, false},
		{identity.KeyID{1}.Short(), identity.KeyID{}, false}, {one.Short(), identity.KeyID{}, true}, {one.String()[:12], one, false}, {two.Short(), two, false},
		{"twice", identity.KeyID{}, true}, {"demoted", identity.KeyID{}, false},
	} {
		got, err := FindRevoked(revoked, tt.text)
		if (err != nil) != tt.ambiguous || (got != nil) != !tt.want.IsZero() || got != nil && got.Target != tt.want {
			t.Errorf("%s: got %+v, %v, want %s, ambiguous %t", tt.text, got, err, tt.want.Short(), tt.ambiguous)
		}
	}
}

func TestFindInvite(t *testing.T) {
	one, two, three := identity.KeyID{1}, identity.KeyID{9: 1}, identity.KeyID{2}
	invites := []Invite{{ID: one}, {ID: identity.KeyID{1, 0, 0, 0, 1}}, {ID: two}, {ID: three}, {ID: three}}
	for _, tt := range []struct {
		text string
		want identity.KeyID
		code api.Code
	}{
		{one.String(), one, ""}, {"aaaa", two, ""}, {three.String()[:4], three, ""}, {strings.ToUpper(three.Short()), three, ""},
		{three.String()[:3], identity.KeyID{}, api.CodeNotFound}, {"aeaa", identity.KeyID{}, api.CodeAmbiguous}, {"zzzz", identity.KeyID{}, api.CodeNotFound},
	} {
		got, err := FindInvite(invites, tt.text)
		no, _ := errors.AsType[*api.Error](err)
		if got != tt.want || (no == nil) != (tt.code == "") || no != nil && no.Code != tt.code {
			t.Errorf("%s: got %s, %v, want %s, %q", tt.text, got.Short(), err, tt.want.Short(), tt.code)
		}
	}
}
