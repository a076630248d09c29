package beacon

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"warren/mesh/identity"
)

/* A beacon is one UDP payload of Size bytes, whatever it says, so that no answer is larger than what asked for it:
 *
 *	nonce (24, random) ‖ XChaCha20-Poly1305 of the 128 bytes below, without additional data (16 bytes more)
 *
 *	0    1     2              10        26        58     60     61                        125         128
 *	┌────┬─────┬──────────────┬─────────┬─────────┬──────┬──────┬─────────────────────────┬───────────┐
 *	│ 1  │kind │ time (ms, be)│ echo    │ node ID │ port │count │ up to 4 addresses of 16 │ 0 0 0     │
 *	└────┴─────┴──────────────┴─────────┴─────────┴──────┴──────┴─────────────────────────┴───────────┘
 *
 * A stranger sees random bytes. The nonce has 24 bytes because random ones of 12 may repeat after 2³² beacons under one
 * key, which a large mesh sends in some years. IPv4 addresses stand as IPv4-mapped IPv6; what is not used is zero.
 *
 *	kind  says                                                 sealed under the key of   to
 *	ask   I am this member, at these addresses; who is here?   the members               the group
 *	tell  I am this member, at these addresses                 the members               the group, or who asked
 *	seek  I hold the token of this invite; who is here?        the invite                the group
 *	here  a member is at these addresses; echo is half the     the invite                who sought
 *	      nonce of the seek. No node ID
 */

// Size is the length of every beacon in bytes.
const Size = nonceSize + plainSize + chacha20poly1305.Overhead

const (
	wireVersion = 1
	nonceSize   = chacha20poly1305.NonceSizeX
	plainSize   = 128
	maxAddrs    = 4
	addrsAt     = 61
	addrsEnd    = addrsAt + 16*maxAddrs
)

// kind is what a beacon says.
type kind byte

const (
	kindAsk kind = iota + 1
	kindTell
	kindSeek
	kindHere
)

// echo is the first half of the nonce of a seek, which its answer repeats.
type echo [16]byte

// message is a beacon in clear.
type message struct {
	kind  kind
	at    time.Time // by the sender's clock, in milliseconds
	echo  echo
	id    identity.NodeID // zero in seek and here
	port  uint16          // of the agent; zero in seek
	addrs []netip.Addr    // of the sender, on the link that this goes out on
}

var errMalformed = errors.New("malformed beacon")

// Key seals the beacons of those who know one secret.
type Key struct{ aead cipher.AEAD }

// MemberKey derives the key of the beacons between members from a secret that all members know and no stranger does.
func MemberKey(mesh identity.MeshID, secret [16]byte) Key {
	return deriveKey(mesh, secret[:], "warren beacon v1 member")
}

// InviteKey derives the key of the beacons between a joiner and members from the ID of the invite's key.
func InviteKey(mesh identity.MeshID, invite identity.KeyID) Key {
	return deriveKey(mesh, invite[:], "warren beacon v1 invite")
}

func deriveKey(mesh identity.MeshID, secret []byte, label string) Key {
	key, err := hkdf.Key(sha256.New, secret, mesh[:], label, chacha20poly1305.KeySize)
	if err != nil {
		panic("internal error: derive the key of beacons: " + err.Error())
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic("internal error: make the cipher of beacons: " + err.Error())
	}
	return Key{aead}
}

// seal makes the packet of m under k with a fresh nonce.
func (m message) seal(k Key, nonce [nonceSize]byte) []byte {
	var plain [plainSize]byte
	plain[0], plain[1] = wireVersion, byte(m.kind)
	binary.BigEndian.PutUint64(plain[2:], uint64(m.at.UnixMilli()))
	copy(plain[10:], m.echo[:])
	copy(plain[26:], m.id[:])
	binary.BigEndian.PutUint16(plain[58:], m.port)
	addrs := m.addrs[:min(len(m.addrs), maxAddrs)]
	plain[60] = byte(len(addrs))
	for i, addr := range addrs {
		raw := addr.As16()
		copy(plain[addrsAt+16*i:], raw[:])
	}
	return k.aead.Seal(append(make([]byte, 0, Size), nonce[:]...), nonce[:], plain[:], nil)
}

// nonceOf returns the nonce of a packet that has Size bytes.
func nonceOf(raw []byte) [nonceSize]byte { return [nonceSize]byte(raw[:nonceSize]) }

// open returns what k makes readable; false when k is not the key.
func (k Key) open(raw []byte) (plain [plainSize]byte, ok bool) {
	if len(raw) != Size {
		return plain, false
	}
	_, err := k.aead.Open(plain[:0], raw[:nonceSize], raw[nonceSize:], nil)
	return plain, err == nil
}

// parse reads the text of a beacon strictly: each message has one form. The error wraps errMalformed.
func parse(plain [plainSize]byte) (message, error) {
	bad := func(what string) (message, error) { return message{}, fmt.Errorf("%s: %w", what, errMalformed) }
	m := message{
		kind: kind(plain[1]), at: time.UnixMilli(int64(binary.BigEndian.Uint64(plain[2:]))), echo: echo(plain[10:]),
		id: identity.NodeID(plain[26:58]), port: binary.BigEndian.Uint16(plain[58:]),
	}
	count := int(plain[60])
	switch {
	case plain[0] != wireVersion:
		return bad("version")
	case m.kind < kindAsk || m.kind > kindHere:
		return bad("kind")
	case count > maxAddrs:
		return bad("count of addresses")
	case [plainSize - addrsEnd]byte(plain[addrsEnd:]) != [plainSize - addrsEnd]byte{}:
		return bad("bytes after the end")
	case (m.kind == kindAsk || m.kind == kindTell) != !m.id.IsZero():
		return bad("node ID")
	case (m.kind == kindSeek) != (m.port == 0), m.kind == kindSeek && count > 0:
		return bad("port")
	case (m.kind == kindHere) != (m.echo != echo{}):
		return bad("echo")
	}
	for i := range maxAddrs {
		raw := [16]byte(plain[addrsAt+16*i:])
		if i >= count {
			if raw != [16]byte{} {
				return bad("bytes after the addresses")
			}
			continue
		}
		addr := netip.AddrFrom16(raw).Unmap()
		if !speakable(addr) {
			return bad("address")
		}
		m.addrs = append(m.addrs, addr)
	}
	return m, nil
}

// speakable reports whether an address can be one of a host on this link that the agent's socket can send to: unicast,
// and with no need of a zone, which IPv6 link-local addresses have.
func speakable(addr netip.Addr) bool {
	return addr.IsValid() && addr.Zone() == "" && !addr.Is4In6() && !addr.IsUnspecified() && !addr.IsLoopback() && !addr.IsMulticast() &&
		addr != netip.AddrFrom4([4]byte{255, 255, 255, 255}) && (addr.Is4() || !addr.IsLinkLocalUnicast())
}
