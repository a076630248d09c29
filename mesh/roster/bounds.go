package roster

import "warren/mesh/record"

// How many records one key may stand for, so that no stolen key fills the set. The root may sign what it likes, and what it signs fits
// whatever there is: by its word a set that was filled is emptied.
const (
	maxRevocations     = 1000
	maxRevocationBytes = 1 << 20 // of their bodies
	maxInvites         = 1000
	maxPromotions      = 64
	maxGrants          = 16_384
	maxAdmitted        = 16_384 // nodes that one member has let in
)

// tally counts the records of the set for which one key stands.
type tally struct {
	revocations, bytes, invites, promotions, grants, admitted int
}

// with adds a record n times.
func (t tally) with(e *entry, n int) tally {
	switch {
	case e.Node != nil:
		t.admitted += n
	case e.isInvite():
		t.invites += n
	case e.isPromotion():
		t.promotions += n
	case e.Revocation != nil:
		t.revocations += n
		t.bytes += n * len(e.Body)
	case e.Grant != nil:
		t.grants += n
	}
	return t
}

// excess says in words of what there are too many; "" when all is within bounds.
func (t tally) excess() (what string, most int) {
	switch {
	case t.revocations > maxRevocations:
		return "revocations", maxRevocations
	case t.bytes > maxRevocationBytes:
		return "bytes of revocations", maxRevocationBytes
	case t.invites > maxInvites:
		return "invites", maxInvites
	case t.promotions > maxPromotions:
		return "promotions", maxPromotions
	case t.grants > maxGrants:
		return "grants", maxGrants
	case t.admitted > maxAdmitted:
		return "admissions", maxAdmitted
	}
	return "", 0
}

// full returns why there is no room for a record, or nil. That depends on what came first, so members may differ in it: it is no judgement on
// the record.
func (s *set) full(e *entry) *Refusal {
	known := s.records[e.Key]
	switch {
	case e.byRoot():
		return nil
	case known != nil && e.Kind != record.KindRevocation:
		return nil // it takes the place of that
	case known == nil && s.size() >= maxRecords:
		return refuse(ReasonFull, "%s: there are %d records already", e.Kind, maxRecords)
	}
	tally := s.tallies[e.signedBy()].with(e, 1)
	if known != nil {
		tally = tally.with(known, -1)
	}
	if what, most := tally.excess(); what != "" {
		return refuse(ReasonFull, "%s by %s: it has made more than %d %s", e.Kind, e.signedBy().Short(), most, what)
	}
	return nil
}
