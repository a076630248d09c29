package mesh

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base32"
	"encoding/binary"
	"math/big"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/roster"
)

// certifyAgain has an admin certify the key of an invite with other terms, which package identity has no function for.
func certifyAgain(t *testing.T, by *peer, seed [32]byte, uses int) *x509.Certificate {
	t.Helper()
	public := ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)
	id, issuer := identity.KeyIDOf(public), identity.KeyIDOfCert(by.chain[0])
	terms, err := asn1.Marshal(struct {
		Uses     int
		Admin    bool
		NodeLife int64
		Tags     []string
	}{Uses: uses})
	if err != nil {
		t.Fatal(err)
	}
	start, end := time.Now().Truncate(time.Second), time.Now().Truncate(time.Second).Add(time.Hour)
	covered := append(id[:], issuer[:]...)
	covered = binary.BigEndian.AppendUint64(covered, uint64(start.Unix()))
	covered = binary.BigEndian.AppendUint64(covered, uint64(end.Unix()))
	covered = append(covered, by.chain[0].RawSubject...)
	sum := sha256.Sum256(append(covered, terms...))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: start, NotAfter: end,
		Subject:      pkix.Name{CommonName: "warren invite " + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:20]))},
		SubjectKeyId: id[:], KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 9277, 1}, Value: terms}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.chain[0], public, by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := identity.ParseCert(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// A node rests on one certificate of its invite's key, however many there are.
func TestInviteKeyCertifiedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Millisecond)
		a := w.founder("a")
		a.start()
		seed, invite := a.invite(2)
		b, err := w.join("b", a, seed)
		if err != nil {
			t.Fatal(err)
		}
		b.start()
		w.net.LinkAll(a.id, b.id)
		for uses := 3; uses < 12; uses++ {
			if err := a.AddCertificate(certifyAgain(t, a, seed, uses)); err != nil {
				t.Fatal(err)
			}
		}
		agree(t, 30*time.Second, a, b)
		if got := len(b.View().Invites); got != 10 {
			t.Errorf("got %d invites at b, want 10", got)
		}
		alone := roster.New(w.root.Cert)
		for _, e := range b.syncer.proof.basis().list {
			alone.AddAll(b.book.get([]record.Key{e.Key}), time.Now())
		}
		if err := alone.Standing(b.id); err != nil {
			t.Errorf("got %v from what b shows of its membership, want it to be proof", err)
		}
		c, err := w.join("c", b, seed)
		if err != nil {
			t.Fatalf("join by one of the certificates: %v", err)
		}
		c.start()
		w.net.LinkAll(a.id, b.id, c.id)
		agree(t, 30*time.Second, a, b, c)
		for _, p := range []*peer{a, b, c} {
			if got := len(p.View().Members); got != 3 {
				t.Errorf("got %d members at %s, want 3", got, p.name)
			}
		}
		for _, status := range b.View().Invites {
			if status.ID != invite {
				t.Errorf("got the invite %s, want all of %s", status.ID, invite)
			}
		}
	})
}
