package tun

import (
	"encoding/binary"
	"math/bits"
)

// The Internet checksum (RFC 1071) is the same in either order of bytes, as long as it is read and written in the same: sums
// here are of words as the machine reads them, and 64 bits wide, since one that carries may be folded at the end.

// sum adds b, which begins at an even offset, to the sum s.
func sum(b []byte, s uint64) uint64 {
	var c uint64
	for len(b) >= 64 {
		s, c = bits.Add64(s, binary.NativeEndian.Uint64(b), 0)
		s, c = bits.Add64(s, binary.NativeEndian.Uint64(b[8:]), c)
		s, c = bits.Add64(s, binary.NativeEndian.Uint64(b[16:]), c)
		s, c = bits.Add64(s, binary.NativeEndian.Uint64(b[24:]), c)
		s, c = bits.Add64(s, binary.NativeEndian.Uint64(b[32:]), c)
		s, c = bits.Add64(s, binary.NativeEndian.Uint64(b[40:]), c)
		s, c = bits.Add64(s, binary.NativeEndian.Uint64(b[48:]), c)
		s, c = bits.Add64(s, binary.NativeEndian.Uint64(b[56:]), c)
		s, c = bits.Add64(s, 0, c)
		s += c
		b = b[64:]
	}
	for len(b) >= 8 {
		s, c = bits.Add64(s, binary.NativeEndian.Uint64(b), 0)
		s += c
		b = b[8:]
	}
	if len(b) > 0 {
		var rest [8]byte
		copy(rest[:], b)
		s, c = bits.Add64(s, binary.NativeEndian.Uint64(rest[:]), 0)
		s += c
	}
	return s
}

// fold makes 16 bits of a sum.
func fold(s uint64) uint16 {
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s)
}

// pseudo is the sum of the pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1) of a packet whose transport part has
// the given length in bytes.
func pseudo(packet []byte, protocol byte, length int) uint64 {
	var tail [4]byte
	binary.BigEndian.PutUint16(tail[:], uint16(protocol))
	binary.BigEndian.PutUint16(tail[2:], uint16(length))
	addresses := packet[12:20]
	if packet[0]>>4 == 6 {
		addresses = packet[8:40]
	}
	return sum(addresses, sum(tail[:], 0))
}

// put writes a complete checksum. UDP has no checksum 0: that means none (RFC 768).
func put(field []byte, s uint64, protocol byte) {
	c := ^fold(s)
	if c == 0 && protocol == protoUDP {
		c = 0xffff
	}
	binary.NativeEndian.PutUint16(field, c)
}
