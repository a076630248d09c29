package roster

import (
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/nat/due"
)

// When an admin's agent grants.
const (
	grantFirst = time.Second      // after something is due: what a node says at its start comes in several records
	grantTurn  = 5 * time.Second  // more for each admin that comes before: one that runs has spread its grant by then
	grantClaim = 5 * time.Second  // more for a member that has not claimed an address yet, which it does once its agent runs
	grantGap   = 2 * time.Second  // between two grants for one member; twice that after each further one
	grantMost  = 8                // doublings of grantGap: then some 9 minutes
	grantDrop  = 10 * time.Minute // before routes are given up that a member does not offer: it may just have started
	grantQuiet = 20 * time.Minute // without a grant for a member the gap is grantGap again
	grantBatch = 32               // grants at once, then a second's rest
	grantRest  = time.Second
)

// grantedShare bounds what the routes that admins' agents grant by themselves take up of the IPv4 network: a quarter. Addresses of
// members to come have to be somewhere.
const grantedShare = 4

// Granter decides what an admin's agent grants, and when: each member what it has, once it has it (see give), and another name when it
// wants one. The admins take turns by waiting: whoever comes first in the order of admission is the first. It does no I/O.
//
//	something is due ── 1 s + 5 s for each admin before ──▶ grant ── 2 s, 4 s, 8 s … ──▶ the next for this member
//	        └── another admin has granted it: nothing is due any more
//
// Two admins that grant at the same time agree by which grant counts, and neither grants again: what counts gives the member all
// that it has.
type Granter struct {
	// constant
	self             identity.NodeID
	root             identity.KeyID // what the root has granted, no agent changes
	prefix4, prefix6 netip.Prefix

	members map[identity.NodeID]*waiting
	rest    time.Time // no grant before
}

// waiting is what is remembered of a member.
type waiting struct {
	due     time.Time // since when its grant is not as it should be; zero: it is
	version uint64    // of the grant that counted last
	signer  identity.KeyID
	silent  time.Time // since when it does not offer all routes of its grant; zero: it does
	granted time.Time // when that came, or was made here; zero: before all of this
	often   int       // grants in a row, without a long time between
}

// NewGranter returns one for the agent of a node, in a mesh with this root and these networks.
func NewGranter(self identity.NodeID, root identity.KeyID, prefix4, prefix6 netip.Prefix) *Granter {
	return &Granter{self: self, root: root, prefix4: prefix4, prefix6: prefix6, members: make(map[identity.NodeID]*waiting)}
}

// Step is given the members, in the order of their admission, and returns the grants to sign now, without signer, and when to look again
// if nothing changes before; zero: not at all. A grant that does not come to count is returned again later.
func (g *Granter) Step(members []Member, now time.Time) (grants []record.Grant, next time.Time) {
	wait, ok := g.turn(members)
	if !ok {
		clear(g.members)
		return nil, time.Time{}
	}
	g.follow(members, now)
	ripe, next := g.ripe(members, wait, now)
	b := g.read(members, now)
	for _, m := range ripe {
		if len(grants) == grantBatch {
			g.rest = now.Add(grantRest)
			return grants, due.Sooner(next, g.rest)
		}
		if grant, ok := b.grant(m); ok {
			w := g.members[m.ID]
			w.version, w.signer = grant.Version, identity.KeyID(g.self)
			w.made(now)
			grants, next = append(grants, grant), due.Sooner(next, w.next())
		}
	}
	return grants, next
}

// turn returns how long this node waits once something is due; false: it is no admin.
func (g *Granter) turn(members []Member) (wait time.Duration, ok bool) {
	wait = grantFirst
	for i := range members {
		switch m := &members[i]; {
		case m.State != Active || !m.Admin:
		case m.ID == g.self:
			return wait, true
		default:
			wait += grantTurn
		}
	}
	return 0, false
}

// follow keeps in mind whose grants have changed, whoever made them: a member that wants another name all the time waits longer for each.
func (g *Granter) follow(members []Member, now time.Time) {
	known := g.members
	g.members = make(map[identity.NodeID]*waiting, len(members))
	for i := range members {
		m := &members[i]
		w, before := known[m.ID]
		if !before {
			w = &waiting{}
		}
		g.members[m.ID] = w
		if w.silent = due.Sooner(w.silent, now); m.offersAll() {
			w.silent = time.Time{}
		}
		if m.Grant != nil && (m.Grant.Version != w.version || m.Grant.Signer != w.signer) {
			w.version, w.signer = m.Grant.Version, m.Grant.Signer
			if before {
				w.made(now)
			}
		}
	}
}

// ripe returns the members for which a grant has been due for long enough, those first that have waited longest, and when it is time for the
// next of the others.
func (g *Granter) ripe(members []Member, wait time.Duration, now time.Time) (ripe []*Member, next time.Time) {
	wanting := g.due(members, now)
	for _, w := range g.members {
		if up := w.silent.Add(grantDrop); !w.silent.IsZero() && now.Before(up) {
			next = due.Sooner(next, up)
		}
	}
	since := make(map[identity.NodeID]time.Time, len(wanting))
	for _, m := range wanting {
		since[m.ID] = due.Sooner(g.members[m.ID].due, now)
	}
	for id, w := range g.members {
		w.due = since[id]
	}
	for _, m := range wanting {
		w := g.members[m.ID]
		at := later(w.due, w.next()).Add(wait)
		if g.prefix4.IsValid() && m.Grant == nil && !m.Record.Addr4.IsValid() {
			at = at.Add(grantClaim)
		}
		if at = later(at, g.rest); now.Before(at) {
			next = due.Sooner(next, at)
		} else {
			ripe = append(ripe, m)
		}
	}
	slices.SortStableFunc(ripe, func(a, b *Member) int { return g.members[a.ID].due.Compare(g.members[b.ID].due) })
	return ripe, next
}

// made notes a grant.
func (w *waiting) made(now time.Time) {
	if now.Sub(w.granted) > grantQuiet {
		w.often = 0
	}
	w.granted, w.often, w.due = now, min(w.often+1, grantMost+1), time.Time{}
}

// next is when another grant may be made.
func (w *waiting) next() time.Time {
	if w.often == 0 {
		return time.Time{}
	}
	return w.granted.Add(grantGap << (w.often - 1))
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
