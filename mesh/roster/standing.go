package roster

import (
	"bytes"
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

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

// Revoked returns the revocations that count, by time.
func (r *Roster) Revoked() []Revoked {
	var list []Revoked
	root := r.rootsWord()
	for _, e := range r.set {
		if e.Revocation != nil && !r.voided(e, root) {
			list = append(list, Revoked{Revocation: *e.Revocation, Key: e.Key})
		}
	}
	slices.SortFunc(list, func(a, b Revoked) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), bytes.Compare(a.Key[:], b.Key[:]))
	})
	return list
}

// Standing returns nil for a member, else a *Refusal that says why the node is none.
func (r *Roster) Standing(id identity.NodeID) error {
	if e := r.nodes[id]; e != nil {
		if refusal := r.whyOut(e); refusal != nil {
			return refusal
		}
		return nil
	}
	if refusal := r.revokedText(identity.KeyID(id)); refusal != nil {
		return refusal
	}
	for _, e := range slices.Backward(r.aside) {
		if e.Node != nil && e.Node.ID == id {
			return r.whyAside(e)
		}
	}
	return refuse(ReasonUnknownNode, "node %s: no record of it", id.Short())
}

// Advance moves the clock: members whose certificates have expired are dropped. Add does the same.
func (r *Roster) Advance(now time.Time) Outcome {
	c := newChange()
	r.advance(now, c)
	return r.report(c)
}

// NextExpiry returns when the next member's certificate expires, zero when there is no member.
func (r *Roster) NextExpiry() time.Time { return r.nextExpiry }

func (r *Roster) advance(now time.Time, c *change) {
	if now.Before(r.now) || now.After(r.nextExpiry) {
		c.overlay = true // look at all nodes
	}
	r.now = now
}

// whyOut returns why a node of the set is no member now, or nil.
func (r *Roster) whyOut(e *entry) *Refusal {
	if e.out != nil {
		return e.out
	}
	if r.now.After(e.Certificate.NotAfter) {
		return refuse(ReasonExpired, "node %s: its certificate expired %s", e.Node.ID.Short(), textTime(e.Certificate.NotAfter))
	}
	return nil
}

func (r *Roster) whyAside(e *entry) *Refusal {
	if e.refusal != nil {
		return e.refusal
	}
	return refuse(ReasonUnknownIssuer, "node %s: its invite, or the member that admitted it, is not known", e.Node.ID.Short())
}

// report brings what follows from the set up to date and says what changed.
func (r *Roster) report(c *change) Outcome {
	touched := make(map[identity.NodeID]bool)
	for id := range c.touched {
		touched[id] = true
	}
	if c.overlay {
		r.computeRevoked()
		for id := range r.nodes {
			touched[id] = true
		}
		r.nextExpiry = time.Time{}
	}
	var nodes []*entry
	for id := range touched {
		if e := r.nodes[id]; e != nil {
			nodes = append(nodes, e)
		}
	}
	slices.SortFunc(nodes, (*entry).compare) // the member that admitted comes before the one that it admitted
	for _, e := range nodes {
		r.computeOut(e)
	}
	out := Outcome{Added: sortedKeys(c.added), Removed: sortedKeys(c.removed)}
	for _, id := range slices.SortedFunc(maps.Keys(touched), identity.NodeID.Compare) {
		r.reportNode(id, c, &out)
	}
	if len(touched) > 0 {
		r.members = nil
	}
	return out
}

func (r *Roster) reportNode(id identity.NodeID, c *change, out *Outcome) {
	e := r.nodes[id]
	var refusal *Refusal
	if e != nil {
		refusal = r.whyOut(e)
	} else {
		refusal = r.whyAside(c.touched[id])
	}
	was := r.reported[id]
	switch {
	case refusal == nil && (!was || c.fresh[id]):
		r.reported[id] = true
		out.Changed = append(out.Changed, id)
	case refusal != nil && was:
		delete(r.reported, id)
		out.Dropped = append(out.Dropped, Drop{ID: id, Reason: refusal.Reason, Text: refusal.Text})
	}
	if refusal == nil && (r.nextExpiry.IsZero() || e.Certificate.NotAfter.Before(r.nextExpiry)) {
		r.nextExpiry = e.Certificate.NotAfter
	}
}

// computeRevoked gathers the revocations that count.
//
// A revocation by an admin counts even if that admin is revoked itself, whatever the times say: times are the
// signer's own word, and a stolen admin key must not be able to undo its own revocation by revoking, dated back, whoever
// revoked it. Two admins that revoke each other are both out. The root has the last word: what an admin signed at or
// after the time for which the root revoked it is void. So every revocation is for good, save by the root.
func (r *Roster) computeRevoked() {
	clear(r.revoked)
	root := r.rootsWord()
	for _, e := range r.set {
		if e.Revocation != nil && !r.voided(e, root) {
			e.revoke(r.revoked)
		}
	}
}

// rootsWord gathers the root's own revocations.
func (r *Roster) rootsWord() map[identity.KeyID]revokedKey {
	word := make(map[identity.KeyID]revokedKey)
	for _, e := range r.set {
		if e.Revocation != nil && e.byRoot() {
			e.revoke(word)
		}
	}
	return word
}

// voided reports whether the root's word takes away the effect of a revocation.
func (r *Roster) voided(e *entry, root map[identity.KeyID]revokedKey) bool {
	if e.byRoot() {
		return false
	}
	if key, ok := root[e.issuer.keyID]; ok && key.since <= e.Revocation.Time {
		return true
	}
	for up := range e.issuer.above() {
		if key, ok := root[up.keyID]; ok && key.cascade <= e.Revocation.Time {
			return true
		}
	}
	return false
}

// revoke adds a revocation to what is known about its target.
func (e *entry) revoke(revoked map[identity.KeyID]revokedKey) {
	key, ok := revoked[e.Revocation.Target]
	if !ok {
		key = revokedKey{since: never, cascade: never}
	}
	if key.first == nil || cmp.Or(cmp.Compare(e.Revocation.Time, key.since), bytes.Compare(e.Key[:], key.first.Key[:])) < 0 {
		key.since, key.first = e.Revocation.Time, e
	}
	if e.Revocation.Cascade {
		key.cascade = min(key.cascade, e.Revocation.Time)
	}
	revoked[e.Revocation.Target] = key
}

// computeOut decides whether revocations put a node of the set out, and from when on. The member that admitted it must
// have been decided on before.
func (r *Roster) computeOut(e *entry) {
	e.out, e.outSince = nil, never
	admitted := e.Admitted().Unix()
	put := func(since int64, refusal *Refusal) {
		if e.out == nil {
			e.out = refusal
		}
		e.outSince = min(e.outSince, since)
	}
	if key, ok := r.revoked[e.keyID]; ok {
		put(key.since, r.revokedText(e.keyID))
	}
	for up := range e.above() {
		key, ok := r.revoked[up.keyID]
		if !ok {
			continue
		}
		reason, what := ReasonIssuerRevoked, "a key above it"
		if up == e.issuer {
			reason, what = ReasonInviteRevoked, "its invite"
		}
		if key.since <= admitted {
			put(admitted, refuse(reason, "node %s: %s was revoked before it was admitted", e.Node.ID.Short(), what))
		} else if key.cascade != never {
			put(key.cascade, refuse(ReasonIssuerRevoked, "node %s: %s was revoked with all below it", e.Node.ID.Short(), what))
		}
	}
	if by := r.nodes[e.Node.Admission.Signer]; by != nil && by.out != nil && by.outSince <= admitted {
		put(admitted, refuse(ReasonIssuerRevoked, "node %s: it was admitted by %s when that was no member any more", e.Node.ID.Short(), by.nodeName()))
	}
}

// revokedText returns the refusal of a revoked key, or nil.
func (r *Roster) revokedText(id identity.KeyID) *Refusal {
	key, ok := r.revoked[id]
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

func sortedKeys(keys map[record.Key]bool) []record.Key {
	return slices.SortedFunc(maps.Keys(keys), func(a, b record.Key) int { return bytes.Compare(a[:], b[:]) })
}
