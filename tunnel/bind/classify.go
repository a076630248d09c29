package bind

import (
	"encoding/binary"

	"golang.zx2c4.com/wireguard/device"

	"warren/nat/stunwire"
)

// Class says which protocol of the shared port a datagram belongs to.
type Class uint8

// The classes of datagrams. Unknown and MalformedSTUN are dropped and counted.
const (
	Unknown Class = iota
	WireGuard
	STUN
	MalformedSTUN
	ChannelData
	QUIC
	Letter
)

// String returns the name of the class as in logs.
func (c Class) String() string {
	switch c {
	case WireGuard:
		return "wireguard"
	case STUN:
		return "stun"
	case MalformedSTUN:
		return "malformed stun"
	case ChannelData:
		return "channel data"
	case QUIC:
		return "quic"
	case Letter:
		return "letter"
	default:
		return "unknown"
	}
}

const (
	channelHeaderSize = 4
	channelMin        = 0x4000
	channelMax        = 0x4FFF
	channelMaxPadding = 3 // RFC 8656, section 12.5: padding to four bytes is allowed over UDP

	letterMark = 0xA7776C // the first three bytes of a letter, package mesh/letter

	quicFixedBit = 0x40
	quicLongBit  = 0x80
	quicLongMin  = 7  // flags, version, two lengths of connection IDs (RFC 8999, section 5.1)
	quicShortMin = 21 // the smallest that RFC 9000, section 10.3, lets a stateless reset be
)

// Classify tells the protocols of the shared port apart. It looks at p only, does not keep or change it, and
// allocates nothing. The order matters and is the reverse of how much a protocol's first bytes can vary:
//
//	0x01-0x04 00 00 00   WireGuard, if the length is one that its message type has. It comes first because
//	                     the receiver index at offset 4 can equal the STUN cookie.
//	00xxxxxx             STUN (RFC 8489, section 5): the magic cookie at offset 4 and a length field that fits
//	0100xxxx             ChannelData (RFC 8656, section 12.4): a length field that fits
//	x1xxxxxx             QUIC (RFC 9000, section 17): the fixed bit. Our connection IDs start with ff ff ff, so
//	                     that the bytes a ChannelData length would be in can never fit.
//	a7 77 6c             a letter (mesh/letter)
//
// STUN that is not sound, as nat/stunwire says, is MalformedSTUN.
func Classify(p []byte) Class {
	if len(p) < channelHeaderSize {
		return Unknown
	}
	if p[1]|p[2]|p[3] == 0 && p[0] >= 1 && p[0] <= 4 {
		return classifyWireGuard(p)
	}
	switch {
	case p[0]&0xC0 == 0:
		return classifySTUN(p)
	case p[0]&0xF0 == 0x40 && channelLength(p) >= 0:
		return ChannelData
	case uint32(p[0])<<16|uint32(p[1])<<8|uint32(p[2]) == letterMark:
		return Letter
	case p[0]&quicFixedBit != 0:
		if p[0]&quicLongBit != 0 && len(p) >= quicLongMin || p[0]&quicLongBit == 0 && len(p) >= quicShortMin {
			return QUIC
		}
	}
	return Unknown
}

// classifyWireGuard checks the length of a message whose type is known to be 1 to 4.
func classifyWireGuard(p []byte) Class {
	ok := false
	switch p[0] {
	case device.MessageInitiationType:
		ok = len(p) == device.MessageInitiationSize
	case device.MessageResponseType:
		ok = len(p) == device.MessageResponseSize
	case device.MessageCookieReplyType:
		ok = len(p) == device.MessageCookieReplySize
	case device.MessageTransportType:
		ok = len(p) >= device.MessageTransportSize
	}
	if !ok {
		return Unknown
	}
	return WireGuard
}

// classifySTUN looks at a message whose first two bits are zero.
func classifySTUN(p []byte) Class {
	switch {
	case !stunwire.Is(p):
		return Unknown
	case !stunwire.Sound(p):
		return MalformedSTUN
	}
	return STUN
}

// channelLength returns the length of the payload of the ChannelData message p, which has at least four
// bytes, or -1 if the length field does not fit.
func channelLength(p []byte) int {
	n := int(binary.BigEndian.Uint16(p[2:]))
	if spare := len(p) - channelHeaderSize - n; spare < 0 || spare > channelMaxPadding {
		return -1
	}
	return n
}
