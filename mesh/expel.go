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

// expulsion weighs what members say against this node's own membership. One member's word proves nothing, and the records that would prove
// it may not reach a node that is out: so it is believed when some say so and nobody at all takes this node in.
type expulsion struct {
	// constant
	sessions Sessions
	public   *published
	bell     *bell
	drops    *drops

	// owned by the run loop
	said  map[identity.NodeID]refusal
	alone time.Time // since when, as far as was seen, nobody takes this node in; zero: somebody does
}

type refusal struct {
	reason string
	at     time.Time
}

// refuse keeps a refusal. That of a stranger counts only while no other member is known, as when the records were lost: anybody with
// an old invite can have a session.
func (e *expulsion) refuse(by identity.NodeID, reason string, now time.Time) {
	if _, known := e.said[by]; known {
		return
	}
	if !e.public.isMember(by) && (len(e.public.view.Load().Members) > 1 || len(e.said) >= maxStrangers) {
		e.drops.add("refusal: not by a member")
		return
	}
	e.said[by] = refusal{reason: reason, at: now}
}

// takenIn tells that a node has a session with this one: it takes back what it said.
func (e *expulsion) takenIn(by identity.NodeID) { delete(e.said, by) }

// heed believes refusals when it is time, and returns when to look again; zero: when there is something new.
func (e *expulsion) heed(now time.Time) time.Time {
	if len(e.said) == 0 {
		return time.Time{}
	}
	if len(e.sessions.Neighbours()) > 0 {
		e.alone = time.Time{}
		return time.Time{}
	}
	if e.alone.IsZero() {
		e.alone = now
	}
	by, first := e.first()
	due := first.at.Add(believeRefusals)
	if later := e.alone.Add(believeRefusals); later.After(due) {
		due = later
	}
	if now.Before(due) {
		return due
	}
	e.bell.fail(&FatalError{Reason: roster.ReasonNone, Text: e.public.nameOf(by) + " says: " + first.reason})
	clear(e.said)
	return time.Time{}
}

// first returns the refusal that stands longest; ties go by ID.
func (e *expulsion) first() (by identity.NodeID, first refusal) {
	for id, one := range e.said {
		if by.IsZero() || one.at.Before(first.at) || one.at.Equal(first.at) && id.Compare(by) < 0 {
			by, first = id, one
		}
	}
	return by, first
}
