package fit

// maxTooBig is the largest ICMP message that is made: what IPv4 hosts take (RFC 1812, section 4.3.2.3).
const maxTooBig = 576

// tooBig writes into out the ICMP message that tells the sender of a packet the size that would fit, as if the
// destination had sent it, and returns its length: 0 when none may be sent (RFC 1122, section 3.2.2; RFC 4443, section 2.4).
func tooBig(out, packet []byte, mtu int) int {
	if packet[0]>>4 == 4 {
		return tooBig4(out, packet, mtu)
	}
	return tooBig6(out, packet, max(mtu, minIPv6))
}

// tooBig4 is RFC 792's "fragmentation needed", with the MTU of RFC 1191, section 4.
func tooBig4(out, packet []byte, mtu int) int {
	header := int(packet[0]&15) * 4
	src := packet[12]
	if header < ipv4Header || len(packet) < header+8 || get16(packet[6:])&0x1fff != 0 || src == 0 || src == 127 || src >= 224 {
		return 0
	}
	if packet[9] == protoICMP && packet[header] != 8 && packet[header] != 0 {
		return 0 // never about an error; echoes are none
	}
	const icmp = ipv4Header + 8
	quoted := min(len(packet), maxTooBig-icmp)
	p := out[:icmp+quoted]
	clear(p[:icmp])
	p[0] = 4<<4 | ipv4Header/4
	put16(p[2:], len(p))
	p[8], p[9] = 64, protoICMP
	copy(p[12:16], packet[16:20])
	copy(p[16:20], packet[12:16])
	put16(p[10:], int(^fold(sum16(p[:ipv4Header]))))
	p[20], p[21] = 3, 4
	put16(p[26:], mtu)
	copy(p[icmp:], packet[:quoted])
	put16(p[22:], int(^fold(sum16(p[ipv4Header:]))))
	return len(p)
}

// tooBig6 is RFC 4443's "packet too big".
func tooBig6(out, packet []byte, mtu int) int {
	if packet[8] == 0xff || source(packet).IsUnspecified() {
		return 0
	}
	if packet[6] == protoICMPv6 && (len(packet) < ipv6Header+1 || packet[ipv6Header] < 128) {
		return 0
	}
	const icmp = ipv6Header + 8
	quoted := min(len(packet), maxTooBig-icmp)
	p := out[:icmp+quoted]
	clear(p[:icmp])
	p[0] = 6 << 4
	put16(p[4:], len(p)-ipv6Header)
	p[6], p[7] = protoICMPv6, 64
	copy(p[8:24], packet[24:40])
	copy(p[24:40], packet[8:24])
	p[40] = 2
	put16(p[46:], mtu)
	copy(p[icmp:], packet[:quoted])
	put16(p[42:], int(^fold(pseudo6(p, protoICMPv6, len(p)-ipv6Header)+sum16(p[ipv6Header:]))))
	return len(p)
}
