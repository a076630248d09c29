package roster

import (
	"bytes"
	"crypto/x509"
	"maps"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// standing says which nodes of a set are members: those that no revocation puts out, and whose certificates have not expired.
type standing struct {
	set *set // constant

	now        time.Time // as last told
	revoked    revocations
	told       map[identity.NodeID]bool // members as last told in an Outcome
	nextExpiry time.Time                // of a member, or zero
	changes    uint64                   // how often members, or their records, have changed
}

func newStanding(s *set) *standing {
	return &standing{set: s, told: make(map[identity.NodeID]bool), revoked: revocations{keys: make(revokedKeys)}}
}

// members returns the nodes that are members, in the order of their admission.
func (s *standing) members() []*entry {
	var entries []*entry
	for _, e := range s.set.nodes {
		if s.whyOut(e) == nil {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, (*entry).compare)
	return entries
}

// of returns why a node is no member, nil for a member.
func (s *standing) of(id identity.NodeID) *Refusal {
	if e := s.set.nodes[id]; e != nil {
		return s.whyOut(e)
	}
	if refusal := s.revoked.refusal(identity.KeyID(id)); refusal != nil {
		return refusal
	}
	for _, e := range slices.Backward(s.set.aside) {
		if e.Node != nil && e.Node.ID == id {
			return e.whyAside()
		}
	}
	return refuse(ReasonUnknownNode, "node %s: no record of it", id.Short())
}

// ofInvite returns why nobody may be admitted with an invite any more because of revocations, or nil.
func (s *standing) ofInvite(invite *entry) *Refusal {
	if refusal := s.revoked.refusal(invite.keyID); refusal != nil {
		return refuse(ReasonInviteRevoked, "invite %s", refusal.Text)
	}
	for up := range invite.above() {
		if refusal := s.revoked.refusal(up.keyID); refusal != nil {
			return refuse(ReasonIssuerRevoked, "invite %s: above it, %s", invite.keyID.Short(), refusal.Text)
		}
	}
	if invite.issuer != nil && invite.issuer.out != nil {
		return refuse(ReasonIssuerRevoked, "invite %s: its maker is no member: %s", invite.keyID.Short(), invite.issuer.out.Text)
	}
	return nil
}

// ofChain returns why the node at the head of a chain, which is without the root, is to be turned away, or nil: see JudgeChain.
func (s *standing) ofChain(chain []*x509.Certificate, now time.Time) *Refusal {
	leaf := chain[0]
	id := identity.NodeIDOfCert(leaf)
	if role := identity.RoleOf(leaf); role != identity.RoleMember && role != identity.RoleAdmin {
		return refuse(ReasonNotAllowed, "certificate of a %s, want a node's", role)
	}
	if now.After(leaf.NotAfter) {
		return refuse(ReasonExpired, "node %s: its certificate expired %s", id.Short(), textTime(leaf.NotAfter))
	}
	if e := s.set.nodes[id]; e != nil {
		return s.whyOut(e)
	}
	for i, cert := range chain {
		if refusal := s.revoked.refusal(identity.KeyIDOfCert(cert)); refusal != nil {
			if i > 0 {
				return refuse(ReasonIssuerRevoked, "node %s: above it, %s", id.Short(), refusal.Text)
			}
			return refusal
		}
	}
	for _, e := range s.set.aside {
		if e.Node != nil && e.Node.ID == id && e.refusal != nil {
			return e.refusal
		}
	}
	return nil
}

// advance moves the clock.
func (s *standing) advance(now time.Time, c *change) {
	if now.Before(s.now) || now.After(s.nextExpiry) {
		c.overlay = true // look at all nodes
	}
	s.now = now
}

// whyOut returns why a node of the set is no member now, or nil.
func (s *standing) whyOut(e *entry) *Refusal {
	if e.out != nil {
		return e.out
	}
	if s.now.After(e.Certificate.NotAfter) {
		return refuse(ReasonExpired, "node %s: its certificate expired %s", e.Node.ID.Short(), textTime(e.Certificate.NotAfter))
	}
	return nil
}

// report brings what follows from the set up to date and says what changed.
func (s *standing) report(c *change) Outcome {
	touched := make(map[identity.NodeID]bool)
	for id := range c.touched {
		touched[id] = true
	}
	if c.overlay {
		s.revoked.read(s.set.records)
		for id := range s.set.nodes {
			touched[id] = true
		}
		s.nextExpiry = time.Time{}
	}
	var nodes []*entry
	for id := range touched {
		if e := s.set.nodes[id]; e != nil {
			nodes = append(nodes, e)
		}
	}
	slices.SortFunc(nodes, (*entry).compare) // the member that admitted comes before the one that it admitted
	for _, e := range nodes {
		s.decide(e)
	}
	out := Outcome{Added: sortedKeys(c.added), Removed: sortedKeys(c.removed)}
	for _, id := range slices.SortedFunc(maps.Keys(touched), identity.NodeID.Compare) {
		s.reportNode(id, c, &out)
	}
	if len(touched) > 0 {
		s.changes++
	}
	return out
}

func (s *standing) reportNode(id identity.NodeID, c *change, out *Outcome) {
	e := s.set.nodes[id]
	var refusal *Refusal
	if e != nil {
		refusal = s.whyOut(e)
	} else {
		refusal = c.touched[id].whyAside()
	}
	was := s.told[id]
	switch {
	case refusal == nil && (!was || c.fresh[id]):
		s.told[id] = true
		out.Changed = append(out.Changed, id)
	case refusal != nil && was:
		delete(s.told, id)
		out.Dropped = append(out.Dropped, Drop{ID: id, Reason: refusal.Reason, Text: refusal.Text})
	}
	if refusal == nil && (s.nextExpiry.IsZero() || e.Certificate.NotAfter.Before(s.nextExpiry)) {
		s.nextExpiry = e.Certificate.NotAfter
	}
}

// decide decides whether revocations put a node of the set out, and from when on. The member that admitted it must
// have been decided on before.
func (s *standing) decide(e *entry) {
	e.out, e.outSince = nil, never
	admitted := e.Admitted().Unix()
	put := func(since int64, refusal *Refusal) {
		if e.out == nil {
			e.out = refusal
		}
		e.outSince = min(e.outSince, since)
	}
	if key, ok := s.revoked.keys[e.keyID]; ok {
		put(key.since, s.revoked.refusal(e.keyID))
	}
	for up := range e.above() {
		key, ok := s.revoked.keys[up.keyID]
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
	if by := s.set.nodes[e.Node.Admission.Signer]; by != nil && by.out != nil && by.outSince <= admitted {
		put(admitted, refuse(ReasonIssuerRevoked, "node %s: it was admitted by %s when that was no member any more", e.Node.ID.Short(), by.nodeName()))
	}
}

func sortedKeys(keys map[record.Key]bool) []record.Key {
	return slices.SortedFunc(maps.Keys(keys), func(a, b record.Key) int { return bytes.Compare(a[:], b[:]) })
}
