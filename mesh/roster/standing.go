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

// standing says which nodes of a set are members: those that no revocation puts out, and whose certificates have not expired. And it says
// which of them are admins.
type standing struct {
	// constant
	set     *set
	revoked *revocations

	now        time.Time                // as last told
	told       map[identity.NodeID]bool // members as last told in an Outcome
	nextExpiry time.Time                // of a member, or zero
	changes    uint64                   // how often members, or their records, have changed
}

func newStanding(s *set) *standing {
	return &standing{set: s, told: make(map[identity.NodeID]bool), revoked: newRevocations(s)}
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
	if hits := s.revoked.ofInvite(invite); len(hits) > 0 {
		return refuse(ReasonIssuerRevoked, "invite %s: it rests on %s", invite.keyID.Short(), s.hitText(hits))
	}
	return nil
}

// hitText says by which of some revocations, those that are first, something is hit.
func (s *standing) hitText(hits []*entry) string {
	first := slices.MinFunc(hits, byTime)
	what := first.Revocation.Target.Short()
	if node := s.set.nodes[identity.NodeID(first.Revocation.Target)]; node != nil {
		what = node.nodeName()
	}
	return what + ", " + first.revokedText()
}

// adminBy returns the ground by which a node of the set is an admin now, by its own certificate if it can be; nil: it is none.
func (s *standing) adminBy(e *entry) *entry {
	if e.out != nil {
		return nil
	}
	var found *entry
	for _, ground := range s.set.grounds(e.Node.ID) {
		if s.now.After(ground.Certificate.NotAfter) || len(s.revoked.ofGround(ground)) > 0 {
			continue
		}
		if found == nil || ground.Node != nil || found.Node == nil && ground.Certificate.NotAfter.After(found.Certificate.NotAfter) {
			found = ground
		}
	}
	return found
}

// signs reports whether what a node of the set says as an admin has an effect. The clock plays no part in it.
func (s *standing) signs(e *entry) bool {
	return e.out == nil && slices.ContainsFunc(s.set.grounds(e.Node.ID), func(ground *entry) bool {
		return len(s.revoked.ofGround(ground)) == 0
	})
}

// grants returns the grants for a node whose signers are admins: the root's first, then in the order of their signers.
func (s *standing) grants(id identity.NodeID) []*entry {
	var grants []*entry
	for _, e := range s.set.grants[id] {
		if e.byRoot() || !e.hidden && s.signs(e.issuer) {
			grants = append(grants, e)
		}
	}
	slices.SortFunc(grants, (*entry).compare)
	return grants
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
	if refusal := s.revoked.refusal(identity.KeyID(id)); refusal != nil {
		return refusal
	}
	if hits := unlessKept(s.aboveChain(chain[1:]), record.PrefixOf(id)); len(hits) > 0 {
		return refuse(ReasonIssuerRevoked, "node %s: it rests on %s", id.Short(), s.hitText(hits))
	}
	for _, e := range s.set.aside {
		if e.Node != nil && e.Node.ID == id && e.refusal != nil {
			return e.refusal
		}
	}
	return s.unproven(leaf, now)
}

// aboveChain returns the revocations that hit what a node shows above itself: by what is known of the certificates, and as far as they are not, by
// the chain.
func (s *standing) aboveChain(above []*x509.Certificate) (hits []*entry) {
	for _, cert := range slices.Backward(above) {
		id := identity.KeyIDOfCert(cert)
		known := s.set.nodes[identity.NodeID(id)]
		switch identity.RoleOf(cert) {
		case identity.RoleInvite:
			if invite := s.set.invites.records[inviteRef(id, cert.RawSubject)]; invite != nil {
				hits = s.revoked.ofInvite(invite)
			} else {
				hits = join(hits, s.revoked.whole(id))
			}
			continue
		case identity.RolePromotion:
			if known != nil {
				hits = join(hits, known.hits[layerAll])
			}
		default:
			if hits = unlessKept(hits, record.PrefixOf(id)); known != nil {
				hits = known.hits[layerAll]
			}
		}
		hits = join(hits, join(s.revoked.whole(id), s.revoked.power(id)))
	}
	return hits
}

// unproven says that more than its chain is asked of a node of which there is no record here: its invite admits nobody any more, so that
// anybody who had it could have made that chain since.
func (s *standing) unproven(leaf *x509.Certificate, now time.Time) *Refusal {
	invite := s.set.invites.of(leaf)
	switch {
	case invite == nil:
		return nil
	case s.set.invites.uses[invite.ref] >= invite.terms.Uses:
		return refuse(ReasonUnproven, "node %s: there is no record of it here, and its invite is used up", identity.NodeIDOfCert(leaf).Short())
	case now.After(invite.terms.Expires):
		return refuse(ReasonUnproven, "node %s: there is no record of it here, and its invite expired %s", identity.NodeIDOfCert(leaf).Short(), textTime(invite.terms.Expires))
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
		s.revoked.read()
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
	hiding := &hiding{set: s.set, revoked: s.revoked, change: c}
	hiding.run(c.overlay)
	out := Outcome{Added: sortedKeys(c.added), Removed: sortedKeys(c.removed)}
	for _, id := range slices.SortedFunc(maps.Keys(touched), identity.NodeID.Compare) {
		s.reportNode(id, c, &out)
	}
	hiding.evict()
	if len(touched) > 0 || c.granted {
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

// decide decides whether revocations put a node of the set out. What it rests on must have been decided on before.
func (s *standing) decide(e *entry) {
	hits, _ := s.revoked.ofNode(e)
	e.hits[layerAll], e.out = hits, nil
	if len(hits) == 0 {
		return
	}
	if e.out = s.revoked.refusal(e.keyID); e.out != nil {
		return
	}
	reason := ReasonIssuerRevoked
	if len(s.revoked.whole(e.issuer.keyID)) > 0 && slices.ContainsFunc(hits, func(r *entry) bool { return r.isOf(e.issuer) }) {
		reason = ReasonInviteRevoked
	}
	e.out = refuse(reason, "node %s: it rests on %s", e.Node.ID.Short(), s.hitText(hits))
}

func sortedKeys(keys map[record.Key]bool) []record.Key {
	return slices.SortedFunc(maps.Keys(keys), func(a, b record.Key) int { return bytes.Compare(a[:], b[:]) })
}
