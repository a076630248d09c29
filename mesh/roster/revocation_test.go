package roster

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// family is a mesh of three generations of admins and their guests.
//
//	founder ─▶ admins ─▶ admin ─▶ invite ─▶ a, b (admitted by the admin), c (admitted by a)
//	              ╰────▶ other ─▶ others ─▶ d
type family struct {
	*testMesh
	admins, invite, others      *testInvite
	admin, other, a, b, c, d    *testNode
	keyOfInvite, keyOfAdminsKey identity.KeyID
}

func newFamily(t testing.TB) *family {
	m := newMesh(t)
	f := &family{testMesh: m, admins: m.invite(m.founder.authority(), identity.InviteTerms{Uses: 9, Admin: true}, at(0))}
	f.admin = m.joinAdmin("admin", f.admins, m.founder, at(1))
	f.other = m.joinAdmin("other", f.admins, m.founder, at(2))
	f.invite = m.invite(f.admin.authority(), identity.InviteTerms{Uses: 9}, at(3))
	f.others = m.invite(f.other.authority(), identity.InviteTerms{Uses: 9}, at(3))
	f.a = m.join("a", f.invite, f.admin, at(10))
	f.b = m.join("b", f.invite, f.admin, at(20))
	f.c = m.join("c", f.invite, f.a, at(25))
	f.d = m.join("d", f.others, f.other, at(26))
	f.keyOfInvite, f.keyOfAdminsKey = identity.KeyIDOfCert(f.invite.cert), identity.KeyIDOfCert(f.admins.cert)
	return f
}

func TestRevocations(t *testing.T) {
	type rev = record.Revocation
	power := record.ScopePower
	tests := []struct {
		name string
		do   func(f *family)
		want string
	}{
		{"nothing", func(*family) {}, "founder admin other a b c d"},
		{"a member, with whom it admitted", func(f *family) { f.revocation(rev{Target: keyOf(f.a)}, f.founder.key) }, "founder admin other b d"},
		{"a member, whom it admitted stays", func(f *family) { f.revocation(rev{Target: keyOf(f.a), Keep: keep(f.c)}, f.founder.key) }, "founder admin other b c d"},
		{"a member that is listed itself", func(f *family) { f.revocation(rev{Target: keyOf(f.a), Keep: keep(f.a, f.c)}, f.founder.key) }, "founder admin other b c d"},
		{"times say nothing", func(f *family) {
			f.revocation(rev{Target: keyOf(f.b), Time: 1}, f.founder.key)
			f.revocation(rev{Target: keyOf(f.d), Time: 1 << 31}, f.founder.key)
		}, "founder admin other a c"},
		{"an invite", func(f *family) { f.revocation(rev{Target: f.keyOfInvite}, f.founder.key) }, "founder admin other d"},
		{"an invite, one stays", func(f *family) { f.revocation(rev{Target: f.keyOfInvite, Keep: keep(f.b)}, f.founder.key) }, "founder admin other b d"},
		{"an invite, one stays whose admitter does not", func(f *family) { f.revocation(rev{Target: f.keyOfInvite, Keep: keep(f.c)}, f.founder.key) }, "founder admin other c d"},
		{"an invite's power: there is none", func(f *family) { f.revocation(rev{Target: f.keyOfInvite, Scope: power}, f.founder.key) }, "founder admin other a b c d"},
		{"an admin", func(f *family) { f.revocation(rev{Target: keyOf(f.admin)}, f.founder.key) }, "founder other d"},
		{"an admin, all stay", func(f *family) { f.revocation(rev{Target: keyOf(f.admin), Keep: keep(f.a, f.b, f.c)}, f.founder.key) }, "founder other a b c d"},
		{"an admin, one stays", func(f *family) { f.revocation(rev{Target: keyOf(f.admin), Keep: keep(f.a)}, f.founder.key) }, "founder other a d"},
		{"an admin is demoted", func(f *family) { f.revocation(rev{Target: keyOf(f.admin), Scope: power}, f.founder.key) }, "founder admin other d"},
		{"an admin is demoted, all stay", func(f *family) {
			f.revocation(rev{Target: keyOf(f.admin), Scope: power, Keep: keep(f.a, f.b, f.c)}, f.founder.key)
		}, "founder admin other a b c d"},
		{"a demoted admin has admitted by another's invite", func(f *family) {
			f.join("e", f.others, f.admin, at(30))
			f.revocation(rev{Target: keyOf(f.admin), Scope: power, Keep: keep(f.a, f.b, f.c)}, f.founder.key)
		}, "founder admin other a b c d e"},
		{"a revoked admin has admitted by another's invite", func(f *family) {
			f.join("e", f.others, f.admin, at(30))
			f.revocation(rev{Target: keyOf(f.admin), Keep: keep(f.a, f.b, f.c)}, f.founder.key)
		}, "founder other a b c d"},
		{"the invite of the admins", func(f *family) { f.revocation(rev{Target: f.keyOfAdminsKey}, f.founder.key) }, "founder"},
		{"the invite of the admins, one stays with all below", func(f *family) {
			f.revocation(rev{Target: f.keyOfAdminsKey, Keep: keep(f.admin)}, f.founder.key)
		}, "founder admin a b c"},
		{"each revocation counts by itself", func(f *family) {
			f.revocation(rev{Target: keyOf(f.admin), Keep: keep(f.a, f.c)}, f.founder.key)
			f.revocation(rev{Target: f.keyOfInvite, Keep: keep(f.b, f.c)}, f.founder.key)
		}, "founder other c d"},
		{"the later word of a signer says who stays", func(f *family) {
			f.revocation(rev{Target: keyOf(f.admin), Time: 9}, f.founder.key)
			f.revocation(rev{Target: keyOf(f.admin), Time: 10, Keep: keep(f.a, f.b, f.c)}, f.founder.key)
			f.revocation(rev{Target: keyOf(f.admin), Time: 8}, f.founder.key)
		}, "founder other a b c d"},
		{"a member cannot revoke", func(f *family) { f.revocation(rev{Target: keyOf(f.b)}, f.a.key) }, "founder admin other a b c d"},
		{"siblings revoke each other", func(f *family) {
			f.revocation(rev{Target: keyOf(f.admin), Keep: keep(f.a, f.b, f.c)}, f.other.key)
			f.revocation(rev{Target: keyOf(f.other), Time: 5, Keep: keep(f.d)}, f.admin.key)
		}, "founder a b c d"},
		{"a sibling's revocation does not end those of its target", func(f *family) {
			f.revocation(rev{Target: keyOf(f.d)}, f.admin.key)
			f.revocation(rev{Target: keyOf(f.admin), Keep: keep(f.a, f.b, f.c)}, f.other.key)
		}, "founder other a b c"},
		{"who is above ends them", func(f *family) {
			f.revocation(rev{Target: keyOf(f.d)}, f.admin.key)
			f.revocation(rev{Target: keyOf(f.founder)}, f.admin.key)
			f.revocation(rev{Target: keyOf(f.admin), Keep: keep(f.a, f.b, f.c)}, f.founder.key)
		}, "founder other a b c d"},
		{"but not those that are listed", func(f *family) {
			f.revocation(rev{Target: keyOf(f.d)}, f.admin.key)
			f.revocation(rev{Target: keyOf(f.other)}, f.admin.key)
			f.revocation(rev{Target: keyOf(f.admin), Keep: keep(f.a, f.b, f.c), KeepRevoked: keep(f.d)}, f.founder.key)
		}, "founder other a b c"},
		{"a demotion by who is above ends them too", func(f *family) {
			f.revocation(rev{Target: keyOf(f.founder)}, f.admin.key)
			f.revocation(rev{Target: keyOf(f.admin), Scope: power, Keep: keep(f.a, f.b, f.c)}, f.founder.key)
		}, "founder admin other a b c d"},
		{"who is below cannot end those of who is above", func(f *family) {
			f.revocation(rev{Target: keyOf(f.admin)}, f.founder.key)
			f.revocation(rev{Target: keyOf(f.founder), Time: 1}, f.admin.key)
		}, "founder other d"},
		{"nobody is above the root", func(f *family) {
			f.revocation(rev{Target: keyOf(f.founder)}, f.admin.key)
			f.revocation(rev{Target: keyOf(f.admin), Keep: keep(f.a, f.b, f.c)}, f.root.Key)
		}, "founder other a b c d"},
		{"the root's word counts, whoever revokes whom", func(f *family) {
			f.revocation(rev{Target: keyOf(f.founder), Keep: keep(f.nodes...)}, f.root.Key)
			f.revocation(rev{Target: keyOf(f.admin)}, f.founder.key)
		}, "admin other a b c d"},
		{"a revocation of a senior stands once the senior is out by the root", func(f *family) {
			f.revocation(rev{Target: keyOf(f.d)}, f.admin.key)
			f.revocation(rev{Target: keyOf(f.admin), Keep: keep(f.nodes...)}, f.founder.key)
			f.revocation(rev{Target: keyOf(f.founder), Keep: keep(f.nodes...)}, f.root.Key)
		}, "admin other a b c"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFamily(t)
			test.do(f)
			f.wantOrderFree(strings.Fields(test.want)...)
		})
	}
}

// wantAdmins says who makes invites, and so whose word counts.
func wantAdmins(t *testing.T, r *Roster, want ...*testNode) {
	t.Helper()
	var got, names []string
	for _, m := range r.Members() {
		if (r.AdminCert(m.ID) != nil) != m.Admin {
			t.Errorf("%s: admin=%v, certificate %v", m.Name, m.Admin, r.AdminCert(m.ID))
		}
		if m.Admin {
			got = append(got, m.Name)
		}
	}
	for _, n := range want {
		names = append(names, n.name)
	}
	slices.Sort(got)
	slices.Sort(names)
	if !slices.Equal(got, names) {
		t.Errorf("admins: got %q, want %q", got, names)
	}
}

// A member that was promoted does all that an admin does, as long as somebody who promoted it may.
func TestPromotedAdmin(t *testing.T) {
	f := newFamily(t)
	promoted := f.promote(f.other.authority(), f.a, at(30))
	below := f.promote(promoted, f.b, at(31))
	invite := f.invite2(below, at(32))
	n := f.join("n", invite, f.c, at(33))
	f.revocation(record.Revocation{Target: keyOf(f.c), Keep: keep(n)}, f.b.key)
	f.grant(record.Grant{Node: f.d.id, Serial: 1, Name: "granted"}, f.b.key)
	f.wantOrderFree("founder", "admin", "other", "a", "b", "granted", "n")
	r := f.roster()
	wantAdmins(t, r, f.founder, f.admin, f.other, f.a, f.b)
	if got := r.standing.grants(f.d.id); len(got) != 1 || got[0].Grant.Name != "granted" {
		t.Errorf("grants: got %v, want one", got)
	}
	chain := r.Chain(keyOf(n))
	if id, err := verifyChain(r, chain, at(60)); err != nil || id != n.id || len(chain) != 8 {
		t.Errorf("chain of %d certificates: got %v, want 8 that lead to the root", len(chain), err)
	}
	if got := r.AdminCert(f.b.id); !got.Equal(below.Cert) {
		t.Errorf("certificate of b: got %v, want its promotion", got)
	}
	if got := r.AdminCert(f.founder.id); !got.Equal(f.founder.cert) {
		t.Errorf("certificate of the founder: got %v, want its own", got)
	}
	for name, test := range map[string]struct {
		do     func(f *family)
		want   string
		admins []*testNode
	}{
		"who promoted is demoted": {func(f *family) {
			f.revocation(record.Revocation{Target: keyOf(f.other), Scope: record.ScopePower, Keep: keep(f.d)}, f.founder.key)
		}, "founder admin other a b c d", []*testNode{f.founder, f.admin}},
		"and those below stay": {func(f *family) {
			f.revocation(record.Revocation{Target: keyOf(f.other), Scope: record.ScopePower, Keep: keep(f.d, n)}, f.founder.key)
		}, "founder admin other a b c d n", []*testNode{f.founder, f.admin}},
		"who promoted is out": {func(f *family) {
			f.revocation(record.Revocation{Target: keyOf(f.other), Keep: keep(f.nodes...)}, f.founder.key)
		}, "founder admin a b c d n", []*testNode{f.founder, f.admin}},
		"its member's invite is revoked, and it stays": {func(f *family) {
			f.revocation(record.Revocation{Target: f.keyOfInvite, Keep: keep(f.a, f.b)}, f.founder.key)
		}, "founder admin other a b granted", []*testNode{f.founder, f.admin, f.other, f.a, f.b}},
		"it is demoted": {func(f *family) {
			f.revocation(record.Revocation{Target: keyOf(f.a), Scope: record.ScopePower}, f.founder.key)
		}, "founder admin other a b c d", []*testNode{f.founder, f.admin, f.other}},
		"it is demoted, for good": {func(f *family) {
			f.revocation(record.Revocation{Target: keyOf(f.a), Scope: record.ScopePower}, f.founder.key)
			f.promote(f.root, f.a, at(40))
		}, "founder admin other a b c d", []*testNode{f.founder, f.admin, f.other}},
		"who promoted is demoted, and it is promoted again": {func(f *family) {
			f.revocation(record.Revocation{Target: keyOf(f.other), Scope: record.ScopePower, Keep: keep(f.d)}, f.founder.key)
			f.promote(f.root, f.a, at(40))
		}, "founder admin other a b c d", []*testNode{f.founder, f.admin, f.a}},
	} {
		t.Run(name, func(t *testing.T) {
			g := *f
			g.testMesh = f.testMesh.clone(t)
			if name != "its member's invite is revoked, and it stays" {
				g.records = slices.DeleteFunc(g.records, func(rec record.Signed) bool { return rec.Kind == record.KindRevocation })
			}
			test.do(&g)
			g.wantOrderFree(strings.Fields(test.want)...)
			wantAdmins(t, g.roster(), test.admins...)
		})
	}
}

func (m *testMesh) invite2(by identity.Authority, at time.Time) *testInvite {
	m.t.Helper()
	return m.invite(by, identity.InviteTerms{Uses: 9}, at)
}

// clone returns a copy to which other records are added.
func (m *testMesh) clone(t testing.TB) *testMesh {
	c := *m
	c.t, c.records, c.nodes = t, slices.Clone(m.records), slices.Clone(m.nodes)
	return &c
}

// A node of several promotions is an admin by each. What it signed by one of them rests on that one.
func TestSeveralPromotions(t *testing.T) {
	f := newFamily(t)
	one, two := f.promote(f.admin.authority(), f.d, at(30)), f.promote(f.other.authority(), f.d, at(31))
	f.join("n1", f.invite2(one, at(32)), f.d, at(33))
	f.join("n2", f.invite2(two, at(32)), f.d, at(34))
	f.revocation(record.Revocation{Target: keyOf(f.c)}, f.d.key)
	f.wantOrderFree("founder", "admin", "other", "a", "b", "d", "n1", "n2")
	f.revocation(record.Revocation{Target: keyOf(f.admin), Scope: record.ScopePower, Keep: keep(f.a, f.b, f.c)}, f.founder.key)
	f.wantOrderFree("founder", "admin", "other", "a", "b", "d", "n2") // d's revocation counts by the other promotion
	wantAdmins(t, f.roster(), f.founder, f.other, f.d)
	f.revocation(record.Revocation{Target: keyOf(f.other), Scope: record.ScopePower, Keep: keep(f.d)}, f.founder.key)
	f.wantOrderFree("founder", "admin", "other", "a", "b", "c", "d")
	wantAdmins(t, f.roster(), f.founder)
}

// An admin and who it promoted promote each other: nobody gets above who is above it.
func TestPromotionsInACircle(t *testing.T) {
	f := newFamily(t)
	byAdmin := f.promote(f.admin.authority(), f.a, at(30))
	back := f.promote(byAdmin, f.admin, at(31))
	f.promote(back, f.a, at(32))
	f.revocation(record.Revocation{Target: keyOf(f.admin), Keep: keep(f.nodes...)}, f.a.key)
	f.revocation(record.Revocation{Target: keyOf(f.a), Keep: keep(f.nodes...)}, f.admin.key)
	f.wantOrderFree("founder", "admin", "other", "b", "c", "d")
	wantAdmins(t, f.roster(), f.founder, f.admin, f.other)
}

// What a demoted admin signs later, and what it dates back, has no effect.
func TestDemotedAdminSignsOn(t *testing.T) {
	for _, byRoot := range []bool{false, true} {
		t.Run(fmt.Sprint("by the root: ", byRoot), func(t *testing.T) {
			f := newFamily(t)
			signer := f.founder.key
			if byRoot {
				signer = f.root.Key
			}
			f.revocation(record.Revocation{Target: keyOf(f.admin), Scope: record.ScopePower, Time: at(30).Unix(), Keep: keep(f.a, f.b, f.c)}, signer)
			shown := f.roster().Digest()
			f.revocation(record.Revocation{Target: keyOf(f.founder), Time: at(5).Unix()}, f.admin.key)
			f.revocation(record.Revocation{Target: keyOf(f.other), Time: at(5).Unix()}, f.admin.key)
			back := f.invite2(f.admin.authority(), at(4))
			f.join("by a later invite", back, f.admin, at(5))
			f.join("by an earlier invite", f.invite, f.d, at(27))
			f.join("by an earlier invite, dated back", f.invite, f.admin, at(6))
			promoted := f.promote(f.admin.authority(), f.b, at(7))
			f.join("by who it promoted", f.invite2(promoted, at(8)), f.b, at(21))
			f.revocation(record.Revocation{Target: keyOf(f.founder)}, f.b.key)
			f.grant(record.Grant{Node: f.admin.id, Serial: 1, Name: "nas"}, f.admin.key)
			f.join("who stays", f.others, f.admin, at(28)) // as a member it may
			if !byRoot {
				f.records = slices.DeleteFunc(f.records, func(rec record.Signed) bool { // b's own does count: only a senior ends it
					return rec.Kind == record.KindRevocation && rec.Signer == keyOf(f.b)
				})
			}
			f.wantOrderFree("founder", "admin", "other", "a", "b", "c", "d", "who-stays")
			r := f.roster()
			wantAdmins(t, r, f.founder, f.other)
			if got := r.standing.grants(f.admin.id); len(got) != 0 {
				t.Errorf("grants: got %d, want none", len(got))
			}
			f.records = slices.DeleteFunc(f.records, func(rec record.Signed) bool {
				node, err := rec.Node()
				return err == nil && node.Name == "who-stays"
			})
			if got := f.roster().Digest() == shown; got != byRoot {
				t.Errorf("the set is the same as before: got %v, want %v", got, byRoot)
			}
		})
	}
}

// A member that was revoked makes itself another key, dates it back and admits it itself.
func TestSecRevokedMemberRejoinsByItself(t *testing.T) {
	m := newMesh(t)
	invite := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 3}, at(1))
	x := m.join("x", invite, m.founder, at(2))
	v := m.join("v", invite, m.founder, at(30))
	w := m.join("w", invite, x, at(31))
	m.revocation(record.Revocation{Target: keyOf(x), Keep: keep(w)}, m.founder.key)
	s := m.join("s", invite, x, at(3))
	m.join("below s", invite, s, at(4))
	m.join("by w", invite, w, at(33)) // a member in good standing: it takes an accomplice
	m.wantOrderFree("founder", "v", "w", "by-w")
	r := m.roster()
	now := start.Add(30 * 24 * time.Hour)
	r.Advance(now)
	if err := r.Standing(s.id); ReasonOf(err) != ReasonIssuerRevoked {
		t.Errorf("the second key: got %v, want it out with x", err)
	}
	// Against the accomplice the invite is ended too, with a list of who stays; dating back helps neither of them any more.
	ended := record.Revocation{Target: identity.KeyIDOfCert(invite.cert), Keep: keep(v, w)}
	m.revocation(ended, m.founder.key)
	m.join("s2", invite, v, at(32))
	third := m.join("s3", invite, m.founder, at(5))
	m.wantOrderFree("founder", "v", "w")
	r = m.roster()
	for _, n := range []*testNode{s, third} {
		if _, err := verifyChain(r, r.Chain(keyOf(n)), at(60)); ReasonOf(err) != ReasonInviteRevoked && ReasonOf(err) != ReasonIssuerRevoked {
			t.Errorf("handshake of %s: got %v, want it refused", n.name, err)
		}
	}
	if _, err := verifyChain(r, r.Chain(keyOf(w)), at(60)); err != nil {
		t.Errorf("handshake of w, who stays: %v", err)
	}
	if err := r.CheckAdmission(m.joiner(invite, at(40)).cert, at(40)); ReasonOf(err) != ReasonInviteRevoked {
		t.Errorf("a joiner: got %v, want the invite revoked", err)
	}
}

// No admission puts anybody out, whenever it says that it was, and whoever signs it.
func TestSecMemberKicksOutAnother(t *testing.T) {
	m := newMesh(t)
	invite := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 2}, at(1))
	x := m.join("x", invite, m.founder, at(2))
	v := m.join("v", invite, m.founder, at(30))
	r := m.roster()
	for i, by := range []*testNode{x, v, m.founder} {
		s := m.join(fmt.Sprint("s", i), invite, by, at(31+i).Add(-time.Minute*time.Duration(i)))
		back := m.join(fmt.Sprint("back", i), invite, by, by.admittedAt().Add(time.Second))
		for _, n := range []*testNode{s, back} {
			out, err := r.Add(n.rec, start.Add(90*24*time.Hour))
			if err != nil || len(out.Dropped) > 0 {
				t.Errorf("%s by %s: dropped %+v, %v, want nobody", n.name, by.name, out.Dropped, err)
			}
		}
	}
	if err := errors.Join(r.Standing(x.id), r.Standing(v.id)); err != nil {
		t.Errorf("members: %v", err)
	}
	if got := r.Invites()[0]; got.Over != 6 {
		t.Errorf("uses: got %d more than allowed, want 6 to be seen", got.Over)
	}
	m.revocation(record.Revocation{Target: identity.KeyIDOfCert(invite.cert), Keep: keep(x, v)}, m.founder.key)
	m.wantOrderFree("founder", "x", "v")
}

func (n *testNode) admittedAt() time.Time {
	if n.admission.IsZero() {
		return n.cert.NotBefore
	}
	return time.Unix(n.admission.Time, 0)
}

// An admin that an admin above it has revoked revokes everybody; it is without effect.
func TestSecRevokedAdminStillRevokes(t *testing.T) {
	f := newFamily(t)
	f.revocation(record.Revocation{Target: keyOf(f.admin), Keep: keep(f.a, f.b, f.c)}, f.founder.key)
	r := f.roster()
	for _, n := range f.nodes {
		rec := f.revocation(record.Revocation{Target: keyOf(n), Time: at(5).Unix()}, f.admin.key)
		if out, err := r.Add(rec, at(300)); err != nil || len(out.Dropped) > 0 {
			t.Errorf("revocation of %s: dropped %+v, %v, want nobody", n.name, out.Dropped, err)
		}
	}
	f.wantOrderFree("founder", "other", "a", "b", "c", "d")
}

// A stolen admin key revokes everybody. One word of the root brings all back, those included that rest on the admin, and what the
// thief signed leaves the set.
func TestRootAgainstAStolenAdminKey(t *testing.T) {
	f := newFamily(t)
	before := f.roster()
	wanted := names(before)
	for _, n := range f.nodes {
		for _, scope := range []record.Scope{record.ScopeWhole, record.ScopePower} {
			f.revocation(record.Revocation{Target: keyOf(n), Scope: scope, Time: 1}, f.admin.key)
		}
	}
	r := f.roster()
	if got := names(r); len(got) != 0 {
		t.Fatalf("members after the theft: got %q, want none", got)
	}
	var stay []record.Prefix
	for _, id := range r.Below(keyOf(f.admin), record.ScopeWhole) {
		stay = append(stay, record.PrefixOf(id))
	}
	if len(stay) != 3 {
		t.Fatalf("below the admin: got %d nodes, want 3", len(stay))
	}
	word := f.revocation(record.Revocation{Target: keyOf(f.admin), Keep: record.NewPrefixes(stay...)}, f.root.Key)
	out, err := r.Add(word, at(70))
	f.check(err)
	if len(out.Changed) != 6 || len(out.Removed) != 2*len(f.nodes) {
		t.Errorf("got %d members back and %d records removed, want 6 and all %d revocations", len(out.Changed), len(out.Removed), 2*len(f.nodes))
	}
	wanted = slices.DeleteFunc(wanted, func(name string) bool { return name == "admin" })
	f.wantOrderFree(wanted...)
	wantAdmins(t, f.roster(), f.founder, f.other)
}

// The only admin is gone: the root makes another one.
func TestRootPromotesWhenTheOnlyAdminIsGone(t *testing.T) {
	m := newMesh(t)
	invite := m.invite2(m.founder.authority(), at(1))
	a := m.join("a", invite, m.founder, at(2))
	b := m.join("b", invite, m.founder, at(3))
	promoted := m.promote(m.root, a, at(10))
	m.revocation(record.Revocation{Target: keyOf(m.founder), Keep: keep(a, b)}, m.root.Key)
	fresh := m.invite2(promoted, at(11))
	m.join("c", fresh, b, at(12))
	m.join("d", invite, b, at(12)) // the founder's invites have ended with it
	m.wantOrderFree("a", "b", "c")
	r := m.roster()
	wantAdmins(t, r, a)
	if err := r.CheckAdmission(m.joiner(fresh, at(20)).cert, at(20)); err != nil {
		t.Errorf("a joiner by the new admin's invite: %v", err)
	}
	if chain := r.Chain(identity.KeyIDOfCert(fresh.cert)); len(chain) != 3 || identity.RoleOf(chain[1]) != identity.RolePromotion {
		t.Errorf("chain of the invite: got %d certificates, want invite, promotion, root", len(chain))
	}
}

// filled has an admin fill the set with what it may sign, and its creatures with what these may.
func filled(t *testing.T) (m *testMesh, admin *testNode, r *Roster) {
	m = newMesh(t)
	admins := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 1, Admin: true}, at(1))
	admin = m.joinAdmin("admin", admins, m.founder, at(2))
	r = m.roster()
	return m, admin, r
}

// An admin fills the set. It gets as far as its bound, and its own revocation fits.
func TestSecAdminFillsTheSet(t *testing.T) {
	m, admin, r := filled(t)
	now := start.Add(time.Hour)
	const more = 200
	var recs []record.Signed
	for i := range maxRevocations + more {
		rec, err := record.SignRevocation(m.id, record.Revocation{Target: identity.KeyID{byte(i), byte(i >> 8), 1}}, admin.key)
		m.check(err)
		recs = append(recs, rec)
	}
	b := Read(recs)
	_, errs := r.AddBatch(b, now)
	full := 0
	for _, err := range errs {
		if ReasonOf(err) == ReasonFull {
			full++
		}
	}
	if full != more || r.Len() != 3+maxRevocations {
		t.Errorf("got %d refused and %d records, want %d and %d", full, r.Len(), more, 3+maxRevocations)
	}
	if got := prepare(r, Read(recs[maxRevocations:])); got != 0 {
		t.Errorf("got %d signatures verified of those that do not fit, want none", got)
	}
	// Amending one of its own is no new one.
	rec, err := record.SignRevocation(m.id, record.Revocation{Target: identity.KeyID{0, 0, 1}, Time: 9}, admin.key)
	m.check(err)
	if out, err := r.Add(rec, now); err != nil || !out.Stored {
		t.Errorf("an amended one: %+v, %v", out, err)
	}
	if _, err := r.Add(m.revoke(keyOf(admin), m.founder.key, now, true), now); err != nil || r.Standing(admin.id) == nil {
		t.Errorf("the founder revokes the admin: got %v, standing %v", err, r.Standing(admin.id))
	}
}

// Bounds are by signer and kind; the root has none.
func TestBoundsBySigner(t *testing.T) {
	big := record.Revocation{Keep: make(record.Prefixes, 0, 3200)}
	for i := range 3200 {
		big.Keep = append(big.Keep, record.Prefix{0, byte(i >> 8), byte(i)})
	}
	for _, test := range []struct {
		what string
		most int
		has  tally // before, to make it short
		make func(m *testMesh, by identity.Authority, i int) record.Signed
	}{
		{"invites", 5, tally{invites: maxInvites - 5}, func(m *testMesh, by identity.Authority, i int) record.Signed {
			return record.NewCertificate(m.invite2(by, at(3)).cert)
		}},
		{"promotions", maxPromotions, tally{}, func(m *testMesh, by identity.Authority, i int) record.Signed {
			cert, err := identity.NewPromotion(by, m.nodes[i%len(m.nodes)].key.Public().(ed25519.PublicKey), at(10).Add(time.Duration(i)*time.Second))
			m.check(err)
			return record.NewCertificate(cert)
		}},
		{"revocations of a megabyte together", maxRevocationBytes / 32100, tally{}, func(m *testMesh, by identity.Authority, i int) record.Signed {
			big.Target = identity.KeyID{byte(i), 1}
			rec, err := record.SignRevocation(m.id, big, by.Key)
			m.check(err)
			return rec
		}},
	} {
		t.Run(test.what, func(t *testing.T) {
			m, admin, r := filled(t)
			bystander := m.node("bystander", m.root, nil, at(2), identity.NodeTerms{})
			m.nodes = []*testNode{bystander}
			_, err := r.Add(bystander.rec, at(3))
			m.check(err)
			r.set.tallies[keyOf(admin)] = test.has
			last := error(nil)
			fit := 0
			for i := range test.most + 3 {
				if _, last = r.Add(test.make(m, admin.authority(), i), at(4)); last == nil {
					fit++
				}
			}
			if ReasonOf(last) != ReasonFull || fit != test.most {
				t.Errorf("admin: %d fit, then %v, want %d", fit, last, test.most)
			}
			for i := range test.most + 3 {
				if _, err := r.Add(test.make(m, m.root, i), at(4)); err != nil {
					t.Fatalf("root, %d: %v", i, err)
				}
			}
			if _, err := r.Add(test.make(m, m.founder.authority(), 0), at(4)); err != nil {
				t.Errorf("another admin: %v", err)
			}
		})
	}
}

// The bounds on grants and admissions are looked at without making so many.
func TestBoundsByCount(t *testing.T) {
	m, admin, r := filled(t)
	invite := m.invite2(admin.authority(), at(3))
	_, err := r.Add(invite.rec, at(3))
	m.check(err)
	r.set.tallies[keyOf(admin)] = tally{grants: maxGrants, admitted: maxAdmitted}
	for what, rec := range map[string]record.Signed{
		"grant":     m.grant(record.Grant{Node: admin.id, Serial: 1}, admin.key),
		"admission": m.join("n", invite, admin, at(4)).rec,
	} {
		if _, err := r.Add(rec, at(5)); ReasonOf(err) != ReasonFull {
			t.Errorf("%s: got %v, want no room", what, err)
		}
	}
	if _, err := r.Add(m.word(admin, 2, nil), at(5)); err != nil {
		t.Errorf("new word of a node that is in: %v", err)
	}
}

// A set that is full is emptied by one word of the root, which fits though it is full.
func TestRootEmptiesAFullSet(t *testing.T) {
	m, admin, r := filled(t)
	invite := m.invite2(admin.authority(), at(3))
	honest := m.join("honest", invite, admin, at(4))
	_, errs := r.AddAll(m.records, at(5))
	m.check(errors.Join(errs...))
	var recs []record.Signed
	last := admin
	for i := range 400 {
		last = m.join(fmt.Sprint("s", i), invite, last, at(5).Add(time.Duration(i)*time.Second))
		recs = append(recs, last.rec)
	}
	_, errs = r.AddAll(recs, at(20))
	m.check(errors.Join(errs...))
	r.standing.report(newChange())
	pad(r, maxRecords-r.Len())
	late := m.join("late", m.invite2(m.founder.authority(), at(1)), m.founder, at(6))
	if _, err := r.Add(late.rec, at(20)); ReasonOf(err) != ReasonFull {
		t.Errorf("another record: got %v, want no room", err)
	}
	out, err := r.Add(m.revocation(record.Revocation{Target: keyOf(admin), Keep: keep(honest)}, m.root.Key), at(20))
	if err != nil || !out.Stored || len(out.Dropped) != 401 || len(out.Removed) != 400 {
		t.Fatalf("the root's word: %v, %d dropped and %d removed, want 401 and 400", err, len(out.Dropped), len(out.Removed))
	}
	if got, want := r.Len(), maxRecords-400+1; got != want {
		t.Errorf("got %d records, want %d", got, want)
	}
	if len(r.set.hidden) != maxAside {
		t.Errorf("got %d hidden, want %d", len(r.set.hidden), maxAside)
	}
	if err := r.Standing(honest.id); err != nil {
		t.Errorf("who stays: %v", err)
	}
	if _, ok := r.Get(admin.recordKey(m)); !ok {
		t.Error("the record of the admin is gone, on which the one rests that stays")
	}
	unpad(r)
	selfCheck(t, r)
	// What has left comes back no more, and what the thief makes anew does not get in.
	for _, rec := range []record.Signed{recs[0], recs[399], m.join("new", invite, admin, at(7)).rec, m.join("newer", invite, honest, at(30)).rec} {
		out, err := r.Add(rec, at(31))
		if out.Stored || ReasonOf(err) != ReasonIssuerRevoked && !out.Parked {
			t.Errorf("got %+v, %v, want it refused", out, err)
		}
	}
	selfCheck(t, r)
}

func (n *testNode) recordKey(m *testMesh) record.Key {
	key, err := n.rec.Key()
	m.check(err)
	return key
}

// pad makes a set look so much larger; unpad takes that back.
func pad(r *Roster, n int) {
	for i := range n {
		r.set.records[record.Key{1, byte(i), byte(i >> 8), byte(i >> 16), 31: 0xff}] = &entry{in: true}
	}
}

func unpad(r *Roster) {
	for key := range r.set.records {
		if key[0] == 1 && key[31] == 0xff && key[5] == 0 {
			delete(r.set.records, key)
		}
	}
}

// Who stays by the root's word keeps what it rests on in the set, whatever that is itself; the rest leaves. Whoever comes later, by an
// exchange or from the store, gets the same.
func TestWhatStaysKeepsItsBasis(t *testing.T) {
	f := newFamily(t)
	f.join("e", f.invite, f.b, at(40))
	f.revocation(record.Revocation{Target: keyOf(f.d)}, f.admin.key)
	f.revocation(record.Revocation{Target: keyOf(f.other)}, f.admin.key)
	f.grant(record.Grant{Node: f.a.id, Serial: 1, Name: "a"}, f.admin.key)
	f.revocation(record.Revocation{Target: keyOf(f.admin), Keep: keep(f.c), KeepRevoked: keep(f.d)}, f.root.Key)
	f.wantOrderFree("founder", "other", "c")
	r := f.roster()
	kinds := make(map[record.Kind]int)
	var shown []record.Signed
	for _, rec := range r.All() {
		kinds[rec.Kind]++
		shown = append(shown, rec)
	}
	// Nodes: founder, admin, other, a for c, c, d; not b nor e. Invites: all three. Revocations: the root's and that of d.
	if kinds[record.KindNode] != 6 || kinds[record.KindCertificate] != 3 || kinds[record.KindRevocation] != 2 || kinds[record.KindGrant] != 0 || r.Len() != len(shown) {
		t.Errorf("got %v, want 6 nodes, 3 certificates and 2 revocations", kinds)
	}
	again := New(f.root.Cert)
	again.AddAll(shown, at(60))
	if again.Digest() != r.Digest() || len(again.set.hidden) != 0 {
		t.Errorf("what is shown makes another set: %d records of %d, %d hidden", again.Len(), r.Len(), len(again.set.hidden))
	}
	selfCheck(t, again)
}

// A revocation of an admin with a list that is a lie puts out nobody else.
func TestKeepingIsNoGain(t *testing.T) {
	f := newFamily(t)
	// The thief of the admin's key lists who stays, itself first, in a revocation of its own invite and its own key.
	f.revocation(record.Revocation{Target: keyOf(f.admin), Keep: keep(f.nodes...), KeepRevoked: keep(f.nodes...)}, f.admin.key)
	f.revocation(record.Revocation{Target: keyOf(f.admin), Keep: keep(f.a, f.b)}, f.founder.key)
	f.wantOrderFree("founder", "other", "a", "b", "d") // c rests on a, who stays, and on the invite, which ends
}

func TestBelow(t *testing.T) {
	f := newFamily(t)
	promoted := f.promote(f.admin.authority(), f.d, at(30))
	g := f.join("g", f.invite2(promoted, at(31)), f.founder, at(32))
	h := f.join("h", f.others, f.admin, at(33))
	r := f.roster()
	for name, test := range map[string]struct {
		target identity.KeyID
		scope  record.Scope
		want   []*testNode
	}{
		"admin":          {keyOf(f.admin), record.ScopeWhole, []*testNode{f.a, f.b, f.c, g, h}},
		"admin's power":  {keyOf(f.admin), record.ScopePower, []*testNode{f.a, f.b, f.c, g}},
		"invite":         {f.keyOfInvite, record.ScopeWhole, []*testNode{f.a, f.b, f.c}},
		"invite's power": {f.keyOfInvite, record.ScopePower, nil},
		"member":         {keyOf(f.a), record.ScopeWhole, []*testNode{f.c}},
		"promoted":       {keyOf(f.d), record.ScopePower, []*testNode{g}},
		"nobody":         {identity.KeyID{9}, record.ScopeWhole, nil},
		"founder":        {keyOf(f.founder), record.ScopeWhole, []*testNode{f.admin, f.other, f.a, f.b, f.c, f.d, g, h}},
	} {
		got := r.Below(test.target, test.scope)
		var want []identity.NodeID
		for _, n := range test.want {
			want = append(want, n.id)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %d, want %d nodes in their order", name, len(got), len(want))
		}
		// It is whom a revocation that keeps nobody puts out.
		rec, err := record.SignRevocation(f.id, record.Revocation{Target: test.target, Scope: test.scope}, f.root.Key)
		f.check(err)
		after := f.roster()
		_, err = after.Add(rec, at(60))
		f.check(err)
		for _, n := range f.nodes {
			out := slices.Contains(want, n.id) || keyOf(n) == test.target && test.scope == record.ScopeWhole
			if (after.Standing(n.id) != nil) != out {
				t.Errorf("%s: %s: got %v, want out=%v", name, n.name, after.Standing(n.id), out)
			}
		}
	}
}

// Chains made with a used-up or expired token show nothing: the record is to be seen first. Who has one passes.
func TestSecOldTokenPassesHandshakes(t *testing.T) {
	m := newMesh(t)
	used := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 1}, at(1))
	open := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 2}, at(1))
	rightful := m.join("rightful", used, m.founder, at(2))
	m.join("half", open, m.founder, at(2))
	r := m.roster()
	for name, test := range map[string]struct {
		invite *testInvite
		after  time.Duration
		want   Reason
	}{
		"used up":           {used, time.Hour, ReasonUnproven},
		"open":              {open, time.Hour, ReasonNone},
		"expired":           {open, 60 * 24 * time.Hour, ReasonUnproven},
		"used up, expired":  {used, 60 * 24 * time.Hour, ReasonUnproven},
		"not known here at": {m.invite2(m.founder.authority(), at(1)), time.Hour, ReasonNone},
	} {
		now := start.Add(test.after)
		r.Advance(now)
		for range 20 {
			n := m.joiner(test.invite, at(3))
			id, err := verifyChain(r, []*x509.Certificate{n.cert, test.invite.cert, m.founder.cert}, now)
			if ReasonOf(err) != test.want || id != n.id {
				t.Fatalf("%s: got %s, %v, want its ID and %v", name, id.Short(), err, test.want)
			}
		}
		if _, err := verifyChain(r, r.Chain(keyOf(rightful)), now); err != nil {
			t.Errorf("%s: the rightful one: %v", name, err)
		}
	}
}

// An admin that came by an invite of a member that it has promoted itself is nobody: none of the three stands.
func TestCircleOfPromotions(t *testing.T) {
	f := newFamily(t)
	key := f.key()
	public := key.Public().(ed25519.PublicKey)
	other, err := identity.NewNode(f.root, public, identity.NodeTerms{Admin: true, NotBefore: at(27)}) // never shown: for its name and key
	f.check(err)
	promoted := f.promote(identity.Authority{Cert: other, Key: key}, f.d, at(30))
	invite := f.testMesh.invite(promoted, identity.InviteTerms{Uses: 9, Admin: true}, at(31))
	x := f.nodeWithKey("x", key, invite.authority(), f.founder, at(32), identity.NodeTerms{Admin: true})
	f.join("n", invite, f.founder, at(33))
	f.wantOrderFree("founder", "admin", "other", "a", "b", "c", "d")
	if err := f.roster().Standing(x.id); ReasonOf(err) != ReasonUnknownIssuer {
		t.Errorf("got %v, want nothing that it rests on", err)
	}
	// Nor with an invite of its own to begin with, in whose place it shows another admission later, an earlier one: clocks may differ by minutes.
	first := f.nodeWithKey("x", key, f.admins.authority(), f.founder, at(50), identity.NodeTerms{Admin: true})
	first.admission = record.SignAdmission(f.id, first.cert.Raw, at(54), f.founder.key)
	f.records[len(f.records)-1] = f.word(first, 1, nil)
	again := f.promote(first.authority(), f.d, at(50))
	second := f.testMesh.invite(again, identity.InviteTerms{Uses: 9, Admin: true}, at(50))
	f.nodeWithKey("x", key, second.authority(), f.founder, at(51), identity.NodeTerms{Admin: true})
	f.wantOrderFree("founder", "admin", "other", "a", "b", "c", "d", "x")
	if m, _ := f.roster().Member(first.id); !m.Admitted.Equal(at(54)) {
		t.Errorf("x was admitted %s, want the admission that rests on others", m.Admitted)
	}
}

// The root's word reaches down any chain of admissions, and up from a revocation that stays by it to what makes its signer an admin.
func TestRootReachesAllBelow(t *testing.T) {
	f := newFamily(t)
	last := f.a
	var list []*testNode
	for i := range 6 {
		last = f.join(fmt.Sprint("n", i), f.others, last, at(26+i))
		list = append(list, last)
	}
	promoted := f.promote(f.admin.authority(), list[0], at(40))
	f.promote(promoted, list[1], at(41))
	f.revocation(record.Revocation{Target: keyOf(f.d)}, list[1].key)
	r := f.roster()
	word := f.revocation(record.Revocation{Target: keyOf(f.a), KeepRevoked: keep(f.d)}, f.root.Key)
	out, err := r.Add(word, at(60))
	if err != nil || len(out.Dropped) != 8 {
		t.Errorf("got %d dropped, %v, want a, c, and all six of the chain", len(out.Dropped), err)
	}
	selfCheck(t, r)
	f.wantOrderFree("founder", "admin", "other", "b")
	// The record of d's revocation stays, and so do the promotions by which its signer was an admin.
	promotions := 0
	for _, rec := range r.All() {
		if d, err := rec.Decode(); err == nil && d.Certificate != nil && identity.RoleOf(d.Certificate) == identity.RolePromotion {
			promotions++
		}
	}
	if promotions != 2 || r.Digest() != f.roster().Digest() {
		t.Errorf("got %d promotions in the set, want 2", promotions)
	}
}
