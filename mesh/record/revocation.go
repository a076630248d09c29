package record

import (
	"crypto/ed25519"
	"fmt"
	"math"
	"strings"
	"time"

	"warren/mesh/identity"
)

// MaxReason bounds the reason of a revocation, in bytes.
const MaxReason = 200

// Revocation puts a key out of the mesh for good: a node's, or an invite's. It is of the key, not of a certificate, so no other
// encoding or certificate of it escapes.
type Revocation struct {
	Target  identity.KeyID
	Signer  identity.KeyID // an admin or the root; not part of the body
	Time    int64          // Unix seconds, by the signer's clock
	Reason  string
	Cascade bool   // puts out the nodes below Target in the chain too, whenever they came
	Name    string // what the signer called the target, for people; empty when it did not know
}

// revocationWire is the body of a revocation in CBOR.
type revocationWire struct {
	Target  []byte `cbor:"1,keyasint"`
	Time    int64  `cbor:"2,keyasint"`
	Reason  string `cbor:"3,keyasint,omitempty"`
	Cascade bool   `cbor:"4,keyasint,omitempty"`
	Name    string `cbor:"5,keyasint,omitempty"`
}

// SignRevocation makes the record of r, signed by an admin's node key or by the root. The signer in r is ignored: it follows from
// the key. The error wraps ErrMalformed when r breaks a bound.
func SignRevocation(mesh identity.MeshID, r Revocation, key ed25519.PrivateKey) (Signed, error) {
	body, err := encoding.Marshal(revocationWire{Target: r.Target[:], Time: r.Time, Reason: r.Reason, Cascade: r.Cascade, Name: r.Name})
	if err != nil {
		return Signed{}, fmt.Errorf("encode revocation: %w", err)
	}
	s := signBody(mesh, KindRevocation, body, key)
	s.Signer = identity.KeyIDOf(key.Public().(ed25519.PublicKey))
	_, err = s.Decode()
	return s, err
}

// Revocation reads the body of a revocation. It verifies no signature; the error wraps ErrMalformed.
func (s Signed) Revocation() (Revocation, error) {
	d, err := s.Decode()
	if err != nil {
		return Revocation{}, err
	}
	if d.Revocation == nil {
		return Revocation{}, malformed("revocation out of a %s", s.Kind)
	}
	return *d.Revocation, nil
}

// At returns the time of the revocation.
func (r Revocation) At() time.Time { return time.Unix(r.Time, 0).UTC() }

func (d *Decoded) decodeRevocation() error {
	var w revocationWire
	if err := decoding.Unmarshal(d.Body, &w); err != nil {
		return malformed("revocation: %v", err)
	}
	switch {
	case d.Signer.IsZero():
		return malformed("revocation without signer")
	case len(w.Target) != len(identity.KeyID{}):
		return malformed("revocation of a key ID of %d bytes", len(w.Target))
	case w.Time < 0 || w.Time > math.MaxUint32:
		return malformed("revocation at %d", w.Time)
	case len(w.Reason) > MaxReason || strings.ContainsFunc(w.Reason, isControl):
		return malformed("revocation with a reason of %d bytes or with control characters", len(w.Reason))
	case len(w.Name) > MaxName || strings.ContainsFunc(w.Name, isControl):
		return malformed("revocation with a name of %d bytes or with control characters", len(w.Name))
	}
	d.Revocation = &Revocation{Target: identity.KeyID(w.Target), Signer: d.Signer, Time: w.Time, Reason: w.Reason, Cascade: w.Cascade, Name: w.Name}
	d.Key = keyOf(KindRevocation, w.Target, d.Signer[:])
	d.Version = Version{High: uint64(math.MaxUint32 - w.Time), Low: d.hash64()}
	if w.Cascade {
		d.Version.High |= 1 << 32
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
