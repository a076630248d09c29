package mesh

import (
	"time"

	"warren/mesh/identity"
	"warren/mesh/roster"
)

// believeRefusals is how long a node that nobody takes in waits for one that does, before it believes those that refuse it.
const believeRefusals = 10 * time.Second

// maxStrangers bounds the refusals that are kept of nodes that are not known as members.
const maxStrangers = 16

// refusals are what members say against this node's own membership. One member's word proves nothing, and the records that would prove
// it may not reach a node that is out: so it is believed when some say so and nobody at all takes this node in.
//
// Owned by the run loop.
type refusals struct {
	said  map[identity.NodeID]refusal
	alone time.Time // since when, as far as was seen, nobody takes this node in; zero: somebody does
}

type refusal struct {
	reason string
	at     time.Time
}

// Refused tells that a node does not accept a session with this one, because this one is no member any more; reason is in its words. For
// causes that may pass it is not to be called. After ten seconds in which no member takes this node in, Fatal says so:
// "NAME says: REASON". A session that comes up (SessionUp) takes a refusal back. It never blocks.
func (m *Mesh) Refused(by identity.NodeID, reason string) { m.asks.refused(by, reason) }

// refuse keeps a refusal. That of a stranger counts only while no other member is known, as when the records were lost: anybody with
// an old invite can have a session.
func (l *loop) refuse(by identity.NodeID, reason string, now time.Time) {
	if _, known := l.out.said[by]; known {
		return
	}
	if !l.m.isMember(by) && (len(l.m.View().Members) > 1 || len(l.out.said) >= maxStrangers) {
		l.m.drops.add("refusal: not by a member")
		return
	}
	l.out.said[by] = refusal{reason: reason, at: now}
}

// heed believes refusals when it is time, and returns when to look again; zero: when there is something new.
func (l *loop) heed(now time.Time) time.Time {
	if len(l.out.said) == 0 {
		return time.Time{}
	}
	if len(l.m.sessions.Neighbours()) > 0 {
		l.out.alone = time.Time{}
		return time.Time{}
	}
	if l.out.alone.IsZero() {
		l.out.alone = now
	}
	by, first := l.out.first()
	due := first.at.Add(believeRefusals)
	if later := l.out.alone.Add(believeRefusals); later.After(due) {
		due = later
	}
	if now.Before(due) {
		return due
	}
	l.m.fail(&FatalError{Reason: roster.ReasonNone, Text: l.m.nameOf(by) + " says: " + first.reason})
	clear(l.out.said)
	return time.Time{}
}

// first returns the refusal that stands longest; ties go by ID.
func (r *refusals) first() (by identity.NodeID, first refusal) {
	for id, one := range r.said {
		if by.IsZero() || one.at.Before(first.at) || one.at.Equal(first.at) && id.Compare(by) < 0 {
			by, first = id, one
		}
	}
	return by, first
}

// nameOf returns a member's name, or the short ID of who has none here.
func (m *Mesh) nameOf(id identity.NodeID) string {
	if member, ok := m.View().Member(id); ok {
		return member.Name
	}
	return id.Short()
}
