// Package record holds the signed statements that all members of a mesh keep: certificates of invites and admins, nodes, revocations and
// grants. It encodes, decodes, signs and verifies single records, and says which of two records about the same thing
// is the newer. Decoders are bounded, and their input is hostile.
//
// Whether a record counts (is its signer a member, is its invite used up, has it been revoked) depends on other records and
// is left to package roster.
//
// Records are values. Everything here is safe for concurrent use.
package record

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"

	"warren/mesh/identity"
)

// Bounds of an encoded record, in bytes.
const (
	MaxSize       = 4096
	MaxRevocation = 32768 // of a revocation, which may list some 3,200 nodes that stay
)

// MaxSizeOf returns the bound of a kind.
func MaxSizeOf(k Kind) int {
	if k == KindRevocation {
		return MaxRevocation
	}
	return MaxSize
}

var (
	// ErrMalformed is wrapped when bytes are not a record of the form described here.
	ErrMalformed = errors.New("malformed record")
	// ErrSignature is wrapped when a signature does not belong to what it signs.
	ErrSignature = errors.New("wrong signature")
)

// Kind says what a record is about.
type Kind byte

// The kinds of records. Policy is set aside for rules that admins sign.
const (
	KindCertificate Kind = 1 // body: the DER of the certificate of an invite or a promotion, which is signed itself
	KindNode        Kind = 2 // body: Node, signed by the node
	KindRevocation  Kind = 3 // body: Revocation, signed by an admin or the root
	KindPolicy      Kind = 4
	KindGrant       Kind = 5 // body: Grant, signed by an admin or the root
)

// namesSigner reports whether records of the kind name their signer beside the body.
func (k Kind) namesSigner() bool { return k == KindRevocation || k == KindPolicy || k == KindGrant }

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case KindCertificate:
		return "certificate"
	case KindNode:
		return "node"
	case KindRevocation:
		return "revocation"
	case KindPolicy:
		return "policy"
	case KindGrant:
		return "grant"
	}
	return fmt.Sprintf("kind %d", byte(k))
}

// Key names what a record is about. Of several records with one key only the newest is kept. It is the SHA-256 of the kind
// and the subject:
//
//	certificate  the certified key's ID ‖ its issuer's ID ‖ its common name
//	node         the node ID
//	revocation   the revoked key's ID ‖ the signer's ID ‖ scope (1 byte)
//	grant        the node ID ‖ the signer's ID
//
// The second parts keep one admin from displacing what another one signed. The name keeps an admin from displacing what
// it signed itself: two certificates of one invite key with other terms are two records.
type Key [32]byte

// Version orders the records of one key; a greater one replaces a lesser one, and equal ones are the same record. It
// is opaque to everyone but this package:
//
//	node         High  admission time (inverted: the earlier admission is the greater) ‖ hash of certificate and admission
//	             Low   sequence ‖ hash
//	revocation   High  time      Low  hash
//	grant        High  version   Low  hash
//	certificate  High  0         Low  hash
//
// The admission comes before the sequence so that a node cannot move its own admission to a later time, which would
// cast doubt on the nodes that it let in meanwhile. A signer's later revocation of a key replaces its earlier one, so that it can list
// others that stay.
type Version struct {
	_    struct{} `cbor:",toarray"`
	High uint64
	Low  uint64
}

// Compare returns -1, 0 or 1 as v is less than, equal to or greater than w.
func (v Version) Compare(w Version) int {
	var a, b [16]byte
	binary.BigEndian.PutUint64(a[:8], v.High)
	binary.BigEndian.PutUint64(a[8:], v.Low)
	binary.BigEndian.PutUint64(b[:8], w.High)
	binary.BigEndian.PutUint64(b[8:], w.Low)
	return bytes.Compare(a[:], b[:])
}

// Newer reports whether a record of version v replaces one of version w.
func (v Version) Newer(w Version) bool { return v.Compare(w) > 0 }

// Signed is a record as it is stored and sent. Body is signed as these very bytes and never encoded again, so fields that this
// version does not know are kept. Use the functions of this package to make one.
type Signed struct {
	Kind      Kind           `cbor:"1,keyasint"`
	Body      []byte         `cbor:"2,keyasint"`
	Signer    identity.KeyID `cbor:"-"` // of a revocation or a grant; zero for the others, whose body names the signer
	Signature []byte         `cbor:"4,keyasint,omitempty"`
}

// signedWire is Signed with its signer as bytes that can be absent.
type signedWire struct {
	Kind      Kind   `cbor:"1,keyasint"`
	Body      []byte `cbor:"2,keyasint"`
	Signer    []byte `cbor:"3,keyasint,omitempty"`
	Signature []byte `cbor:"4,keyasint,omitempty"`
}

// Marshal encodes the record in CBOR (RFC 8949): a map with the keys 1 kind, 2 body, 3 signer, 4 signature.
func (s Signed) Marshal() ([]byte, error) {
	wire := signedWire{Kind: s.Kind, Body: s.Body, Signature: s.Signature}
	if !s.Signer.IsZero() {
		wire.Signer = s.Signer[:]
	}
	encoded, err := encoding.Marshal(wire)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	if most := MaxSizeOf(s.Kind); len(encoded) > most {
		return nil, fmt.Errorf("encode %s: %d bytes, at most %d: %w", s.Kind, len(encoded), most, ErrMalformed)
	}
	return encoded, nil
}

// Unmarshal decodes one record. It looks at its outer form only and verifies nothing; the error wraps
// ErrMalformed. The result does not share memory with encoded.
func Unmarshal(encoded []byte) (Signed, error) {
	if len(encoded) > MaxRevocation {
		return Signed{}, malformed("record of %d bytes, at most %d", len(encoded), MaxRevocation)
	}
	var wire signedWire
	if err := decoding.Unmarshal(encoded, &wire); err != nil {
		return Signed{}, malformed("record: %v", err)
	}
	s := Signed{Kind: wire.Kind, Body: wire.Body, Signature: wire.Signature}
	switch most := MaxSizeOf(s.Kind); {
	case len(encoded) > most:
		return Signed{}, malformed("%s of %d bytes, at most %d", s.Kind, len(encoded), most)
	case len(s.Body) == 0:
		return Signed{}, malformed("record without body")
	case s.Kind == KindCertificate && len(s.Signature) > 0, s.Kind != KindCertificate && len(s.Signature) != ed25519.SignatureSize:
		return Signed{}, malformed("%s with a signature of %d bytes", s.Kind, len(s.Signature))
	case s.Kind.namesSigner() != (len(wire.Signer) > 0):
		return Signed{}, malformed("%s with a signer of %d bytes", s.Kind, len(wire.Signer))
	}
	if len(s.Signature) == 0 {
		s.Signature = nil
	}
	if len(wire.Signer) > 0 {
		if len(wire.Signer) != len(identity.KeyID{}) {
			return Signed{}, malformed("%s with a signer of %d bytes", s.Kind, len(wire.Signer))
		}
		s.Signer = identity.KeyID(wire.Signer)
	}
	return s, nil
}

// Key returns what the record is about. The error wraps ErrMalformed.
func (s Signed) Key() (Key, error) {
	d, err := s.Decode()
	return d.Key, err
}

// Version returns the record's place among those of its key. The error wraps ErrMalformed.
func (s Signed) Version() (Version, error) {
	d, err := s.Decode()
	return d.Version, err
}

// Verify checks the record's signature against the public key of its signer. The error wraps ErrSignature. A certificate
// has no signature here: see identity.CheckSignature.
func (s Signed) Verify(mesh identity.MeshID, public ed25519.PublicKey) error {
	if len(public) != ed25519.PublicKeySize || !ed25519.Verify(public, signedBytes(mesh, s.Kind, s.Body), s.Signature) {
		return fmt.Errorf("verify %s: %w", s.Kind, ErrSignature)
	}
	return nil
}

// Decoded is a record with its body read. Of Certificate, Node, Revocation and Grant just the one of its kind is set; for a
// node Certificate is the node's own, parsed.
type Decoded struct {
	Signed
	Key         Key
	Version     Version
	Certificate *x509.Certificate
	Node        *Node
	Revocation  *Revocation
	Grant       *Grant
}

// Decode reads and checks the body. It verifies no signature; the error wraps ErrMalformed.
func (s Signed) Decode() (Decoded, error) {
	d := Decoded{Signed: s}
	var err error
	switch s.Kind {
	case KindCertificate:
		err = d.decodeCertificate()
	case KindNode:
		err = d.decodeNode()
	case KindRevocation:
		err = d.decodeRevocation()
	case KindGrant:
		err = d.decodeGrant()
	default:
		err = malformed("unknown %s", s.Kind)
	}
	if err != nil {
		return Decoded{}, err
	}
	return d, nil
}

func (d *Decoded) decodeCertificate() error {
	cert, err := identity.ParseCert(d.Body)
	if err != nil {
		return malformed("certificate: %v", err)
	}
	if role := identity.RoleOf(cert); role != identity.RoleInvite && role != identity.RolePromotion {
		return malformed("certificate of a %s, want an invite's or a promotion", role)
	}
	id, issuer := identity.KeyIDOfCert(cert), identity.IssuerOf(cert)
	d.Certificate = cert
	d.Key = keyOf(KindCertificate, id[:], issuer[:], []byte(cert.Subject.CommonName))
	d.Version = Version{Low: d.hash64()}
	return nil
}

// hash64 identifies the record's content. It leaves the signature out: the same content signed twice is the same record.
func (d *Decoded) hash64() uint64 {
	hash := sha256.New()
	hash.Write([]byte{byte(d.Kind)})
	hash.Write(d.Body)
	return binary.BigEndian.Uint64(hash.Sum(nil))
}

// NewCertificate makes the record of the certificate of an invite or a promotion.
func NewCertificate(cert *x509.Certificate) Signed {
	return Signed{Kind: KindCertificate, Body: cert.Raw}
}

// signBody makes a record whose body is signed with key.
func signBody(mesh identity.MeshID, kind Kind, body []byte, key ed25519.PrivateKey) Signed {
	return Signed{Kind: kind, Body: body, Signature: ed25519.Sign(key, signedBytes(mesh, kind, body))}
}

// signedBytes is what a record's signature covers. All parts but the last have a fixed length, so no two
// statements share an encoding.
func signedBytes(mesh identity.MeshID, kind Kind, body []byte) []byte {
	signed := append([]byte("warren record v1"), mesh[:]...)
	return append(append(signed, byte(kind)), body...)
}

func keyOf(kind Kind, subject ...[]byte) Key {
	return sha256.Sum256(append([]byte{byte(kind)}, bytes.Join(subject, nil)...))
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("decode "+format+": %w", append(args, ErrMalformed)...)
}
