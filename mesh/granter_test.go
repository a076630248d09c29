package mesh

import (
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

var grantPrefix = netip.MustParsePrefix("100.70.0.0/16")

// newGrantWorld is newWorld with an IPv4 network.
func newGrantWorld(t *testing.T, latency time.Duration) *world {
	t.Helper()
	w := newWorld(t, latency)
	root, err := identity.NewRoot(w.root.Key, identity.RootTerms{Name: "test", Prefix4: grantPrefix}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.root.Cert = root
	return w
}

// claim has a node say what package node would: the address that it has, else its first.
func (p *peer) claim(routes ...string) {
	p.w.t.Helper()
	self, _ := p.View().Member(p.id)
	addr := self.Addr4
	if !addr.IsValid() {
		addr = identity.Addr4(grantPrefix, p.id, 0)
	}
	own := Own{Addr4: addr}
	for _, route := range routes {
		own.Routes = append(own.Routes, netip.MustParsePrefix(route))
	}
	if err := p.Announce(own); err != nil {
		p.w.t.Fatal(err)
	}
}

// admin makes an admin out of a node that joins.
func (w *world) admin(name string, via *peer) *peer {
	w.t.Helper()
	terms := identity.InviteTerms{Uses: 1, Admin: true, Expires: time.Now().Add(48 * time.Hour)}
	seed, cert, err := identity.NewInvite(identity.Authority{Cert: via.chain[0], Key: via.key}, terms, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	if err := via.AddCertificate(cert); err != nil {
		w.t.Fatal(err)
	}
	return w.mustJoin(name, via, seed).start()
}

// grants counts the grants that a node holds, all versions of one as one.
func (p *peer) grants() (n int) {
	for _, d := range p.book.all() {
		if d.Grant != nil {
			n++
		}
	}
	return n
}

// has is what a member has, as a node sees it.
func (p *peer) has(id identity.NodeID) string {
	m, ok := p.View().Member(id)
	if !ok {
		return "no member"
	}
	return fmt.Sprint(m.Name, " ", m.Addr4, " ", m.Routes, " ", m.KeyTakenBy.IsZero())
}

func (p *peer) granted(ids ...identity.NodeID) bool {
	return !slices.ContainsFunc(ids, func(id identity.NodeID) bool {
		m, _ := p.View().Member(id)
		return !m.Granted() || m.Grant.Name != m.Name || m.Grant.Addr4 != m.Addr4 || !slices.Equal(m.Grant.Routes, m.Routes)
	})
}

// quiet waits until all members are granted what they have, and all nodes hold that.
func quiet(t testing.TB, peers ...*peer) {
	t.Helper()
	eventually(t, 2*time.Minute, "the members to be granted what they have", func() bool {
		for _, m := range peers[0].View().Members {
			if m.State == roster.Active && !peers[0].granted(m.ID) {
				return false
			}
		}
		return true
	})
	agree(t, 30*time.Second, peers...)
}

// The founder grants itself, then whoever joins; a joiner has its name and address before that, and nothing flaps when the grant comes.
func TestJoinerKeepsWhatItHasWhenGranted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGrantWorld(t, 10*time.Millisecond)
		first := w.founder("nas").start()
		first.claim()
		took := eventually(t, 10*time.Second, "the founder's own grant", func() bool { return first.granted(first.id) })
		if took < time.Second || took > 1300*time.Millisecond {
			t.Errorf("the founder granted itself after %v, want a second or little more", took)
		}
		seed, _ := first.invite(3)
		second := w.mustJoin("nas", first, seed)
		second.start()
		w.net.LinkAll(first.id, second.id)
		second.claim()
		want := fmt.Sprintf("nas-2 %v [] true", identity.Addr4(grantPrefix, second.id, 0))
		eventually(t, 10*time.Second, "the grant to be everywhere", func() bool {
			if got := second.has(second.id); got != want {
				t.Fatalf("the joiner has %s, want %s", got, want)
			}
			return second.granted(first.id, second.id)
		})
		time.Sleep(time.Hour)
		if got := first.has(second.id); got != want || first.grants() != 2 {
			t.Errorf("an hour later it has %s by %d grants, want %s by two", got, first.grants(), want)
		}
		own, _ := second.View().Member(second.id)
		if own.Grant.Version != 1 || own.Grant.Serial != 2 {
			t.Errorf("got serial %d, version %d, want 2 and 1: nothing was granted twice", own.Grant.Serial, own.Grant.Version)
		}
	})
}

// What was granted is there after a restart, and comes with a sync to who was away.
func TestGrantsAreRecordsLikeOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGrantWorld(t, 10*time.Millisecond)
		first := w.founder("a").start()
		first.claim("100.70.200.0/28")
		seed, _ := first.invite(3)
		second := w.mustJoin("a", first, seed).start()
		w.net.LinkAll(first.id, second.id)
		second.claim()
		eventually(t, 10*time.Second, "the grants", func() bool { return second.granted(first.id, second.id) })
		want := first.has(first.id) + first.has(second.id)
		for _, p := range []*peer{first, second} {
			p.stop()
		}
		second.start()
		if got := second.has(first.id) + second.has(second.id); got != want {
			t.Errorf("after a restart, alone: %s, want %s", got, want)
		}
		first.start()
		third := w.mustJoin("b", first, seed).start()
		w.net.LinkAll(first.id, third.id)
		eventually(t, 20*time.Second, "the newcomer to have the grants", func() bool { return third.granted(first.id, second.id) })
		if got := third.has(first.id) + third.has(second.id); got != want {
			t.Errorf("a newcomer sees %s, want %s", got, want)
		}
	})
}

// Three admins, twenty members: everybody is granted once, whoever of the admins runs, and it stays at that.
func TestThreeAdminsGrantTwentyMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGrantWorld(t, 20*time.Millisecond)
		admins := []*peer{w.founder("admin").start()}
		for range 2 {
			time.Sleep(2 * time.Second) // admitted later: the founder comes first
			admins = append(admins, w.admin("admin", admins[0]))
			w.net.LinkAll(ids(admins)...)
		}
		peers := slices.Clone(admins)
		seed, _ := admins[0].invite(17)
		for range 17 {
			p := w.mustJoin("node", admins[0], seed).start()
			peers = append(peers, p)
		}
		w.net.LinkAll(ids(peers)...)
		for _, p := range peers {
			p.claim()
		}
		eventually(t, time.Minute, "all to be granted", func() bool {
			return !slices.ContainsFunc(peers, func(p *peer) bool { return !p.granted(ids(peers)...) })
		})
		agree(t, time.Minute, peers...)
		if got := peers[5].grants(); got != 20 {
			t.Errorf("%d grants, want one for each", got)
		}
		before := peers[5].View()
		time.Sleep(time.Hour)
		for _, p := range peers {
			for _, m := range p.View().Members {
				old, _ := before.Member(m.ID)
				if m.Name != old.Name || m.Addr4 != old.Addr4 || m.Grant.Version != old.Grant.Version {
					t.Errorf("an hour later %s has %s %v by version %d", old.Name, m.Name, m.Addr4, m.Grant.Version)
				}
			}
		}
		admins[0].stop() // the second goes on
		last := w.mustJoin("node", admins[1], seedOf(t, admins[1])).start()
		w.net.LinkAll(admins[1].id, last.id)
		last.claim()
		took := eventually(t, time.Minute, "a grant by the second admin", func() bool { return last.granted(last.id) })
		m, _ := last.View().Member(last.id)
		if m.Grant.Signer != identity.KeyID(admins[1].id) || took < 6*time.Second || took > 8*time.Second {
			t.Errorf("granted by %s after %v, want by the second after some 6 s", m.Grant.Signer.Short(), took)
		}
	})
}

func seedOf(t *testing.T, p *peer) [32]byte {
	t.Helper()
	seed, _ := p.invite(1)
	return seed
}

// A member asks for another's name, address, routes and key at once, and gets none of them at any node.
func TestThiefGetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGrantWorld(t, 10*time.Millisecond)
		first := w.founder("admin").start()
		seed, _ := first.invite(3)
		thief, victim := w.mustJoin("thief", first, seed).start(), w.mustJoin("nas", first, seed).start()
		w.net.LinkAll(first.id, thief.id, victim.id)
		first.claim()
		thief.claim()
		victim.claim("100.70.200.0/28")
		all := []*peer{first, thief, victim}
		eventually(t, 30*time.Second, "all to be granted", func() bool { return thief.granted(ids(all)...) && victim.granted(ids(all)...) })
		want := first.has(victim.id)
		m, _ := first.View().Member(victim.id)
		if err := thief.Update(func(own *record.Node) {
			own.Name, own.Addr4 = "nas", m.Addr4
			own.Routes = []netip.Prefix{netip.PrefixFrom(m.Addr4, 32), netip.MustParsePrefix("100.70.200.3/32"), netip.MustParsePrefix("100.70.200.0/24"), netip.PrefixFrom(m.Addr6, 128)}
		}); err != nil {
			t.Fatal(err)
		}
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			for _, p := range all {
				if got := p.has(victim.id); got != want {
					t.Fatalf("%s sees the victim with %s, want %s", p.name, got, want)
				}
			}
		}
		got, _ := first.View().Member(thief.id)
		if got.Name != "nas-2" || got.Addr4 == m.Addr4 || len(got.Routes) != 0 {
			t.Errorf("the thief has %s", first.has(thief.id))
		}
	})
}

// An agent that has lost its records does not grant before it has them again: all members would seem to be new.
func TestNothingIsGrantedBeforeTheFirstSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGrantWorld(t, 300*time.Millisecond)
		first := w.founder("a").start()
		second := w.admin("b", first)
		w.net.LinkAll(first.id, second.id)
		first.claim()
		second.claim()
		eventually(t, time.Minute, "the grants", func() bool { return first.granted(first.id, second.id) && second.granted(first.id, second.id) })
		agree(t, time.Minute, first, second)
		want := second.has(first.id) + second.has(second.id)
		view := second.View()
		// The records of a younger state: the founder's grants are lost, and its node record is new.
		first.stop()
		first.dir = t.TempDir()
		first.start()
		first.claim()
		w.net.LinkAll(first.id, second.id)
		time.Sleep(2 * time.Minute)
		agree(t, time.Minute, first, second)
		if got := first.has(first.id) + first.has(second.id); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		for _, m := range first.View().Members {
			if old, _ := view.Member(m.ID); m.Grant.Serial != old.Grant.Serial || m.Grant.Version != old.Grant.Version {
				t.Errorf("%s has serial %d, version %d, want %d, %d", m.Name, m.Grant.Serial, m.Grant.Version, old.Grant.Serial, old.Grant.Version)
			}
		}
	})
}

// The grants of an admin end with its power; another admin grants then what the members have.
func TestGrantsOfARevokedAdmin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGrantWorld(t, 10*time.Millisecond)
		first := w.founder("a").start()
		second := w.admin("b", first)
		w.net.LinkAll(first.id, second.id)
		seed, _ := first.invite(1)
		third := w.mustJoin("c", first, seed).start()
		w.net.LinkAll(first.id, second.id, third.id)
		for _, p := range []*peer{first, second, third} {
			p.claim()
		}
		eventually(t, time.Minute, "the grants", func() bool { return third.granted(first.id, second.id, third.id) })
		evil := record.Grant{Node: second.id, Serial: 1, Version: 7, Name: "c", Wanted: "b", Addr4: identity.Addr4(grantPrefix, third.id, 0)}
		signed, err := record.SignGrant(second.meshID, evil, second.key)
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Add(signed); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, "the theft by an admin", func() bool { return third.has(second.id) == fmt.Sprintf("c %v [] true", evil.Addr4) })
		if _, err := first.Revoke(identity.KeyID(second.id), "stolen", true); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("c %v [] true", evil.Addr4)
		eventually(t, time.Minute, "the third to have its own again", func() bool { return third.has(third.id) == want && third.granted(first.id, third.id) })
	})
}

// Grants by who is no admin are refused.
func TestMembersDoNotGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGrantWorld(t, 10*time.Millisecond)
		first := w.founder("a").start()
		seed, _ := first.invite(1)
		second := w.mustJoin("b", first, seed).start()
		w.net.LinkAll(first.id, second.id)
		for name, key := range map[string]ed25519.PrivateKey{"a member": second.key, "a stranger": identity.GenerateKey()} {
			signed, err := record.SignGrant(second.meshID, record.Grant{Node: second.id, Serial: 1, Version: 1, Name: "a"}, key)
			if err != nil {
				t.Fatal(err)
			}
			_ = second.Add(signed)
			time.Sleep(10 * time.Second)
			for _, p := range []*peer{first, second} {
				if m, _ := p.View().Member(second.id); m.Name != "b" || m.State != roster.Active {
					t.Errorf("by a grant of %s: %s", name, p.has(second.id))
				}
			}
		}
	})
}
