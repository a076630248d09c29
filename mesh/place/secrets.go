package place

import (
	"crypto/hkdf"
	"crypto/sha256"
)

// The secrets that are derived from the node key, so that they need no storage and are the same after a loss of records.

// LANSecret is what an admin's record gives the members for their beacons. The mesh ID would not do: a stranger who
// connects to any member gets it with the certificate chain, and could then tell this mesh's members on every LAN.
func (s *State) LANSecret() [16]byte { return [16]byte(s.derive("warren LAN secret v1", 16)) }

// MappingSecret is a lasting secret for the nonces of port mappings, of 32 bytes, which tells routers nothing about the
// node's key.
func (s *State) MappingSecret() []byte { return s.derive("warren port mapping v1", 32) }

// derive makes a secret of so many bytes for one purpose out of the node key (HKDF, RFC 5869). Another label gives a
// secret that tells nothing of the first.
func (s *State) derive(label string, size int) []byte {
	secret, err := hkdf.Key(sha256.New, s.Key.Seed(), nil, label, size)
	if err != nil {
		panic("internal error: derive " + label + ": " + err.Error()) // only for sizes above 8,160 bytes
	}
	return secret
}
