package gate

import (
	"encoding/binary"
	"time"
)

// headroom is what the inner device wants before a packet: more than the 10 bytes of a virtio header.
const headroom = 16

// Sizes and numbers of RFC 791, 8200, 9293, 792 and 4443.
const (
	ipv4Header = 20
	ipv6Header = 40
	tcpHeader  = 20

	protoICMP   = 1
	protoTCP    = 6
	protoICMPv6 = 58

	flagFIN = 1
	flagSYN = 2
	flagRST = 4
	flagACK = 16

	maxError = 576 // of an ICMP message: what IPv4 hosts take (RFC 1812, section 4.3.2.3)
)

// What is answered is rationed: a scan does not become as many answers. A person who connects gets one.
const (
	refusalBurst = 256
	refusalEvery = time.Millisecond
)

// refusals makes the answers to packets that may not leave.
type refusals struct {
	scratch []byte
	tokens  int
	last    time.Duration
}

func (r *refusals) setup() {
	r.scratch, r.tokens = make([]byte, headroom+maxError), refusalBurst
}

// answer returns what the sender of a packet, one that filter has parsed, is told, with room for a header before it; nil: nothing. It is good
// until the next call.
func (r *refusals) answer(packet []byte, now time.Duration) []byte {
	if n := int((now - r.last) / refusalEvery); n > 0 {
		r.tokens, r.last = min(r.tokens+n, refusalBurst), now
	}
	if r.tokens == 0 {
		return nil
	}
	r.tokens--
	out := r.scratch[headroom:]
	var size int
	if packet[0]>>4 == 4 {
		size = refuse4(out, packet)
	} else {
		size = refuse6(out, packet)
	}
	if size == 0 {
		return nil
	}
	return r.scratch[:headroom+size]
}

// refuse4 writes a reset, or "communication administratively prohibited" (RFC 1812, section 5.2.7.1), as if the destination had sent it.
func refuse4(out, packet []byte) int {
	header := int(packet[0]&15) * 4
	if dst := packet[16]; dst >= 224 || dst == 127 {
		return 0 // never about multicast (RFC 1122, section 3.2.2)
	}
	if end := int(binary.BigEndian.Uint16(packet[2:])); end < len(packet) {
		packet = packet[:end]
	}
	var size int
	if packet[9] == protoTCP {
		size = reset(out[ipv4Header:], packet[header:])
	} else {
		size = prohibited(out[ipv4Header:], packet, 3, 13)
	}
	if size == 0 {
		return 0
	}
	p := out[:ipv4Header+size]
	clear(p[:ipv4Header])
	p[0] = 4<<4 | ipv4Header/4
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	p[8], p[9] = 64, protoICMP
	copy(p[12:16], packet[16:20])
	copy(p[16:20], packet[12:16])
	if packet[9] == protoTCP {
		p[9] = protoTCP
		binary.BigEndian.PutUint16(p[36:], ^fold(sum16(p[12:20])+protoTCP+uint32(size)+sum16(p[ipv4Header:])))
	} else {
		binary.BigEndian.PutUint16(p[22:], ^fold(sum16(p[ipv4Header:])))
	}
	binary.BigEndian.PutUint16(p[10:], ^fold(sum16(p[:ipv4Header])))
	return len(p)
}

// refuse6 is the same for IPv6 (RFC 4443, section 3.1). Behind extension headers all is answered by ICMP.
func refuse6(out, packet []byte) int {
	if packet[24] == 0xff {
		return 0
	}
	if end := ipv6Header + int(binary.BigEndian.Uint16(packet[4:])); end < len(packet) {
		packet = packet[:end]
	}
	proto, size := packet[6], 0
	if proto == protoTCP {
		size = reset(out[ipv6Header:], packet[ipv6Header:])
	} else {
		proto = protoICMPv6
		size = prohibited(out[ipv6Header:], packet, 1, 1)
	}
	if size == 0 {
		return 0
	}
	p := out[:ipv6Header+size]
	clear(p[:ipv6Header])
	p[0] = 6 << 4
	binary.BigEndian.PutUint16(p[4:], uint16(size))
	p[6], p[7] = proto, 64
	copy(p[8:24], packet[24:40])
	copy(p[24:40], packet[8:24])
	sum := ^fold(sum16(p[8:40]) + uint32(proto) + uint32(size) + sum16(p[ipv6Header:]))
	if proto == protoTCP {
		binary.BigEndian.PutUint16(p[56:], sum)
	} else {
		binary.BigEndian.PutUint16(p[42:], sum)
	}
	return len(p)
}

// reset writes the reset that a closed port answers with (RFC 9293, section 3.5.2), its checksum zero.
func reset(out, tcp []byte) int {
	p := out[:tcpHeader]
	clear(p)
	copy(p[0:2], tcp[2:4])
	copy(p[2:4], tcp[0:2])
	p[12] = tcpHeader / 4 << 4
	flags := tcp[13]
	if flags&flagRST != 0 {
		return 0
	}
	if flags&flagACK != 0 {
		copy(p[4:8], tcp[8:12])
		p[13] = flagRST
		return tcpHeader
	}
	length := uint32(len(tcp) - int(tcp[12]>>4)*4)
	if flags&flagSYN != 0 {
		length++
	}
	if flags&flagFIN != 0 {
		length++
	}
	binary.BigEndian.PutUint32(p[8:], binary.BigEndian.Uint32(tcp[4:])+length)
	p[13] = flagRST | flagACK
	return tcpHeader
}

// prohibited writes an ICMP error that quotes a packet, its checksum zero.
func prohibited(out, packet []byte, kind, code byte) int {
	const head = 8
	quoted := min(len(packet), maxError-ipv6Header-head)
	p := out[:head+quoted]
	clear(p[:head])
	p[0], p[1] = kind, code
	copy(p[head:], packet[:quoted])
	return len(p)
}

// sum16 adds up the 16-bit words of p, the last one padded (RFC 1071).
func sum16(p []byte) (sum uint32) {
	for ; len(p) >= 2; p = p[2:] {
		sum += uint32(p[0])<<8 | uint32(p[1])
	}
	if len(p) == 1 {
		sum += uint32(p[0]) << 8
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
