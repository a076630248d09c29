package tun

import "encoding/binary"

// flow says where the headers of a packet are, as far as packets of its kind can be joined.
type flow struct {
	protocol byte // TCP or UDP; 0: neither, a fragment, or with options of IP
	start    int  // of the transport's header
	length   int  // of all headers
}

// flowOf reads a packet, whose length is the one that it says.
func flowOf(packet []byte) flow {
	none := flow{length: min(len(packet), 40)}
	var f flow
	switch {
	case packet[0] == 0x45 && binary.BigEndian.Uint16(packet[6:])&0x3fff == 0:
		f.protocol, f.start = packet[9], 20
	case packet[0]>>4 == 6:
		f.protocol, f.start = packet[6], 40
	default:
		return none
	}
	switch {
	case f.protocol == protoTCP && len(packet) >= f.start+20:
		f.length = f.start + int(packet[f.start+12]>>4)*4
		if f.length < f.start+20 || f.length > len(packet) {
			return none
		}
	case f.protocol == protoUDP && len(packet) >= f.start+8:
		f.length = f.start + 8
		if int(binary.BigEndian.Uint16(packet[f.start+4:])) != len(packet)-f.start {
			return none
		}
	default:
		return none
	}
	return f
}

// right reports whether the checksums of a packet are right.
func (f flow) right(packet []byte) bool {
	if packet[0]>>4 == 4 && fold(sum(packet[:f.start], 0)) != 0xffff {
		return false
	}
	t := packet[f.start:]
	return fold(sum(t, pseudo(packet, f.protocol, len(t)))) == 0xffff
}

// none reports whether a datagram has no checksum, which is one that is never wrong.
func (f flow) none(packet []byte) bool {
	return packet[f.start+checksumUDP] == 0 && packet[f.start+checksumUDP+1] == 0
}

// sameNetwork reports whether the IP header of a packet, but for its length, is that of the first of a frame. Differing ECN
// marks stay apart (RFC 3168, section 5.3). Where an IPv4 packet may be fragmented its number has to be the one that the kernel
// would give it.
func sameNetwork(first, packet []byte, segments int) bool {
	if packet[0]>>4 == 6 {
		return string(first[:4]) == string(packet[:4]) && string(first[6:40]) == string(packet[6:40])
	}
	if string(first[:2]) != string(packet[:2]) || string(first[6:10]) != string(packet[6:10]) || string(first[12:20]) != string(packet[12:20]) {
		return false
	}
	return packet[6]&0x40 != 0 ||
		binary.BigEndian.Uint16(packet[4:]) == binary.BigEndian.Uint16(first[4:])+uint16(segments)
}
