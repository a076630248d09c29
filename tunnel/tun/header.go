package tun

import "encoding/binary"

// The header of a frame, in the byte order of the machine:
//
//	0      1      2            4           6               8               10
//	+------+------+------------+-----------+---------------+---------------+
//	| flags| kind | header len | seg. size | checksum from | checksum at   |
//	+------+------+------------+-----------+---------------+---------------+
//
// "Checksum at" counts from "checksum from". A segment size is the payload of each packet but the last.

const (
	flagPartial = 1 // the checksum field has the sum of the pseudo-header, and the rest is to be added

	kindNone = 0
	kindTCP4 = 1
	kindTCP6 = 4
	kindUDP  = 5    // datagrams of one size, not the fragments of old
	kindECN  = 0x80 // beside TCP: CWR is set
)

const (
	protoTCP = 6
	protoUDP = 17

	checksumTCP = 16 // offsets in the transport's header
	checksumUDP = 6

	flagFIN = 0x01
	flagPSH = 0x08
	flagACK = 0x10
	flagECE = 0x40
	flagCWR = 0x80
)

// header is the header of a frame, read.
type header struct {
	flags, kind      byte
	length           uint16
	size             int // of a segment
	start, offsetSum int // of the checksum
}

func readHeader(frame []byte) header {
	n := binary.NativeEndian
	return header{
		flags: frame[0], kind: frame[1], length: n.Uint16(frame[2:]), size: int(n.Uint16(frame[4:])),
		start: int(n.Uint16(frame[6:])), offsetSum: int(n.Uint16(frame[8:])),
	}
}

func (h header) write(frame []byte) {
	n := binary.NativeEndian
	frame[0], frame[1] = h.flags, h.kind
	n.PutUint16(frame[2:], h.length)
	n.PutUint16(frame[4:], uint16(h.size))
	n.PutUint16(frame[6:], uint16(h.start))
	n.PutUint16(frame[8:], uint16(h.offsetSum))
}

// Length returns the length in bytes that an IP packet says it has, without what was padded behind it; false when it is
// longer than what is there, or none of IP.
func Length(packet []byte) (int, bool) {
	if len(packet) < 20 {
		return 0, false
	}
	switch packet[0] >> 4 {
	case 4:
		n := int(binary.BigEndian.Uint16(packet[2:]))
		return n, n >= 20 && n <= len(packet)
	case 6:
		n := int(binary.BigEndian.Uint16(packet[4:])) + 40
		return n, n <= len(packet)
	}
	return 0, false
}
