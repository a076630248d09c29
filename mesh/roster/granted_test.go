package roster

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// granted is what a member has, in a roster of real records.
func granted(r *Roster, n *testNode) string {
	m, ok := r.Member(n.id)
	if !ok {
		return "no member"
	}
	return given(m)
}

// Any member asks for the name, the address, the routes and, with nodes that it lets in dated back, once more for all of that. The
// victim, who was admitted last and granted what it had, keeps it.
func TestEarlierMemberTakesNothing(t *testing.T) {
	m := newMesh(t)
	prefix := netip.MustParsePrefix("100.70.0.0/16")
	inv := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 9}, at(1))
	x := m.join("x", inv, m.founder, at(2))
	v := m.join("nas", inv, m.founder, at(30))
	addr, route := identity.Addr4(prefix, v.id, 0), netip.MustParsePrefix("100.70.9.0/28")
	m.records = append(m.records, m.word(v, 2, func(n *record.Node) { n.Addr4, n.Routes = addr, []netip.Prefix{route} }))
	m.grant(record.Grant{Node: v.id, Serial: 3, Version: 1, Name: "nas", Wanted: "nas", Addr4: addr, Routes: []netip.Prefix{route}}, m.founder.key)
	m.grant(record.Grant{Node: x.id, Serial: 2, Version: 1, Name: "x", Wanted: "x"}, m.founder.key)
	r := m.roster()
	want := granted(r, v)
	if m, _ := r.Member(v.id); m.Name != "nas" || m.Addr4 != addr || len(m.Routes) != 1 || m.Grant == nil {
		t.Fatalf("before: %s", want)
	}
	greedy := func(n *record.Node) {
		n.Name, n.Addr4 = "nas", addr
		n.Routes = []netip.Prefix{netip.PrefixFrom(addr, 32), netip.MustParsePrefix("100.70.9.0/24"), netip.MustParsePrefix("100.70.9.3/32"), netip.PrefixFrom(identity.Addr6(r.Mesh(), v.id), 128)}
	}
	add := func(rec record.Signed) {
		t.Helper()
		if _, err := r.Add(rec, at(200)); err != nil {
			t.Fatal(err)
		}
		if got := granted(r, v); got != want {
			t.Errorf("the victim has %s, want %s", got, want)
		}
	}
	add(m.word(x, 3, greedy))
	for i := range 5 {
		s := m.join("nas", inv, x, at(3+i))
		add(s.rec)
		add(m.word(s, 2, greedy))
	}
	if m, _ := r.Member(x.id); m.Name != "x" || m.Addr4.IsValid() || len(m.Routes) > 0 {
		t.Errorf("the thief has %s", given(m))
	}
	own := identity.Addr4(prefix, x.id, 7)
	add(m.word(x, 4, func(n *record.Node) { n.Addr4 = own }))
	if m, _ := r.Member(x.id); m.Addr4 != own {
		t.Errorf("an address of its own: got %v, want %v", m.Addr4, own)
	}
}

// Which grant counts: one of an admin, of the greatest version; of equal ones that of the earlier admin; the root's before all. It
// does not depend on the order in which they came, and ends with the power of who signed it.
func TestWhichGrantCounts(t *testing.T) {
	m := newMesh(t)
	inv := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 3, Admin: true}, at(0))
	second, third := m.joinAdmin("second", inv, m.founder, at(2)), m.joinAdmin("third", inv, m.founder, at(3))
	v := m.join("v", m.invite(m.founder.authority(), identity.InviteTerms{Uses: 1}, at(0)), m.founder, at(4))
	grant := func(by *testNode, version uint64, name string) {
		m.grant(record.Grant{Node: v.id, Serial: 1, Version: version, Name: name, Wanted: "v"}, by.key)
	}
	name := func() string {
		t.Helper()
		var first string
		for seed := range uint64(10) {
			recs := slices.Clone(m.records)
			rand.New(rand.NewPCG(seed, 1)).Shuffle(len(recs), func(i, j int) { recs[i], recs[j] = recs[j], recs[i] })
			r := New(m.root.Cert)
			for _, rec := range recs {
				_, _ = r.Add(rec, at(60))
			}
			got, _ := r.Member(v.id)
			if first == "" {
				first = got.Name
			}
			if got.Name != first {
				t.Errorf("in another order: %s, not %s", got.Name, first)
			}
		}
		return first
	}
	check := func(what, want string) {
		t.Helper()
		if got := name(); got != want {
			t.Errorf("%s: it is called %s, want %s", what, got, want)
		}
	}
	check("no grant", "v")
	grant(v, 9, "own")
	check("by itself", "v")
	grant(third, 1, "a")
	check("by an admin", "a")
	grant(second, 1, "b")
	check("the same version by an earlier admin", "b")
	grant(third, 2, "c")
	check("a later version", "c")
	m.revocation(record.Revocation{Target: identity.KeyID(third.id), Time: at(50).Unix(), Scope: record.ScopePower}, m.founder.key)
	check("its signer is demoted", "b")
	m.revoke(identity.KeyID(second.id), m.founder.key, at(51), true)
	check("the other one is out", "v")
	grant(m.founder, 8, "d")
	m.grant(record.Grant{Node: v.id, Serial: 1, Version: 1, Name: "e", Wanted: "v"}, m.root.Key)
	check("by the root", "e")
}

// A mesh of a thousand with grants: what the view costs, and what one more grant does.
func BenchmarkGrantedMembers(b *testing.B) {
	m := newMesh(b)
	inv := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 1000}, at(0))
	prefix := netip.MustParsePrefix("100.70.0.0/16")
	for i := range 1000 {
		n := m.join("node", inv, m.founder, at(1).Add(time.Duration(i)*time.Second))
		m.grant(record.Grant{Node: n.id, Serial: uint64(i + 1), Version: 1, Name: n.name + "-" + n.id.Short(), Wanted: "node", Addr4: identity.Addr4(prefix, n.id, 0)}, m.founder.key)
	}
	r := New(m.root.Cert)
	r.AddAll(m.records, at(60))
	for b.Loop() {
		r.standing.changes++
		if len(r.Members()) < 900 {
			b.Fatal(len(r.Members()))
		}
	}
}
