package record

import (
	"crypto/ed25519"
	"fmt"
	"net/netip"

	"warren/mesh/identity"
)

// MaxSerial is the greatest serial of a grant. At one a second it is reached in 8,000 years of one mesh; who signs it takes no place but
// the last.
const MaxSerial = 1<<38 - 1

// Grant is an admin's word that a member has a name, an address and routes. Which grant counts, and who has what by it, is left to package
// roster.
type Grant struct {
	Node    identity.NodeID
	Signer  identity.KeyID // an admin or the root; not part of the body
	Serial  uint64         // 1 to MaxSerial: the order in which admins have seen members come
	Version uint64         // greater in each later grant of this signer for this node
	Name    string         // given, in the form of CleanName; empty: none
	Wanted  string         // the name that the node wanted then
	Addr4   netip.Addr     // IPv4 overlay address given, or none
	Routes  []netip.Prefix // at most MaxRoutes
}

// grantWire is the body of a grant in CBOR. Addresses and routes are written as in a node record.
type grantWire struct {
	Node    []byte   `cbor:"1,keyasint"`
	Serial  uint64   `cbor:"2,keyasint"`
	Version uint64   `cbor:"3,keyasint"`
	Name    string   `cbor:"4,keyasint,omitempty"`
	Wanted  string   `cbor:"5,keyasint,omitempty"`
	Addr4   []byte   `cbor:"6,keyasint,omitempty"`
	Routes  [][]byte `cbor:"7,keyasint,omitempty"`
}

// SignGrant makes the record of g, signed by an admin's node key or by the root. The signer in g is ignored: it follows from the key. The
// error wraps ErrMalformed when g breaks a bound.
func SignGrant(mesh identity.MeshID, g Grant, key ed25519.PrivateKey) (Signed, error) {
	w := grantWire{Node: g.Node[:], Serial: g.Serial, Version: g.Version, Name: g.Name, Wanted: g.Wanted, Routes: joinRoutes(g.Routes)}
	if g.Addr4.IsValid() {
		w.Addr4 = g.Addr4.AsSlice()
	}
	body, err := encoding.Marshal(w)
	if err != nil {
		return Signed{}, fmt.Errorf("encode grant: %w", err)
	}
	s := signBody(mesh, KindGrant, body, key)
	s.Signer = identity.KeyIDOf(key.Public().(ed25519.PublicKey))
	_, err = s.Decode()
	return s, err
}

// Grant reads the body of a grant. It verifies no signature; the error wraps ErrMalformed.
func (s Signed) Grant() (Grant, error) {
	d, err := s.Decode()
	if err != nil {
		return Grant{}, err
	}
	if d.Grant == nil {
		return Grant{}, malformed("grant out of a %s", s.Kind)
	}
	return *d.Grant, nil
}

func (d *Decoded) decodeGrant() error {
	var w grantWire
	if err := decoding.Unmarshal(d.Body, &w); err != nil {
		return malformed("grant: %v", err)
	}
	switch {
	case d.Signer.IsZero():
		return malformed("grant without signer")
	case len(w.Node) != len(identity.NodeID{}):
		return malformed("grant for a node ID of %d bytes", len(w.Node))
	case w.Serial < 1 || w.Serial > MaxSerial:
		return malformed("grant with serial %d", w.Serial)
	case w.Name != CleanName(w.Name) || w.Wanted != CleanName(w.Wanted):
		return malformed("grant of the name %q to who wants %q", w.Name, w.Wanted)
	case len(w.Routes) > MaxRoutes:
		return malformed("grant of %d routes", len(w.Routes))
	}
	g := Grant{Node: identity.NodeID(w.Node), Signer: d.Signer, Serial: w.Serial, Version: w.Version, Name: w.Name, Wanted: w.Wanted}
	var err error
	if g.Addr4, err = splitAddr4(w.Addr4); err != nil {
		return err
	}
	if g.Routes, err = splitRoutes(w.Routes); err != nil {
		return err
	}
	d.Grant = &g
	d.Key = keyOf(KindGrant, w.Node, d.Signer[:])
	d.Version = Version{High: w.Version, Low: d.hash64()}
	return nil
}
