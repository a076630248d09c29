package roster

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// never is later than any time in a record.
const never = math.MaxInt64

// revokedKey is all that revocations say about one key.
type revokedKey struct {
	since   int64 // the earliest revocation that counts
	cascade int64 // the earliest that puts out all below, or never
	first   *entry
}

// revokedKeys is what some revocations come to.
type revokedKeys map[identity.KeyID]revokedKey

// add adds a revocation.
func (k revokedKeys) add(e *entry) {
	key, ok := k[e.Revocation.Target]
	if !ok {
		key = revokedKey{since: never, cascade: never}
	}
	if key.first == nil || cmp.Or(cmp.Compare(e.Revocation.Time, key.since), bytes.Compare(e.Key[:], key.first.Key[:])) < 0 {
		key.since, key.first = e.Revocation.Time, e
	}
	if e.Revocation.Keep == nil {
		key.cascade = min(key.cascade, e.Revocation.Time)
	}
	k[e.Revocation.Target] = key
}

// void reports whether these revocations, which are the root's, take away the effect of another one.
func (k revokedKeys) void(e *entry) bool {
	if e.byRoot() {
		return false
	}
	if key, ok := k[e.issuer.keyID]; ok && key.since <= e.Revocation.Time {
		return true
	}
	for up := range e.issuer.above() {
		if key, ok := k[up.keyID]; ok && key.cascade <= e.Revocation.Time {
			return true
		}
	}
	return false
}

// revocations are those of a set that count, and what they come to.
//
// A revocation by an admin counts even if that admin is revoked itself, whatever the times say: times are the
// signer's own word, and a stolen admin key must not be able to undo its own revocation by revoking, dated back, whoever
// revoked it. Two admins that revoke each other are both out. The root has the last word: what an admin signed at or
// after the time for which the root revoked it is void. So every revocation is for good, save by the root.
type revocations struct {
	counting []*entry
	keys     revokedKeys
}

// read gathers them anew.
func (r *revocations) read(records map[record.Key]*entry) {
	var all []*entry
	root := make(revokedKeys)
	for _, e := range records {
		if e.Revocation == nil {
			continue
		}
		all = append(all, e)
		if e.byRoot() {
			root.add(e)
		}
	}
	r.counting, r.keys = slices.DeleteFunc(all, root.void), make(revokedKeys)
	for _, e := range r.counting {
		r.keys.add(e)
	}
}

// list returns those that count, by time.
func (r *revocations) list() []Revoked {
	var list []Revoked
	for _, e := range r.counting {
		list = append(list, Revoked{Revocation: *e.Revocation, Key: e.Key})
	}
	slices.SortFunc(list, func(a, b Revoked) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), bytes.Compare(a.Key[:], b.Key[:]))
	})
	return list
}

// refusal returns why a key is no good, nil when it is not revoked.
func (r *revocations) refusal(id identity.KeyID) *Refusal {
	key, ok := r.keys[id]
	if !ok {
		return nil
	}
	by := "the root"
	if key.first.issuer != nil {
		by = key.first.issuer.nodeName()
	}
	text := "revoked by " + by + " at " + textTime(key.first.Revocation.At())
	if key.first.Revocation.Reason != "" {
		text += ": " + key.first.Revocation.Reason
	}
	return refuse(ReasonRevoked, "%s: %s", id.Short(), text)
}
