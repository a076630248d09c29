package record

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"warren/mesh/identity"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

type testMesh struct {
	mesh   identity.MeshID
	root   identity.Authority
	invite identity.Authority
	key    ed25519.PrivateKey
	node   Node
}

func newMesh(t testing.TB) testMesh {
	t.Helper()
	rootKey := testKey("root")
	root, err := identity.NewRoot(rootKey, identity.RootTerms{Name: "home"}, start)
	if err != nil {
		t.Fatal(err)
	}
	m := testMesh{mesh: identity.MeshIDOf(rootKey.Public().(ed25519.PublicKey)), key: testKey("node")}
	m.root = identity.Authority{Cert: root, Key: rootKey}
	seed, invite, err := identity.NewInvite(m.root, identity.InviteTerms{Uses: 1, Expires: start.Add(time.Hour)}, start)
	if err != nil {
		t.Fatal(err)
	}
	m.invite = identity.Authority{Cert: invite, Key: ed25519.NewKeyFromSeed(seed[:])}
	cert, err := identity.NewNode(m.invite, m.key.Public().(ed25519.PublicKey), identity.NodeTerms{NotBefore: start})
	if err != nil {
		t.Fatal(err)
	}
	proof, err := identity.ProveKey(m.mesh, identity.NodeIDOfCert(cert), [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	m.node = Node{
		WireGuardProof: proof,
		ID:             identity.NodeIDOfCert(cert), Seq: 7, Certificate: cert.Raw, Admission: SignAdmission(m.mesh, cert.Raw, start, testKey("member")),
		Name: "laptop", WireGuardKey: [32]byte{1}, SealingKey: [32]byte{2}, Addr4: netip.MustParseAddr("100.70.3.4"),
		Anchors: []identity.NodeID{{1}, {2}}, Version: "v0.1.0", Instance: [8]byte{1, 2, 3}, Epoch: 4,
		Started: start.Unix(), Updated: start.Unix(),
	}
	return m
}

func sign(t testing.TB, m testMesh, n Node) Signed {
	t.Helper()
	s, err := SignNode(m.mesh, n, m.key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNodeRoundTrip(t *testing.T) {
	m := newMesh(t)
	full := m.node
	full.Routes = []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24"), netip.MustParsePrefix("fd00:1::/64")}
	full.Endpoints = []netip.AddrPort{netip.MustParseAddrPort("203.0.113.9:9277"), netip.MustParseAddrPort("[2001:db8::9]:9277")}
	full.Streams = []netip.AddrPort{netip.MustParseAddrPort("203.0.113.9:443"), netip.MustParseAddrPort("[2001:db8::9]:9277")}
	full.Left, full.LANSecret = true, [16]byte{5, 6}
	founder := m.node
	founder.Admission = Admission{}
	for _, want := range []Node{m.node, full, founder} {
		s := sign(t, m, want)
		encoded, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := Unmarshal(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if err := decoded.Verify(m.mesh, m.key.Public().(ed25519.PublicKey)); err != nil {
			t.Error(err)
		}
		if err := decoded.Verify(identity.MeshID{1}, m.key.Public().(ed25519.PublicKey)); !errors.Is(err, ErrSignature) {
			t.Errorf("in another mesh: got %v", err)
		}
		got, err := decoded.Node()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

// The size of a record times the members is what a new member fetches.
func TestNodeSize(t *testing.T) {
	m := newMesh(t)
	encoded, err := sign(t, m, m.node).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("node record: %d bytes, certificate %d of them", len(encoded), len(m.node.Certificate))
	if len(encoded) > 800 {
		t.Errorf("node record: got %d bytes, want at most 800", len(encoded))
	}
	if len(m.invite.Cert.Raw) > 520 {
		t.Errorf("invite: got %d bytes, want at most 520", len(m.invite.Cert.Raw))
	}
}

func TestNodeBounds(t *testing.T) {
	m := newMesh(t)
	tests := []struct {
		name string
		edit func(*Node)
	}{
		{"name with capitals", func(n *Node) { n.Name = "Laptop" }},
		{"name with a dot", func(n *Node) { n.Name = "a.b" }},
		{"long name", func(n *Node) { n.Name = strings.Repeat("a", 64) }},
		{"name with control characters", func(n *Node) { n.Name = "a\x1b[2J" }},
		{"version with control characters", func(n *Node) { n.Version = "\x1b[2J" }},
		{"long version", func(n *Node) { n.Version = strings.Repeat("v", 33) }},
		{"sequence", func(n *Node) { n.Seq = 1 << 32 }},
		{"no WireGuard key", func(n *Node) { n.WireGuardKey = [32]byte{} }},
		{"no proof of the WireGuard key", func(n *Node) { n.WireGuardProof = [64]byte{} }},
		{"IPv6 as IPv4 address", func(n *Node) { n.Addr4 = netip.MustParseAddr("fd00::1") }},
		{"unmasked route", func(n *Node) { n.Routes = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")} }},
		{"mapped route", func(n *Node) { n.Routes = []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")} }},
		{"many routes", func(n *Node) {
			n.Routes = make([]netip.Prefix, 0)
			n.Routes = repeat(netip.MustParsePrefix("10.0.0.0/8"), MaxRoutes+1)
		}},
		{"endpoint without port", func(n *Node) { n.Endpoints = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:0")} }},
		{"multicast endpoint", func(n *Node) { n.Endpoints = []netip.AddrPort{netip.MustParseAddrPort("224.0.0.1:9277")} }},
		{"stream without port", func(n *Node) { n.Streams = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:0")} }},
		{"many streams", func(n *Node) { n.Streams = repeat(netip.MustParseAddrPort("192.0.2.1:1"), MaxEndpoints+1) }},
		{"many endpoints", func(n *Node) { n.Endpoints = repeat(netip.MustParseAddrPort("192.0.2.1:1"), MaxEndpoints+1) }},
		{"many anchors", func(n *Node) { n.Anchors = repeat(identity.NodeID{1}, MaxAnchors+1) }},
		{"short admission", func(n *Node) { n.Admission.Signature = []byte{1} }},
		{"certificate of an invite", func(n *Node) { n.Certificate = m.invite.Cert.Raw }},
		{"no certificate", func(n *Node) { n.Certificate = nil }},
		{"admission in the far future", func(n *Node) { n.Admission.Time = 1 << 33 }},
		{"admission before 1970", func(n *Node) { n.Admission.Time = -1 }},
	}
	for _, test := range tests {
		n := m.node
		test.edit(&n)
		if _, err := SignNode(m.mesh, n, m.key); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", test.name, err)
		}
	}
	if _, err := SignNode(m.mesh, m.node, testKey("other")); err == nil {
		t.Error("signed with another key than the certificate's")
	}
}

func TestLastSequence(t *testing.T) {
	m := newMesh(t)
	m.node.Seq = 1<<32 - 1
	sign(t, m, m.node)
	m.node.Seq++
	if _, err := SignNode(m.mesh, m.node, m.key); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "revok") {
		t.Errorf("got %v, want an error that names the cure", err)
	}
}

func repeat[T any](value T, n int) []T {
	list := make([]T, n)
	for i := range list {
		list[i] = value
	}
	return list
}

func TestUnknownFieldsAreKept(t *testing.T) {
	m := newMesh(t)
	var body map[int]any
	s := sign(t, m, m.node)
	if err := cbor.Unmarshal(s.Body, &body); err != nil {
		t.Fatal(err)
	}
	body[99] = "from the future"
	raw, err := encoding.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	future := signBody(m.mesh, KindNode, raw, m.key)
	encoded, err := future.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Unmarshal(encoded)
	if err != nil || !bytes.Equal(back.Body, raw) || back.Verify(m.mesh, m.key.Public().(ed25519.PublicKey)) != nil {
		t.Fatalf("got %v, %v", back, err)
	}
	if n, err := back.Node(); err != nil || n.Name != "laptop" {
		t.Errorf("got %+v, %v", n, err)
	}
}

func TestUnmarshalIsStrict(t *testing.T) {
	m := newMesh(t)
	good, err := sign(t, m, m.node).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	twice := append([]byte{0xa4, 0x01, 0x02}, good[1:]...) // key 1 twice
	tests := map[string][]byte{
		"empty": nil, "not CBOR": []byte("hello"), "cut": good[:len(good)-1], "more": append(bytes.Clone(good), 0),
		"key twice": twice, "indefinite": append(append([]byte{0xbf}, good[1:]...), 0xff), "tag": append([]byte{0xc1}, good...),
		"too large":              make([]byte, MaxRevocation+1),
		"node that is too large": mustEncode(t, signedWire{Kind: KindNode, Body: make([]byte, MaxSize), Signature: make([]byte, 64)}),
		"grant without signer":   mustMarshal(t, Signed{Kind: KindGrant, Body: []byte{1}, Signature: make([]byte, 64)}),
		"no body":                {0xa1, 0x01, 0x02}, "array": {0x80},
		"certificate with a signature": mustMarshal(t, Signed{Kind: KindCertificate, Body: []byte{1}, Signature: make([]byte, 64)}),
		"node without signature":       mustMarshal(t, Signed{Kind: KindNode, Body: []byte{1}}),
		"node with a signer":           mustMarshal(t, Signed{Kind: KindNode, Body: []byte{1}, Signature: make([]byte, 64), Signer: identity.KeyID{1}}),
		"revocation without signer":    mustMarshal(t, Signed{Kind: KindRevocation, Body: []byte{1}, Signature: make([]byte, 64)}),
	}
	for name, encoded := range tests {
		if _, err := Unmarshal(encoded); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func mustEncode(t *testing.T, w signedWire) []byte {
	t.Helper()
	encoded, err := encoding.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func mustMarshal(t *testing.T, s Signed) []byte {
	t.Helper()
	encoded, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func TestVersions(t *testing.T) {
	m := newMesh(t)
	version := func(s Signed) Version {
		t.Helper()
		v, err := s.Version()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	edited := func(edit func(*Node)) Signed { n := m.node; edit(&n); return sign(t, m, n) }
	old := sign(t, m, m.node)
	if version(old) != version(sign(t, m, m.node)) {
		t.Error("the same content has two versions")
	}
	if !version(edited(func(n *Node) { n.Seq++ })).Newer(version(old)) {
		t.Error("a greater sequence is not newer")
	}
	changed := version(edited(func(n *Node) { n.Name = "other" }))
	if changed == version(old) || changed.Newer(version(old)) == version(old).Newer(changed) {
		t.Error("two contents of one sequence are not ordered")
	}
	earlier := edited(func(n *Node) {
		n.Seq = 1
		n.Admission = SignAdmission(m.mesh, n.Certificate, start.Add(-time.Second), testKey("member"))
	})
	if !version(earlier).Newer(version(old)) {
		t.Error("an earlier admission does not come before the sequence")
	}
	revoke := func(at int64, scope Scope, by string, keep ...Prefix) Signed {
		s, err := SignRevocation(m.mesh, Revocation{Target: identity.KeyID{1}, Time: at, Reason: "lost", Scope: scope, Keep: NewPrefixes(keep...)}, testKey(by))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if !version(revoke(6, ScopeWhole, "a")).Newer(version(revoke(5, ScopeWhole, "a", Prefix{1}))) {
		t.Error("the later revocation is not newer")
	}
	grant := func(g uint64, by string, name string) Signed {
		s, err := SignGrant(m.mesh, Grant{Node: m.node.ID, Serial: 1, Version: g, Name: name}, testKey(by))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if !version(grant(2, "a", "x")).Newer(version(grant(1, "a", "y"))) || version(grant(1, "a", "x")) == version(grant(1, "a", "y")) {
		t.Error("the later grant is not newer, or two of one version are the same")
	}
	keys := make(map[Key]bool)
	for _, s := range []Signed{
		old, revoke(5, ScopeWhole, "a"), revoke(6, ScopeWhole, "a"), revoke(5, ScopeWhole, "b"), revoke(5, ScopePower, "a"), grant(1, "a", "x"),
		NewCertificate(m.invite.Cert),
	} {
		key, err := s.Key()
		if err != nil {
			t.Fatal(err)
		}
		keys[key] = true
	}
	if len(keys) != 6 {
		t.Errorf("got %d keys, want 6", len(keys))
	}
}

func TestAdmission(t *testing.T) {
	m := newMesh(t)
	member := testKey("member").Public().(ed25519.PublicKey)
	if err := m.node.Admission.Verify(m.mesh, m.node.Certificate, member); err != nil {
		t.Error(err)
	}
	later := m.node.Admission
	later.Time++
	for name, err := range map[string]error{
		"other time":        later.Verify(m.mesh, m.node.Certificate, member),
		"other mesh":        m.node.Admission.Verify(identity.MeshID{1}, m.node.Certificate, member),
		"other certificate": m.node.Admission.Verify(m.mesh, m.invite.Cert.Raw, member),
		"other member":      m.node.Admission.Verify(m.mesh, m.node.Certificate, testKey("x").Public().(ed25519.PublicKey)),
		"no key":            m.node.Admission.Verify(m.mesh, m.node.Certificate, nil),
	} {
		if !errors.Is(err, ErrSignature) {
			t.Errorf("%s: got %v, want ErrSignature", name, err)
		}
	}
}

func TestRevocationBounds(t *testing.T) {
	m := newMesh(t)
	for _, bad := range []Revocation{
		{Time: -1}, {Time: 1 << 32}, {Reason: strings.Repeat("x", 201)}, {Reason: "a\nb"}, {Reason: "a\u0085b"}, {Reason: "a\u202eb"}, {Reason: "a\u00a0b"},
		{Name: strings.Repeat("x", 64)}, {Name: "a\x1b"}, {Name: "a\u2066"}, {Scope: 2}, {Keep: Prefixes{{2}, {1}}}, {KeepRevoked: Prefixes{{1}, {1}}},
		{Keep: manyPrefixes(3300)},
	} {
		if _, err := SignRevocation(m.mesh, bad, m.key); !errors.Is(err, ErrMalformed) {
			t.Errorf("%+v: got %v, want ErrMalformed", bad, err)
		}
	}
	signer := identity.KeyIDOf(m.key.Public().(ed25519.PublicKey))
	for _, want := range []Revocation{
		{Target: identity.KeyID{3}, Signer: signer, Time: 9, Reason: "stolen, oder verloren – 盗難", Name: "laptop"},
		{Target: identity.KeyID{3}, Signer: signer, Scope: ScopePower, Keep: NewPrefixes(Prefix{9}, Prefix{3}, Prefix{9}), KeepRevoked: Prefixes{{7}}},
		{Target: identity.KeyID{3}, Signer: signer, Keep: manyPrefixes(3200)},
	} {
		s, err := SignRevocation(m.mesh, want, m.key)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Unmarshal(mustMarshal(t, s))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := back.Revocation(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

func manyPrefixes(n int) Prefixes {
	var list []Prefix
	for i := range n {
		list = append(list, Prefix{byte(i), byte(i >> 8), 1})
	}
	return NewPrefixes(list...)
}

// A set of prefixes has one form.
func TestPrefixes(t *testing.T) {
	a, b := PrefixOf(identity.NodeID{1, 9: 2, 10: 3}), Prefix{1, 9: 1}
	set := NewPrefixes(a, b, a)
	if len(set) != 2 || set[0] != b || set[1] != a || !set.Has(a) || !set.Has(b) || set.Has(Prefix{1}) {
		t.Errorf("got %v, want both once, in order", set)
	}
	if NewPrefixes() != nil || Prefixes(nil).Has(a) {
		t.Error("the empty set is not empty")
	}
	for name, joined := range map[string][]byte{
		"empty": {}, "half a prefix": make([]byte, 5), "one and a half": make([]byte, 15), "twice": make([]byte, 20),
		"out of order": append([]byte{9: 2}, make([]byte, 10)...),
	} {
		if got, err := splitPrefixes(joined); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, %v, want ErrMalformed", name, got, err)
		}
	}
	if got, err := splitPrefixes(set.join()); err != nil || !reflect.DeepEqual(got, set) {
		t.Errorf("got %v, %v, want %v", got, err, set)
	}
}

func TestGrant(t *testing.T) {
	m := newMesh(t)
	good := Grant{Node: m.node.ID, Signer: identity.KeyIDOf(m.key.Public().(ed25519.PublicKey)), Serial: 3, Version: 4}
	full := good
	full.Serial, full.Name, full.Wanted, full.Addr4 = MaxSerial, "nas-2", "nas", netip.MustParseAddr("100.70.0.9")
	full.Routes = repeat(netip.MustParsePrefix("fd00:1::/64"), MaxRoutes)
	for _, want := range []Grant{good, full} {
		s, err := SignGrant(m.mesh, want, m.key)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Unmarshal(mustMarshal(t, s))
		if err != nil || back.Verify(m.mesh, m.key.Public().(ed25519.PublicKey)) != nil {
			t.Fatalf("got %+v, %v", back, err)
		}
		if got, err := back.Grant(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	for name, edit := range map[string]func(*Grant){
		"no serial":      func(g *Grant) { g.Serial = 0 },
		"serial":         func(g *Grant) { g.Serial = MaxSerial + 1 },
		"name":           func(g *Grant) { g.Name = "Nas" },
		"wanted":         func(g *Grant) { g.Wanted = "a.b" },
		"IPv6":           func(g *Grant) { g.Addr4 = netip.MustParseAddr("fd00::1") },
		"routes":         func(g *Grant) { g.Routes = repeat(netip.MustParsePrefix("10.0.0.0/8"), MaxRoutes+1) },
		"unmasked route": func(g *Grant) { g.Routes = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")} },
	} {
		bad := good
		edit(&bad)
		if _, err := SignGrant(m.mesh, bad, m.key); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

// A record of kind certificate is an invite's or a promotion, and nothing else.
func TestCertificateRecords(t *testing.T) {
	m := newMesh(t)
	promotion, err := identity.NewPromotion(m.root, m.key.Public().(ed25519.PublicKey), start)
	if err != nil {
		t.Fatal(err)
	}
	for _, cert := range []*x509.Certificate{m.invite.Cert, promotion} {
		if d, err := NewCertificate(cert).Decode(); err != nil || !d.Certificate.Equal(cert) {
			t.Errorf("%s: got %v", cert.Subject.CommonName, err)
		}
	}
	node, err := identity.ParseCert(m.node.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	for _, cert := range []*x509.Certificate{m.root.Cert, node} {
		if _, err := NewCertificate(cert).Decode(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", cert.Subject.CommonName, err)
		}
	}
	n := m.node
	n.Certificate = promotion.Raw
	if _, err := SignNode(m.mesh, n, m.key); !errors.Is(err, ErrMalformed) {
		t.Errorf("node with a promotion for its certificate: got %v, want ErrMalformed", err)
	}
}

func TestCleanName(t *testing.T) {
	for host, want := range map[string]string{
		"Laptop": "laptop", "nas.home.lan": "nas", "Anna's MacBook": "anna-s-macbook", "--x--": "x", "": "", "...": "", "日本": "",
		strings.Repeat("a", 62) + "-b": strings.Repeat("a", 62),
	} {
		if got := CleanName(host); got != want || CleanName(got) != got {
			t.Errorf("%q: got %q, want %q", host, got, want)
		}
	}
}

func TestCleanVersion(t *testing.T) {
	for version, want := range map[string]string{
		"1.2.3": "1.2.3", "": "", "a b\tc\x7fd\u00e9": "abcd",
		"v0.0.0-20261122151828-d91079f278f3+dirty": "v0.0.0-20261122151828-d91079f278",
	} {
		if got := CleanVersion(version); got != want {
			t.Errorf("%q: got %q, want %q", version, got, want)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	m := newMesh(f)
	node, err := SignNode(m.mesh, m.node, m.key)
	if err != nil {
		f.Fatal(err)
	}
	revocation, err := SignRevocation(m.mesh, Revocation{Target: identity.KeyID{1}, Time: 5}, m.key)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []Signed{node, revocation, NewCertificate(m.invite.Cert)} {
		encoded, err := s.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encoded)
	}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		s, err := Unmarshal(encoded)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error of no class: %v", err)
			}
			return
		}
		again, err := s.Marshal()
		if err != nil {
			return // longer in the canonical form than allowed
		}
		back, err := Unmarshal(again)
		if err != nil || !reflect.DeepEqual(back, s) {
			t.Fatalf("got %v, %v, want %v", back, err, s)
		}
		_, _ = s.Decode()
	})
}

// FuzzNodeBody holds that what can be decoded can be encoded to the same meaning.
func FuzzNodeBody(f *testing.F) {
	m := newMesh(f)
	full := m.node
	full.Routes = []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24")}
	full.Endpoints = []netip.AddrPort{netip.MustParseAddrPort("203.0.113.9:9277")}
	full.LANSecret = [16]byte{5, 6}
	for _, n := range []Node{m.node, full} {
		s, err := SignNode(m.mesh, n, m.key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s.Body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		n, err := Signed{Kind: KindNode, Body: body}.Node()
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error of no class: %v", err)
			}
			return
		}
		again, err := encoding.Marshal(n.wire())
		if err != nil {
			t.Fatal(err)
		}
		back, err := Signed{Kind: KindNode, Body: again}.Node()
		if err != nil || !reflect.DeepEqual(back, n) {
			t.Fatalf("got %+v, %v, want %+v", back, err, n)
		}
	})
}

func FuzzRevocationBody(f *testing.F) {
	m := newMesh(f)
	s, err := SignRevocation(m.mesh, Revocation{Target: identity.KeyID{1}, Time: 5, Reason: "x", Scope: ScopePower, Keep: Prefixes{{1}, {2}}}, m.key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Body)
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := (Signed{Kind: KindRevocation, Body: body, Signer: identity.KeyID{1}}).Revocation(); err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("error of no class: %v", err)
		}
	})
}

func FuzzGrantBody(f *testing.F) {
	m := newMesh(f)
	s, err := SignGrant(m.mesh, Grant{Node: m.node.ID, Serial: 1, Version: 2, Name: "nas", Addr4: netip.MustParseAddr("100.70.0.9")}, m.key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Body)
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := (Signed{Kind: KindGrant, Body: body, Signer: identity.KeyID{1}}).Grant(); err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("error of no class: %v", err)
		}
	})
}

// The examples of PROTOCOL.md, section 5.
func TestProtocolExamples(t *testing.T) {
	root, node := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)), ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
	mesh, id := identity.MeshIDOf(root.Public().(ed25519.PublicKey)), identity.KeyIDOf(node.Public().(ed25519.PublicKey))
	const at = 1767225600
	whole, err := SignRevocation(mesh, Revocation{Target: id, Time: at, Reason: "lost"}, root)
	if err != nil {
		t.Fatal(err)
	}
	power, err := SignRevocation(mesh, Revocation{Target: id, Time: at, Scope: ScopePower, Keep: Prefixes{{1}, {2}}}, root)
	if err != nil {
		t.Fatal(err)
	}
	grant, err := SignGrant(mesh, Grant{
		Node: identity.NodeID(id), Serial: 7, Version: 2, Name: "nas-2", Wanted: "nas", Addr4: netip.MustParseAddr("100.125.205.69"),
		Routes: []netip.Prefix{netip.MustParsePrefix("100.125.7.0/24")},
	}, root)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		rec                  Signed
		before, after        string // in the body, what is beside the target
		key, version, signed string
	}{
		{
			whole, "a3015820", "021a6955b90003646c6f7374", "2fe943be19e9cad0c95b8f624de15aa434d51746043bfc7e6b22c679c7da8a4f",
			"000000006955b900e916b76b95769b16",
			"7c6ab0e4521a7eb015c60782dc98990df0b64f52efcf09bbbcd36c19fa3a923d1bb77b6a5b2d365691b99a15ed85e3758026d51fc86667330306e217063dc304",
		},
		{
			power, "a4015820", "021a6955b9000601075401000000000000000000" + "02000000000000000000",
			"19a16102e85804f3b0003d3f06a7e6291d14705e094cc90b63732fda29850e90", "000000006955b900c840929b7989f7a6", "",
		},
		{
			grant, "a7015820", "0207030204656e61732d3205636e61730644647dcd45078145647d070018",
			"645c666515f7333bd6df58589fb8b4b8ffe04b52169f4d198cd8a82986ebde61", "0000000000000002b68c580c986c07a7", "",
		},
	} {
		d, err := test.rec.Decode()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := fmt.Sprintf("%x", test.rec.Body), test.before+fmt.Sprintf("%x", id[:])+test.after; got != want {
			t.Errorf("%s: got body %s, want %s", test.rec.Kind, got, want)
		}
		if got := fmt.Sprintf("%x", d.Key); got != test.key {
			t.Errorf("%s: got key %s, want %s", test.rec.Kind, got, test.key)
		}
		if got := fmt.Sprintf("%016x%016x", d.Version.High, d.Version.Low); got != test.version {
			t.Errorf("%s: got version %s, want %s", test.rec.Kind, got, test.version)
		}
		if got := fmt.Sprintf("%x", test.rec.Signature); test.signed != "" && got != test.signed {
			t.Errorf("%s: got signature %s, want %s", test.rec.Kind, got, test.signed)
		}
	}
}
