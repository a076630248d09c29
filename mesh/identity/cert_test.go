package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"warren/nat/ranges"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func publicKey(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// testChain is a root, its founder, and invites of both sorts.
type testChain struct {
	root, founder, members, admins Authority
}

func newChain(t testing.TB) testChain {
	t.Helper()
	var c testChain
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := NewRoot(testKey("root"), RootTerms{Name: "home lab", Prefix4: netip.MustParsePrefix("100.70.0.0/16")}, start)
	check(err)
	c.root = Authority{Cert: root, Key: testKey("root")}
	founder, err := NewNode(c.root, publicKey(testKey("founder")), NodeTerms{Admin: true, NotBefore: start})
	check(err)
	c.founder = Authority{Cert: founder, Key: testKey("founder")}
	invite := func(terms InviteTerms) Authority {
		terms.Expires = start.Add(24 * time.Hour)
		seed, cert, err := NewInvite(c.founder, terms, start)
		check(err)
		return Authority{Cert: cert, Key: ed25519.NewKeyFromSeed(seed[:])}
	}
	c.members = invite(InviteTerms{Uses: 3, Tags: []string{"home", "nas_1"}, NodeLife: time.Hour})
	c.admins = invite(InviteTerms{Uses: 1, Admin: true})
	return c
}

func TestCertificates(t *testing.T) {
	c := newChain(t)
	member, err := NewNode(c.members, publicKey(testKey("a")), NodeTerms{NotBefore: start})
	if err != nil {
		t.Fatal(err)
	}
	admin, err := NewNode(c.admins, publicKey(testKey("b")), NodeTerms{Admin: true, NotBefore: start})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		child, parent *x509.Certificate
		role          Role
	}{
		{c.root.Cert, c.root.Cert, RoleRoot}, {c.founder.Cert, c.root.Cert, RoleAdmin}, {c.members.Cert, c.founder.Cert, RoleInvite},
		{c.admins.Cert, c.founder.Cert, RoleInvite}, {member, c.members.Cert, RoleMember}, {admin, c.admins.Cert, RoleAdmin},
	} {
		if got := RoleOf(test.child); got != test.role {
			t.Errorf("role: got %s, want %s", got, test.role)
		}
		parsed, err := ParseCert(test.child.Raw)
		if err != nil {
			t.Fatalf("%s: %v", test.role, err)
		}
		if err := CheckSignature(parsed, test.parent); err != nil {
			t.Errorf("%s: %v", test.role, err)
		}
		if test.role == RoleRoot {
			if err := CheckRoot(parsed); err != nil {
				t.Error(err)
			}
		} else if err := CheckLink(parsed, test.parent); err != nil {
			t.Errorf("%s: %v", test.role, err)
		}
	}
	if IsAdmin(member) || !IsAdmin(admin) {
		t.Error("IsAdmin is wrong")
	}
	if got := member.NotAfter.Sub(member.NotBefore); got != time.Hour {
		t.Errorf("life: got %s, want 1h", got)
	}
	if got := admin.NotAfter.Sub(admin.NotBefore); got != NodeLife {
		t.Errorf("life: got %s, want %s", got, NodeLife)
	}
	terms, err := TermsOf(c.members.Cert)
	want := InviteTerms{Uses: 3, Tags: []string{"home", "nas_1"}, NodeLife: time.Hour, Expires: start.Add(24 * time.Hour)}
	if err != nil || !reflect.DeepEqual(terms, want) {
		t.Errorf("got %+v, %v, want %+v", terms, err, want)
	}
	rootTerms, err := RootTermsOf(c.root.Cert)
	if err != nil || rootTerms.Name != "home lab" || rootTerms.Prefix4 != netip.MustParsePrefix("100.70.0.0/16") {
		t.Errorf("got %+v, %v", rootTerms, err)
	}
	// Other X.509 software agrees with the chain.
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(c.root.Cert)
	between.AddCert(c.founder.Cert)
	between.AddCert(c.members.Cert)
	if _, err := member.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: start, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Errorf("crypto/x509: %v", err)
	}
}

// A promotion makes an admin of a member: what it certifies is certified further, and other X.509 software agrees.
func TestPromotion(t *testing.T) {
	c := newChain(t)
	member, err := NewNode(c.members, publicKey(testKey("a")), NodeTerms{NotBefore: start})
	if err != nil {
		t.Fatal(err)
	}
	promote := func(by Authority, name string) Authority {
		t.Helper()
		cert, err := NewPromotion(by, publicKey(testKey(name)), start)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := ParseCert(cert.Raw)
		if err != nil {
			t.Fatal(err)
		}
		if RoleOf(parsed) != RolePromotion || IsAdmin(parsed) || CheckSignature(parsed, by.Cert) != nil || CheckLink(parsed, by.Cert) != nil {
			t.Errorf("promotion of %s: role %s", name, RoleOf(parsed))
		}
		return Authority{Cert: parsed, Key: testKey(name)}
	}
	byFounder, byRoot := promote(c.founder, "a"), promote(c.root, "a")
	if byFounder.Cert.Subject.CommonName == byRoot.Cert.Subject.CommonName {
		t.Error("promotions by two issuers have one name")
	}
	if got, want := byFounder.Cert.NotAfter, c.founder.Cert.NotAfter; !got.Equal(want) {
		t.Errorf("ends %s, want with its issuer, %s", got, want)
	}
	if got, want := byRoot.Cert.NotAfter, start.Add(NodeLife); !got.Equal(want) {
		t.Errorf("by the root: ends %s, want %s", got, want)
	}
	below := promote(byFounder, "b")
	seed, invite, err := NewInvite(below, InviteTerms{Uses: 1, Expires: start.Add(time.Hour)}, start)
	if err != nil {
		t.Fatal(err)
	}
	node, err := NewNode(Authority{Cert: invite, Key: ed25519.NewKeyFromSeed(seed[:])}, publicKey(testKey("n")), NodeTerms{NotBefore: start})
	if err != nil {
		t.Fatal(err)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(c.root.Cert)
	for _, cert := range []*x509.Certificate{c.founder.Cert, byFounder.Cert, below.Cert, invite} {
		between.AddCert(cert)
	}
	if _, err := node.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: start, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Errorf("crypto/x509: %v", err)
	}
	for name, err := range map[string]error{
		"by a member": func() error {
			_, err := NewPromotion(Authority{Cert: member, Key: testKey("a")}, publicKey(testKey("x")), start)
			return err
		}(),
		"by an invite":    func() error { _, err := NewPromotion(c.admins, publicKey(testKey("x")), start); return err }(),
		"of itself":       func() error { _, err := NewPromotion(c.founder, publicKey(testKey("founder")), start); return err }(),
		"by another link": CheckLink(byFounder.Cert, c.root.Cert),
		"a node by it": func() error {
			_, err := NewNode(byFounder, publicKey(testKey("x")), NodeTerms{NotBefore: start})
			return err
		}(),
	} {
		if err == nil {
			t.Errorf("promotion %s: got no error", name)
		}
	}
	// An invite names the promotion that it rests on: another certificate of the same key does not issue it.
	if err := CheckLink(invite, promote(byRoot, "b").Cert); !errors.Is(err, ErrNotIssued) {
		t.Errorf("another promotion of the invite's maker: got %v, want ErrNotIssued", err)
	}
}

func TestTextOfTerms(t *testing.T) {
	for text, want := range map[string]bool{
		"home lab": true, "Büro – 家": true, "": true, "a\nb": false, "a\u0085": false, "\u202eevil": false, "a\u200bb": false, "a\u00a0b": false, "\xff": false, "\x7f": false,
	} {
		if got := IsText(text); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
		if _, err := NewRoot(testKey("root"), RootTerms{Name: text}, start); (err == nil) != (want && text != "") {
			t.Errorf("mesh name %q: got %v", text, err)
		}
	}
}

func TestClocksThatDiffer(t *testing.T) {
	c := newChain(t)
	early, err := NewNode(c.members, publicKey(testKey("a")), NodeTerms{NotBefore: start.Add(-time.Hour)})
	if err != nil || !early.NotBefore.Equal(c.members.Cert.NotBefore) {
		t.Errorf("joiner's clock behind: got %v, want the invite's start", err)
	}
	if _, err := NewNode(c.members, publicKey(testKey("a")), NodeTerms{NotBefore: start.Add(25 * time.Hour)}); !errors.Is(err, ErrExpired) {
		t.Errorf("after the invite's end: got %v, want ErrExpired", err)
	}
}

func TestWhatIsNotIssued(t *testing.T) {
	c := newChain(t)
	member, err := NewNode(c.members, publicKey(testKey("a")), NodeTerms{NotBefore: start})
	if err != nil {
		t.Fatal(err)
	}
	inviteBy := func(by Authority, terms InviteTerms) error { _, _, err := NewInvite(by, terms, start); return err }
	nodeBy := func(by Authority, terms NodeTerms) error {
		_, err := NewNode(by, publicKey(testKey("x")), terms)
		return err
	}
	day := start.Add(24 * time.Hour)
	tests := []struct {
		name string
		err  error
		want error // nil for any
	}{
		{"invite by a member", inviteBy(Authority{Cert: member, Key: testKey("a")}, InviteTerms{Uses: 1, Expires: day}), nil},
		{"invite by an invite", inviteBy(c.members, InviteTerms{Uses: 1, Expires: day}), ErrNotAllowed},
		{"admin by a member's invite", nodeBy(c.members, NodeTerms{Admin: true, NotBefore: start}), ErrNotAllowed},
		{"node by an admin", nodeBy(c.founder, NodeTerms{NotBefore: start}), ErrNotAllowed},
		{"node that lives too long", nodeBy(c.members, NodeTerms{NotBefore: start, NotAfter: start.Add(2 * time.Hour)}), ErrNotAllowed},
		{"no uses", inviteBy(c.founder, InviteTerms{Expires: day}), nil},
		{"many uses", inviteBy(c.founder, InviteTerms{Uses: 65536, Expires: day}), nil},
		{"expired", inviteBy(c.founder, InviteTerms{Uses: 1, Expires: start}), nil},
		{"bad tag", inviteBy(c.founder, InviteTerms{Uses: 1, Expires: day, Tags: []string{"A b"}}), nil},
		{"tag twice", inviteBy(c.founder, InviteTerms{Uses: 1, Expires: day, Tags: []string{"a", "a"}}), nil},
		{"another's key", nodeBy(Authority{Cert: c.members.Cert, Key: testKey("x")}, NodeTerms{NotBefore: start}), nil},
	}
	for _, test := range tests {
		if test.err == nil || test.want != nil && !errors.Is(test.err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, test.err, test.want)
		}
	}
	for _, terms := range []RootTerms{{}, {Name: strings.Repeat("x", 64)}, {Name: "a\x1b"}, {Name: "a", Prefix4: netip.MustParsePrefix("fd00::/48")}, {Name: "a", Prefix4: netip.MustParsePrefix("10.0.0.1/8")}} {
		if _, err := NewRoot(testKey("root"), terms, start); err == nil {
			t.Errorf("root with %+v: no error", terms)
		}
	}
	other := newChain(t)
	if err := CheckLink(c.members.Cert, other.members.Cert); !errors.Is(err, ErrNotIssued) {
		t.Errorf("another issuer: got %v", err)
	}
	if err := CheckSignature(member, c.admins.Cert); !errors.Is(err, ErrNotIssued) {
		t.Errorf("another signer: got %v", err)
	}
}

// Certificates that this package would not make are refused by their form.
func TestForms(t *testing.T) {
	c := newChain(t)
	id := NodeIDOf(publicKey(testKey("x")))
	good := func() *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(5), Subject: pkix.Name{CommonName: nodeName(id)}, NotBefore: start, NotAfter: start.Add(time.Minute),
		}
	}
	terms := func(t InviteTerms) pkix.Extension {
		e, err := t.extension()
		if err != nil {
			panic(err)
		}
		return e
	}
	ca := func(cert *x509.Certificate) {
		cert.IsCA, cert.BasicConstraintsValid, cert.KeyUsage, cert.SubjectKeyId = true, true, x509.KeyUsageCertSign, id[:]
	}
	name := func(x *x509.Certificate) {
		x.Subject.CommonName = inviteName(KeyID(id), KeyIDOfCert(c.members.Cert), c.members.Cert.RawSubject, x.NotBefore, x.NotAfter, x.ExtraExtensions[0].Value)
	}
	invite := func(x *x509.Certificate) {
		ca(x)
		x.MaxPathLenZero = true
		x.ExtraExtensions = []pkix.Extension{terms(InviteTerms{Uses: 1})}
		name(x)
	}
	promotion := func(x *x509.Certificate) {
		ca(x)
		x.ExtraExtensions = []pkix.Extension{{Id: oidPromotion, Value: promotionValue}}
		x.Subject.CommonName = promotionName(KeyID(id), KeyIDOfCert(c.members.Cert), c.members.Cert.RawSubject, x.NotBefore, x.NotAfter)
	}
	tests := []struct {
		name string
		edit func(*x509.Certificate)
		ok   bool
	}{
		{"good invite", invite, true},
		{"invite with other terms than its name covers", func(x *x509.Certificate) {
			invite(x)
			x.ExtraExtensions = []pkix.Extension{terms(InviteTerms{Uses: 2})}
		}, false},
		{"invite that starts at another time", func(x *x509.Certificate) { invite(x); x.NotBefore = x.NotBefore.Add(time.Second) }, false},
		{"invite that ends at another time", func(x *x509.Certificate) { invite(x); x.NotAfter = x.NotAfter.Add(time.Second) }, false},
		{"good promotion", promotion, true},
		{"promotion with another value", func(x *x509.Certificate) {
			promotion(x)
			x.ExtraExtensions = []pkix.Extension{{Id: oidPromotion, Value: []byte{0x30, 0}}}
		}, false},
		{"promotion with a path length", func(x *x509.Certificate) { promotion(x); x.MaxPathLenZero = true }, false},
		{"promotion that ends at another time", func(x *x509.Certificate) { promotion(x); x.NotAfter = x.NotAfter.Add(time.Second) }, false},
		{"promotion with a node's name", func(x *x509.Certificate) { promotion(x); x.Subject.CommonName = nodeName(id) }, false},
		{"promotion that is no CA", func(x *x509.Certificate) {
			x.ExtraExtensions = []pkix.Extension{{Id: oidPromotion, Value: promotionValue}}
		}, false},
		{"invite and promotion", func(x *x509.Certificate) {
			invite(x)
			x.ExtraExtensions = append(x.ExtraExtensions, pkix.Extension{Id: oidPromotion, Value: promotionValue})
		}, false},
		{"good", func(*x509.Certificate) {}, true},
		{"good admin", ca, true},
		{"name of another", func(c *x509.Certificate) { c.Subject.CommonName = "warren node aaaaaaaaaa" }, false},
		{"more in the name", func(c *x509.Certificate) { c.Subject.Organization = []string{"x"} }, false},
		{"ends before it starts", func(c *x509.Certificate) { c.NotAfter = start.Add(-time.Hour) }, false},
		{"critical extension", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}, false},
		{"wrong key ID", func(c *x509.Certificate) { ca(c); c.SubjectKeyId = make([]byte, 32) }, false},
		{"admin with path length", func(c *x509.Certificate) { ca(c); c.MaxPathLen = 3 }, false},
		{"admin that may not sign", func(c *x509.Certificate) { ca(c); c.KeyUsage = x509.KeyUsageDigitalSignature }, false},
		{"invite with a node's name", func(c *x509.Certificate) {
			ca(c)
			c.MaxPathLenZero = true
			c.ExtraExtensions = []pkix.Extension{terms(InviteTerms{Uses: 1})}
		}, false},
		{"invite that is no CA", func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{terms(InviteTerms{Uses: 1})} }, false},
		{"invite without path length", func(x *x509.Certificate) {
			ca(x)
			x.ExtraExtensions = []pkix.Extension{terms(InviteTerms{Uses: 1})}
			name(x)
		}, false},
		{"invite with broken terms", func(x *x509.Certificate) {
			ca(x)
			x.MaxPathLenZero = true
			x.ExtraExtensions = []pkix.Extension{{Id: oidInvite, Value: []byte{0x30, 0}}}
			name(x)
		}, false},
		{"another root", func(c *x509.Certificate) {
			ca(c)
			e, _ := RootTerms{Name: "x"}.extension()
			c.ExtraExtensions = []pkix.Extension{e}
		}, false},
		{"large", func(c *x509.Certificate) { c.DNSNames = []string{strings.Repeat("x", 1000)} }, false},
	}
	for _, test := range tests {
		template := good()
		test.edit(template)
		der, err := x509.CreateCertificate(rand.Reader, template, c.members.Cert, publicKey(testKey("x")), c.members.Key)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if _, err := ParseCert(der); (err == nil) != test.ok || err != nil && !errors.Is(err, ErrCertificate) {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, good(), c.members.Cert, curve.Public(), c.members.Key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseCert(der); !errors.Is(err, ErrCertificate) {
		t.Errorf("another kind of key: got %v", err)
	}
	forged := *c.root.Cert
	forged.Signature = make([]byte, 64)
	if err := CheckRoot(&forged); !errors.Is(err, ErrCertificate) {
		t.Errorf("forged root: got %v", err)
	}
	if err := CheckRoot(c.founder.Cert); !errors.Is(err, ErrCertificate) {
		t.Errorf("node as root: got %v", err)
	}
}

func FuzzParseCert(f *testing.F) {
	c := newChain(f)
	for _, cert := range []*x509.Certificate{c.root.Cert, c.founder.Cert, c.members.Cert} {
		f.Add(cert.Raw)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := ParseCert(der)
		if err != nil {
			if !errors.Is(err, ErrCertificate) {
				t.Fatalf("error of no class: %v", err)
			}
			return
		}
		if KeyIDOfCert(cert).IsZero() || IssuerOf(cert).IsZero() {
			t.Fatal("certificate without IDs")
		}
		_ = CheckLink(cert, c.members.Cert)
		_ = CheckSignature(cert, c.members.Cert)
	})
}

func FuzzTerms(f *testing.F) {
	c := newChain(f)
	f.Add(findExtension(c.members.Cert, oidInvite))
	f.Add(findExtension(c.admins.Cert, oidInvite))
	f.Add(findExtension(c.root.Cert, oidRoot))
	f.Fuzz(func(t *testing.T, value []byte) {
		if terms, err := parseInviteTerms(value); err == nil {
			if again, err := terms.extension(); err != nil || string(again.Value) != string(value) {
				t.Fatalf("got %x, %v, want %x", again.Value, err, value)
			}
		} else if !errors.Is(err, ErrCertificate) {
			t.Fatalf("error of no class: %v", err)
		}
		if _, err := parseRootTerms(value); err != nil && !errors.Is(err, ErrCertificate) {
			t.Fatalf("error of no class: %v", err)
		}
	})
}

func TestOverlayAddresses(t *testing.T) {
	mesh := MeshIDOf(publicKey(testKey("root")))
	prefix := mesh.Prefix6()
	if prefix.Bits() != 48 || prefix.Addr().As16()[0] != 0xfd || prefix != prefix.Masked() {
		t.Errorf("IPv6 network: %s", prefix)
	}
	a, b := NodeIDOf(publicKey(testKey("a"))), NodeIDOf(publicKey(testKey("b")))
	if x, y := Addr6(mesh, a), Addr6(mesh, b); x == y || !prefix.Contains(x) || !prefix.Contains(y) {
		t.Errorf("IPv6 addresses: %s, %s", x, y)
	}
	free := Prefix4(mesh, nil)
	if free.Bits() != 16 || !ranges.Carrier.Contains(free.Addr()) || free != free.Masked() {
		t.Errorf("IPv4 network: %s", free)
	}
	var avoid []netip.Prefix
	for range 64 {
		next := Prefix4(mesh, avoid)
		if !next.IsValid() || overlaps(next, avoid) {
			t.Fatalf("IPv4 network %d: %s", len(avoid), next)
		}
		avoid = append(avoid, next)
	}
	if next := Prefix4(mesh, avoid); next.IsValid() {
		t.Errorf("IPv4 network although all are taken: %s", next)
	}
	if next := Prefix4(mesh, []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), {}}); next != free {
		t.Errorf("IPv4 network with a default route in avoid: got %s, want %s", next, free)
	}
	for _, text := range []string{"100.70.0.0/16", "10.0.0.0/8", "192.168.1.0/24", "192.168.1.0/29"} {
		prefix := netip.MustParsePrefix(text)
		seen := make(map[netip.Addr]bool)
		hosts := min(1<<(32-prefix.Bits())-2, 3000)
		for probe := range hosts {
			addr := Addr4(prefix, a, probe)
			if !prefix.Contains(addr) || !prefix.Contains(addr.Prev()) || !prefix.Contains(addr.Next()) || seen[addr] {
				t.Fatalf("%s, probe %d: %s", text, probe, addr)
			}
			seen[addr] = true
		}
	}
	for _, text := range []string{"fd00::/48", "10.0.0.0/31", "10.0.0.0/32"} {
		if addr := Addr4(netip.MustParsePrefix(text), a, 0); addr.IsValid() {
			t.Errorf("%s: %s", text, addr)
		}
	}
}
