package roster

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/nat/due"
)

// agents are the admins' agents of a mesh and what each knows of the others' grants. What members say is known to all at once.
type agents struct {
	t       testing.TB
	now     time.Time
	members []Member // in the order of admission; without grants
	admins  []*adminAgent
	latency time.Duration
	signed  int
	per     map[identity.NodeID]int
}

type adminAgent struct {
	id      identity.NodeID
	granter *Granter
	known   map[identity.NodeID]map[identity.KeyID]record.Grant
	comes   []arrivingGrant
	offline bool
}

type arrivingGrant struct {
	at    time.Time
	grant record.Grant
}

// newAgents makes a mesh whose first members are admins.
func newAgents(t testing.TB, admins int, members ...Member) *agents {
	a := &agents{t: t, now: start, members: members, per: make(map[identity.NodeID]int), latency: 200 * time.Millisecond}
	for i := range admins {
		a.members[i].Admin = true
		a.admins = append(a.admins, &adminAgent{
			id: a.members[i].ID, granter: NewGranter(a.members[i].ID, identity.KeyID{0xee}, give4, give6),
			known: make(map[identity.NodeID]map[identity.KeyID]record.Grant),
		})
	}
	return a
}

func (g *adminAgent) learn(grant record.Grant) {
	if g.known[grant.Node] == nil {
		g.known[grant.Node] = make(map[identity.KeyID]record.Grant)
	}
	if before, ok := g.known[grant.Node][grant.Signer]; !ok || grant.Version > before.Version {
		g.known[grant.Node][grant.Signer] = grant
	}
}

// view is what an admin sees.
func (a *agents) view(g *adminAgent) []Member {
	members := slices.Clone(a.members)
	place := func(id identity.KeyID) int {
		return slices.IndexFunc(a.members, func(m Member) bool { return identity.KeyID(m.ID) == id })
	}
	for i := range members {
		var best *entry
		grants := slices.SortedFunc(maps.Values(g.known[members[i].ID]), func(a, b record.Grant) int { return cmp.Compare(place(a.Signer), place(b.Signer)) })
		for _, grant := range grants {
			e := &entry{Decoded: record.Decoded{Grant: &grant}}
			if e.parent = ref(grant.Signer); grant.Signer == g.granter.root {
				e.parent = ref{}
			}
			if best == nil || outranks(e, best) {
				best, members[i].Grant = e, e.Grant
			}
		}
	}
	return renew(members)
}

// run lets time pass, from one moment at which something happens to the next, and calls each then.
func (a *agents) run(d time.Duration, each func()) {
	for end := a.now.Add(d); ; {
		next := end
		for _, g := range a.admins {
			if g.offline {
				continue
			}
			g.comes = slices.DeleteFunc(g.comes, func(c arrivingGrant) bool {
				if c.at.After(a.now) {
					next = due.Sooner(next, c.at)
					return false
				}
				g.learn(c.grant)
				return true
			})
			if at := a.step(g); at.After(a.now) {
				next = due.Sooner(next, at)
			}
		}
		for _, g := range a.admins {
			for _, c := range g.comes {
				if !g.offline && c.at.After(a.now) {
					next = due.Sooner(next, c.at)
				}
			}
		}
		if each != nil {
			each()
		}
		if !next.Before(end) {
			a.now = end
			return
		}
		a.now = next
	}
}

// step has an admin grant until nothing more is to be granted now, and returns when to look again.
func (a *agents) step(g *adminAgent) time.Time {
	for round := 0; ; round++ {
		grants, next := g.granter.Step(a.view(g), a.now)
		for _, grant := range grants {
			a.signed++
			a.per[grant.Node]++
			grant.Signer = identity.KeyID(g.id)
			g.learn(grant)
			for _, other := range a.admins {
				if other != g {
					other.comes = append(other.comes, arrivingGrant{a.now.Add(a.latency), grant})
				}
			}
		}
		if len(grants) == 0 {
			return next
		}
		if round > 100 {
			a.t.Fatal("an admin grants without end")
		}
	}
}

// wantSettled wants that all online admins see the same, everybody granted just what it has, and nothing more to come.
func (a *agents) wantSettled() []Member {
	a.t.Helper()
	signed := a.signed
	a.run(time.Hour, nil)
	if a.signed != signed {
		a.t.Fatalf("%d more grants in an hour in which nothing changes", a.signed-signed)
	}
	var first []Member
	for _, g := range a.admins {
		if g.offline {
			continue
		}
		members := a.view(g)
		for _, m := range members {
			if m.State == Active && (m.Grant == nil || m.Grant.Name != m.Name || m.Grant.Addr4 != m.Addr4 || !slices.Equal(m.Grant.Routes, m.Routes) || m.Grant.Wanted != m.Record.Name) {
				a.t.Fatalf("%s is granted %+v", given(m), m.Grant)
			}
		}
		if first != nil && allGiven(first) != allGiven(members) {
			a.t.Fatalf("two admins see different things:\n%s\n%s", allGiven(first), allGiven(members))
		}
		first = members
	}
	return first
}

func (a *agents) member(members []Member, name string) Member {
	a.t.Helper()
	i := slices.IndexFunc(members, func(m Member) bool { return m.Name == name })
	if i < 0 {
		a.t.Fatalf("nobody is called %s:\n%s", name, allGiven(members))
	}
	return members[i]
}

func claimants(n int, name string) (out []Member) {
	for i := range n {
		out = append(out, claimant(identity.NodeID{byte(i + 1), 7, byte(i * 37)}, name, 0))
	}
	return out
}

// Three admins, twenty members, and what is given by the grants is what was there before them, at each moment at each admin.
func TestAdminsTakeTurns(t *testing.T) {
	for name, c := range map[string]struct {
		latency time.Duration
		offline int
		first   time.Duration // until the first grant
		most    int           // grants in all
	}{
		"all run":               {latency: 200 * time.Millisecond, first: time.Second, most: 20},
		"the first is away":     {latency: 200 * time.Millisecond, offline: 1, first: 6 * time.Second, most: 20},
		"only the last is here": {latency: 200 * time.Millisecond, offline: 2, first: 11 * time.Second, most: 20},
		"two grant at once":     {latency: 6 * time.Second, first: time.Second, most: 40},
		"three grant at once":   {latency: 20 * time.Second, first: time.Second, most: 60},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAgents(t, 3, claimants(20, "nas")...)
			a.latency = c.latency
			for i := range c.offline {
				a.admins[i].offline = true
			}
			was := allGiven(a.view(a.admins[2]))
			began, first := a.now, time.Duration(0)
			a.run(5*time.Minute, func() {
				if a.signed > 0 && first == 0 {
					first = a.now.Sub(began)
				}
				for _, g := range a.admins {
					if now := allGiven(a.view(g)); now != was {
						t.Fatalf("grants change\n%s\nto\n%s", was, now)
					}
				}
			})
			if first != c.first || a.signed != c.most {
				t.Errorf("the first of %d grants after %v, want the first of %d after %v", a.signed, first, c.most, c.first)
			}
			if c.offline == 0 {
				for _, m := range a.wantSettled() {
					if m.Grant.Signer != identity.KeyID(a.admins[0].id) {
						t.Errorf("the grant of %s that counts is not of the first admin", m.Name)
					}
				}
			}
			for i := range c.offline {
				a.admins[i].offline = false
			}
			a.run(time.Minute, nil)
			a.wantSettled()
			if a.signed != c.most {
				t.Errorf("%d grants once all are back, want none more than %d", a.signed, c.most)
			}
		})
	}
}

// A member that joins is granted what it has had from its first moment; one without an address yet is waited for.
func TestJoinerIsGrantedWhatItHas(t *testing.T) {
	a := newAgents(t, 1, claimants(3, "nas")...)
	a.run(time.Minute, nil)
	a.members = append(a.members, claimant(identity.NodeID{99}, "nas", -1))
	a.run(3*time.Second, nil)
	if a.signed != 3 {
		t.Fatalf("%d grants, want 3: the joiner has claimed no address yet", a.signed)
	}
	a.members[3].Record.Addr4 = identity.Addr4(give4, a.members[3].ID, 0)
	a.run(200*time.Millisecond, nil)
	if m := a.member(a.wantSettled(), "nas-4"); m.Grant.Serial != 4 || a.signed != 4 {
		t.Errorf("%d grants, serial %d, want 4 and 4", a.signed, m.Grant.Serial)
	}
	a.members = append(a.members, claimant(identity.NodeID{98}, "pi", -1))
	a.run(grantFirst+grantClaim+200*time.Millisecond, nil)
	if m := a.member(a.wantSettled(), "pi"); m.Grant.Addr4.IsValid() {
		t.Errorf("granted %v to who claims nothing", m.Grant.Addr4)
	}
}

// Another name comes with the next grant, and then the old one is free.
func TestWishForAnotherName(t *testing.T) {
	a := newAgents(t, 2, claimants(4, "nas")...)
	a.wantSettled2(time.Minute)
	a.members[2].Record.Name = "pi"
	a.run(900*time.Millisecond, nil)
	a.member(a.view(a.admins[0]), "nas-3") // still
	a.run(300*time.Millisecond, nil)
	m := a.member(a.wantSettled(), "pi")
	if m.Grant.Serial != 3 || m.Grant.Version != 2 || m.Grant.Wanted != "pi" {
		t.Errorf("got the grant %+v, want version 2 of serial 3", m.Grant)
	}
	a.members[3].Record.Name = "nas-3"
	a.run(time.Minute, nil)
	a.member(a.wantSettled(), "nas-3")
	a.members[3].Record.Name = "pi"
	a.run(time.Minute, nil)
	if m := a.member(a.wantSettled(), "pi-2"); m.ID != a.members[3].ID {
		t.Error("the name of another was given")
	}
	if a.signed != 7 {
		t.Errorf("%d grants, want 4 and one for each wish", a.signed)
	}
}

func (a *agents) wantSettled2(after time.Duration) []Member {
	a.t.Helper()
	a.run(after, nil)
	return a.wantSettled()
}

// What one that has left keeps is taken back only when another has use for it, and before that other is granted it.
func TestLeftKeepUntilAnotherWants(t *testing.T) {
	a := newAgents(t, 1, claimants(3, "nas")...)
	a.members[1].Record.Routes = prefixes("100.70.2.0/28")
	a.wantSettled2(time.Minute)
	a.members[1].State = Left
	a.wantSettled2(time.Minute)
	if a.signed != 3 {
		t.Fatalf("%d grants, want 3: leaving takes nothing", a.signed)
	}
	a.members[1].State = Active
	if m := a.member(a.view(a.admins[0]), "nas-2"); m.ID != a.members[1].ID || len(m.Routes) != 1 {
		t.Fatalf("who comes back has %s", given(m))
	}
	a.members[1].State = Left
	for what, newcomer := range map[string]Member{"name": claimant(identity.NodeID{50}, "nas-2", 0), "route": claimant(identity.NodeID{51}, "x", 0)} {
		b := newAgents(t, 1, append(slices.Clone(a.members), newcomer)...)
		b.admins[0].known, b.admins[0].granter = a.admins[0].known, a.admins[0].granter
		if what == "route" {
			b.members[3].Record.Routes = prefixes("100.70.2.8/29")
		}
		last := &b.members[3]
		for _, before := range b.view(b.admins[0]) {
			if before.ID == last.ID && (before.Name != last.Record.Name || !slices.Equal(before.Routes, last.Record.Routes)) {
				t.Errorf("%s: at first the newcomer has %s", what, given(before))
			}
		}
		b.run(time.Minute, nil)
		members := b.wantSettled()
		if b.signed != 2 || members[1].Granted() || members[1].Grant.Version != 2 || members[3].Grant.Serial != 4 {
			t.Errorf("%s: %d grants, of who left %+v, of the newcomer %+v, want one that takes back and one that gives", what, b.signed, members[1].Grant, members[3].Grant)
		}
		a.admins[0].known[a.members[1].ID][identity.KeyID(a.members[0].ID)] = record.Grant{Node: a.members[1].ID, Signer: identity.KeyID(a.members[0].ID), Serial: 2, Version: 1,
			Name: "nas-2", Wanted: "nas", Addr4: a.members[1].Record.Addr4, Routes: prefixes("100.70.2.0/28")}
	}
}

// Routes that a member does not offer for a moment, as when it starts, stay its own; after ten minutes they are given up.
func TestRoutesAreGivenUpInTime(t *testing.T) {
	a := newAgents(t, 2, claimants(4, "nas")...)
	a.members[2].Record.Routes = prefixes("100.70.2.0/28", "100.70.2.32/28")
	a.wantSettled2(time.Minute)
	other := &a.members[3].Record
	a.members[2].Record.Routes, other.Routes = nil, prefixes("100.70.2.8/29")
	a.run(9*time.Minute, func() {
		if got := a.view(a.admins[0])[3]; len(got.Routes) > 0 {
			t.Fatalf("another has %v", got.Routes)
		}
	})
	a.members[2].Record.Routes = prefixes("100.70.2.0/28", "100.70.2.32/28")
	a.run(9*time.Minute, nil)
	if a.signed != 4 {
		t.Fatalf("%d grants, want 4: nothing is given up yet", a.signed)
	}
	a.members[2].Record.Routes = nil
	a.run(11*time.Minute, nil)
	got := a.wantSettled()
	if len(got[2].Grant.Routes) > 0 || len(got[3].Grant.Routes) != 1 || a.signed != 6 {
		t.Errorf("%d grants; the one is granted %v, the other %v, want none and one", a.signed, got[2].Grant.Routes, got[3].Grant.Routes)
	}
}

// Two parts of a mesh, each with an admin, give the same things away. When they meet one keeps what it has, the other gets
// something else, and that is the end of it.
func TestPartsOfAMeshMeet(t *testing.T) {
	members := claimants(8, "nas")
	for i := range members {
		members[i].Record.Name = fmt.Sprint("n", i/2%4) // each name twice, once on each side
		members[i].Record.Routes = prefixes(fmt.Sprintf("fd00:1:2:%d::/64", i/2))
	}
	side := func(odd int) *agents {
		var mine []Member
		for i, m := range members {
			if i%2 == odd {
				mine = append(mine, m)
			}
		}
		a := newAgents(t, 1, mine...)
		a.wantSettled2(time.Minute)
		return a
	}
	left, right := side(0), side(1)
	a := newAgents(t, 2, members...)
	for i, part := range []*agents{left, right} {
		a.admins[i].known = part.admins[0].known
		a.admins[i].granter = part.admins[0].granter
		for _, other := range part.admins[0].known {
			for _, grant := range other {
				a.admins[1-i].comes = append(a.admins[1-i].comes, arrivingGrant{a.now, grant})
			}
		}
	}
	a.run(time.Minute, nil)
	settled := a.wantSettled()
	if a.signed != 4 {
		t.Errorf("%d grants, want one for each that loses", a.signed)
	}
	for i, m := range settled {
		first := i%2 == 0
		if (m.Name == m.Record.Name) != first || (len(m.Routes) == 1) != first {
			t.Errorf("member %d of two with serial %d has %s", i, m.Grant.Serial, given(m))
		}
	}
}

// A member that changes its mind all the time costs the mesh ever less.
func TestManyWishesAreFewGrants(t *testing.T) {
	a := newAgents(t, 3, claimants(4, "nas")...)
	a.wantSettled2(time.Minute)
	for i := range 3600 {
		a.members[3].Record.Name = fmt.Sprint("n", i)
		a.run(time.Second, nil)
	}
	// The gaps: 2, 4 … 512 s, and 512 s again and again.
	if got := a.per[a.members[3].ID]; got > 18 || got < 12 {
		t.Errorf("%d grants in an hour, want a dozen or so", got)
	}
	a.run(time.Hour, nil)
	a.wantSettled()
	if others := a.signed - a.per[a.members[3].ID]; others != 3 {
		t.Errorf("%d grants for the others, want 3", others)
	}
}

// A mesh of a thousand that has no grants yet gets them at a bounded rate.
func TestAThousandGrants(t *testing.T) {
	random := &giveWorld{random: rand.New(rand.NewPCG(1, 2))}
	var members []Member
	for range 1000 {
		members = append(members, claimant(random.id(), "node", random.pick(64)))
	}
	a := newAgents(t, 1, members...)
	g := a.admins[0]
	last := 0
	for second := range 40 {
		for range 2 {
			grants, next := g.granter.Step(a.view(g), a.now)
			for _, grant := range grants {
				a.signed++
				grant.Signer = identity.KeyID(g.id)
				g.learn(grant)
			}
			if len(grants) == grantBatch && next.After(a.now.Add(grantRest)) {
				t.Fatalf("next is %v later", next.Sub(a.now))
			}
		}
		if a.signed-last > grantBatch {
			t.Fatalf("%d grants in second %d", a.signed-last, second)
		}
		last = a.signed
		a.now = a.now.Add(time.Second)
	}
	if want := len(a.view(g)); a.signed != want {
		t.Errorf("%d grants after 40 s, want %d", a.signed, want)
	}
}

// What the root has granted, and grants with no version after them, are left as they are. Who is no admin, or has left, grants nothing.
func TestWhatIsNotGranted(t *testing.T) {
	a := newAgents(t, 1, claimants(2, "nas")...)
	root := record.Grant{Node: a.members[1].ID, Signer: identity.KeyID{0xee}, Serial: 1, Version: 1, Name: "x", Wanted: "y"}
	a.admins[0].learn(root)
	a.run(time.Minute, nil)
	if a.signed != 1 {
		t.Errorf("%d grants, want the admin's own alone", a.signed)
	}
	for what, change := range map[string]func(m *Member){
		"no admin": func(m *Member) { m.Admin = false }, "left": func(m *Member) { m.State = Left },
	} {
		b := newAgents(t, 1, claimants(2, "nas")...)
		change(&b.members[0])
		b.run(time.Minute, nil)
		if b.signed != 0 {
			t.Errorf("%s: %d grants", what, b.signed)
		}
	}
}

// Routes are granted until a quarter of the network is routes.
func TestRoutesTakeAQuarterAtMost(t *testing.T) {
	members := claimants(6, "nas")
	for i := range members {
		for k := range 20 {
			members[i].Record.Routes = append(members[i].Record.Routes, netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 70, byte(8 + i), byte(k * 16 % 256)}), 28).Masked())
		}
	}
	a := newAgents(t, 1, members...)
	a.run(time.Minute, nil)
	granted := uint64(0)
	for _, m := range a.view(a.admins[0]) {
		for _, r := range m.Grant.Routes {
			granted += size4(r)
		}
	}
	if granted != 1024 {
		t.Errorf("routes of %d addresses are granted, want a quarter of 4096", granted)
	}
	before := a.signed
	a.run(time.Hour, nil)
	if a.signed != before {
		t.Errorf("%d more grants although nothing changes", a.signed-before)
	}
}

// One member against admins that run: whatever it says, and whomever it lets in, over time, nobody else who has been granted something
// ever loses it, at any moment at any admin.
func TestThiefAgainstAdmins(t *testing.T) {
	for seed := range uint64(60) {
		w := &giveWorld{random: rand.New(rand.NewPCG(seed, 9))}
		for range 4 + w.pick(6) {
			m := claimant(w.id(), w.name(), w.pick(64))
			for range w.pick(3) {
				m.Record.Routes = append(m.Record.Routes, w.route())
			}
			w.members = append(w.members, m)
		}
		a := newAgents(t, 1+w.pick(3), w.members...)
		a.latency = time.Duration(w.pick(8)) * time.Second
		a.wantSettled2(10 * time.Minute)
		w.members = a.view(a.admins[0])
		thief := w.pick(len(w.members))
		for len(a.admins) > 0 && thief < len(a.admins) { // an admin can grant itself anything
			thief = len(a.admins) + w.pick(len(w.members)-len(a.admins))
		}
		evil := w.members[thief].ID
		want := make(map[identity.NodeID]Member)
		for _, m := range w.members {
			if m.ID != evil {
				want[m.ID] = m
			}
		}
		for round := range 8 {
			w.members = a.view(a.admins[0])
			for i := range w.members {
				m := &w.members[i]
				_, honest := want[m.ID]
				switch {
				case !honest && w.pick(2) == 0:
					w.evil(m)
				case honest && len(a.admins) == 1 && w.pick(4) == 0:
					m.Record.Routes = append(m.Record.Routes, w.anyRoute()) // perhaps one that the thief does not offer just now
				}
			}
			for range w.pick(3) {
				if len(w.members) < 30 {
					w.sybil()
				}
			}
			keepAdminsFirst(w.members, a.admins)
			a.members = slices.Clone(w.members)
			for i := range a.members {
				a.members[i].Grant = nil
			}
			a.run(time.Duration(1+w.pick(90))*time.Second, func() {
				for _, g := range a.admins {
					for _, m := range a.view(g) {
						had, honest := want[m.ID]
						if len(a.admins) == 1 && honest && had.Granted() && m.Granted() && len(m.Grant.Routes) > len(had.Grant.Routes) {
							want[m.ID] = m // from now on this is not to be lost either
						}
						if honest && lost(had, m) {
							t.Fatalf("seed %d, round %d: %s lost something it was granted: had %s, has %s, grant %+v", seed, round, m.ID.Short(), given(had), given(m), m.Grant)
						}
					}
				}
			})
		}
		a.run(time.Hour, nil)
		a.wantAgree()
	}
}

// lost reports whether a member has less than it was granted before.
func lost(had, has Member) bool {
	return has.Name != had.Grant.Name || had.Grant.Addr4.IsValid() && has.Addr4 != had.Grant.Addr4 || !has.KeyTakenBy.IsZero() ||
		slices.ContainsFunc(had.Grant.Routes, func(r netip.Prefix) bool { return !slices.Contains(has.Routes, r) })
}

// keepAdminsFirst leaves the admins their turns: those who let others in cannot make themselves admins.
func keepAdminsFirst(members []Member, admins []*adminAgent) {
	place := make(map[identity.NodeID]int)
	for i, g := range admins {
		place[g.id] = i - len(admins)
	}
	slices.SortStableFunc(members, func(a, b Member) int { return cmp.Compare(place[a.ID], place[b.ID]) })
}

// wantAgree wants that all admins see the same and grant nothing more.
func (a *agents) wantAgree() {
	a.t.Helper()
	signed := a.signed
	a.run(time.Hour, nil)
	for _, g := range a.admins {
		if got, want := allGiven(a.view(g)), allGiven(a.view(a.admins[0])); got != want || a.signed != signed {
			a.t.Fatalf("%d more grants; two admins see\n%s\nand\n%s", a.signed-signed, got, want)
		}
	}
}
