package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// KeyID names an Ed25519 public key wherever certificates are concerned (root, admin, invite or node): the
// SHA-256 of its DER-encoded SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7). It is taken over a
// canonical encoding, so one key has one KeyID.
type KeyID [32]byte

// NodeID names a node: the KeyID of the node's own key. It is a type of its own so that the
// compiler refuses an invite or root key where a node is meant.
type NodeID [32]byte

// MeshID names a mesh: the first 16 bytes of the KeyID of its root key.
type MeshID [16]byte

// ErrBadID is wrapped by the errors of the Parse functions of this package.
var ErrBadID = errors.New("malformed ID")

// idEncoding is the base32 alphabet of RFC 4648 in lower case, without padding: 32 bytes become 52 characters.
var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// KeyIDOf returns the ID of an Ed25519 public key of 32 bytes.
func KeyIDOf(public ed25519.PublicKey) KeyID {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		panic("internal error: marshal Ed25519 public key: " + err.Error())
	}
	return sha256.Sum256(der)
}

// NodeIDOf returns the node ID of a node's public key.
func NodeIDOf(public ed25519.PublicKey) NodeID { return NodeID(KeyIDOf(public)) }

// MeshIDOf returns the mesh ID of a root public key.
func MeshIDOf(root ed25519.PublicKey) MeshID {
	key := KeyIDOf(root)
	return MeshID(key[:16])
}

// String returns the whole ID as 52 characters of lower-case base32.
func (id KeyID) String() string { return idEncoding.EncodeToString(id[:]) }

// Short returns the first ten characters of String, for tables and logs.
func (id KeyID) Short() string { return id.String()[:10] }

// IsZero reports whether id is unset.
func (id KeyID) IsZero() bool { return id == KeyID{} }

// String returns the whole ID as 52 characters of lower-case base32.
func (id NodeID) String() string { return idEncoding.EncodeToString(id[:]) }

// Short returns the first ten characters of String, for tables and logs.
func (id NodeID) Short() string { return id.String()[:10] }

// IsZero reports whether id is unset.
func (id NodeID) IsZero() bool { return id == NodeID{} }

// Compare orders node IDs by their bytes: -1, 0 or 1. The smaller of two peers is the controlling one.
func (id NodeID) Compare(other NodeID) int { return bytes.Compare(id[:], other[:]) }

// MarshalText returns String, so that IDs stand in JSON as text.
func (id NodeID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is the reverse of MarshalText; its error wraps ErrBadID.
func (id *NodeID) UnmarshalText(text []byte) error {
	parsed, err := ParseNodeID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// ParseNodeID reads the 52 characters of NodeID.String; its error wraps ErrBadID.
func ParseNodeID(text string) (NodeID, error) {
	raw, err := idEncoding.DecodeString(strings.ToLower(text))
	if err != nil || len(raw) != len(NodeID{}) {
		return NodeID{}, fmt.Errorf("node ID %q: want 52 characters of base32: %w", text, ErrBadID)
	}
	return NodeID(raw), nil
}

// String returns the mesh ID as 32 hexadecimal digits.
func (id MeshID) String() string { return hex.EncodeToString(id[:]) }
