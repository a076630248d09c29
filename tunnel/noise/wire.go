package noise

import "encoding/binary"

/* The four messages (section 5.4 of the paper). Numbers are little-endian, the type is one byte and three zeros.
 *
 *	initiation  148  type 4 | sender 4 | ephemeral 32 | sealed static 48 | sealed stamp 28 | mac1 16 | mac2 16
 *	response     92  type 4 | sender 4 | receiver 4 | ephemeral 32 | sealed nothing 16 | mac1 16 | mac2 16
 *	cookie       64  type 4 | receiver 4 | nonce 24 | sealed cookie 32
 *	transport   ≥32  type 4 | receiver 4 | counter 8 | sealed packet, 16 more than it
 *
 * From the ephemeral key up to mac1, initiation and response are messages of Noise.
 */

// Sizes of messages in bytes.
const (
	InitiationSize = 148
	ResponseSize   = 92
	CookieSize     = 64
	HeaderSize     = 16                   // before what is sealed of a transport message
	TagSize        = 16                   // behind it
	KeepaliveSize  = HeaderSize + TagSize // a transport message with nothing in it
	Overhead       = HeaderSize + TagSize // what sealing adds to a packet
	macsSize       = 32                   // both, at the end of initiation and response
	noiseInitiated = 8                    // where Noise's part of an initiation starts
	noiseResponded = 12                   // and of a response
	stampEnd       = InitiationSize - macsSize
)

// Type is what a message is.
type Type uint32

// The types of messages. None is what is no message of WireGuard.
const (
	None       Type = 0
	Initiation Type = 1
	Response   Type = 2
	Cookie     Type = 3
	Transport  Type = 4
)

// TypeOf returns what a datagram is, by its first four bytes and its length.
func TypeOf(b []byte) Type {
	if len(b) < 4 {
		return None
	}
	t := Type(binary.LittleEndian.Uint32(b))
	switch {
	case t == Transport && len(b) >= KeepaliveSize,
		t == Initiation && len(b) == InitiationSize,
		t == Response && len(b) == ResponseSize,
		t == Cookie && len(b) == CookieSize:
		return t
	}
	return None
}

// Padded returns the length that a packet of n bytes is sealed with: the next multiple of 16, but no more than the MTU of the
// interface, which is 0 if it is unknown. Whoever seals fills up with zeros (section 5.4.6).
func Padded(n, mtu int) int {
	p := (n + 15) &^ 15
	if mtu > 0 && p > mtu {
		return max(n, mtu)
	}
	return p
}
