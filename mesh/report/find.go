package report

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/roster"
)

// minID is how much of an ID is enough to ask for it.
const minID = 4

// Find looks a member up by name, overlay address or the start of its ID. The error is one of api's; it names members that may have
// been meant.
func Find(members []roster.Member, self identity.NodeID, text string) (roster.Member, error) {
	addr, _ := netip.ParseAddr(text)
	var found []roster.Member
	for _, m := range members {
		if m.Name == text || addr.IsValid() && (addr == m.Addr4 || addr == m.Addr6) {
			return m, nil
		}
		if len(text) >= minID && strings.HasPrefix(m.ID.String(), strings.ToLower(text)) {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return roster.Member{}, unknown(members, self, text)
	}
	return roster.Member{}, &api.Error{Code: api.CodeAmbiguous, Message: fmt.Sprintf("%d members have IDs that start with %q", len(found), text), Hint: "give more of the ID"}
}

// FindRevoked finds a node that is a member no more by its last name or the start of its ID.
func FindRevoked(revoked []Revocation, text string) (Revocation, bool) {
	i := slices.IndexFunc(revoked, func(r Revocation) bool {
		return !r.Invite && (r.Name == text || len(text) >= minID && strings.HasPrefix(r.Target.String(), strings.ToLower(text)))
	})
	if i < 0 {
		return Revocation{}, false
	}
	return revoked[i], true
}

// unknown is the error for a name that nobody has.
func unknown(members []roster.Member, self identity.NodeID, text string) error {
	var names []string
	for _, m := range members {
		if m.ID != self && m.State == roster.Active {
			names = append(names, m.Name)
		}
	}
	hint := "warren peers lists the members"
	if guesses := near(text, names); len(guesses) > 0 {
		hint = "did you mean " + strings.Join(guesses, " or ") + "? " + hint
	}
	return &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("no member is called %q", text), Hint: hint}
}

// near lists up to three names that the text may have been meant for.
func near(text string, names []string) (out []string) {
	type guess struct {
		name string
		far  int
	}
	var guesses []guess
	text = strings.ToLower(text)
	for _, name := range names {
		far := distance(text, name)
		if len(text) > 1 && (strings.HasPrefix(name, text) || strings.HasPrefix(text, name)) {
			far = min(far, 1)
		}
		if far <= min(2, max(1, len(text)/2)) {
			guesses = append(guesses, guess{name, far})
		}
	}
	slices.SortFunc(guesses, func(a, b guess) int { return cmp.Or(cmp.Compare(a.far, b.far), cmp.Compare(a.name, b.name)) })
	for _, g := range guesses[:min(3, len(guesses))] {
		out = append(out, g.name)
	}
	return out
}

// distance is Levenshtein's: the least number of bytes to insert, remove or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
