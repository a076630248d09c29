package noise

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"time"

	"golang.org/x/crypto/curve25519"
	"golang.zx2c4.com/wireguard/tai64n"
)

// The constants of the protocol, by their names in section 6.1 of the paper.
const (
	RekeyAfterMessages  = 1 << 60
	RejectAfterMessages = 1<<64 - 1<<13 - 1
	RekeyAfterTime      = 120 * time.Second
	RejectAfterTime     = 180 * time.Second
	RekeyAttemptTime    = 90 * time.Second // after which a handshake that nobody answers is given up
	RekeyTimeout        = 5 * time.Second  // between two initiations to one peer
	KeepaliveTimeout    = 10 * time.Second

	RekeyJitter       = 333 * time.Millisecond // the most that is added to RekeyTimeout
	ZeroAfterTime     = 3 * RejectAfterTime    // after the last handshake all keys go
	CookieRefreshTime = 120 * time.Second      // a cookie, and the secret that it is made with, live that long
	InitiationRate    = 20 * time.Millisecond  // initiations of one peer that come closer together are dropped
	UnderLoadTime     = time.Second            // how long load is believed after it was last seen
)

type (
	// PublicKey is a Curve25519 public key: who a peer is.
	PublicKey [32]byte
	// PrivateKey is a Curve25519 private key. It need not be clamped.
	PrivateKey [32]byte
	// PresharedKey is mixed into each handshake. All zeros are what WireGuard uses for none.
	PresharedKey [32]byte
)

// String keeps the key out of logs.
func (PrivateKey) String() string { return "(private key)" }

// String keeps the key out of logs.
func (PresharedKey) String() string { return "(preshared key)" }

// Public returns the public key of a private one.
func (k PrivateKey) Public() PublicKey { return k.public(curve25519.X25519) }

func (k PrivateKey) public(agree agreement) (public PublicKey) {
	point, err := agree(k[:], curve25519.Basepoint)
	if err != nil {
		panic("internal error: " + err.Error()) // with the base point there is a result always
	}
	copy(public[:], point)
	return public
}

// Instant is nanoseconds by a clock of the caller that never goes back and that counts the time a machine sleeps (on Linux
// CLOCK_BOOTTIME), because a peer forgets its keys meanwhile. Its origin is the caller's choice.
type Instant int64

const (
	// Never is later than every Instant.
	Never Instant = math.MaxInt64

	longAgo Instant = math.MinInt64 / 2
)

// Add returns the instant that is d later. What is later than Never is Never.
func (t Instant) Add(d time.Duration) Instant {
	if t > Never-Instant(d) {
		return Never
	}
	return t + Instant(d)
}

// Sub returns how much later t is than u.
func (t Instant) Sub(u Instant) time.Duration { return time.Duration(t - u) }

// Moment is one moment by two clocks. The calendar is needed for the stamps of initiations only, and may go back.
type Moment struct {
	At   Instant
	Wall time.Time
}

// Limiter says whether one more handshake message of an address is to be looked at while there is load.
// *ratelimiter.Ratelimiter of golang.zx2c4.com/wireguard is one; it has a clock and a goroutine, which is why whoever runs the
// machine starts and ends it.
type Limiter interface {
	Allow(netip.Addr) bool
}

// Options are the settings of a Machine. Only Private must be set.
type Options struct {
	Private PrivateKey
	Limiter Limiter   // nil: none, cookies are asked for all the same
	Random  io.Reader // of keys, indices and jitter; nil: crypto/rand
	// After is the stamp that the initiations of an earlier run may have reached (see Machine.Stamp): all of this run are
	// later, even if the calendar has gone back. Zero: the calendar alone decides.
	After tai64n.Timestamp
}

// Machine is this node as WireGuard sees it: its key, its peers, the indices by which packets find them.
//
// All methods belong to one goroutine, the control goroutine, save Open, which any number may call.
type Machine struct {
	// constant after New
	private PrivateKey
	public  PublicKey
	limiter Limiter
	random  io.Reader
	agree   agreement

	// owned by the control goroutine
	peers     map[PublicKey]*Peer
	stamp     tai64n.Timestamp // the latest that was sent
	loadUntil Instant
	checker   checker

	table table // written by the control goroutine, read by all
}

// New makes a machine without peers. It fails if the private key is missing.
func New(o Options) (*Machine, error) { return newMachine(o, curve25519.X25519) }

func newMachine(o Options, agree agreement) (*Machine, error) {
	if o.Private == (PrivateKey{}) {
		return nil, errors.New("make WireGuard machine: no private key")
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	m := &Machine{
		private: o.Private, public: o.Private.public(agree), limiter: o.Limiter, random: o.Random, agree: agree,
		peers: make(map[PublicKey]*Peer), stamp: o.After, loadUntil: longAgo,
	}
	m.checker.init(m.public)
	m.table.init()
	return m, nil
}

// Public returns the machine's own public key.
func (m *Machine) Public() PublicKey { return m.public }

// Stamp returns the latest stamp that an initiation of this machine has carried. Whoever keeps it over a restart (see
// Options.After) is understood by its peers even if its calendar starts in the past.
func (m *Machine) Stamp() tai64n.Timestamp { return m.stamp }

// Add makes a peer. It fails for the own key, for a key with which no secret can be agreed on, and if the peer is there already.
func (m *Machine) Add(key PublicKey) (*Peer, error) {
	switch {
	case key == m.public:
		return nil, errors.New("add peer: it has this node's own key")
	case m.peers[key] != nil:
		return nil, errors.New("add peer: it is there already")
	case !m.agrees(key):
		return nil, errors.New("add peer: no secret can be agreed on with its key")
	}
	p := newPeer(m, key)
	m.peers[key] = p
	return p, nil
}

// agrees reports whether a key has a secret with ours: those of low order have none.
func (m *Machine) agrees(key PublicKey) bool {
	secret, err := m.agree(m.private[:], key[:])
	clear(secret)
	return err == nil
}

// Peer returns the peer with a key, or nil.
func (m *Machine) Peer(key PublicKey) *Peer { return m.peers[key] }

// Remove drops a peer and all its keys: nothing is due any more, and Seal has no key. The stamp of its last initiation is forgotten with it: one that is added again takes an
// old initiation once more, which gains nobody a session, but costs it its next one.
func (m *Machine) Remove(p *Peer) {
	if m.peers[p.key] != p {
		return
	}
	delete(m.peers, p.key)
	p.Zero()
	p.psk, p.removed = PresharedKey{}, true
}

// Close drops all peers and forgets the private key. The machine is of no use any more.
func (m *Machine) Close() {
	for _, p := range m.peers {
		m.Remove(p)
	}
	m.private = PrivateKey{}
}

// uint32 returns a random number.
func (m *Machine) uint32() uint32 {
	var b [4]byte
	if _, err := io.ReadFull(m.random, b[:]); err != nil {
		panic(fmt.Sprintf("internal error: no random bytes: %v", err)) // crypto/rand never fails
	}
	return binary.LittleEndian.Uint32(b[:])
}

// jitter returns what is added to RekeyTimeout, so that two that started together do not do so again.
func (m *Machine) jitter() time.Duration {
	return time.Duration(m.uint32()%uint32(RekeyJitter/time.Millisecond+1)) * time.Millisecond
}
