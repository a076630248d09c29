package roster

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// joiner makes a certificate as a joiner does, without any record.
func (m *testMesh) joiner(invite *testInvite, at time.Time) *testNode {
	m.t.Helper()
	key := m.key()
	cert, err := identity.NewNode(invite.authority(), key.Public().(ed25519.PublicKey), identity.NodeTerms{NotBefore: at})
	m.check(err)
	return &testNode{name: "joiner", key: key, id: identity.NodeIDOfCert(cert), cert: cert}
}

func TestAdmit(t *testing.T) {
	m := newMesh(t)
	one := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 1}, at(0))
	r := m.roster()
	x, y := m.joiner(one, at(10)), m.joiner(one, at(10))
	admission, err := r.Admit(x.cert, m.founder.key, at(10))
	m.check(err)
	again, err := r.Admit(x.cert, m.founder.key, at(20))
	if err != nil || again.Time != admission.Time {
		t.Errorf("asked once more: %v, %v", again, err)
	}
	if _, err := r.Admit(y.cert, m.founder.key, at(11)); ReasonOf(err) != ReasonInviteUsed || !strings.Contains(err.Error(), x.id.Short()) {
		t.Errorf("second joiner, before the first is heard of: %v", err)
	}
	x.admission = admission
	out, err := r.Add(m.word(x, 1, nil), at(12))
	if err != nil || !out.Stored || len(out.Changed) != 1 || len(r.admissions.pending) != 0 {
		t.Fatalf("record of the admitted: %+v, %v, %d pending", out, err, len(r.admissions.pending))
	}
	if again, err := r.Admit(x.cert, m.founder.key, at(30)); err != nil || again.Time != admission.Time {
		t.Errorf("asked once more as a member: %v, %v", again, err)
	}
	err = r.CheckAdmission(m.joiner(one, at(13)).cert, at(13))
	if ReasonOf(err) != ReasonInviteUsed || !strings.Contains(err.Error(), "joiner") {
		t.Errorf("third joiner: %v", err)
	}
	// An admission that came to nothing frees its use after a while.
	two := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 1}, at(0))
	_, err = r.Add(two.rec, at(0))
	m.check(err)
	_, err = r.Admit(m.joiner(two, at(10)).cert, m.founder.key, at(10))
	m.check(err)
	if _, err := r.Admit(m.joiner(two, at(80)).cert, m.founder.key, at(80)); err != nil {
		t.Errorf("an hour later: %v", err)
	}
}

func TestCheckAdmissionRefusals(t *testing.T) {
	m := newMesh(t)
	good := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 5, Expires: at(30)}, at(0))
	gone := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 5, Expires: at(30)}, at(0))
	m.revoke(identity.KeyIDOfCert(gone.cert), m.founder.key, at(1), false)
	admins := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 5, Admin: true}, at(0))
	admin := m.joinAdmin("admin", admins, m.founder, at(2))
	byAdmin := m.invite(admin.authority(), identity.InviteTerms{Uses: 5}, at(3))
	member := m.join("member", good, m.founder, at(2))
	m.revoke(identity.KeyID(admin.id), m.founder.key, at(40), false)
	r := m.roster()
	unknown := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 1}, at(0))
	revokedKey := m.joiner(good, at(10))
	_, err := r.Add(m.revoke(identity.KeyID(revokedKey.id), m.founder.key, at(5), false), at(10))
	m.check(err)
	rejoined := m.nodeWithKey("member", member.key, good.authority(), m.founder, at(10), identity.NodeTerms{})
	forged := *m.joiner(good, at(10)).cert
	forged.Signature = make([]byte, 64)
	tests := []struct {
		name string
		cert *x509.Certificate
		now  time.Time
		want Reason
	}{
		{"good", m.joiner(good, at(10)).cert, at(10), ReasonNone},
		{"unknown invite", m.joiner(unknown, at(10)).cert, at(10), ReasonUnknownIssuer},
		{"expired invite", m.joiner(good, at(29)).cert, at(31), ReasonInviteExpired},
		{"revoked invite", m.joiner(gone, at(10)).cert, at(10), ReasonInviteRevoked},
		{"invite of a revoked admin", m.joiner(byAdmin, at(10)).cert, at(10), ReasonIssuerRevoked},
		{"revoked node", revokedKey.cert, at(10), ReasonRevoked},
		{"clock behind", m.joiner(good, at(3)).cert, at(10), ReasonClock},
		{"clock ahead", m.joiner(good, at(18)).cert, at(10), ReasonClock},
		{"another certificate of a member", rejoined.cert, at(10), ReasonAlreadyAdmitted},
		{"an invite's certificate", good.cert, at(10), ReasonMalformed},
		{"forged", &forged, at(10), ReasonNotOfMesh},
	}
	for _, test := range tests {
		err := r.CheckAdmission(test.cert, test.now)
		if got := ReasonOf(err); got != test.want || (err == nil) != (test.want == ReasonNone) {
			t.Errorf("%s: got %v (%v), want %v", test.name, got, err, test.want)
		}
	}
	if _, err := r.Admit(m.joiner(good, at(10)).cert, m.key(), at(10)); ReasonOf(err) != ReasonAdmission {
		t.Errorf("admitted by a stranger: %v", err)
	}
	if _, err := r.Admit(m.joiner(good, at(10)).cert, admin.key, at(10)); ReasonOf(err) != ReasonAdmission {
		t.Errorf("admitted by a revoked member: %v", err)
	}
}

// Clocks that differ by less than Skew never lead to an admission that the others refuse.
func TestAdmissionWithSkewedClocks(t *testing.T) {
	m := newMesh(t)
	skews := []time.Duration{-4 * time.Minute, 0, 4 * time.Minute}
	for _, founderSkew := range skews {
		for _, memberSkew := range skews {
			for _, joinerSkew := range skews {
				m.records = m.records[:1]
				admins := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 2, Admin: true}, start.Add(founderSkew))
				r := m.roster()
				now := start.Add(30 * time.Second)
				join := func(name string, invite *testInvite, joined, by time.Duration, signer *testNode) *testNode {
					t.Helper()
					n := m.joiner(invite, now.Add(joined))
					n.name = name
					admission, err := r.Admit(n.cert, signer.key, now.Add(by))
					if err != nil {
						if ReasonOf(err) != ReasonClock {
							t.Fatalf("skews %s %s %s: %v", founderSkew, memberSkew, joinerSkew, err)
						}
						return nil
					}
					n.admission = admission
					if _, err := r.Add(m.word(n, 1, nil), now); err != nil {
						t.Fatalf("skews %s %s %s: admitted, then refused: %v", founderSkew, memberSkew, joinerSkew, err)
					}
					m.records = append(m.records, m.word(n, 1, nil))
					return n
				}
				now = now.Add(5 * time.Second)
				member := join("member", admins, memberSkew, founderSkew, m.founder)
				if member == nil {
					continue
				}
				now = now.Add(5 * time.Second)
				join("joiner", admins, joinerSkew, memberSkew, member)
				want := names(r)
				m.wantMembers(m.roster(), want...)
			}
		}
	}
}

func TestVerifyChain(t *testing.T) {
	m := newMesh(t)
	invite := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 2}, at(0))
	a := m.join("a", invite, m.founder, at(10))
	r := m.roster()
	unknown := m.joiner(invite, at(12))
	chain := func(leaf *x509.Certificate) []*x509.Certificate {
		return []*x509.Certificate{leaf, invite.cert, m.founder.cert, m.root.Cert}
	}
	raw := bytes.Clone(a.cert.Raw)
	raw[len(raw)-1] ^= 1
	forged, err := identity.ParseCert(raw)
	m.check(err)
	tests := []struct {
		name  string
		chain []*x509.Certificate
		want  Reason
	}{
		{"member", chain(a.cert), ReasonNone},
		{"without root", chain(a.cert)[:3], ReasonNone},
		{"founder", []*x509.Certificate{m.founder.cert, m.root.Cert}, ReasonNone},
		{"node without a record here", chain(unknown.cert), ReasonNone},
		{"empty", nil, ReasonMalformed},
		{"only root", []*x509.Certificate{m.root.Cert}, ReasonMalformed},
		{"link missing", []*x509.Certificate{a.cert, m.founder.cert, m.root.Cert}, ReasonNotOfMesh},
		{"invite as leaf", chain(a.cert)[1:], ReasonNotAllowed},
		{"forged leaf", chain(forged), ReasonNotOfMesh},
		{"long", append(make([]*x509.Certificate, 20), m.root.Cert), ReasonMalformed},
	}
	for _, test := range tests {
		for range 2 { // the second time out of memory
			id, err := verifyChain(r, test.chain, at(12))
			if got := ReasonOf(err); got != test.want || (err == nil) != (test.want == ReasonNone) || err != nil && !id.IsZero() {
				t.Errorf("%s: got %v (%v), want %v", test.name, got, err, test.want)
			}
		}
	}
	_, err = r.Add(m.revocation(record.Revocation{Target: identity.KeyIDOfCert(invite.cert), Keep: keep(a, unknown)}, m.founder.key), at(20))
	m.check(err)
	for name, test := range map[string]struct {
		chain []*x509.Certificate
		want  Reason
	}{
		"member that stays":                        {chain(a.cert), ReasonNone},
		"node without a record that stays":         {chain(unknown.cert), ReasonNone},
		"node without a record that is not listed": {chain(m.joiner(invite, at(12)).cert), ReasonIssuerRevoked},
	} {
		if _, err := verifyChain(r, test.chain, at(21)); ReasonOf(err) != test.want {
			t.Errorf("invite revoked, %s: got %v, want %v", name, err, test.want)
		}
	}
}

// The chain of a node of which there is no record is judged by what is known of its certificates, and by itself where they are not known:
// promotions, admins that stay, invites that end.
func TestChainsOfStrangers(t *testing.T) {
	m := newMesh(t)
	admins := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 9, Admin: true}, at(0))
	x := m.joinAdmin("x", admins, m.founder, at(1))
	y := m.join("y", admins, m.founder, at(2))
	promoted := m.promote(x.authority(), y, at(20))
	invite := m.invite(promoted, identity.InviteTerms{Uses: 9}, at(21))
	n := m.joiner(invite, at(22))
	chain := []*x509.Certificate{n.cert, invite.cert, promoted.Cert, x.cert, admins.cert, m.founder.cert}
	invited := identity.KeyIDOfCert(invite.cert)
	for name, test := range map[string]struct {
		r    record.Revocation
		want Reason
	}{
		"another key":                    {record.Revocation{Target: identity.KeyID{1}}, ReasonNone},
		"node":                           {record.Revocation{Target: keyOf(n)}, ReasonRevoked},
		"node, which is listed":          {record.Revocation{Target: keyOf(n), Keep: keep(n)}, ReasonRevoked},
		"invite":                         {record.Revocation{Target: invited}, ReasonIssuerRevoked},
		"invite, node stays":             {record.Revocation{Target: invited, Keep: keep(n)}, ReasonNone},
		"promoted":                       {record.Revocation{Target: keyOf(y)}, ReasonIssuerRevoked},
		"promoted, node stays":           {record.Revocation{Target: keyOf(y), Keep: keep(n)}, ReasonNone},
		"promoted, power only":           {record.Revocation{Target: keyOf(y), Scope: record.ScopePower}, ReasonIssuerRevoked},
		"who promoted":                   {record.Revocation{Target: keyOf(x)}, ReasonIssuerRevoked},
		"who promoted, promoted stays":   {record.Revocation{Target: keyOf(x), Keep: keep(y)}, ReasonIssuerRevoked},
		"who promoted, node stays":       {record.Revocation{Target: keyOf(x), Keep: keep(n)}, ReasonNone},
		"who promoted, power only":       {record.Revocation{Target: keyOf(x), Scope: record.ScopePower}, ReasonIssuerRevoked},
		"invite of who promoted":         {record.Revocation{Target: identity.KeyIDOfCert(admins.cert)}, ReasonIssuerRevoked},
		"invite of who promoted, stays":  {record.Revocation{Target: identity.KeyIDOfCert(admins.cert), Keep: keep(x)}, ReasonIssuerRevoked},
		"invite of both, who stay":       {record.Revocation{Target: identity.KeyIDOfCert(admins.cert), Keep: keep(x, y)}, ReasonNone},
		"node, as far as it is an admin": {record.Revocation{Target: keyOf(n), Scope: record.ScopePower}, ReasonNone},
	} {
		rec, err := record.SignRevocation(m.id, test.r, m.root.Key)
		m.check(err)
		for known, records := range map[string][]record.Signed{"all known": m.records, "only the root known": nil} {
			r := New(m.root.Cert)
			r.AddAll(append(slices.Clone(records), rec), at(30))
			want := test.want
			id, err := verifyChain(r, chain, at(30))
			if name == "invite of who promoted, stays" && records == nil {
				want = ReasonNone // the chain does not say that y came by that invite too
			}
			if got := ReasonOf(err); got != want || (err == nil) != (id == n.id) {
				t.Errorf("%s, %s: got %v (%v), want %v", name, known, got, err, want)
			}
		}
	}
}

func TestDigests(t *testing.T) {
	m := newMesh(t)
	invite := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 5}, at(0))
	a := m.join("a", invite, m.founder, at(1))
	r := m.roster()
	before := r.Buckets()
	digest := r.Digest()
	count := 0
	for i := range before {
		entries := r.Bucket(i)
		count += len(entries)
		if (len(entries) == 0) != (before[i] == [8]byte{}) {
			t.Errorf("bucket %d: %d entries, digest %x", i, len(entries), before[i])
		}
		for _, entry := range entries {
			rec, ok := r.Get(entry.Key)
			if version, err := rec.Version(); !ok || err != nil || version != entry.Version || entry.Key[0] != byte(i) {
				t.Errorf("entry of bucket %d: %+v", i, entry)
			}
		}
	}
	if count != r.Len() || count != 3 {
		t.Errorf("got %d entries, set of %d, want 3", count, r.Len())
	}
	out, err := r.Add(m.word(a, 2, nil), at(2))
	m.check(err)
	after := r.Buckets()
	for i := range before {
		if changed := before[i] != after[i]; changed != (i == int(out.Key[0])) {
			t.Errorf("bucket %d: changed %v", i, changed)
		}
	}
	if r.Digest() == digest {
		t.Error("digest did not change")
	}
	n := 0
	for key, rec := range r.All() {
		if got, err := rec.Key(); err != nil || got != key {
			t.Errorf("got key %x, %v, want %x", got, err, key)
		}
		n++
	}
	if n != 3 {
		t.Errorf("All gives %d records, want 3", n)
	}
}

// FuzzAdd holds that bytes from the network neither break a roster nor get in unless they are what was signed. It tries them as
// they are, and changes one byte of a good record.
func FuzzAdd(f *testing.F) {
	m := newMesh(f)
	invite := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 2}, at(0))
	a := m.join("a", invite, m.founder, at(1))
	m.revoke(identity.KeyID(a.id), m.founder.key, at(2), true)
	for i, rec := range m.records {
		encoded, err := rec.Marshal()
		m.check(err)
		f.Add(encoded, byte(i), uint16(len(encoded)/2), byte(1))
	}
	busy := m.roster()
	f.Fuzz(func(t *testing.T, encoded []byte, which byte, place uint16, flip byte) {
		if rec, err := record.Unmarshal(encoded); err == nil {
			_, _ = busy.Add(rec, at(60))
			selfCheck(t, busy)
		}
		original := m.records[int(which)%len(m.records)]
		changed, err := original.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		changed[int(place)%len(changed)] ^= flip
		rec, err := record.Unmarshal(changed)
		if err != nil {
			return
		}
		r := New(m.root.Cert)
		for _, other := range m.records {
			if !bytes.Equal(other.Body, original.Body) {
				_, _ = r.Add(other, at(60))
			}
		}
		out, err := r.Add(rec, at(60))
		if out.Stored != (bytes.Equal(rec.Body, original.Body) && bytes.Equal(rec.Signature, original.Signature) && rec.Signer == original.Signer && rec.Kind == original.Kind) {
			t.Fatalf("record %d with byte %d changed by %#x: stored %v, %v", which, place, flip, out.Stored, err)
		}
		selfCheck(t, r)
	})
}

func BenchmarkAdd(b *testing.B) {
	m := newMesh(b)
	invite := m.invite(m.founder.authority(), identity.InviteTerms{Uses: 60000, Expires: at(100000)}, at(0))
	for range 1000 {
		m.join("n", invite, m.founder, at(1))
	}
	b.Run("one by one", func(b *testing.B) {
		for b.Loop() {
			r := New(m.root.Cert)
			for _, rec := range m.records {
				_, err := r.Add(rec, at(2))
				m.check(err)
			}
		}
	})
	b.Run("batch", func(b *testing.B) {
		for b.Loop() {
			New(m.root.Cert).AddAll(m.records, at(2))
		}
	})
	b.Run("members", func(b *testing.B) {
		r := m.roster()
		for b.Loop() {
			r.directory.members = nil
			r.Members()
		}
	})
}
