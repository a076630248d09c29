package record

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"math"
	"slices"
	"time"

	"warren/mesh/identity"
)

// MaxReason bounds the reason of a revocation, in bytes.
const MaxReason = 200

// Scope says how much of a key a revocation ends.
type Scope uint8

// The scopes of revocations.
const (
	ScopeWhole Scope = 0 // the key is out of the mesh
	ScopePower Scope = 1 // a node is no admin any more, and stays a member
)

// Prefix is the first 80 bits of an ID, by which a revocation names who stays. An IPv6 overlay address binds no more.
type Prefix [10]byte

// PrefixOf returns the prefix of the ID of a node or a key.
func PrefixOf[ID identity.NodeID | identity.KeyID](id ID) Prefix { return Prefix(id[:len(Prefix{})]) }

// Prefixes is a set of prefixes: sorted, each once. It is nil when it is empty.
type Prefixes []Prefix

// NewPrefixes makes a set of prefixes in any order.
func NewPrefixes(list ...Prefix) Prefixes {
	if len(list) == 0 {
		return nil
	}
	set := slices.Clone(list)
	slices.SortFunc(set, Prefix.compare)
	return slices.Compact(set)
}

// Has reports whether p is in the set.
func (set Prefixes) Has(p Prefix) bool {
	_, ok := slices.BinarySearchFunc(set, p, Prefix.compare)
	return ok
}

func (p Prefix) compare(other Prefix) int { return bytes.Compare(p[:], other[:]) }

// Revocation puts a key out of the mesh for good, a node's or an invite's, or takes from a node what makes it an admin. It is of the key,
// not of a certificate, so no other encoding or certificate of it escapes. Who rests on the key (package roster says what that means) is
// put out with it, unless it is listed.
//
// All lists together must fit MaxRevocation: about 3,200 prefixes.
type Revocation struct {
	Target      identity.KeyID
	Signer      identity.KeyID // an admin or the root; not part of the body
	Time        int64          // Unix seconds, by the signer's clock: for people, and to tell a signer's later word from its earlier one
	Reason      string
	Scope       Scope
	Keep        Prefixes // of the IDs of nodes that rest on Target and stay
	KeepRevoked Prefixes // of the key IDs that Target has revoked and whose revocation goes on counting
	Name        string   // what the signer called the target, for people; empty when it did not know
}

// revocationWire is the body of a revocation in CBOR.
type revocationWire struct {
	Target      []byte `cbor:"1,keyasint"`
	Time        int64  `cbor:"2,keyasint"`
	Reason      string `cbor:"3,keyasint,omitempty"`
	Name        string `cbor:"5,keyasint,omitempty"`
	Scope       uint64 `cbor:"6,keyasint,omitempty"`
	Keep        []byte `cbor:"7,keyasint,omitempty"`
	KeepRevoked []byte `cbor:"8,keyasint,omitempty"`
}

// SignRevocation makes the record of r, signed by an admin's node key or by the root. The signer in r is ignored: it follows from
// the key. The error wraps ErrMalformed when r breaks a bound.
func SignRevocation(mesh identity.MeshID, r Revocation, key ed25519.PrivateKey) (Signed, error) {
	body, err := encoding.Marshal(revocationWire{
		Target: r.Target[:], Time: r.Time, Reason: r.Reason, Name: r.Name, Scope: uint64(r.Scope), Keep: r.Keep.join(), KeepRevoked: r.KeepRevoked.join(),
	})
	if err != nil {
		return Signed{}, fmt.Errorf("encode revocation: %w", err)
	}
	s := signBody(mesh, KindRevocation, body, key)
	s.Signer = identity.KeyIDOf(key.Public().(ed25519.PublicKey))
	if _, err := s.Decode(); err != nil {
		return Signed{}, err
	}
	_, err = s.Marshal() // for its size
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
	case len(w.Reason) > MaxReason || !identity.IsText(w.Reason):
		return malformed("revocation with a reason of %d bytes, or one that cannot be printed", len(w.Reason))
	case len(w.Name) > MaxName || !identity.IsText(w.Name):
		return malformed("revocation with a name of %d bytes, or one that cannot be printed", len(w.Name))
	case w.Scope > uint64(ScopePower):
		return malformed("revocation of scope %d", w.Scope)
	}
	keep, err := splitPrefixes(w.Keep)
	if err != nil {
		return err
	}
	keepRevoked, err := splitPrefixes(w.KeepRevoked)
	if err != nil {
		return err
	}
	d.Revocation = &Revocation{
		Target: identity.KeyID(w.Target), Signer: d.Signer, Time: w.Time, Reason: w.Reason, Scope: Scope(w.Scope), Keep: keep, KeepRevoked: keepRevoked, Name: w.Name,
	}
	d.Key = keyOf(KindRevocation, w.Target, d.Signer[:], []byte{byte(w.Scope)})
	d.Version = Version{High: uint64(w.Time), Low: d.hash64()}
	return nil
}

// join returns the prefixes one after the other.
func (set Prefixes) join() []byte {
	joined := make([]byte, 0, len(set)*len(Prefix{}))
	for _, p := range set {
		joined = append(joined, p[:]...)
	}
	return joined
}

// splitPrefixes is the reverse of join. A set has one form: sorted, each once, and absent when it is empty.
func splitPrefixes(joined []byte) (Prefixes, error) {
	const size = len(Prefix{})
	if joined == nil {
		return nil, nil
	}
	if len(joined) == 0 || len(joined)%size != 0 {
		return nil, malformed("list of prefixes of %d bytes", len(joined))
	}
	set := make(Prefixes, 0, len(joined)/size)
	for ; len(joined) > 0; joined = joined[size:] {
		next := Prefix(joined[:size])
		if len(set) > 0 && set[len(set)-1].compare(next) >= 0 {
			return nil, malformed("list of prefixes out of order")
		}
		set = append(set, next)
	}
	return set, nil
}
