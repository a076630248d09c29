package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"math/big"
	"net/netip"
	"time"
)

const (
	// Skew is how far two clocks in a mesh may differ for an admission to succeed.
	Skew = 5 * time.Minute
	// NodeLife is the life of a node certificate unless its invite says less. It is so long that nobody is locked
	// out by surprise: removal is by revocation.
	NodeLife = 10 * 365 * 24 * time.Hour
	// MaxUses bounds the uses of one invite.
	MaxUses = 65535
)

// rootEnd is the expiry of roots: RFC 5280, section 4.1.2.5, has this value for "none".
var rootEnd = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// Authority can sign certificates: a certificate of the mesh and the private key that belongs to it.
type Authority struct {
	Cert *x509.Certificate
	Key  ed25519.PrivateKey
}

// RootTerms is what a root certificate says about its mesh.
type RootTerms struct {
	Name    string       // of the mesh, at most 63 bytes
	Prefix4 netip.Prefix // IPv4 overlay network, the zero Prefix for IPv6 only
	Domain  string       // under which its members have names, see CheckDomain; "": the one that follows from Name, see Zone
}

// InviteTerms is what an invite certificate grants.
type InviteTerms struct {
	Uses     int           // nodes that may join with it, 1 to MaxUses
	Expires  time.Time     // last moment of an admission; the certificate's NotAfter
	Admin    bool          // its nodes may be admins
	Tags     []string      // given to its nodes
	NodeLife time.Duration // longest life of its nodes' certificates, in whole seconds; zero for NodeLife
}

// NodeTerms is what a node certificate states.
type NodeTerms struct {
	Admin     bool
	NotBefore time.Time // now, by the joiner's clock
	NotAfter  time.Time // zero for the longest life that the issuer allows
}

// GenerateKey makes an Ed25519 private key from the system's randomness.
func GenerateKey() ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic("internal error: generate Ed25519 key: " + err.Error())
	}
	return key
}

// NewRoot makes the self-signed certificate that is a mesh. The key comes first because the mesh ID, and with it
// the choice of terms.Prefix4, follows from it.
func NewRoot(key ed25519.PrivateKey, terms RootTerms, now time.Time) (*x509.Certificate, error) {
	extension, err := terms.extension()
	if err != nil {
		return nil, fmt.Errorf("make root: %w", err)
	}
	id := KeyIDOf(key.Public().(ed25519.PublicKey))
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: terms.Name},
		NotBefore:             now.Add(-Skew),
		NotAfter:              rootEnd,
		SubjectKeyId:          id[:],
		AuthorityKeyId:        id[:],
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		ExtraExtensions:       []pkix.Extension{extension},
	}
	cert, err := sign(template, Authority{Cert: template, Key: key}, key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, fmt.Errorf("make root: %w", err)
	}
	return cert, nil
}

// NewInvite makes an invite: a fresh key, whose seed goes into the token, and the certificate for it, which goes
// into a record. The issuer is the root or an admin. The invite starts Skew ago, so that a joiner whose clock is
// behind can use it at once, and ends with its issuer at the latest.
func NewInvite(issuer Authority, terms InviteTerms, now time.Time) (seed [32]byte, cert *x509.Certificate, err error) {
	extension, err := terms.extension()
	if err != nil {
		return seed, nil, fmt.Errorf("make invite: %w", err)
	}
	if !terms.Expires.After(now) {
		return seed, nil, fmt.Errorf("make invite: expires %s, which is past", terms.Expires.Format(time.DateTime))
	}
	key := GenerateKey()
	id := KeyIDOf(key.Public().(ed25519.PublicKey))
	template := &x509.Certificate{
		NotBefore:             later(now.Add(-Skew), issuer.Cert.NotBefore),
		NotAfter:              terms.Expires,
		SubjectKeyId:          id[:],
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        !terms.Admin,
		ExtraExtensions:       []pkix.Extension{extension},
	}
	if template.NotAfter.After(issuer.Cert.NotAfter) {
		template.NotAfter = issuer.Cert.NotAfter
	}
	template.Subject.CommonName = inviteName(id, KeyIDOfCert(issuer.Cert), issuer.Cert.RawSubject, template.NotBefore, template.NotAfter, extension.Value)
	cert, err = sign(template, issuer, key.Public().(ed25519.PublicKey))
	if err != nil {
		return seed, nil, fmt.Errorf("make invite: %w", err)
	}
	return [32]byte(key.Seed()), cert, nil
}

// NewNode makes the certificate of the node whose public key is given. The issuer is the root (for the founder) or an
// invite, whose key the joiner has out of the token's seed. The error wraps ErrExpired when, by the joiner's clock, the
// invite has ended.
func NewNode(issuer Authority, node ed25519.PublicKey, terms NodeTerms) (*x509.Certificate, error) {
	id := NodeIDOf(node)
	start := later(terms.NotBefore, issuer.Cert.NotBefore)
	if start.After(issuer.Cert.NotAfter) {
		return nil, fmt.Errorf("make node certificate: the invite ended %s: %w", issuer.Cert.NotAfter.Format(time.DateTime), ErrExpired)
	}
	end := terms.NotAfter
	if end.IsZero() {
		end = start.Add(nodeLife(issuer.Cert))
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: nodeName(id)}, NotBefore: start, NotAfter: end}
	if terms.Admin {
		template.SubjectKeyId = id[:]
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
		template.BasicConstraintsValid = true
		template.IsCA = true
	}
	cert, err := sign(template, issuer, node)
	if err != nil {
		return nil, fmt.Errorf("make node certificate: %w", err)
	}
	return cert, nil
}

// NewPromotion makes the certificate under which the member whose public key is given is an admin. The issuer is the root or an admin: the key of
// one, and the certificate that makes it one. It starts as an invite does, and lasts for NodeLife or as long as its issuer's.
func NewPromotion(issuer Authority, node ed25519.PublicKey, now time.Time) (*x509.Certificate, error) {
	id := KeyIDOf(node)
	template := &x509.Certificate{
		NotBefore:             later(now.Add(-Skew), issuer.Cert.NotBefore),
		NotAfter:              now.Add(NodeLife),
		SubjectKeyId:          id[:],
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		ExtraExtensions:       []pkix.Extension{{Id: oidPromotion, Value: promotionValue}},
	}
	if template.NotAfter.After(issuer.Cert.NotAfter) {
		template.NotAfter = issuer.Cert.NotAfter
	}
	template.Subject.CommonName = promotionName(id, KeyIDOfCert(issuer.Cert), issuer.Cert.RawSubject, template.NotBefore, template.NotAfter)
	cert, err := sign(template, issuer, node)
	if err != nil {
		return nil, fmt.Errorf("promote node %s: %w", NodeIDOf(node).Short(), err)
	}
	return cert, nil
}

// sign completes template, has issuer sign it, and holds the result against the rules that others will apply.
func sign(template *x509.Certificate, issuer Authority, subject ed25519.PublicKey) (*x509.Certificate, error) {
	serial := make([]byte, 8)
	if _, err := rand.Read(serial); err != nil {
		return nil, err
	}
	serial[0] = serial[0]&0x7f | 0x40 // positive, and always eight bytes
	template.SerialNumber = new(big.Int).SetBytes(serial)
	template.NotBefore = template.NotBefore.UTC().Truncate(time.Second)
	template.NotAfter = template.NotAfter.UTC().Truncate(time.Second)
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.Cert, subject, issuer.Key)
	if err != nil {
		return nil, err
	}
	cert, err := ParseCert(der)
	if err != nil {
		return nil, err
	}
	if RoleOf(cert) == RoleRoot {
		return cert, CheckRoot(cert)
	}
	return cert, CheckLink(cert, issuer.Cert)
}

// inviteName is the common name of an invite. It covers all that the invite says: its key, its issuer's key and name, its validity and
// its terms. A node certificate names its issuer, so it rests on one certificate of the invite's key: no other admin who
// certifies that key can pull the nodes of the invite under itself, and its own issuer cannot change the terms under which
// they came, nor the certificate that makes it an admin. 160 bits of the hash leave that issuer, who is free to choose both sets of
// terms, no collision in reach.
func inviteName(id, issuer KeyID, issuerName []byte, start, end time.Time, terms []byte) string {
	return "warren invite " + hashedName(id, issuer, issuerName, start, end, terms)
}

// promotionName is the common name of the certificate that makes a member an admin. It covers all of it, as that of an invite does, so
// that what the admin signs rests on one such certificate, should there be several.
func promotionName(id, issuer KeyID, issuerName []byte, start, end time.Time) string {
	return "warren admin " + hashedName(id, issuer, issuerName, start, end, nil)
}

func hashedName(id, issuer KeyID, issuerName []byte, start, end time.Time, terms []byte) string {
	covered := append(id[:], issuer[:]...)
	covered = binary.BigEndian.AppendUint64(covered, uint64(start.Unix()))
	covered = binary.BigEndian.AppendUint64(covered, uint64(end.Unix()))
	covered = append(covered, issuerName...) // DER, which tells its length, as the terms do
	sum := sha256.Sum256(append(covered, terms...))
	return idEncoding.EncodeToString(sum[:20])
}

func nodeName(id NodeID) string { return "warren node " + id.Short() }

func nodeLife(issuer *x509.Certificate) time.Duration {
	if terms, err := TermsOf(issuer); err == nil && terms.NodeLife > 0 {
		return terms.NodeLife
	}
	return NodeLife
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
