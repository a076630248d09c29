package meshtest

import (
	"crypto/ecdh"
	"crypto/sha256"

	"warren/mesh/identity"
)

// WireGuard returns a WireGuard public key of a node that follows from a text, and the proof that the node holds it. Its randomness
// differs from call to call.
func WireGuard(mesh identity.MeshID, node identity.NodeID, text string) (public [32]byte, proof [64]byte) {
	private := sha256.Sum256([]byte(text))
	key, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		panic("internal error: make WireGuard key: " + err.Error()) // only for other lengths than 32
	}
	if proof, err = identity.ProveKey(mesh, node, private); err != nil {
		panic("internal error: " + err.Error()) // only without randomness
	}
	return [32]byte(key.PublicKey().Bytes()), proof
}
