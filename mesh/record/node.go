package record

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"warren/mesh/identity"
)

// Bounds of what a node may say about itself.
const (
	MaxName      = 63 // bytes, a DNS label (RFC 1035)
	MaxRoutes    = 32
	MaxEndpoints = 8 // also of streams
	MaxAnchors   = 4
	MaxVersion   = 32 // bytes
	MaxDevices   = 16 // each has two routes
)

// Node is what a node says of itself, with the proof of its membership.
type Node struct {
	ID           identity.NodeID  // of the certified key; not on the wire
	Seq          uint64           // greater in each later record of the node; at most 2³²−1
	Certificate  []byte           // DER of the node's certificate, from which the ID follows
	Admission    Admission        // zero for nodes that the root certified
	Name         string           // wanted, a DNS label in lower case; see CleanName
	WireGuardKey [32]byte         // Curve25519 public key
	SealingKey   [32]byte         // X25519 public key for HPKE
	Addr4        netip.Addr       // claimed IPv4 overlay address, or none
	Routes       []netip.Prefix   // underlay networks that the node offers to reach
	Endpoints    []netip.AddrPort // where strangers reach it: set by anchors only
	Anchors      []identity.NodeID
	Version      string // of the program
	Left         bool   // the node has left on its own account
	Instance     [8]byte
	Epoch        uint64 // counts starts, to tell a clone from a restart
	Started      int64  // Unix seconds
	Updated      int64  // Unix seconds
	Given
	Streams []netip.AddrPort // where strangers reach it by TCP, for networks that drop UDP: set by anchors only
	// WireGuardProof is identity.ProveKey of the WireGuard key. That it is right is for whoever takes the record in to check.
	WireGuardProof [64]byte
}

// Given is what a node gives to the others.
type Given struct {
	// LANSecret is what admins give the members to find each other by on a local network; zero: none. Members know it,
	// as they know all records; strangers do not, unlike the mesh ID, which stands in every certificate chain.
	LANSecret [16]byte
	Devices   []Device // plain WireGuard devices that reach the mesh through it; their addresses stand in Routes as well
}

// Admission is the countersignature of the member that let a node in.
type Admission struct {
	Time      int64 // Unix seconds, by the signer's clock
	Signer    identity.NodeID
	Signature []byte // over "warren admission v1" ‖ mesh ID ‖ SHA-256 of the certificate ‖ time (8 bytes, big-endian)
}

// nodeWire is the body of a node record in CBOR. Addresses are 4 or 16 bytes, followed by two bytes of port
// (big-endian) in endpoints and one byte of prefix length in routes.
type nodeWire struct {
	Seq          uint64         `cbor:"1,keyasint"`
	Certificate  []byte         `cbor:"2,keyasint"`
	Admission    *admissionWire `cbor:"3,keyasint,omitempty"`
	Name         string         `cbor:"4,keyasint,omitempty"`
	WireGuardKey []byte         `cbor:"5,keyasint"`
	SealingKey   []byte         `cbor:"6,keyasint"`
	Addr4        []byte         `cbor:"7,keyasint,omitempty"`
	Routes       [][]byte       `cbor:"8,keyasint,omitempty"`
	Endpoints    [][]byte       `cbor:"9,keyasint,omitempty"`
	Anchors      [][]byte       `cbor:"10,keyasint,omitempty"`
	Version      string         `cbor:"11,keyasint,omitempty"`
	Left         bool           `cbor:"12,keyasint,omitempty"`
	Instance     []byte         `cbor:"13,keyasint"`
	Epoch        uint64         `cbor:"14,keyasint,omitempty"`
	Started      int64          `cbor:"15,keyasint,omitempty"`
	Updated      int64          `cbor:"16,keyasint,omitempty"`
	LANSecret    []byte         `cbor:"17,keyasint,omitempty"`
	Streams      [][]byte       `cbor:"18,keyasint,omitempty"`
	KeyProof     []byte         `cbor:"19,keyasint"`
	Devices      []deviceWire   `cbor:"20,keyasint,omitempty"`
}

type admissionWire struct {
	_         struct{} `cbor:",toarray"`
	Time      int64
	Signer    []byte
	Signature []byte
}

// SignNode makes the record of n, signed with the node's key. The ID in n is ignored: it follows from the
// certificate. The error wraps ErrMalformed when n breaks a bound, so what this returns, others can decode.
func SignNode(mesh identity.MeshID, n Node, key ed25519.PrivateKey) (Signed, error) {
	body, err := encoding.Marshal(n.wire())
	if err != nil {
		return Signed{}, fmt.Errorf("encode node: %w", err)
	}
	s := signBody(mesh, KindNode, body, key)
	d, err := s.Decode()
	if err != nil {
		return Signed{}, err
	}
	if want := identity.NodeIDOf(key.Public().(ed25519.PublicKey)); d.Node.ID != want {
		return Signed{}, fmt.Errorf("sign node %s: the certificate is of node %s", want.Short(), d.Node.ID.Short())
	}
	_, err = s.Marshal() // for its size
	return s, err
}

// Node reads the body of a node record, ID included. It verifies no signature; the error wraps ErrMalformed.
func (s Signed) Node() (Node, error) {
	d, err := s.Decode()
	if err != nil {
		return Node{}, err
	}
	if d.Node == nil {
		return Node{}, malformed("node out of a %s", s.Kind)
	}
	return *d.Node, nil
}

// SignAdmission countersigns the DER of a node's certificate with the key of the admitting node.
func SignAdmission(mesh identity.MeshID, cert []byte, at time.Time, key ed25519.PrivateKey) Admission {
	a := Admission{Time: at.Unix(), Signer: identity.NodeIDOf(key.Public().(ed25519.PublicKey))}
	a.Signature = ed25519.Sign(key, a.signedBytes(mesh, cert))
	return a
}

// IsZero reports whether there is no admission.
func (a Admission) IsZero() bool { return a.Signature == nil }

// Verify checks the countersignature. The error wraps ErrSignature.
func (a Admission) Verify(mesh identity.MeshID, cert []byte, public ed25519.PublicKey) error {
	if len(public) != ed25519.PublicKeySize || identity.NodeIDOf(public) != a.Signer ||
		!ed25519.Verify(public, a.signedBytes(mesh, cert), a.Signature) {
		return fmt.Errorf("verify admission: %w", ErrSignature)
	}
	return nil
}

func (a Admission) signedBytes(mesh identity.MeshID, cert []byte) []byte {
	hash := sha256.Sum256(cert)
	signed := append([]byte("warren admission v1"), mesh[:]...)
	signed = append(signed, hash[:]...)
	return binary.BigEndian.AppendUint64(signed, uint64(a.Time))
}

// CleanName makes a name fit for a record out of a host name: its first label in lower case, other characters
// than letters, digits and hyphens turned into hyphens. It returns "" when nothing is left.
func CleanName(host string) string {
	label, _, _ := strings.Cut(host, ".")
	label = strings.Map(func(r rune) rune {
		if isNameRune(r) {
			return r
		}
		return '-'
	}, strings.ToLower(label))
	label = strings.Trim(label, "-")
	if len(label) > MaxName {
		label = strings.TrimRight(label[:MaxName], "-")
	}
	return label
}

// CleanVersion makes a version fit for a record: printable, and no longer than MaxVersion. What the go tool makes of a
// commit, v0.0.0-20060102150405-abcdefabcdef+dirty, is longer; its beginning tells all.
func CleanVersion(version string) string {
	version = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, version)
	return version[:min(len(version), MaxVersion)]
}

func isNameRune(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' }

func (n Node) wire() nodeWire {
	w := nodeWire{
		Seq: n.Seq, Certificate: n.Certificate, Name: n.Name, WireGuardKey: n.WireGuardKey[:], SealingKey: n.SealingKey[:],
		Version: n.Version, Left: n.Left, Instance: n.Instance[:], Epoch: n.Epoch, Started: n.Started, Updated: n.Updated,
		Routes: joinRoutes(n.Routes), KeyProof: n.WireGuardProof[:], Devices: joinDevices(n.Devices),
	}
	if !n.Admission.IsZero() {
		w.Admission = &admissionWire{Time: n.Admission.Time, Signer: n.Admission.Signer[:], Signature: n.Admission.Signature}
	}
	if n.Addr4.IsValid() {
		w.Addr4 = n.Addr4.AsSlice()
	}
	if n.LANSecret != [16]byte{} {
		w.LANSecret = n.LANSecret[:]
	}
	for _, endpoint := range n.Endpoints {
		w.Endpoints = append(w.Endpoints, binary.BigEndian.AppendUint16(endpoint.Addr().AsSlice(), endpoint.Port()))
	}
	for _, stream := range n.Streams {
		w.Streams = append(w.Streams, binary.BigEndian.AppendUint16(stream.Addr().AsSlice(), stream.Port()))
	}
	for _, anchor := range n.Anchors {
		w.Anchors = append(w.Anchors, anchor[:])
	}
	return w
}

func (d *Decoded) decodeNode() error {
	var w nodeWire
	if err := decoding.Unmarshal(d.Body, &w); err != nil {
		return malformed("node: %v", err)
	}
	cert, err := identity.ParseCert(w.Certificate)
	if err != nil {
		return malformed("node: %v", err)
	}
	if role := identity.RoleOf(cert); role != identity.RoleMember && role != identity.RoleAdmin {
		return malformed("node with the certificate of a %s", role)
	}
	n, err := w.node()
	if err != nil {
		return err
	}
	n.ID = identity.NodeIDOfCert(cert)
	admitted := cert.NotBefore.Unix()
	if !n.Admission.IsZero() {
		admitted = n.Admission.Time
	}
	if admitted < 0 || admitted > math.MaxUint32 {
		return malformed("node admitted at %d", admitted)
	}
	d.Certificate, d.Node = cert, &n
	d.Key = keyOf(KindNode, n.ID[:])
	d.Version = Version{
		High: uint64(^uint32(admitted))<<32 | uint64(n.admissionHash()),
		Low:  n.Seq<<32 | d.hash64()>>32,
	}
	return nil
}

// admissionHash tells admissions of one second apart: a node that has several is up to no good, and everyone
// must still choose the same.
func (n Node) admissionHash() uint32 {
	hash := sha256.New()
	hash.Write(n.Admission.Signer[:])
	hash.Write(n.Certificate)
	return binary.BigEndian.Uint32(hash.Sum(nil))
}

// Admitted returns the time of the admission, or the start of a certificate that the root signed.
func (d Decoded) Admitted() time.Time {
	if d.Node.Admission.IsZero() {
		return d.Certificate.NotBefore
	}
	return time.Unix(d.Node.Admission.Time, 0).UTC()
}

// node checks the bounds and turns w into a Node without its ID.
func (w nodeWire) node() (n Node, err error) {
	n = Node{
		Seq: w.Seq, Certificate: w.Certificate, Name: w.Name, Version: w.Version, Left: w.Left, Epoch: w.Epoch,
		Started: w.Started, Updated: w.Updated,
	}
	switch {
	case w.Seq > math.MaxUint32:
		// The node's last word stands for ever then, and no other record of its key can take its place.
		return Node{}, malformed("node with sequence %d, after %d, the last there is: only revoking the node helps, which can then join anew under a new key",
			w.Seq, uint32(math.MaxUint32))
	case len(w.WireGuardKey) != 32 || len(w.SealingKey) != 32 || [32]byte(w.WireGuardKey) == [32]byte{} || [32]byte(w.SealingKey) == [32]byte{}:
		return Node{}, malformed("node without WireGuard and sealing key")
	case len(w.KeyProof) != 64 || [64]byte(w.KeyProof) == [64]byte{}:
		return Node{}, malformed("node without a proof of its WireGuard key")
	case len(w.Instance) != 8:
		return Node{}, malformed("node with an instance of %d bytes", len(w.Instance))
	case w.Name != CleanName(w.Name):
		return Node{}, malformed("node with the name %q", w.Name)
	case len(w.Version) > MaxVersion || strings.ContainsFunc(w.Version, func(r rune) bool { return r <= ' ' || r > '~' }):
		return Node{}, malformed("node with the version %q", w.Version)
	case len(w.Routes) > MaxRoutes || len(w.Endpoints) > MaxEndpoints || len(w.Streams) > MaxEndpoints || len(w.Anchors) > MaxAnchors:
		return Node{}, malformed("node with %d routes, %d endpoints, %d streams, %d anchors", len(w.Routes), len(w.Endpoints), len(w.Streams), len(w.Anchors))
	}
	if w.LANSecret != nil {
		if len(w.LANSecret) != len(n.LANSecret) {
			return Node{}, malformed("node with a LAN secret of %d bytes", len(w.LANSecret))
		}
		n.LANSecret = [16]byte(w.LANSecret)
	}
	n.WireGuardKey, n.SealingKey, n.Instance = [32]byte(w.WireGuardKey), [32]byte(w.SealingKey), [8]byte(w.Instance)
	n.WireGuardProof = [64]byte(w.KeyProof)
	if w.Admission != nil {
		if len(w.Admission.Signer) != len(identity.NodeID{}) || len(w.Admission.Signature) != ed25519.SignatureSize {
			return Node{}, malformed("node with a malformed admission")
		}
		n.Admission = Admission{Time: w.Admission.Time, Signer: identity.NodeID(w.Admission.Signer), Signature: w.Admission.Signature}
	}
	if n.Devices, err = splitDevices(w.Devices); err != nil {
		return Node{}, err
	}
	return n, w.addresses(&n)
}

// addresses reads the fields of w that hold addresses and IDs into n.
func (w nodeWire) addresses(n *Node) error {
	var err error
	if n.Addr4, err = splitAddr4(w.Addr4); err != nil {
		return err
	}
	if n.Routes, err = splitRoutes(w.Routes); err != nil {
		return err
	}
	if n.Endpoints, err = reachable(w.Endpoints); err != nil {
		return err
	}
	if n.Streams, err = reachable(w.Streams); err != nil {
		return err
	}
	for _, raw := range w.Anchors {
		if len(raw) != len(identity.NodeID{}) {
			return malformed("node with an anchor of %d bytes", len(raw))
		}
		n.Anchors = append(n.Anchors, identity.NodeID(raw))
	}
	return nil
}

// splitAddr4 reads an IPv4 address that may be absent.
func splitAddr4(raw []byte) (netip.Addr, error) {
	switch {
	case raw == nil:
		return netip.Addr{}, nil
	case len(raw) != 4:
		return netip.Addr{}, malformed("IPv4 address of %d bytes", len(raw))
	}
	return netip.AddrFrom4([4]byte(raw)), nil
}

// joinRoutes writes routes: address, then prefix length.
func joinRoutes(routes []netip.Prefix) (raw [][]byte) {
	for _, route := range routes {
		raw = append(raw, append(route.Addr().AsSlice(), byte(route.Bits())))
	}
	return raw
}

// splitRoutes is the reverse of joinRoutes.
func splitRoutes(list [][]byte) (routes []netip.Prefix, err error) {
	for _, raw := range list {
		addr, tail, ok := splitAddr(raw, 1)
		route := netip.Prefix{}
		if ok {
			route = netip.PrefixFrom(addr, int(tail[0]))
		}
		if !route.IsValid() || route != route.Masked() {
			return nil, malformed("route %x", raw)
		}
		routes = append(routes, route)
	}
	return routes, nil
}

// reachable reads addresses with ports that could be a stranger's to send to.
func reachable(list [][]byte) (out []netip.AddrPort, err error) {
	for _, raw := range list {
		addr, tail, ok := splitAddr(raw, 2)
		if !ok || !identity.IsReachable(netip.AddrPortFrom(addr, binary.BigEndian.Uint16(tail))) {
			return nil, malformed("node with the endpoint %x", raw)
		}
		out = append(out, netip.AddrPortFrom(addr, binary.BigEndian.Uint16(tail)))
	}
	return out, nil
}

// splitAddr cuts raw into an address and a tail of so many bytes. IPv4 in IPv6 form is refused: each address has
// one form.
func splitAddr(raw []byte, tail int) (netip.Addr, []byte, bool) {
	if len(raw) < tail {
		return netip.Addr{}, nil, false
	}
	addr, ok := netip.AddrFromSlice(raw[:len(raw)-tail])
	if !ok || addr.Is4In6() {
		return netip.Addr{}, nil, false
	}
	return addr, raw[len(raw)-tail:], true
}
