package mesh

import (
	"crypto/ed25519"
	"log/slog"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

const (
	// inStepFor is how long an agent that has just started grants nothing unless it has synced with somebody: members whose grants it
	// has missed would seem to have none.
	inStepFor = 15 * time.Second
	// lookEvery bounds how often the members are looked at while records keep coming.
	lookEvery = 200 * time.Millisecond
)

// granter signs what an admin's agent grants: roster.Granter says what and when. It is owned by the run loop, and does nothing on a node that
// is no admin.
type granter struct {
	// constant
	key    ed25519.PrivateKey
	self   identity.NodeID
	meshID identity.MeshID
	intake *intake
	asks   *asks
	near   Sessions
	log    *slog.Logger

	machine *roster.Granter
	synced  bool      // with a member, since the start
	seen    *View     // the last one that the machine was shown
	looked  time.Time // when
	next    time.Time // when it is to be asked again even if nothing changes; zero: not at all
	started time.Time
}

func newGranter(m *Mesh, now time.Time) *granter {
	public := m.book.public
	return &granter{
		key: m.key, self: m.self, meshID: m.meshID, intake: m.intake, asks: m.asks, near: m.sessions, log: m.log, started: now,
		machine: roster.NewGranter(m.self, public.rootID, public.prefix4, m.meshID.Prefix6()),
	}
}

// start grants what is due, and returns when to look again; zero: when the view changes.
func (g *granter) start(now time.Time) time.Time {
	view := g.intake.book.public.view.Load()
	if wait := g.notBefore(view); now.Before(wait) {
		return wait
	}
	if view == g.seen && (g.next.IsZero() || now.Before(g.next)) {
		return g.next
	}
	grants, next := g.machine.Step(view.Members, now)
	g.seen, g.looked, g.next = view, now, next
	g.sign(grants)
	return g.next
}

// notBefore is when to look at a view, at the earliest.
func (g *granter) notBefore(view *View) time.Time {
	at := g.looked
	if view != g.seen && !at.IsZero() {
		at = at.Add(lookEvery)
	}
	if inStep := g.started.Add(inStepFor); inStep.After(at) && !g.inStep(view) {
		at = inStep
	}
	return at
}

// inStep reports whether this node has synced with a member, or there is none.
func (g *granter) inStep(view *View) bool {
	if !g.synced {
		g.synced = slices.ContainsFunc(g.near.Neighbours(), func(id identity.NodeID) bool {
			_, member := view.Member(id)
			return member && !g.asks.lastDone(id).IsZero()
		})
	}
	return g.synced || len(view.others(g.self)) == 0
}

// sign makes records of grants. One that is refused is made again later.
func (g *granter) sign(grants []record.Grant) {
	var list []record.Signed
	for _, grant := range grants {
		signed, err := record.SignGrant(g.meshID, grant, g.key)
		if err != nil {
			g.log.Error("grant not made", "peer", g.intake.book.public.nameOf(grant.Node), "error", err)
			continue
		}
		list = append(list, signed)
		g.log.Info("granted", "peer", g.intake.book.public.nameOf(grant.Node), "name", grant.Name, "address", grant.Addr4, "count", len(grant.Routes))
	}
	if len(list) == 0 {
		return
	}
	if err := g.intake.put(list...); err != nil {
		g.log.Error("grants not kept", "error", err)
	}
}
