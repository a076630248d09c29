package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"
)

// MaxCertSize bounds the DER of a certificate.
const MaxCertSize = 1024

// MaxChain bounds the certificates from a leaf to the root, both counted. Each generation of admins adds two, or one if they were promoted.
const MaxChain = 12

var (
	// ErrCertificate is wrapped when a certificate does not have the form that warren gives its own.
	ErrCertificate = errors.New("malformed certificate")
	// ErrNotIssued is wrapped when a certificate was not signed by the issuer that it is held against.
	ErrNotIssued = errors.New("not issued by this certificate")
	// ErrNotAllowed is wrapped when the issuer did sign, but had no right to.
	ErrNotAllowed = errors.New("not allowed by its issuer")
	// ErrExpired is wrapped when an issuer's time is over.
	ErrExpired = errors.New("expired")
)

// Role is what a certificate makes of its key.
type Role byte

// The roles of a certificate. Chains run root → (invite → admin | promotion)* → invite → member; the root may
// issue nodes itself, which is how the founder comes in.
const (
	RoleMember    Role = iota // a node
	RoleAdmin                 // a node that may sign invites, promotions, revocations and grants
	RoleInvite                // a key that makes nodes
	RoleRoot                  // the mesh
	RolePromotion             // the key of a node that is a member by another certificate, and an admin by this one
)

// String returns the role's name in lower case.
func (r Role) String() string {
	switch r {
	case RoleMember:
		return "member"
	case RoleAdmin:
		return "admin"
	case RoleInvite:
		return "invite"
	case RoleRoot:
		return "root"
	case RolePromotion:
		return "promotion"
	}
	return fmt.Sprintf("role %d", byte(r))
}

// RoleOf returns the role of a certificate that passed ParseCert.
func RoleOf(cert *x509.Certificate) Role {
	switch {
	case findExtension(cert, oidRoot) != nil:
		return RoleRoot
	case findExtension(cert, oidInvite) != nil:
		return RoleInvite
	case findExtension(cert, oidPromotion) != nil:
		return RolePromotion
	case cert.IsCA:
		return RoleAdmin
	}
	return RoleMember
}

// IsAdmin reports whether cert is that of a node that is an admin from the start, by its invite or the root.
func IsAdmin(cert *x509.Certificate) bool { return RoleOf(cert) == RoleAdmin }

// KeyIDOfCert returns the ID of the certified key, or zero when it is not an Ed25519 key. It is computed from the key
// and never read from an extension.
func KeyIDOfCert(cert *x509.Certificate) KeyID {
	public, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return KeyID{}
	}
	return KeyIDOf(public)
}

// NodeIDOfCert returns KeyIDOfCert as the ID of the node that the certificate is for.
func NodeIDOfCert(cert *x509.Certificate) NodeID { return NodeID(KeyIDOfCert(cert)) }

// IssuerOf returns the ID of the key that cert says it was signed with, or zero.
func IssuerOf(cert *x509.Certificate) KeyID {
	if len(cert.AuthorityKeyId) != len(KeyID{}) {
		return KeyID{}
	}
	return KeyID(cert.AuthorityKeyId)
}

// IsIssuedByNode reports whether cert names as its issuer an admin by that node's own certificate, rather than by a promotion.
func IsIssuedByNode(cert *x509.Certificate) bool {
	return isName(cert.RawIssuer, nodeName(NodeID(IssuerOf(cert))))
}

// ParseCert reads one certificate and checks its form: everything that can be said without its issuer. It
// checks no signature. The error wraps ErrCertificate. All certificates from the network come through here.
func ParseCert(der []byte) (*x509.Certificate, error) {
	if len(der) > MaxCertSize {
		return nil, fmt.Errorf("parse certificate: %d bytes, at most %d: %w", len(der), MaxCertSize, ErrCertificate)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %v: %w", err, ErrCertificate)
	}
	if err := CheckForm(cert); err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	return cert, nil
}

// CheckForm checks the form of a parsed certificate as ParseCert does, for those that arrive parsed out of a TLS
// handshake. The error wraps ErrCertificate.
func CheckForm(cert *x509.Certificate) error {
	id := KeyIDOfCert(cert)
	switch {
	case len(cert.Raw) > MaxCertSize:
		return formError("too large")
	case cert.Version != 3:
		return formError("not X.509 version 3")
	case id.IsZero() || cert.SignatureAlgorithm != x509.PureEd25519:
		return formError("not Ed25519")
	case len(cert.UnhandledCriticalExtensions) > 0:
		return formError("unknown critical extension")
	case cert.NotAfter.Before(cert.NotBefore) || cert.NotBefore.Unix() < 0:
		return formError("ends before it starts")
	case len(cert.AuthorityKeyId) != len(KeyID{}):
		return formError("no key ID of its issuer")
	case cert.IsCA && !bytes.Equal(cert.SubjectKeyId, id[:]):
		return formError("wrong key ID of its subject")
	case cert.IsCA && cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return formError("an issuer that may not sign")
	}
	switch RoleOf(cert) {
	case RoleRoot:
		return checkRootForm(cert, id)
	case RoleInvite:
		return checkInviteForm(cert, id)
	case RolePromotion:
		return checkPromotionForm(cert, id)
	}
	if !isName(cert.RawSubject, nodeName(NodeID(id))) {
		return formError("wrong name of a node")
	}
	if cert.IsCA && cert.MaxPathLen != -1 {
		return formError("path length in an admin")
	}
	return nil
}

func checkRootForm(cert *x509.Certificate, id KeyID) error {
	if _, err := RootTermsOf(cert); err != nil {
		return err
	}
	switch {
	case findExtension(cert, oidInvite) != nil || findExtension(cert, oidPromotion) != nil:
		return formError("root and something else at once")
	case !cert.IsCA || cert.MaxPathLen != -1:
		return formError("a root that is not a plain CA")
	case IssuerOf(cert) != id || !bytes.Equal(cert.RawSubject, cert.RawIssuer):
		return formError("a root that is not its own issuer")
	}
	return nil
}

func checkInviteForm(cert *x509.Certificate, id KeyID) error {
	terms, err := TermsOf(cert)
	if err != nil {
		return err
	}
	switch {
	case findExtension(cert, oidPromotion) != nil:
		return formError("invite and promotion at once")
	case !cert.IsCA:
		return formError("an invite that may not sign")
	case !isName(cert.RawSubject, inviteName(id, IssuerOf(cert), cert.RawIssuer, cert.NotBefore, cert.NotAfter, findExtension(cert, oidInvite))):
		return formError("wrong name of an invite")
	case terms.Admin && cert.MaxPathLen != -1, !terms.Admin && cert.MaxPathLen != 0:
		return formError("wrong path length of an invite")
	}
	return nil
}

func checkPromotionForm(cert *x509.Certificate, id KeyID) error {
	switch {
	case !bytes.Equal(findExtension(cert, oidPromotion), promotionValue):
		return formError("terms of a promotion")
	case !cert.IsCA || cert.MaxPathLen != -1:
		return formError("a promotion that is not a plain CA")
	case !isName(cert.RawSubject, promotionName(id, IssuerOf(cert), cert.RawIssuer, cert.NotBefore, cert.NotAfter)):
		return formError("wrong name of a promotion")
	case IssuerOf(cert) == id:
		return formError("a key that promotes itself")
	}
	return nil
}

// CheckRoot checks that cert is a root and signed by itself. The error wraps ErrCertificate.
func CheckRoot(cert *x509.Certificate) error {
	if err := CheckForm(cert); err != nil {
		return err
	}
	if RoleOf(cert) != RoleRoot {
		return formError("not a root")
	}
	if !ed25519.Verify(cert.PublicKey.(ed25519.PublicKey), cert.RawTBSCertificate, cert.Signature) {
		return formError("wrong signature of a root")
	}
	return nil
}

// CheckLink checks everything about one step of a chain but the signature, which costs a hundred times as much:
// that child names parent as its issuer (else ErrNotIssued), and that parent may issue such a child (else
// ErrNotAllowed). Both must have passed CheckForm.
//
// Time is judged step by step (the chain model): a child must start while its parent is valid. The whole
// chain need not be valid at one moment, for an admin outlives the invite that made it.
func CheckLink(child, parent *x509.Certificate) error {
	if IssuerOf(child) != KeyIDOfCert(parent) || !bytes.Equal(child.RawIssuer, parent.RawSubject) {
		return ErrNotIssued
	}
	by, what := RoleOf(parent), RoleOf(child)
	if !mayIssue(by, what) {
		return fmt.Errorf("%s certified by a %s: %w", what, by, ErrNotAllowed)
	}
	if child.NotBefore.Before(parent.NotBefore) || child.NotBefore.After(parent.NotAfter) {
		return fmt.Errorf("starts %s, its issuer is valid from %s to %s: %w", child.NotBefore.Format(time.DateTime),
			parent.NotBefore.Format(time.DateTime), parent.NotAfter.Format(time.DateTime), ErrNotAllowed)
	}
	if (what == RoleInvite || what == RolePromotion) && child.NotAfter.After(parent.NotAfter) {
		return fmt.Errorf("%s outlives its issuer: %w", what, ErrNotAllowed)
	}
	if by != RoleInvite {
		return nil
	}
	terms, err := TermsOf(parent)
	if err != nil {
		return err
	}
	if what == RoleAdmin && !terms.Admin {
		return fmt.Errorf("admin from an invite that makes members: %w", ErrNotAllowed)
	}
	if life := child.NotAfter.Sub(child.NotBefore); life > nodeLife(parent) {
		return fmt.Errorf("valid for %s, its invite allows %s: %w", life, nodeLife(parent), ErrNotAllowed)
	}
	return nil
}

// CheckSignature checks that parent's key signed child. The error wraps ErrNotIssued.
func CheckSignature(child, parent *x509.Certificate) error {
	public, ok := parent.PublicKey.(ed25519.PublicKey)
	if !ok || !ed25519.Verify(public, child.RawTBSCertificate, child.Signature) {
		return fmt.Errorf("wrong signature: %w", ErrNotIssued)
	}
	return nil
}

func mayIssue(by, what Role) bool {
	switch by {
	case RoleRoot:
		return what != RoleRoot
	case RoleAdmin, RolePromotion:
		return what == RoleInvite || what == RolePromotion
	case RoleInvite:
		return what == RoleMember || what == RoleAdmin
	}
	return false
}

// isName reports whether raw is the DER of a name that consists of just this common name.
func isName(raw []byte, common string) bool {
	want, err := asn1.Marshal(pkix.Name{CommonName: common}.ToRDNSequence())
	return err == nil && bytes.Equal(raw, want)
}

func formError(what string) error { return fmt.Errorf("%s: %w", what, ErrCertificate) }
