package report

import (
	"errors"
	"strings"
	"testing"

	"warren/mesh/api"
	"warren/mesh/identity"
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
		{"aaaa", identity.NodeID{}, api.CodeAmbiguous, "give more"},
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

func TestFindRevoked(t *testing.T) {
	revoked := []Revocation{{Target: identity.KeyID{1}, Name: "x", Invite: true}, {Target: identity.KeyID{2}, Name: "old"}}
	for text, want := range map[string]bool{
		"old": true, "x": false, identity.KeyID{2}.Short(): true, identity.KeyID{2}.String()[:3]: false, identity.KeyID{1}.Short(): false,
	} {
		if got, ok := FindRevoked(revoked, text); ok != want || ok && got.Name != "old" {
			t.Errorf("%s: got %+v, %v, want %v", text, got, ok, want)
		}
	}
}
