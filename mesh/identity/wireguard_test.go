package identity

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"math/big"
	"testing"
)

// The curve in plain integers, straight from RFC 7748 and RFC 8032: slow, and independent of what is tested.
var (
	prime, _ = new(big.Int).SetString("57896044618658097711785492504343953926634992332820282019728792003956564819949", 10)
	order, _ = new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	curveD   = modulo(product(big.NewInt(-121665), inverse(big.NewInt(121666))))
)

type plainPoint struct{ x, y *big.Int }

func modulo(n *big.Int) *big.Int        { return new(big.Int).Mod(n, prime) }
func product(a, b *big.Int) *big.Int    { return modulo(new(big.Int).Mul(a, b)) }
func inverse(n *big.Int) *big.Int       { return new(big.Int).ModInverse(modulo(n), prime) }
func sum(a, b *big.Int) *big.Int        { return modulo(new(big.Int).Add(a, b)) }
func difference(a, b *big.Int) *big.Int { return modulo(new(big.Int).Sub(a, b)) }

func (p plainPoint) add(q plainPoint) plainPoint {
	one := big.NewInt(1)
	t := product(curveD, product(product(p.x, q.x), product(p.y, q.y)))
	return plainPoint{
		product(sum(product(p.x, q.y), product(q.x, p.y)), inverse(sum(one, t))),
		product(sum(product(p.y, q.y), product(p.x, q.x)), inverse(difference(one, t))),
	}
}

func (p plainPoint) times(n *big.Int) plainPoint {
	out := plainPoint{big.NewInt(0), big.NewInt(1)}
	for i := n.BitLen() - 1; i >= 0; i-- {
		out = out.add(out)
		if n.Bit(i) == 1 {
			out = out.add(p)
		}
	}
	return out
}

func (p plainPoint) encode() [32]byte {
	out := littleEndian(p.y)
	out[31] |= byte(p.x.Bit(0)) << 7
	return out
}

// montgomery is the u of a point: (1 + y) / (1 − y).
func (p plainPoint) montgomery() [32]byte {
	one := big.NewInt(1)
	return littleEndian(product(sum(one, p.y), inverse(difference(one, p.y))))
}

func basePoint() plainPoint {
	y := product(big.NewInt(4), inverse(big.NewInt(5)))
	y2 := product(y, y)
	x2 := product(difference(y2, big.NewInt(1)), inverse(sum(product(curveD, y2), big.NewInt(1))))
	x := new(big.Int).ModSqrt(x2, prime)
	if x.Bit(0) == 1 {
		x.Sub(prime, x)
	}
	return plainPoint{x, y}
}

func littleEndian(n *big.Int) (out [32]byte) {
	n.FillBytes(out[:])
	for i := range 16 {
		out[i], out[31-i] = out[31-i], out[i]
	}
	return out
}

func fromLittleEndian(b []byte) *big.Int {
	turned := bytes.Clone(b)
	for i := range len(turned) / 2 {
		turned[i], turned[len(turned)-1-i] = turned[len(turned)-1-i], turned[i]
	}
	return new(big.Int).SetBytes(turned)
}

func clamped(private [32]byte) *big.Int {
	private[0] &= 248
	private[31] = private[31]&127 | 64
	return fromLittleEndian(private[:])
}

// plainProof is section 3.4 of the XEdDSA page in plain integers, with the nonce given.
func plainProof(mesh MeshID, node NodeID, private [32]byte, nonce *big.Int) (proof [64]byte) {
	key := new(big.Int).Mod(clamped(private), order)
	public := basePoint().times(key)
	if public.x.Bit(0) == 1 {
		key.Sub(order, key)
		public = basePoint().times(key)
	}
	a, r := public.encode(), basePoint().times(nonce).encode()
	message := append(append([]byte("warren wireguard key v1"), mesh[:]...), node[:]...)
	hash := sha512.Sum512(append(append(bytes.Clone(r[:]), a[:]...), message...))
	s := new(big.Int).Mul(fromLittleEndian(hash[:]), key)
	s = littleEndianScalar(s.Add(s, nonce))
	copy(proof[:], r[:])
	last := littleEndian(s)
	copy(proof[32:], last[:])
	return proof
}

func littleEndianScalar(n *big.Int) *big.Int { return new(big.Int).Mod(n, order) }

// plainCheck is section 3.4's verification in plain integers.
func plainCheck(mesh MeshID, node NodeID, public [32]byte, proof [64]byte) bool {
	u := fromLittleEndian(public[:])
	y := product(difference(u, big.NewInt(1)), inverse(sum(u, big.NewInt(1))))
	y2 := product(y, y)
	x := new(big.Int).ModSqrt(product(difference(y2, big.NewInt(1)), inverse(sum(product(curveD, y2), big.NewInt(1)))), prime)
	if x == nil {
		return false
	}
	if x.Bit(0) == 1 {
		x.Sub(prime, x)
	}
	point := plainPoint{x, y}
	a := point.encode()
	message := append(append([]byte("warren wireguard key v1"), mesh[:]...), node[:]...)
	hash := sha512.Sum512(append(append(bytes.Clone(proof[:32]), a[:]...), message...))
	h := littleEndianScalar(fromLittleEndian(hash[:]))
	want := basePoint().times(fromLittleEndian(proof[32:])).add(plainPoint{difference(prime, x), y}.times(h)).encode()
	return bytes.Equal(want[:], proof[:32])
}

func wireGuardKey(t *testing.T, name string) (private, public [32]byte) {
	t.Helper()
	private = sha256.Sum256([]byte(name))
	key, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		t.Fatal(err)
	}
	return private, [32]byte(key.PublicKey().Bytes())
}

// What is proved here passes in plain integers, and the other way round, with keys of both signs.
func TestKeyProofsAgreeWithPlainIntegers(t *testing.T) {
	mesh, node := MeshID{1, 2, 3}, NodeID{4, 5, 6}
	signs := make(map[uint]int)
	for i := range 6 {
		private, public := wireGuardKey(t, fmt.Sprint("key ", i))
		point := basePoint().times(clamped(private))
		if point.montgomery() != public {
			t.Fatalf("key %d: plain integers have another public key", i)
		}
		signs[point.x.Bit(0)]++
		proof, err := ProveKey(mesh, node, private)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckKey(mesh, node, public, proof); err != nil {
			t.Errorf("key %d: %v", i, err)
		}
		if !plainCheck(mesh, node, public, proof) {
			t.Errorf("key %d: plain integers do not take our proof", i)
		}
		plain := plainProof(mesh, node, private, littleEndianScalar(fromLittleEndian(bytes.Repeat([]byte{byte(i + 1)}, 40))))
		if err := CheckKey(mesh, node, public, plain); err != nil {
			t.Errorf("key %d: proof in plain integers: %v", i, err)
		}
	}
	if signs[0] == 0 || signs[1] == 0 {
		t.Errorf("got signs %v, want both", signs)
	}
}

// A proof for others to compare with: this key, the mesh and the node of PROTOCOL.md, and the nonce 7.
func TestKeyProofVector(t *testing.T) {
	mesh := MeshIDOf(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)).Public().(ed25519.PublicKey))
	node := NodeIDOf(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32)).Public().(ed25519.PublicKey))
	private := [32]byte(bytes.Repeat([]byte{3}, 32))
	key, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		t.Fatal(err)
	}
	proof := plainProof(mesh, node, private, big.NewInt(7))
	if err := CheckKey(mesh, node, [32]byte(key.PublicKey().Bytes()), proof); err != nil {
		t.Error(err)
	}
	const want = "5dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef22 b862409fb5c4c4123df2abf7462b88f041ad36dd6864ce872fd5472be363c5b1a7a1cde1f6b3a8b95065c65de4b7d62af878ab2122cd22e8dde4e7f0b7657b07"
	if got := fmt.Sprintf("%x %x", key.PublicKey().Bytes(), proof); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestKeyProofIsOfOneKeyNodeAndMesh(t *testing.T) {
	mesh, node := MeshID{1}, NodeID{2}
	private, public := wireGuardKey(t, "mine")
	_, other := wireGuardKey(t, "another's")
	proof, err := ProveKey(mesh, node, private)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ProveKey(mesh, node, private)
	if err != nil || again == proof {
		t.Errorf("proved again: got the same nonce (%v), want another", err)
	}
	for i := range proof {
		changed := proof
		changed[i] ^= 1
		if err := CheckKey(mesh, node, public, changed); !errors.Is(err, ErrKeyProof) {
			t.Errorf("byte %d changed: got %v, want ErrKeyProof", i, err)
		}
	}
	twice := proof // s + q is another encoding of s
	last := littleEndian(new(big.Int).Add(fromLittleEndian(proof[32:]), order))
	copy(twice[32:], last[:])
	for name, err := range map[string]error{
		"another's key":      CheckKey(mesh, node, other, proof),
		"another node":       CheckKey(mesh, NodeID{3}, public, proof),
		"another mesh":       CheckKey(MeshID{2}, node, public, proof),
		"no proof":           CheckKey(mesh, node, public, [64]byte{}),
		"scalar not reduced": CheckKey(mesh, node, public, twice),
	} {
		if !errors.Is(err, ErrKeyProof) {
			t.Errorf("%s: got %v, want ErrKeyProof", name, err)
		}
	}
}

// Keys that WireGuard would take but that nobody's private key makes have no proof, whatever the signature: for those of small order
// anybody could make one.
func TestKeysThatCannotBeProven(t *testing.T) {
	mesh, node := MeshID{1}, NodeID{2}
	private, public := wireGuardKey(t, "mine")
	proof, err := ProveKey(mesh, node, private)
	if err != nil {
		t.Fatal(err)
	}
	topBit := public
	topBit[31] |= 0x80
	number := func(text string) [32]byte {
		n, ok := new(big.Int).SetString(text, 10)
		if !ok {
			t.Fatal(text)
		}
		return littleEndian(n)
	}
	plus := func(n int64) [32]byte { return littleEndian(new(big.Int).Add(prime, big.NewInt(n))) }
	keys := map[string][32]byte{
		"with the top bit":    topBit,
		"zero, of order 2":    {},
		"one, of order 4":     {1},
		"of order 8":          number("325606250916557431795983626356110631294008115727848805560023387167927233504"),
		"another of order 8":  number("39382357235489614581723060781553021112529911719440698176882885853963445705823"),
		"minus one":           plus(-1),
		"zero, not reduced":   plus(0),
		"one, not reduced":    plus(1),
		"nine, not reduced":   plus(9),
		"the greatest of all": [32]byte(bytes.Repeat([]byte{0xff}, 32)),
		"two, on the twist":   {2},
	}
	for name, key := range keys {
		if err := CheckKey(mesh, node, key, proof); !errors.Is(err, ErrKeyProof) {
			t.Errorf("%s: got %v, want ErrKeyProof", name, err)
		}
	}
	// For a point of small order a signature is forged in a few tries, so these are refused before any is looked at.
	for _, name := range []string{"zero, of order 2", "one, of order 4", "of order 8", "another of order 8", "minus one"} {
		if _, err := toEdwards(keys[name]); !errors.Is(err, ErrKeyProof) {
			t.Errorf("%s: got %v, want ErrKeyProof", name, err)
		}
	}
	// Half of all numbers are on the twist.
	refused := 0
	for i := range 64 {
		if _, err := toEdwards([32]byte{byte(i + 2), 7}); err != nil {
			refused++
		}
	}
	if refused < 20 || refused > 44 {
		t.Errorf("got %d of 64 numbers refused, want about half", refused)
	}
}

func BenchmarkCheckKey(b *testing.B) {
	private := [32]byte{1}
	key, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		b.Fatal(err)
	}
	proof, err := ProveKey(MeshID{1}, NodeID{2}, private)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := CheckKey(MeshID{1}, NodeID{2}, [32]byte(key.PublicKey().Bytes()), proof); err != nil {
			b.Fatal(err)
		}
	}
}
