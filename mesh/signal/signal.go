// Package signal seals the introductions of two members: it signs a message with the sender's node key, encrypts it
// to the receiver's sealing key (HPKE, RFC 9180), and runs the hybrid post-quantum key agreement whose result becomes
// the WireGuard preshared key of the pair.
//
// What an introduction says (candidates, relays) is the business of package nat; how it travels (session, anchor,
// neighbour) that of package session. Whoever forwards a signal learns its size and its receiver, nothing else.
//
// A Sealer may be used by several goroutines at once. It starts none and does no I/O.
package signal

import (
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// SkewError is ErrClockSkew with the difference.
type SkewError struct {
	Ahead time.Duration // the sender's clock, of ours; less than zero: behind
}

// Error returns the difference in words.
func (e *SkewError) Error() string {
	return fmt.Sprintf("its clock differs from ours by %s: %v", e.Ahead.Round(time.Second), ErrClockSkew)
}

// Unwrap returns ErrClockSkew.
func (e *SkewError) Unwrap() error { return ErrClockSkew }

// Role says what a message does in the key agreement.
type Role byte

const (
	// Plain takes no part in the key agreement.
	Plain Role = iota
	// Offer carries a fresh X25519 and ML-KEM-768 key of the sender.
	Offer
	// Answer carries the secret encapsulated to the offer's key.
	Answer
)

// Limits of a signal. An offer with its key of 1,216 bytes and twenty candidates takes about 3 KiB.
const (
	MaxPayload = 8 << 10
	MaxSealed  = 12 << 10
	// MinWithKey is the least size of an offer or an answer, which carry 1,216 and 1,120 bytes of the key agreement.
	MinWithKey = 1120
	// Sizes of WireGuard's messages of a handshake (WireGuard, section 5.4).
	initiationSize = 148
	responseSize   = 92
	// Window is how far the clocks of two members may differ, and how long a nonce is remembered.
	Window = 5 * time.Minute
	// agreementLife bounds how long an unanswered offer's key is kept: longer than any attempt lasts.
	agreementLife = 2 * time.Minute
	// seenPerPeer bounds the nonces remembered of one sender: more than 3 signals a second for a whole window.
	seenPerPeer = 1024
)

// Reasons why a signal is refused. Open's errors wrap one of them.
var (
	ErrMalformed = errors.New("malformed signal")
	ErrNotForUs  = errors.New("signal not sealed to this node")
	ErrStranger  = errors.New("signal from a stranger")
	ErrForged    = errors.New("signal with a wrong signature")
	ErrReplayed  = errors.New("signal replayed")
	ErrClockSkew = errors.New("signal outside the time window")
	ErrNoOffer   = errors.New("answer to an offer that was not made or is too old")
	ErrTooMany   = errors.New("too many signals from one member")
	ErrEarlier   = errors.New("signal for an earlier run of this node")
)

// Message is one signal in clear.
type Message struct {
	Role Role
	// Attempt numbers the introduction; an answer repeats its offer's.
	Attempt uint64
	// Payload is passed through: at most MaxPayload bytes.
	Payload []byte
	// Handshake is passed through: of an offer WireGuard's initiation (148 bytes), of an answer the response (92 bytes); nil: none.
	Handshake []byte
	// At is when it was sealed, by the sender's clock; set by Open.
	At time.Time
}

// PSK is a WireGuard preshared key.
type PSK [32]byte

// Keys are what a member's record says of it: the key that it signs with, the X25519 key to seal to, and which run of it that was.
type Keys struct {
	Signing  ed25519.PublicKey
	Sealing  [32]byte
	Instance [8]byte
}

// Options of a Sealer. All fields are required, but that without Instance and Started nothing is refused as one for an earlier run.
type Options struct {
	Mesh    identity.MeshID
	Self    identity.NodeID
	Signing ed25519.PrivateKey
	// Sealing is the X25519 private key whose public half stands in the own record.
	Sealing [32]byte
	Members Members
	// Instance is this run of the node, as its record and its introductions tell it, and Started when it began: the nonces seen by the
	// runs before are gone.
	Instance [8]byte
	Started  time.Time
}

// Members tells the keys of active members. It is asked for each signal, and does not wait.
type Members interface {
	Keys(identity.NodeID) (Keys, bool)
}

// Sealer seals and opens the signals of one node.
type Sealer struct {
	options Options
	key     hpke.PrivateKey

	mu    sync.Mutex
	peers map[identity.NodeID]*peerState
}

// peerState is what is remembered of one peer. Its lock is held for the key agreement with that peer, so that those with others
// do not wait for it; it is taken without Sealer.mu.
type peerState struct {
	mu      sync.Mutex // guards the rest
	seen    map[[16]byte]time.Time
	offered map[uint64]*offered
	heard   map[uint64]*heard
	// answered is the newest attempt that the peer has answered.
	answered uint64
	// instance is the run of the peer that it was heard of last, and recorded that in its record.
	instance, recorded [8]byte
}

// offered is an own offer: the private key is needed once, for the answer.
type offered struct {
	at   time.Time
	key  hpke.PrivateKey
	psk  *PSK // set by the first answer: repeats of it change nothing
	from [32]byte
}

// heard is a peer's offer, with what was encapsulated to it: every repeat of the answer must carry the same secret.
type heard struct {
	at     time.Time
	key    [32]byte // SHA-256 of the offered key
	public hpke.PublicKey
	enc    []byte
	psk    PSK
	// handshake is the initiation that the offer carried, made at millis by the sender's clock: of repeats the latest. nil: none.
	handshake []byte
	millis    int64
}

// clear is what is signed and then sealed. The signature covers the exact bytes of Body.
type clear struct {
	Body      []byte `cbor:"1,keyasint"`
	Signature []byte `cbor:"2,keyasint"`
}

type body struct {
	From    []byte `cbor:"1,keyasint"`
	Millis  int64  `cbor:"2,keyasint"`
	Nonce   []byte `cbor:"3,keyasint"`
	Role    Role   `cbor:"4,keyasint"`
	Attempt uint64 `cbor:"5,keyasint"`
	Payload []byte `cbor:"6,keyasint"`
	KEM     []byte `cbor:"7,keyasint,omitempty"` // offer: public key; answer: encapsulated secret
	To      []byte `cbor:"8,keyasint,omitempty"` // the receiver's instance; none: not known
	// Handshake is the first (offer) or second (answer) message of WireGuard's.
	Handshake []byte `cbor:"9,keyasint,omitempty"`
}

const (
	sealInfo = "warren signal v1"
	signInfo = "warren signal signature v1"
	pskInfo  = "warren psk v1"
)

var (
	encoding = record.Deterministic()
	decoding = record.Strict(64, 32)
)

// New returns a sealer. It fails on a sealing key that is no X25519 key.
func New(options Options) (*Sealer, error) {
	key, err := hpke.DHKEM(x25519()).NewPrivateKey(options.Sealing[:])
	if err != nil {
		return nil, fmt.Errorf("read sealing key: %w", err)
	}
	return &Sealer{options: options, key: key, peers: make(map[identity.NodeID]*peerState)}, nil
}

// GenerateSealingKey makes an X25519 key pair for sealing.
func GenerateSealingKey() (private, public [32]byte, err error) {
	key, err := x25519().GenerateKey(rand.Reader)
	if err != nil {
		return private, public, fmt.Errorf("generate sealing key: %w", err)
	}
	return [32]byte(key.Bytes()), [32]byte(key.PublicKey().Bytes()), nil
}

// SealingPublic returns the public half of a sealing key.
func SealingPublic(private [32]byte) ([32]byte, error) {
	key, err := x25519().NewPrivateKey(private[:])
	if err != nil {
		return [32]byte{}, fmt.Errorf("read sealing key: %w", err)
	}
	return [32]byte(key.PublicKey().Bytes()), nil
}

// Agree makes the preshared key that the answer to an attempt will say, and returns the initiation that its offer has carried, nil for none: who
// answers sets the key first, and then has the handshake's response for the answer. The error wraps ErrNoOffer when there is no offer to answer.
func (s *Sealer) Agree(now time.Time, to identity.NodeID, attempt uint64) (psk *PSK, initiation []byte, err error) {
	_, psk, initiation, err = s.answer(now, to, attempt)
	if err != nil {
		return nil, nil, fmt.Errorf("answer %s: %w", to.Short(), err)
	}
	return psk, initiation, nil
}

// Seal signs and seals m for a member. Sealing an answer yields the preshared key that the pair shares from now on;
// it must be in place before the answer leaves. Sealing the same offer or answer again repeats the same key.
// The error wraps ErrStranger when to is no member, and ErrNoOffer when an answer has no offer to answer.
func (s *Sealer) Seal(now time.Time, to identity.NodeID, m Message) (sealed []byte, psk *PSK, err error) {
	keys, ok := s.options.Members.Keys(to)
	if !ok {
		return nil, nil, fmt.Errorf("seal signal for %s: %w", to.Short(), ErrStranger)
	}
	if len(m.Payload) > MaxPayload {
		return nil, nil, fmt.Errorf("seal signal for %s: %d bytes, at most %d: %w", to.Short(), len(m.Payload), MaxPayload, ErrMalformed)
	}
	var nonce [16]byte
	rand.Read(nonce[:])
	in := body{From: s.options.Self[:], Millis: now.UnixMilli(), Nonce: nonce[:], Role: m.Role, Attempt: m.Attempt, Payload: m.Payload, Handshake: m.Handshake}
	if !in.handshakeFits() {
		return nil, nil, fmt.Errorf("seal signal for %s: handshake of %d bytes: %w", to.Short(), len(m.Handshake), ErrMalformed)
	}
	if instance := s.instance(now, to, keys.Instance); instance != [8]byte{} {
		in.To = instance[:]
	}
	switch m.Role {
	case Offer:
		in.KEM, err = s.offer(now, to, m.Attempt)
	case Answer:
		in.KEM, psk, _, err = s.answer(now, to, m.Attempt)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("seal signal for %s: %w", to.Short(), err)
	}
	bytes, err := encoding.Marshal(in)
	if err != nil {
		return nil, nil, fmt.Errorf("encode signal for %s: %w", to.Short(), err)
	}
	plain, err := encoding.Marshal(clear{Body: bytes, Signature: ed25519.Sign(s.options.Signing, s.toSign(to, bytes))})
	if err != nil {
		return nil, nil, fmt.Errorf("encode signal for %s: %w", to.Short(), err)
	}
	public, err := hpke.DHKEM(x25519()).NewPublicKey(keys.Sealing[:])
	if err != nil {
		return nil, nil, fmt.Errorf("read sealing key of %s: %w", to.Short(), err)
	}
	sealed, err = hpke.Seal(public, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), s.sealContext(to), plain)
	if err != nil {
		return nil, nil, fmt.Errorf("seal signal for %s: %w", to.Short(), err)
	}
	return sealed, psk, nil
}

// Open decrypts and checks a signal for this node. An answer yields the preshared key of the pair. Errors wrap
// one of the Err values above; from is set as soon as the sender is proven.
func (s *Sealer) Open(now time.Time, sealed []byte) (from identity.NodeID, m Message, psk *PSK, err error) {
	if len(sealed) > MaxSealed {
		return from, m, nil, fmt.Errorf("open signal of %d bytes: %w", len(sealed), ErrMalformed)
	}
	plain, err := hpke.Open(s.key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), s.sealContext(s.options.Self), sealed)
	if err != nil {
		return from, m, nil, fmt.Errorf("open signal: %w", ErrNotForUs)
	}
	in, sender, err := s.verify(plain)
	if err != nil {
		return from, m, nil, err
	}
	if skew := time.UnixMilli(in.Millis).Sub(now); skew > Window || skew < -Window {
		return sender, m, nil, fmt.Errorf("open signal of %s: %w", sender.Short(), &SkewError{skew})
	}
	if s.earlier(in) {
		return sender, m, nil, fmt.Errorf("open signal of %s: %w", sender.Short(), ErrEarlier)
	}
	if err := s.fresh(now, sender, [16]byte(in.Nonce)); err != nil {
		return sender, m, nil, fmt.Errorf("open signal of %s: %w", sender.Short(), err)
	}
	m = Message{Role: in.Role, Attempt: in.Attempt, Payload: in.Payload, Handshake: in.Handshake, At: time.UnixMilli(in.Millis)}
	switch in.Role {
	case Offer:
		err = s.heardOffer(now, sender, in)
	case Answer:
		psk, err = s.heardAnswer(now, sender, in)
	}
	if err != nil {
		return sender, Message{}, nil, fmt.Errorf("open signal of %s: %w", sender.Short(), err)
	}
	return sender, m, psk, nil
}

// verify decodes the decrypted bytes and checks the signature of the sender they name.
func (s *Sealer) verify(plain []byte) (in body, from identity.NodeID, err error) {
	var outer clear
	if err := decoding.Unmarshal(plain, &outer); err != nil || len(outer.Signature) != ed25519.SignatureSize {
		return in, from, fmt.Errorf("decode signal: %w", ErrMalformed)
	}
	if err := decoding.Unmarshal(outer.Body, &in); err != nil {
		return in, from, fmt.Errorf("decode signal: %w", ErrMalformed)
	}
	if len(in.From) != len(from) || len(in.Nonce) != 16 || len(in.To) > 0 && len(in.To) != 8 || in.Role > Answer || len(in.Payload) > MaxPayload || !in.handshakeFits() {
		return in, from, fmt.Errorf("decode signal: %w", ErrMalformed)
	}
	sender := identity.NodeID(in.From)
	keys, ok := s.options.Members.Keys(sender)
	if !ok {
		return in, from, fmt.Errorf("open signal of %s: %w", sender.Short(), ErrStranger)
	}
	if !ed25519.Verify(keys.Signing, s.toSign(s.options.Self, outer.Body), outer.Signature) {
		return in, from, fmt.Errorf("open signal of %s: %w", sender.Short(), ErrForged)
	}
	return in, sender, nil
}

// handshakeFits reports whether what is carried has the size that its role says.
func (in *body) handshakeFits() bool {
	switch len(in.Handshake) {
	case 0:
		return true
	case initiationSize:
		return in.Role == Offer
	case responseSize:
		return in.Role == Answer
	}
	return false
}

// toSign binds the body to this protocol, mesh and receiver, so that a signal cannot be sealed anew to another.
func (s *Sealer) toSign(to identity.NodeID, bytes []byte) []byte {
	out := make([]byte, 0, len(signInfo)+16+32+len(bytes))
	out = append(out, signInfo...)
	out = append(out, s.options.Mesh[:]...)
	out = append(out, to[:]...)
	return append(out, bytes...)
}

func (s *Sealer) sealContext(to identity.NodeID) []byte {
	out := make([]byte, 0, len(sealInfo)+16+32)
	out = append(out, sealInfo...)
	out = append(out, s.options.Mesh[:]...)
	return append(out, to[:]...)
}

// agreementContext binds the derived key to mesh, both ends, the attempt and the offered key.
func (s *Sealer) agreementContext(offerer, answerer identity.NodeID, attempt uint64, public []byte) []byte {
	in := slices.Concat(s.options.Mesh[:], offerer[:], answerer[:])
	in = binary.BigEndian.AppendUint64(in, attempt)
	hash := sha256.Sum256(append(in, public...))
	return append([]byte(pskInfo), hash[:]...)
}
