package roster

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/mesh/meshtest"
	"warren/mesh/record"
)

func at(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }

func TestOrdinaryMesh(t *testing.T) {
	m := newMesh(t)
	founder := m.founder
	members := m.invite(founder.authority(), identity.InviteTerms{Uses: 5, Tags: []string{"home"}}, at(1))
	a := m.join("a", members, founder, at(2))
	b := m.join("b", members, a, at(3))
	admins := m.invite(founder.authority(), identity.InviteTerms{Uses: 1, Admin: true}, at(4))
	admin := m.joinAdmin("admin", admins, b, at(5))
	more := m.invite(admin.authority(), identity.InviteTerms{Uses: 1}, at(6))
	m.join("c", more, a, at(7))
	m.wantOrderFree("founder", "a", "b", "admin", "c")

	r := m.roster()
	got, _ := r.Member(a.id)
	if !slices.Equal(got.Tags, []string{"home"}) || got.Admin || got.AdmittedBy != founder.id || !got.Admitted.Equal(at(2)) ||
		got.Addr6 != identity.Addr6(m.id, a.id) || got.Invite != identity.KeyIDOfCert(members.cert) {
		t.Errorf("member a: %+v", got)
	}
	if got, _ := r.Member(admin.id); !got.Admin {
		t.Errorf("admin is no admin")
	}
	invites := r.Invites()
	i := slices.IndexFunc(invites, func(i InviteStatus) bool { return i.Terms.Uses == 5 })
	if len(invites) != 3 || !slices.Equal(invites[i].Used, []identity.NodeID{a.id, b.id}) || invites[i].Revoked {
		t.Errorf("invites: %+v", invites)
	}
	if chain := r.Chain(identity.KeyID(got.ID)); len(chain) != 4 || chain[0] == nil || !chain[3].Equal(m.root.Cert) {
		t.Errorf("chain of %d", len(chain))
	}
	if id, err := verifyChain(r, r.Chain(identity.KeyID(a.id)), at(60)); err != nil || id != a.id {
		t.Errorf("verify chain: got %v, %v", id.Short(), err)
	}
}

// Uses bind whoever admits: two partitions that used one invite both keep their node, and it shows.
func TestInviteUsedInTwoPartitions(t *testing.T) {
	m := newMesh(t)
	invite := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 3}, at(0))
	a := m.join("a", invite, m.founder, at(1))
	b := m.join("b", invite, m.founder, at(2))
	m.join("left", invite, a, at(10))
	m.join("right", invite, b, at(10))
	m.wantOrderFree("founder", "a", "b", "left", "right")
	r := m.roster()
	if got := r.Invites()[0]; len(got.Used) != 4 || got.Over != 1 || got.Revoked {
		t.Errorf("got %d uses, %d more than allowed, want 4 and 1", len(got.Used), got.Over)
	}
	if err := r.CheckAdmission(m.joiner(invite, at(11)).cert, at(11)); ReasonOf(err) != ReasonInviteUsed {
		t.Errorf("another joiner: got %v, want the invite used", err)
	}
}

func TestRefusals(t *testing.T) {
	m := newMesh(t)
	other := newMesh(t)
	stranger := other.node("stranger", identity.Authority{Cert: other.root.Cert, Key: other.root.Key}, nil, at(0), identity.NodeTerms{})
	_ = stranger
	founder := m.founder
	invite := m.invite(founder.authority(), identity.InviteTerms{Uses: 100, Expires: at(60)}, at(0))
	a := m.join("a", invite, founder, at(5))
	base := slices.Clone(m.records)

	forge := func(edit func(*testNode)) record.Signed {
		n := m.join("forged", invite, founder, at(10))
		edit(n)
		return m.word(n, 1, nil)
	}
	tests := []struct {
		name string
		rec  func() record.Signed
		want Reason
	}{
		{"no admission", func() record.Signed { return forge(func(n *testNode) { n.admission = record.Admission{} }) }, ReasonAdmission},
		{"admitted itself", func() record.Signed {
			return forge(func(n *testNode) { n.admission = record.SignAdmission(m.id, n.cert.Raw, at(10), n.key) })
		}, ReasonAdmission},
		{"admission for another certificate", func() record.Signed {
			return forge(func(n *testNode) { n.admission = a.admission; n.admission.Time = at(10).Unix() })
		}, ReasonSignature},
		{"admission of another mesh", func() record.Signed {
			return forge(func(n *testNode) {
				n.admission = record.SignAdmission(identity.MeshID{1}, n.cert.Raw, at(10), founder.key)
			})
		}, ReasonSignature},
		{"admission dated back", func() record.Signed {
			return forge(func(n *testNode) { n.admission = record.SignAdmission(m.id, n.cert.Raw, at(4), founder.key) })
		}, ReasonClock},
		{"admitted before its admitter", func() record.Signed {
			n := m.join("early", invite, a, at(4))
			return n.rec
		}, ReasonAdmission},
		{"admitted after the invite's end", func() record.Signed {
			n := m.join("late", invite, founder, at(59))
			n.admission = record.SignAdmission(m.id, n.cert.Raw, at(61), founder.key)
			return m.word(n, 1, nil)
		}, ReasonInviteExpired},
		{"record signed by another node", func() record.Signed {
			rec := forge(func(*testNode) {})
			rec.Signature = ed25519.Sign(a.key, rec.Body)
			return rec
		}, ReasonSignature},
		{"record for another mesh", func() record.Signed {
			n := m.join("other", invite, founder, at(10))
			rec, err := record.SignNode(identity.MeshID{9}, mustNode(t, n.rec), n.key)
			m.check(err)
			return rec
		}, ReasonSignature},
		{"another's WireGuard key", func() record.Signed {
			return forge(func(n *testNode) { n.wireGuard, n.proof = a.wireGuard, a.proof })
		}, ReasonSignature},
		{"WireGuard key proven to another mesh", func() record.Signed {
			return forge(func(n *testNode) { n.wireGuard, n.proof = meshtest.WireGuard(identity.MeshID{1}, n.id, "key") })
		}, ReasonSignature},
		{"a member takes another's WireGuard key", func() record.Signed {
			return m.word(a, 9, func(n *record.Node) { n.WireGuardKey, n.WireGuardProof = founder.wireGuard, founder.proof })
		}, ReasonSignature},
		{"promotion by a member", func() record.Signed {
			other := *a.cert // what it would need to be
			other.IsCA = true
			return forgePromotion(t, identity.Authority{Cert: &other, Key: a.key}, founder)
		}, ReasonNotAllowed},
		{"grant by a member", func() record.Signed { return m.grant(record.Grant{Node: a.id, Serial: 1, Name: "nas"}, a.key) }, ReasonNotAdmin},
		{"forged grant", func() record.Signed {
			rec := m.grant(record.Grant{Node: a.id, Serial: 1, Name: "nas"}, a.key)
			rec.Signer = keyOf(founder)
			return rec
		}, ReasonSignature},
		{"invite by a member", func() record.Signed {
			return record.NewCertificate(forgeInvite(t, a.authority(), 1))
		}, ReasonNotAllowed},
		{"revocation by a member", func() record.Signed { return m.revoke(identity.KeyID(founder.id), a.key, at(20), false) }, ReasonNotAdmin},
		{"revocation of the root", func() record.Signed {
			return m.revoke(identity.KeyIDOfCert(m.root.Cert), founder.key, at(20), false)
		}, ReasonNotAllowed},
		{"forged revocation", func() record.Signed {
			rec := m.revoke(identity.KeyID(founder.id), a.key, at(20), false)
			rec.Signer = identity.KeyID(founder.id)
			return rec
		}, ReasonSignature},
		{"not a record", func() record.Signed { return record.Signed{Kind: record.KindNode, Body: []byte{1, 2}} }, ReasonMalformed},
		{"policy", func() record.Signed { return record.Signed{Kind: record.KindPolicy, Body: []byte{1, 2}} }, ReasonMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := New(m.root.Cert)
			r.AddAll(base, at(60))
			digest := r.Digest()
			out, err := r.Add(test.rec(), at(60))
			if got := ReasonOf(err); got != test.want || !errors.Is(err, ErrRefused) {
				t.Errorf("got %v (%v), want %v", got, err, test.want)
			}
			if out.Stored || out.Parked || r.Digest() != digest || len(out.Changed) > 0 {
				t.Errorf("refused, yet %+v", out)
			}
		})
	}
}

// The chain of another mesh is parked at best, and never counts.
func TestStrangers(t *testing.T) {
	m, other := newMesh(t), newMesh(t)
	other.serial = 1000
	key := other.key()
	root, err := identity.NewRoot(key, identity.RootTerms{Name: "home"}, start)
	m.check(err)
	other.root = identity.Authority{Cert: root, Key: key}
	stranger := other.node("stranger", other.root, nil, at(1), identity.NodeTerms{Admin: true})
	r := m.roster()
	if out, err := r.Add(stranger.rec, at(2)); err == nil && !out.Parked || out.Stored {
		t.Errorf("stranger: %+v, %v", out, err)
	}
	if _, err := verifyChain(r, []*x509.Certificate{stranger.cert, root}, at(2)); ReasonOf(err) != ReasonNotOfMesh && ReasonOf(err) != ReasonNotAllowed {
		t.Errorf("chain of a stranger: %v", err)
	}
	if _, err := verifyChain(r, []*x509.Certificate{stranger.cert}, at(2)); ReasonOf(err) != ReasonNotOfMesh {
		t.Errorf("chain of a stranger without root: %v", err)
	}
	m.wantMembers(r, "founder")
}

// A circle of nodes that vouch for each other is nobody.
func TestCircleOfAdmissions(t *testing.T) {
	m := newMesh(t)
	invite := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 9}, at(0))
	x := m.join("x", invite, m.founder, at(10))
	y := m.join("y", invite, x, at(11))
	x.admission = record.SignAdmission(m.id, x.cert.Raw, at(12), y.key)
	m.records = []record.Signed{m.founder.rec, invite.rec, y.rec, m.word(x, 1, nil)}
	m.wantOrderFree("founder")
}

func TestRevokedOutcome(t *testing.T) {
	m := newMesh(t)
	invite := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 1}, at(0))
	a := m.join("a", invite, m.founder, at(1))
	r := m.roster()
	revocation := m.revoke(identity.KeyID(a.id), m.founder.key, at(10), false)
	out, err := r.Add(revocation, at(11))
	if err != nil || !out.Stored || len(out.Dropped) != 1 || out.Dropped[0].ID != a.id || out.Dropped[0].Reason != ReasonRevoked ||
		!strings.Contains(out.Dropped[0].Text, "founder") {
		t.Fatalf("got %+v, %v", out, err)
	}
	if out, err := r.Add(revocation, at(11)); err != nil || out.Stored || len(out.Added)+len(out.Dropped) > 0 {
		t.Errorf("again: %+v, %v", out, err)
	}
	// A newer word of the revoked node is kept, so that all agree, but brings it back no more.
	out, err = r.Add(m.word(a, 2, nil), at(12))
	if err != nil || !out.Stored || len(out.Changed) > 0 {
		t.Errorf("word of the revoked: %+v, %v", out, err)
	}
	if _, err := verifyChain(r, r.Chain(identity.KeyID(a.id)), at(12)); ReasonOf(err) != ReasonRevoked {
		t.Errorf("chain of the revoked: %v", err)
	}
	if ReasonOf(r.Standing(a.id)) != ReasonRevoked {
		t.Errorf("standing: %v", r.Standing(a.id))
	}
	// Its use stays consumed.
	if err := r.CheckAdmission(m.join("b", invite, m.founder, at(12)).cert, at(12)); ReasonOf(err) != ReasonInviteUsed {
		t.Errorf("use of a revoked node: %v", err)
	}
}

func TestWordsOfNodes(t *testing.T) {
	m := newMesh(t)
	invite := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 3}, at(0))
	a := m.join("a", invite, m.founder, at(1))
	b := m.join("a", invite, m.founder, at(2)) // wants the same name
	named := func(name string, addr string) func(*record.Node) {
		return func(n *record.Node) { n.Name, n.Addr4 = name, netip.MustParseAddr(addr) }
	}
	r := m.roster()
	m.wantMembers(r, "founder", "a", "a-2")
	for _, rec := range []record.Signed{
		m.word(a, 3, named("a", "100.70.1.1")), m.word(a, 2, named("old", "100.70.1.9")),
		m.word(b, 2, named("a", "100.70.1.1")), m.word(m.founder, 2, named("founder", "10.0.0.1")),
	} {
		_, err := r.Add(rec, at(3))
		m.check(err)
	}
	m.wantMembers(r, "founder", "a", "a-2")
	first, _ := r.Member(a.id)
	second, _ := r.Member(b.id)
	founder, _ := r.Member(m.founder.id)
	if first.Addr4 != netip.MustParseAddr("100.70.1.1") || second.Addr4.IsValid() || founder.Addr4.IsValid() {
		t.Errorf("addresses: %s, %s, %s", first.Addr4, second.Addr4, founder.Addr4)
	}
	if first.Record.Seq != 3 {
		t.Errorf("sequence: got %d, want 3", first.Record.Seq)
	}
	out, err := r.Add(m.word(a, 4, func(n *record.Node) { n.Left = true }), at(4))
	if err != nil || !slices.Equal(out.Changed, []identity.NodeID{a.id}) || len(out.Dropped) > 0 {
		t.Errorf("leaving: %+v, %v", out, err)
	}
	second, _ = r.Member(b.id)
	first, _ = r.Member(a.id)
	if first.State != Left || second.Name != "a" || second.Addr4 != netip.MustParseAddr("100.70.1.1") {
		t.Errorf("after leaving: %+v, %+v", first, second)
	}
}

// A node that shows two admissions keeps the earlier: it cannot shake those that it let in by moving its own.
func TestTwoAdmissionsOfOneNode(t *testing.T) {
	m := newMesh(t)
	invite := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 3}, at(0))
	a := m.join("a", invite, m.founder, at(10))
	m.join("below", invite, a, at(11))
	second := m.nodeWithKey("a", a.key, invite.authority(), m.founder, at(30), identity.NodeTerms{})
	m.records = append(m.records, m.word(second, 99, nil))
	m.wantOrderFree("founder", "a", "below")
	earlier := m.nodeWithKey("a", a.key, invite.authority(), m.founder, at(5), identity.NodeTerms{})
	_ = earlier
	m.wantOrderFree("founder", "a", "below")
}

// An admin who certifies the invite key of another admin gains nothing by it.
func TestSecondCertificateOfAnInvite(t *testing.T) {
	m := newMesh(t)
	admins := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 1, Admin: true}, at(0))
	evil := m.joinAdmin("evil", admins, m.founder, at(1))
	invite := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 1}, at(2))
	m.join("a", invite, m.founder, at(3))
	m.records = append(m.records, record.NewCertificate(certifyAgain(t, evil.authority(), invite, 50)))
	m.revoke(identity.KeyID(evil.id), m.founder.key, at(20), true)
	m.wantOrderFree("founder", "a")
}

// An admin that certifies the key of its own invite again, with other terms, changes nothing for those who came by the first
// certificate: the two are two invites, each with its own uses.
func TestSecondTermsOfAnInvite(t *testing.T) {
	m := newMesh(t)
	invite := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 3, Tags: []string{"home"}}, at(0))
	a := m.join("a", invite, m.founder, at(1))
	m.join("b", invite, m.founder, at(2))
	for uses := 1; uses <= 8; uses++ { // one of them would sort after the first certificate, if that decided
		m.again(m.founder.authority(), invite, uses)
	}
	m.wantOrderFree("founder", "a", "b")
	r := m.roster()
	if got, _ := r.Member(a.id); !slices.Equal(got.Tags, []string{"home"}) {
		t.Errorf("tags of a: got %q, want those of the certificate that it came by", got.Tags)
	}
	if got := len(r.Invites()); got != 9 {
		t.Errorf("got %d invites, want 9", got)
	}
	second := m.again(m.founder.authority(), invite, 1)
	m.join("c", second, m.founder, at(3))
	m.join("d", second, m.founder, at(4))
	m.join("e", invite, m.founder, at(5))
	m.wantOrderFree("founder", "a", "b", "c", "d", "e")
	m.revocation(record.Revocation{Target: identity.KeyIDOfCert(invite.cert), Keep: keep(a)}, m.founder.key)
	m.wantOrderFree("founder", "a") // the key is revoked, and with it all its certificates
}

func TestExpiry(t *testing.T) {
	m := newMesh(t)
	invite := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 1, NodeLife: 2 * time.Hour}, at(0))
	a := m.join("a", invite, m.founder, at(1))
	r := m.roster()
	m.wantMembers(r, "founder", "a")
	if got := r.standing.nextExpiry; !got.Equal(at(121)) {
		t.Errorf("next expiry: got %s, want %s", got, at(121))
	}
	digest := r.Digest()
	out := r.Advance(at(122))
	if len(out.Dropped) != 1 || out.Dropped[0].ID != a.id || out.Dropped[0].Reason != ReasonExpired {
		t.Errorf("after expiry: %+v", out)
	}
	if out := r.Advance(at(123)); len(out.Dropped) > 0 {
		t.Errorf("told twice: %+v", out)
	}
	if r.Digest() != digest {
		t.Errorf("the clock changed the set")
	}
	if _, err := verifyChain(r, []*x509.Certificate{a.cert, invite.cert, m.founder.cert}, at(122)); ReasonOf(err) != ReasonExpired {
		t.Errorf("chain: %v", err)
	}
	if out := r.Advance(at(60)); !slices.Equal(out.Changed, []identity.NodeID{a.id}) {
		t.Errorf("clock set back: %+v", out)
	}
	if err := r.CheckAdmission(m.join("b", invite, m.founder, at(60)).cert, at(60)); ReasonOf(err) != ReasonInviteUsed {
		t.Errorf("use of an expired node: %v", err)
	}
}

func TestParkedRecordsAreBounded(t *testing.T) {
	m := newMesh(t)
	invite := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 1000}, at(0))
	var recs []record.Signed
	for i := range maxAside + 20 {
		recs = append(recs, m.join(fmt.Sprintf("n%d", i), invite, m.founder, at(1)).rec)
	}
	r := New(m.root.Cert)
	for _, rec := range recs {
		out, err := r.Add(rec, at(2))
		if err != nil || !out.Parked || out.Stored {
			t.Fatalf("got %+v, %v, want parked", out, err)
		}
	}
	if r.Len() != 0 || r.Digest() != New(m.root.Cert).Digest() {
		t.Errorf("parked records count")
	}
	selfCheck(t, r)
	_, err := r.Add(m.founder.rec, at(2))
	m.check(err)
	out, err := r.Add(invite.rec, at(2))
	m.check(err)
	if len(out.Changed) != maxAside || len(out.Added) != maxAside+1 {
		t.Errorf("got %d members and %d records, want %d", len(out.Changed), len(out.Added), maxAside)
	}
	// A batch needs no room aside.
	r = New(m.root.Cert)
	recs = append(recs, invite.rec, m.founder.rec)
	r.AddAll(recs, at(2))
	if got := len(r.Members()); got != maxAside+21 {
		t.Errorf("batch: got %d members, want %d", got, maxAside+21)
	}
	selfCheck(t, r)
}

// Random meshes with all that can go wrong: the order of records makes no difference, and rosters that exchange
// what they have agree.
func TestOrderProperty(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := randomMesh(t, rand.New(rand.NewPCG(seed, 1)), false)
			m.wantOrderFree(names(m.roster())...)
		})
	}
}

func TestExchangeProperty(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 2))
			m := randomMesh(t, random, true)
			now := start.Add(time.Hour)
			rosters := []*Roster{New(m.root.Cert), New(m.root.Cert), New(m.root.Cert)}
			for _, i := range random.Perm(len(m.records)) {
				for _, j := range random.Perm(len(rosters))[:1+random.IntN(2)] {
					_, _ = rosters[j].Add(m.records[i], now)
				}
			}
			for round := 0; ; round++ {
				for _, from := range rosters {
					for _, to := range rosters {
						for _, rec := range from.All() {
							_, _ = to.Add(rec, now)
						}
						selfCheck(t, to)
					}
				}
				if rosters[0].Digest() == rosters[1].Digest() && rosters[1].Digest() == rosters[2].Digest() {
					break
				}
				if round == 20 {
					t.Fatalf("no agreement after %d rounds", round)
				}
			}
			if a, b := names(rosters[0]), names(rosters[1]); !slices.Equal(a, b) {
				t.Errorf("equal digests, other members: %q, %q", a, b)
			}
		})
	}
}

// randomMesh makes a mesh in which invites are used too often, admissions are given by revoked members, admins revoke, demote and promote
// one another and themselves, and the root too. With twice, nodes show several admissions.
func randomMesh(t *testing.T, random *rand.Rand, twice bool) *testMesh {
	m := newMesh(t)
	admins := []identity.Authority{m.founder.authority()}
	var invites []*testInvite
	for i := range 40 {
		when := start.Add(time.Duration(random.IntN(50*60)) * time.Second)
		by := identity.Authority(m.root)
		if random.IntN(5) > 0 {
			by = admins[random.IntN(len(admins))]
		}
		switch random.IntN(8) {
		case 0, 1:
			if len(m.chainOf(by.Cert)) > 8 {
				continue
			}
			if len(invites) > 0 && random.IntN(4) == 0 && !by.Cert.NotBefore.After(start) {
				invites = append(invites, m.again(by, invites[random.IntN(len(invites))], 1+random.IntN(3)))
				continue
			}
			invites = append(invites, m.invite(by, identity.InviteTerms{Uses: 1 + random.IntN(2), Admin: random.IntN(2) == 0, Expires: at(100)}, when))
		case 2, 3, 4:
			if len(invites) == 0 {
				continue
			}
			invite := invites[random.IntN(len(invites))]
			if when.Before(invite.cert.NotBefore) {
				when = invite.cert.NotBefore
			}
			terms, _ := identity.TermsOf(invite.cert)
			admitter := m.nodes[random.IntN(len(m.nodes))]
			admin := terms.Admin && random.IntN(2) == 0
			n := m.node(fmt.Sprintf("n%d", i), invite.authority(), admitter, when, identity.NodeTerms{Admin: admin})
			if admin {
				admins = append(admins, n.authority())
			}
			if twice && random.IntN(3) == 0 {
				others := len(m.nodes) - 1
				again := m.nodeWithKey(n.name, n.key, invite.authority(), m.nodes[random.IntN(others)], when.Add(time.Duration(random.IntN(300))*time.Second), identity.NodeTerms{Admin: admin})
				m.records = append(m.records, m.word(again, uint64(random.IntN(5)), nil))
			}
			if random.IntN(3) == 0 {
				m.records = append(m.records, m.word(n, 2, nil))
			}
		case 5:
			n := m.nodes[random.IntN(len(m.nodes))]
			if len(m.chainOf(by.Cert)) > 8 || identity.KeyIDOfCert(by.Cert) == keyOf(n) || when.Before(by.Cert.NotBefore) {
				continue
			}
			admins = append(admins, m.promote(by, n, when))
		case 6:
			m.grant(record.Grant{Node: m.nodes[random.IntN(len(m.nodes))].id, Serial: uint64(1 + random.IntN(9)), Version: uint64(random.IntN(3)), Name: fmt.Sprintf("g%d", i)}, by.Key)
		case 7:
			r := record.Revocation{Target: keyOf(m.nodes[random.IntN(len(m.nodes))]), Time: when.Unix(), Scope: record.Scope(random.IntN(2))}
			if len(invites) > 0 && random.IntN(3) == 0 {
				r.Target = identity.KeyIDOfCert(invites[random.IntN(len(invites))].cert)
			}
			var stay, stand []record.Prefix
			for _, n := range m.nodes {
				if random.IntN(3) > 0 {
					stay = append(stay, record.PrefixOf(n.id))
				}
				if random.IntN(4) == 0 {
					stand = append(stand, record.PrefixOf(n.id))
				}
			}
			if random.IntN(4) > 0 {
				r.Keep, r.KeepRevoked = record.NewPrefixes(stay...), record.NewPrefixes(stand...)
			}
			m.revocation(r, by.Key)
		}
	}
	return m
}

// chainOf returns the certificates above one, found among all records made.
func (m *testMesh) chainOf(cert *x509.Certificate) []*x509.Certificate {
	var chain []*x509.Certificate
	if identity.RoleOf(cert) == identity.RoleRoot {
		return nil
	}
	for identity.IssuerOf(cert) != identity.KeyIDOfCert(m.root.Cert) {
		i := slices.IndexFunc(m.records, func(rec record.Signed) bool {
			d, err := rec.Decode()
			return err == nil && d.Certificate != nil && identity.KeyIDOfCert(d.Certificate) == identity.IssuerOf(cert) &&
				string(d.Certificate.RawSubject) == string(cert.RawIssuer)
		})
		d, _ := m.records[i].Decode()
		cert = d.Certificate
		chain = append(chain, cert)
	}
	return chain
}

func mustNode(t *testing.T, rec record.Signed) record.Node {
	n, err := rec.Node()
	if err != nil {
		t.Fatal(err)
	}
	return n
}
