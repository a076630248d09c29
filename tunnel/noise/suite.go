package noise

import (
	"crypto/cipher"
	"encoding/binary"
	"hash"
	"io"

	flynn "github.com/flynn/noise"
	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/curve25519"
)

// suite is WireGuard's set of primitives for one handshake. It remembers where each secret lies that goes through it, for the
// library has no way to forget them.
type suite struct {
	agree   agreement
	random  io.Reader
	secrets [][]byte
	ciphers []*sealed
}

// agreement multiplies a point by a scalar: X25519, and in tests of what does not depend on it something quick.
type agreement func(scalar, point []byte) ([]byte, error)

// newSuite returns a suite for a machine.
func newSuite(m *Machine) (flynn.CipherSuite, *suite) {
	s := &suite{agree: m.agree, random: m.random}
	return flynn.NewCipherSuite(s, s, s), s
}

// wipe overwrites every secret of the handshake that was in the library's hands: shared secrets, chaining keys, message keys,
// ephemeral private keys.
func (s *suite) wipe() {
	for _, b := range s.secrets {
		clear(b[:cap(b)])
	}
	for _, c := range s.ciphers {
		clear(c.key[:])
	}
	s.secrets, s.ciphers = nil, nil
}

func (s *suite) keep(b []byte) []byte {
	s.secrets = append(s.secrets, b)
	return b
}

func (*suite) DHLen() int         { return 32 }
func (*suite) DHName() string     { return "25519" }
func (*suite) CipherName() string { return "ChaChaPoly" }
func (*suite) HashName() string   { return "BLAKE2s" }

// GenerateKeypair makes an ephemeral key.
func (s *suite) GenerateKeypair(random io.Reader) (flynn.DHKey, error) {
	private := s.keep(make([]byte, 32))
	if _, err := io.ReadFull(random, private); err != nil {
		return flynn.DHKey{}, err
	}
	public, err := s.agree(private, curve25519.Basepoint)
	return flynn.DHKey{Private: private, Public: public}, err
}

// DH agrees on a secret. With a point of low order there is none: the library would leave its state half mixed, and whoever sends
// such a point for a response would end the handshake. A random one never opens anything, and then the state is rolled back.
func (s *suite) DH(private, public []byte) ([]byte, error) {
	secret, err := s.agree(private, public)
	if err != nil {
		secret = make([]byte, 32)
		if _, err := io.ReadFull(s.random, secret); err != nil {
			return nil, err
		}
	}
	return s.keep(secret), nil
}

// Hash returns a BLAKE2s that remembers where its sums lie.
func (s *suite) Hash() hash.Hash {
	h, err := blake2s.New256(nil)
	if err != nil {
		panic("internal error: " + err.Error()) // there is no key that could be too long
	}
	return &summed{h, s}
}

// summed is a hash whose sums are secrets: in Noise the chaining key and all others are.
type summed struct {
	hash.Hash
	suite *suite
}

func (h *summed) Sum(b []byte) []byte {
	sum := h.Hash.Sum(b)
	h.suite.keep(sum[len(b):])
	return sum
}

// Cipher returns ChaCha20-Poly1305 with a key.
func (s *suite) Cipher(key [32]byte) flynn.Cipher {
	c := &sealed{key}
	s.ciphers = append(s.ciphers, c)
	return c
}

// sealed is a cipher that is made when it is needed. Those of the transport keys, which the library makes too, never are.
type sealed struct{ key [32]byte }

func (c *sealed) made(n uint64) (cipher.AEAD, []byte) {
	aead, err := chacha20poly1305.New(c.key[:])
	if err != nil {
		panic("internal error: " + err.Error()) // 32 bytes are always a key
	}
	nonce := make([]byte, chacha20poly1305.NonceSize)
	binary.LittleEndian.PutUint64(nonce[4:], n)
	return aead, nonce
}

func (c *sealed) Encrypt(out []byte, n uint64, ad, plain []byte) []byte {
	aead, nonce := c.made(n)
	return aead.Seal(out, nonce, plain, ad)
}

func (c *sealed) Decrypt(out []byte, n uint64, ad, sealed []byte) ([]byte, error) {
	aead, nonce := c.made(n)
	return aead.Open(out, nonce, sealed, ad)
}
