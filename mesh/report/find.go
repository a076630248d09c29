package report

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"warren/mesh/api"
	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// minID is how much of an ID is enough to ask for it.
const minID = 4

// Find looks a member up by its ID, by name, by overlay address, or by the start of its ID. A whole ID is its owner's, whatever others
// call themselves. Anything else has to mean one member only: a member chooses its name, and might take the start of
// another's ID. The error is one of api's; it names the members that may have been meant.
func Find(members []roster.Member, self identity.NodeID, text string) (roster.Member, error) {
	id, err := identity.ParseNodeID(text)
	whole := err == nil
	addr, _ := netip.ParseAddr(text)
	var found []roster.Member
	for _, m := range members {
		if whole && m.ID == id {
			return m, nil
		}
		if !whole && (m.Name == text || addr.IsValid() && (addr == m.Addr4 || addr == m.Addr6) || startsID(m.ID.String(), text)) {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return roster.Member{}, unknown(members, self, text)
	}
	var lines []string
	for _, m := range found {
		lines = append(lines, meant(m.Name, m.ID.String(), addresses(m)))
	}
	return roster.Member{}, ambiguous("members", text, lines)
}

// FindStatic finds a static peer by its name or its public key; nil when there is none. The name must not stand for a member as well.
func (a Agent) FindStatic(text string) (*Static, error) {
	for i := range a.Static {
		s := &a.Static[i]
		switch {
		case s.PublicKey == text:
			return s, nil
		case s.Name != text:
		case a.Mesh == nil:
			return s, nil
		default:
			other, err := Find(a.Mesh.Records.Members, a.Mesh.Self, text)
			if no, ok := errors.AsType[*api.Error](err); ok && no.Code == api.CodeNotFound {
				return s, nil
			} else if err != nil {
				return nil, err
			}
			lines := []string{"the static peer " + s.PublicKey, meant(other.Name, other.ID.String(), addresses(other))}
			return nil, &api.Error{Code: api.CodeAmbiguous, Message: fmt.Sprintf("%q may mean several peers: %s", text, strings.Join(lines, ", ")), Hint: "say the public key, or the whole ID"}
		}
	}
	return nil, nil
}

// FindRevoked finds a node that is a member no more by its ID, by its last name, or by the start of its ID, as Find does. It returns nil
// when there is none.
func FindRevoked(revoked []Revocation, text string) (*Revocation, error) {
	var found []*Revocation
	var lines []string
	for i := range revoked {
		r := &revoked[i]
		id := r.Target.String()
		switch {
		case r.Invite, r.Scope != record.ScopeWhole:
		case id == strings.ToLower(text):
			return r, nil
		case r.Name == text || startsID(id, text):
			found = append(found, r)
			lines = append(lines, meant(r.Name, id, nil))
		}
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return found[0], nil
	}
	return nil, ambiguous("revoked nodes", text, lines)
}

// FindInvite finds an invite by its ID, or the start of it.
func FindInvite(invites []Invite, text string) (identity.KeyID, error) {
	var found []identity.KeyID
	var lines []string
	for _, i := range invites {
		id := i.ID.String()
		// One key may have been certified twice: what is done to it is done to both.
		if !startsID(id, text) || slices.Contains(found, i.ID) {
			continue
		}
		found = append(found, i.ID)
		lines = append(lines, id)
	}
	switch len(found) {
	case 0:
		return identity.KeyID{}, &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("no invite has an ID that starts with %q", text), Hint: "warren invite list tells the IDs of those that are open, warren peers --json that by which a member came"}
	case 1:
		return found[0], nil
	}
	return identity.KeyID{}, ambiguous("invites", text, lines)
}

// startsID reports whether a text is enough of an ID, and the start of this one.
func startsID(id, text string) bool {
	return len(text) >= minID && strings.HasPrefix(id, strings.ToLower(text))
}

// maxMeant is how many are named of those that may have been meant.
const maxMeant = 4

// meant says who may have been meant: by its whole ID, which is what tells it from all others.
func meant(name, id string, addrs []netip.Addr) string {
	if len(addrs) > 0 {
		return fmt.Sprintf("%s (%s, %s)", name, addrs[0], id)
	}
	return fmt.Sprintf("%s (%s)", name, id)
}

func ambiguous(what, text string, lines []string) error {
	more := ""
	if n := len(lines) - maxMeant; n > 0 {
		lines, more = lines[:maxMeant], fmt.Sprintf(", and %d more", n)
	}
	return &api.Error{Code: api.CodeAmbiguous, Message: fmt.Sprintf("%q may mean several %s: %s%s", text, what, strings.Join(lines, ", "), more), Hint: "say the whole ID"}
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
