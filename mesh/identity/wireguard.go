package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"fmt"

	"filippo.io/edwards25519"
	"filippo.io/edwards25519/field"
)

// ErrKeyProof is wrapped when nothing proves that a node holds a WireGuard key.
var ErrKeyProof = errors.New("the WireGuard key is not proven")

// ProveKey proves to a mesh that a node holds a WireGuard private key: an XEdDSA signature (Perrin, "The XEdDSA and VXEdDSA Signature
// Schemes", section 3, with Curve25519) by that key over
//
//	"warren wireguard key v1" ‖ mesh ID [16] ‖ node ID [32]
//
// So nobody can give another's public key out as its own, nor carry a proof to another mesh or node. The private key is 32 bytes
// in any form that WireGuard takes: it is clamped here. The error is that of the system's randomness.
func ProveKey(mesh MeshID, node NodeID, private [32]byte) (proof [64]byte, err error) {
	key, err := edwards25519.NewScalar().SetBytesWithClamping(private[:])
	if err != nil {
		return proof, fmt.Errorf("prove WireGuard key: %w", err)
	}
	public := new(edwards25519.Point).ScalarBaseMult(key).Bytes()
	if public[31]&0x80 != 0 { // a Curve25519 key has no sign; the signer takes the key whose sign is zero
		key.Negate(key)
		public[31] &= 0x7f
	}
	var random [64]byte
	if _, err := rand.Read(random[:]); err != nil {
		return proof, fmt.Errorf("prove WireGuard key: %w", err)
	}
	message := keyMessage(mesh, node)
	// The nonce hash has a prefix of its own, 2²⁵⁶ − 2 in little-endian order, which is no encoding of a point.
	prefix := bytes.Repeat([]byte{0xff}, 32)
	prefix[0] = 0xfe
	nonce := hashScalar(prefix, key.Bytes(), message, random[:])
	commitment := new(edwards25519.Point).ScalarBaseMult(nonce).Bytes()
	challenge := hashScalar(commitment, public, message)
	copy(proof[:32], commitment)
	copy(proof[32:], edwards25519.NewScalar().MultiplyAdd(challenge, key, nonce).Bytes())
	return proof, nil
}

// CheckKey checks what ProveKey made for a WireGuard public key. The key must have its one encoding, lie on the curve and not on its twist, and
// not be of small order. The error wraps ErrKeyProof.
func CheckKey(mesh MeshID, node NodeID, public [32]byte, proof [64]byte) error {
	edwards, err := toEdwards(public)
	if err != nil {
		return err
	}
	if !ed25519.Verify(edwards, keyMessage(mesh, node), proof[:]) {
		return fmt.Errorf("wrong signature of node %s: %w", node.Short(), ErrKeyProof)
	}
	return nil
}

// toEdwards returns the Ed25519 public key, with the sign zero, that a Curve25519 key u stands for: y = (u − 1) / (u + 1) (RFC 7748,
// section 4.1).
func toEdwards(public [32]byte) (ed25519.PublicKey, error) {
	u, err := new(field.Element).SetBytes(public[:])
	if err != nil || !bytes.Equal(u.Bytes(), public[:]) {
		return nil, fmt.Errorf("it is not below 2²⁵⁵ − 19: %w", ErrKeyProof)
	}
	one := new(field.Element).One()
	above := new(field.Element).Add(u, one)
	if above.Equal(new(field.Element).Zero()) == 1 {
		return nil, fmt.Errorf("it is on the twist of the curve: %w", ErrKeyProof)
	}
	y := new(field.Element).Multiply(new(field.Element).Subtract(u, one), above.Invert(above))
	point, err := new(edwards25519.Point).SetBytes(y.Bytes())
	if err != nil {
		return nil, fmt.Errorf("it is on the twist of the curve: %w", ErrKeyProof)
	}
	if new(edwards25519.Point).MultByCofactor(point).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return nil, fmt.Errorf("it is of small order: %w", ErrKeyProof)
	}
	return y.Bytes(), nil
}

func keyMessage(mesh MeshID, node NodeID) []byte {
	message := append([]byte("warren wireguard key v1"), mesh[:]...)
	return append(message, node[:]...)
}

// hashScalar is the SHA-512 of all parts as a scalar.
func hashScalar(parts ...[]byte) *edwards25519.Scalar {
	hash := sha512.New()
	for _, part := range parts {
		hash.Write(part)
	}
	scalar, err := edwards25519.NewScalar().SetUniformBytes(hash.Sum(nil))
	if err != nil {
		panic("internal error: reduce SHA-512 to a scalar: " + err.Error()) // only for other lengths than 64
	}
	return scalar
}
