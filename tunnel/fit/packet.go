package fit

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Header sizes and fields of RFC 791, 8200, 768 and 9293.
const (
	ipv4Header = 20
	ipv6Header = 40
	udpHeader  = 8
	tcpHeader  = 20
	minIPv6    = 1280

	flagDF = 0x40 // in byte 6 of IPv4
	flagMF = 0x20

	flagSYN = 2 // in byte 13 of TCP

	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

/* Probes and answers are UDP over IPv6 between the own addresses of two members:
 *
 *	| IPv6 header 40 | UDP header 8 | "wmt" 3 | kind 1 | size 2 | zero 2 | nonce 8 | padding |
 *
 * kind 1 asks; its packet is padded with zeros to the size in question, which size repeats. kind 2 answers; size is that of the packet
 * received, there is no padding. The port is that of mesh/node's pings, whose older versions ignore both.
 */
const (
	probePort  = 9278
	noteAt     = ipv6Header + udpHeader
	noteLength = 16
	kindAsk    = 1
	kindAnswer = 2
)

// isProbe reports whether a packet looks like a probe or an answer. It is asked of every packet.
func isProbe(p []byte) bool {
	return len(p) >= noteAt+noteLength && p[0]>>4 == 6 && p[6] == protoUDP && get16(p[42:]) == probePort &&
		p[noteAt] == 'w' && p[noteAt+1] == 'm' && p[noteAt+2] == 't'
}

// parseNote reads what isProbe has found.
func parseNote(p []byte) (n note, ok bool) {
	b := p[noteAt:]
	n = note{kind: b[3], size: get16(b[4:]), nonce: binary.BigEndian.Uint64(b[8:])}
	switch n.kind {
	case kindAsk:
		ok = n.size == len(p)
	case kindAnswer:
		ok = len(p) == noteAt+noteLength
	}
	return n, ok
}

// packet writes the whole packet into p, which has room for it, and returns its length.
func (n note) packet(p []byte, from netip.Addr) int {
	size := noteAt + noteLength
	if n.kind == kindAsk {
		size = max(size, n.size)
	}
	p = p[:size]
	clear(p) // the buffer has been somebody's
	p[0] = 6 << 4
	put16(p[4:], size-ipv6Header)
	p[6], p[7] = protoUDP, 64
	src, dst := from.As16(), n.to.As16()
	copy(p[8:], src[:])
	copy(p[24:], dst[:])
	put16(p[40:], probePort)
	put16(p[42:], probePort)
	put16(p[44:], size-ipv6Header)
	b := p[noteAt:]
	b[0], b[1], b[2], b[3] = 'w', 'm', 't', n.kind
	put16(b[4:], n.size)
	binary.BigEndian.PutUint64(b[8:], n.nonce)
	// The padding adds nothing to the sum.
	sum := ^fold(pseudo6(p, protoUDP, size-ipv6Header) + sum16(p[ipv6Header:noteAt+noteLength]))
	if sum == 0 {
		sum = 0xffff // RFC 768
	}
	binary.BigEndian.PutUint16(p[46:], sum)
	return size
}

// tcpSYN returns where the TCP header of a SYN begins, 0 if the packet is none. It is asked of every packet, so that
// what is common is ruled out first.
func tcpSYN(p []byte) int {
	at := 0
	switch {
	case len(p) >= ipv4Header+tcpHeader && p[0]>>4 == 4 && p[9] == protoTCP:
		at = int(p[0]&15) * 4
		if at < ipv4Header || len(p) < at+tcpHeader || get16(p[6:])&0x1fff != 0 {
			return 0
		}
	case len(p) >= ipv6Header+tcpHeader && p[0]>>4 == 6 && p[6] == protoTCP:
		at = ipv6Header
	default:
		return 0
	}
	if p[at+13]&flagSYN == 0 {
		return 0
	}
	return at
}

// clampMSS lowers the maximum segment size in a SYN (RFC 9293, section 3.7.1), whose TCP header begins at tcp, so that no
// segment makes a packet larger than mtu. A SYN without the option is left: 536 bytes are then assumed, or 1,220 over IPv6.
func clampMSS(p []byte, tcp, mtu int) {
	most := mtu - tcpHeader - ipv4Header
	if p[0]>>4 == 6 {
		most = mtu - tcpHeader - ipv6Header
	}
	end := min(tcp+int(p[tcp+12]>>4)*4, len(p))
	for i := tcp + tcpHeader; i < end; {
		switch {
		case p[i] == 0:
			return
		case p[i] == 1:
			i++
			continue
		case i+1 >= end || p[i+1] < 2 || i+int(p[i+1]) > end:
			return // malformed
		case p[i] == 2 && p[i+1] == 4:
			if old := get16(p[i+2:]); old > most && most > 0 {
				put16(p[i+2:], most)
				replaceSum(p[tcp+16:], old, most, (i-tcp)%2 == 1)
			}
			return
		}
		i += int(p[i+1])
	}
}

// replaceSum updates a checksum for a changed word (RFC 1624); odd says that the word begins at an odd offset.
func replaceSum(sum []byte, old, now int, odd bool) {
	a, b := uint16(old), uint16(now)
	if odd {
		a, b = bits.ReverseBytes16(a), bits.ReverseBytes16(b)
	}
	s := uint32(^binary.BigEndian.Uint16(sum)) + uint32(^a) + uint32(b)
	binary.BigEndian.PutUint16(sum, ^fold(s))
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

// pseudo6 is the sum of the pseudo-header of an IPv6 packet (RFC 8200, section 8.1).
func pseudo6(p []byte, proto, length int) uint32 {
	return sum16(p[8:40]) + uint32(proto) + uint32(length)
}
