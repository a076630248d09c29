package filter

import "encoding/binary"

// Bounds of the extension headers of IPv6: honest machines send one or two, and each costs a look.
const (
	maxHeaders = 8
	maxChain   = 512 // bytes
)

// network6 is RFC 8200, as far as the protocol above.
func (p *packet) network6(raw []byte, quoted bool) (upper []byte, why Reason) {
	p.six = true
	if len(raw) < ipv6Header {
		return nil, Malformed
	}
	total := ipv6Header + int(get16(raw[4:]))
	if !quoted && total > len(raw) {
		return nil, Malformed
	}
	p.src, p.dst = [16]byte(raw[8:24]), [16]byte(raw[24:40])
	if isFour(p.src) || isFour(p.dst) {
		return nil, Malformed // no such address is ever on a wire; here it would be taken for one of IPv4
	}
	rest, next, fragmented := raw[ipv6Header:min(total, len(raw))], raw[6], false
	whole := len(rest)
	for n := 0; ; n++ {
		size := 8
		switch next {
		case protoHopByHop, protoRouting, protoOptions:
			if next == protoHopByHop && n > 0 {
				return nil, Malformed // it is the first, or there is none (RFC 8200, section 4.1)
			}
			if len(rest) >= 2 {
				size = (int(rest[1]) + 1) * 8
			}
		case protoAH: // RFC 4302, section 2.2
			if len(rest) >= 2 {
				size = (int(rest[1]) + 2) * 4
			}
		case protoFragment:
			if fragmented {
				return nil, Malformed
			}
			fragmented = true
		case protoICMP, protoMobility, protoHIP, protoShim6, protoTest1, protoTest2:
			return nil, Unsupported
		default:
			p.protocol = uint16(next)
			return rest, None
		}
		if len(rest) < size {
			if p.kind == firstFragment {
				return nil, FragmentTiny // RFC 7112, section 5
			}
			return nil, Malformed
		}
		if n == maxHeaders || whole-len(rest)+size > maxChain {
			return nil, Unsupported
		}
		// A route that is not at its end: the destination is another one than the header says. Type 0 is never good (RFC 5095).
		if next == protoRouting && (rest[2] == 0 || rest[3] != 0) {
			return nil, Unsupported
		}
		header := rest[:size]
		rest = rest[size:]
		if next == protoFragment {
			p.id = binary.BigEndian.Uint32(header[4:])
			place := get16(header[2:])
			if why := p.fragment(int(place&^7), place&1 != 0, len(rest), quoted); why != None || p.kind == laterFragment {
				return nil, why
			}
		}
		next = header[0]
	}
}
