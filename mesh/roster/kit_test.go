package roster

import (
	"crypto/ed25519"
	rand2 "crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"maps"
	"math/big"
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

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// testMesh makes the records of a mesh without any roster: what its members would sign, honest or not.
type testMesh struct {
	t       testing.TB
	root    identity.Authority
	id      identity.MeshID
	founder *testNode
	records []record.Signed
	nodes   []*testNode // all that were made
	serial  int
}

type testNode struct {
	name      string
	key       ed25519.PrivateKey
	id        identity.NodeID
	cert      *x509.Certificate
	admission record.Admission
	rec       record.Signed
	wireGuard [32]byte
	proof     [64]byte
}

type testInvite struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
	rec  record.Signed
}

func newMesh(t testing.TB) *testMesh {
	m := &testMesh{t: t}
	key := m.key()
	root, err := identity.NewRoot(key, identity.RootTerms{Name: "home", Prefix4: netip.MustParsePrefix("100.70.0.0/16")}, start)
	m.check(err)
	m.root = identity.Authority{Cert: root, Key: key}
	m.id = identity.MeshIDOf(key.Public().(ed25519.PublicKey))
	m.founder = m.node("founder", m.root, nil, start, identity.NodeTerms{Admin: true})
	return m
}

// key returns the next of a sequence of keys that is the same in each run.
func (m *testMesh) key() ed25519.PrivateKey {
	m.serial++
	seed := sha256.Sum256(fmt.Appendf(nil, "key %d", m.serial))
	return ed25519.NewKeyFromSeed(seed[:])
}

func (m *testMesh) check(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *testMesh) invite(by identity.Authority, terms identity.InviteTerms, at time.Time) *testInvite {
	m.t.Helper()
	if terms.Expires.IsZero() {
		terms.Expires = at.Add(24 * time.Hour)
	}
	seed, cert, err := identity.NewInvite(by, terms, at)
	m.check(err)
	i := &testInvite{cert: cert, key: ed25519.NewKeyFromSeed(seed[:]), rec: record.NewCertificate(cert)}
	m.records = append(m.records, i.rec)
	return i
}

func (i *testInvite) authority() identity.Authority {
	return identity.Authority{Cert: i.cert, Key: i.key}
}

func (n *testNode) authority() identity.Authority {
	return identity.Authority{Cert: n.cert, Key: n.key}
}

// join makes a node that came by an invite, admitted by a member at a time.
func (m *testMesh) join(name string, invite *testInvite, by *testNode, at time.Time) *testNode {
	m.t.Helper()
	return m.node(name, invite.authority(), by, at, identity.NodeTerms{})
}

func (m *testMesh) joinAdmin(name string, invite *testInvite, by *testNode, at time.Time) *testNode {
	m.t.Helper()
	return m.node(name, invite.authority(), by, at, identity.NodeTerms{Admin: true})
}

func (m *testMesh) node(name string, issuer identity.Authority, by *testNode, at time.Time, terms identity.NodeTerms) *testNode {
	m.t.Helper()
	key := m.key()
	return m.nodeWithKey(name, key, issuer, by, at, terms)
}

func (m *testMesh) nodeWithKey(name string, key ed25519.PrivateKey, issuer identity.Authority, by *testNode, at time.Time, terms identity.NodeTerms) *testNode {
	m.t.Helper()
	terms.NotBefore = at
	cert, err := identity.NewNode(issuer, key.Public().(ed25519.PublicKey), terms)
	m.check(err)
	n := &testNode{name: record.CleanName(name), key: key, id: identity.NodeIDOfCert(cert), cert: cert}
	if by != nil {
		n.admission = record.SignAdmission(m.id, cert.Raw, at, by.key)
	}
	n.rec = m.word(n, 1, nil)
	m.records = append(m.records, n.rec)
	m.nodes = append(m.nodes, n)
	return n
}

// word is a record of the node with a sequence number.
func (m *testMesh) word(n *testNode, seq uint64, edit func(*record.Node)) record.Signed {
	m.t.Helper()
	if n.proof == ([64]byte{}) {
		n.wireGuard, n.proof = meshtest.WireGuard(m.id, n.id, n.id.String())
	}
	body := record.Node{
		Seq: seq, Certificate: n.cert.Raw, Admission: n.admission, Name: n.name, WireGuardKey: n.wireGuard, WireGuardProof: n.proof, SealingKey: [32]byte(n.id),
	}
	if edit != nil {
		edit(&body)
	}
	rec, err := record.SignNode(m.id, body, n.key)
	m.check(err)
	return rec
}

// revoke revokes a key. With cascade nobody stays, else all nodes that were made before.
func (m *testMesh) revoke(target identity.KeyID, by ed25519.PrivateKey, at time.Time, cascade bool) record.Signed {
	m.t.Helper()
	r := record.Revocation{Target: target, Time: at.Unix(), Reason: "test"}
	if !cascade {
		r.Keep = keep(m.nodes...)
	}
	return m.revocation(r, by)
}

// revocation signs any.
func (m *testMesh) revocation(r record.Revocation, by ed25519.PrivateKey) record.Signed {
	m.t.Helper()
	rec, err := record.SignRevocation(m.id, r, by)
	m.check(err)
	m.records = append(m.records, rec)
	return rec
}

// keep lists nodes that stay.
func keep(nodes ...*testNode) record.Prefixes {
	var list []record.Prefix
	for _, n := range nodes {
		list = append(list, record.PrefixOf(n.id))
	}
	return record.NewPrefixes(list...)
}

func keyOf(n *testNode) identity.KeyID { return identity.KeyID(n.id) }

// promote makes an admin of a member, and returns what it certifies with.
func (m *testMesh) promote(by identity.Authority, n *testNode, at time.Time) identity.Authority {
	m.t.Helper()
	cert, err := identity.NewPromotion(by, n.key.Public().(ed25519.PublicKey), at)
	m.check(err)
	m.records = append(m.records, record.NewCertificate(cert))
	return identity.Authority{Cert: cert, Key: n.key}
}

func (m *testMesh) grant(g record.Grant, by ed25519.PrivateKey) record.Signed {
	m.t.Helper()
	rec, err := record.SignGrant(m.id, g, by)
	m.check(err)
	m.records = append(m.records, rec)
	return rec
}

// roster returns a roster that was given all records made so far in the order of their making.
func (m *testMesh) roster() *Roster {
	m.t.Helper()
	r := New(m.root.Cert)
	for _, rec := range m.records {
		_, _ = r.Add(rec, start.Add(time.Hour))
	}
	return r
}

func names(r *Roster) []string {
	var list []string
	for _, member := range r.Members() {
		list = append(list, member.Name)
	}
	slices.Sort(list)
	return list
}

func (m *testMesh) wantMembers(r *Roster, want ...string) {
	m.t.Helper()
	slices.Sort(want)
	if got := names(r); !slices.Equal(got, want) {
		m.t.Fatalf("members: got %q, want %q", got, want)
	}
}

// wantOrderFree adds the records made so far in many orders, one by one and in batches, and wants the same result each time.
func (m *testMesh) wantOrderFree(want ...string) {
	m.t.Helper()
	random := rand.New(rand.NewPCG(7, uint64(len(m.records))))
	now := start.Add(time.Hour)
	first := m.roster()
	m.wantMembers(first, want...)
	verified := Read(m.records) // once for all orders, as far as that is known beforehand
	prepare(New(m.root.Cert), verified)
	for range 25 {
		recs := slices.Clone(m.records)
		random.Shuffle(len(recs), func(i, j int) { recs[i], recs[j] = recs[j], recs[i] })
		r := New(m.root.Cert)
		told := make(map[identity.NodeID]bool)
		for len(recs) > 0 {
			n := 1
			if random.IntN(3) == 0 {
				n = 1 + random.IntN(len(recs))
			}
			b := Read(recs[:n])
			b.results = verified.results
			out, _ := r.AddBatch(b, now)
			recs = recs[n:]
			for _, id := range out.Changed {
				told[id] = true
			}
			for _, drop := range out.Dropped {
				if drop.Reason == ReasonNone || drop.Text == "" || !told[drop.ID] {
					m.t.Fatalf("dropped without reason or twice: %+v", drop)
				}
				delete(told, drop.ID)
			}
		}
		m.wantMembers(r, want...)
		if got, want := r.Digest(), first.Digest(); got != want {
			m.t.Fatalf("digest: got %x, want %x", got, want)
		}
		if len(told) != len(want) {
			m.t.Fatalf("outcomes tell of %d members, want %d", len(told), len(want))
		}
		selfCheck(m.t, r)
	}
}

// verifyChain decides on a chain as a handshake does.
func verifyChain(r *Roster, chain []*x509.Certificate, now time.Time) (identity.NodeID, error) {
	if err := r.chains.Check(chain); err != nil {
		return identity.NodeID{}, err
	}
	return r.JudgeChain(chain, now)
}

// selfCheck holds the indexes of a roster against each other, and what it makes of revocations against the slow twin.
func selfCheck(t testing.TB, r *Roster) {
	t.Helper()
	nodes, uses, hidden, tallies := 0, make(map[ref]int), 0, make(map[identity.KeyID]tally)
	for key, e := range r.set.records {
		if !e.in || e.Key != key || slices.Contains(r.set.aside, e) {
			t.Fatalf("%s in the set: in=%v", e.Kind, e.in)
		}
		hits, fallen := e.hits[layerRoot], e.fallen
		if verdict, refusal := r.judge.rule(e); verdict != stands {
			t.Fatalf("%s in the set does not stand: %v", e.Kind, refusal)
		}
		if !sameHits(hits, e.hits[layerRoot]) || fallen != e.fallen {
			t.Fatalf("%s: judged again, the root's word says something else of it", e.Kind)
		}
		tallies[e.signedBy()] = tallies[e.signedBy()].with(e, 1)
		if e.Node != nil {
			nodes++
			if !e.byRoot() {
				uses[e.parent]++
			}
		}
		_, shown := r.set.buckets[key[0]].find(key)
		if e.hidden {
			hidden++
		}
		if shown == e.hidden || e.hidden != r.set.hidden[e] || e.hidden && e.refusal == nil {
			t.Fatalf("%s: hidden=%v, in a bucket=%v, refusal %v", e.Kind, e.hidden, shown, e.refusal)
		}
	}
	if nodes != len(r.set.nodes) || hidden != len(r.set.hidden) || hidden > maxAside {
		t.Fatalf("%d nodes, index has %d; %d hidden, index has %d", nodes, len(r.set.nodes), hidden, len(r.set.hidden))
	}
	if !maps.Equal(uses, r.set.invites.uses) || !maps.Equal(tallies, r.set.tallies) {
		t.Fatalf("uses %v, index has %v; tallies %v, index has %v", uses, r.set.invites.uses, tallies, r.set.tallies)
	}
	for _, e := range r.set.aside {
		if e.in || e.hidden {
			t.Fatalf("%s aside and in the set", e.Kind)
		}
		known := r.set.records[e.Key]
		if verdict, _ := r.judge.rule(e); verdict == stands && (known == nil || e.outranks(known)) {
			t.Fatalf("%s aside, but stands", e.Kind)
		}
	}
	if len(r.set.aside) > maxAside {
		t.Fatalf("%d records aside", len(r.set.aside))
	}
	newTwin(r).check(t)
}

// forgeInvite certifies a fresh key with whatever the issuer is: package identity would refuse to.
func forgeInvite(t testing.TB, issuer identity.Authority, uses int) *x509.Certificate {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return forgeInviteOf(t, issuer, key.Public().(ed25519.PublicKey), uses, "")
}

// certifyAgain certifies the key of another's invite.
func certifyAgain(t testing.TB, issuer identity.Authority, invite *testInvite, uses int) *x509.Certificate {
	return forgeInviteOf(t, issuer, invite.key.Public().(ed25519.PublicKey), uses, "")
}

// again is a second certificate of an invite's key, under which nodes can join too.
func (m *testMesh) again(by identity.Authority, invite *testInvite, uses int) *testInvite {
	m.t.Helper()
	cert := certifyAgain(m.t, by, invite, uses)
	second := &testInvite{cert: cert, key: invite.key, rec: record.NewCertificate(cert)}
	m.records = append(m.records, second.rec)
	return second
}

func forgeInviteOf(t testing.TB, issuer identity.Authority, public ed25519.PublicKey, uses int, name string) *x509.Certificate {
	t.Helper()
	id, by := identity.KeyIDOf(public), identity.KeyIDOfCert(issuer.Cert)
	end := start.Add(24 * time.Hour)
	terms, err := asn1.Marshal(struct {
		Uses     int
		Admin    bool
		NodeLife int64
		Tags     []string
	}{Uses: uses})
	if err != nil {
		t.Fatal(err)
	}
	if name == "" {
		covered := append(id[:], by[:]...)
		covered = binary.BigEndian.AppendUint64(covered, uint64(start.Unix()))
		covered = binary.BigEndian.AppendUint64(covered, uint64(end.Unix()))
		covered = append(covered, issuer.Cert.RawSubject...)
		sum := sha256.Sum256(append(covered, terms...))
		name = "warren invite " + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:20]))
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, NotBefore: start, NotAfter: end,
		SubjectKeyId: id[:], AuthorityKeyId: by[:], KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 9277, 1}, Value: terms}},
	}
	parent := *issuer.Cert
	parent.SubjectKeyId = by[:]
	der, err := x509.CreateCertificate(rand2.Reader, template, &parent, public, issuer.Key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// forgePromotion is a promotion by whatever the issuer is.
func forgePromotion(t testing.TB, issuer identity.Authority, n *testNode) record.Signed {
	t.Helper()
	public := n.key.Public().(ed25519.PublicKey)
	id, by := identity.KeyIDOf(public), identity.KeyIDOfCert(issuer.Cert)
	from, to := issuer.Cert.NotBefore, issuer.Cert.NotAfter
	covered := append(id[:], by[:]...)
	covered = binary.BigEndian.AppendUint64(covered, uint64(from.Unix()))
	covered = binary.BigEndian.AppendUint64(covered, uint64(to.Unix()))
	sum := sha256.Sum256(append(covered, issuer.Cert.RawSubject...))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: from, NotAfter: to,
		Subject:      pkix.Name{CommonName: "warren admin " + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:20]))},
		SubjectKeyId: id[:], KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 9277, 3}, Value: []byte{5, 0}}},
	}
	parent := *issuer.Cert
	parent.SubjectKeyId = by[:]
	der, err := x509.CreateCertificate(rand2.Reader, template, &parent, public, issuer.Key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := identity.ParseCert(der)
	if err != nil {
		t.Fatal(err)
	}
	return record.NewCertificate(cert)
}
