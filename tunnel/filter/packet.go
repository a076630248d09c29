package filter

import "encoding/binary"

// IANA's protocol numbers, of those that have a meaning here.
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoTCP      = 6
	protoUDP      = 17
	protoDCCP     = 33
	protoRouting  = 43
	protoFragment = 44
	protoAH       = 51
	protoICMPv6   = 58
	protoOptions  = 60
	protoSCTP     = 132
	protoMobility = 135
	protoUDPLite  = 136
	protoHIP      = 139
	protoShim6    = 140
	protoTest1    = 253
	protoTest2    = 254
)

const (
	ipv4Header = 20
	ipv6Header = 40

	flagFIN = 1
	flagSYN = 2
	flagRST = 4
	flagACK = 16
)

// kind is what a packet is to the table of flows.
type kind uint8

const (
	whole kind = iota
	firstFragment
	laterFragment
	quoting // an ICMP error
)

// ends are what tells one flow of packets from another, seen from who sends. IPv4 addresses are mapped.
type ends struct {
	src, dst         [16]byte
	srcPort, dstPort uint16 // of ICMP the identifier: as source of who asks, as destination of who answers; 0 where there are none
	protocol         uint16 // above all headers of IP
}

// packet is what has to be known of one.
type packet struct {
	ends
	kind   kind
	flags  uint8 // of TCP
	answer bool  // it never begins a flow
	six    bool

	// of fragments: identification, the protocol that the datagrams of IPv4 are told apart by, and which bytes of the whole it has
	id        uint32
	of        uint8
	from, end int

	quoted ends // of the packet that an ICMP error is about
}

// key is a flow as this machine sees it: both directions have the same. It has no padding, so that it is hashed at once.
type key struct {
	far, near         [16]byte
	farPort, nearPort uint16
	protocol          uint16
}

func (e ends) key(dir Direction) key {
	if dir == In {
		return key{e.src, e.dst, e.srcPort, e.dstPort, e.protocol}
	}
	return key{e.dst, e.src, e.dstPort, e.srcPort, e.protocol}
}

// midway reports whether a packet is one of a connection that has begun before.
func (p *packet) midway() bool { return p.protocol == protoTCP && p.flags&(flagSYN|flagRST) == 0 }

// parse reads a packet. What it does not understand is no reason to let it pass.
func (p *packet) parse(raw []byte) Reason {
	upper, why := p.network(raw, false)
	if why != None || p.kind == laterFragment {
		return why
	}
	return p.transport(upper)
}

// network reads the headers of IP, and returns what is above them. Of a packet that is quoted only the beginning is there.
func (p *packet) network(raw []byte, quoted bool) (upper []byte, why Reason) {
	if len(raw) == 0 {
		return nil, Malformed
	}
	switch raw[0] >> 4 {
	case 4:
		return p.network4(raw, quoted)
	case 6:
		return p.network6(raw, quoted)
	}
	return nil, Malformed
}

// network4 is RFC 791.
func (p *packet) network4(raw []byte, quoted bool) (upper []byte, why Reason) {
	if len(raw) < ipv4Header {
		return nil, Malformed
	}
	header, total := int(raw[0]&15)*4, int(get16(raw[2:]))
	if header < ipv4Header || total < header || len(raw) < header || !quoted && total > len(raw) {
		return nil, Malformed
	}
	p.src, p.dst = mapped(raw[12:16]), mapped(raw[16:20])
	if !options4(raw[ipv4Header:header]) {
		return nil, Unsupported
	}
	upper = raw[header:min(total, len(raw))]
	p.of, p.protocol, p.id = raw[9], uint16(raw[9]), uint32(get16(raw[4:]))
	switch raw[9] {
	case protoHopByHop, protoRouting, protoFragment, protoICMPv6, protoOptions:
		return nil, Unsupported // IPv6's
	}
	place := get16(raw[6:])
	return upper, p.fragment(int(place&0x1fff)*8, place&0x2000 != 0, len(upper), quoted)
}

// options4 refuses routes that the sender has chosen: the destination is another one than the header says (RFC 7126, section 4.3).
func options4(o []byte) bool {
	for len(o) > 0 {
		switch {
		case o[0] == 0:
			return true
		case o[0] == 1:
			o = o[1:]
		case o[0] == 131, o[0] == 137, len(o) < 2, o[1] < 2, int(o[1]) > len(o):
			return false
		default:
			o = o[o[1]:]
		}
	}
	return true
}

// fragment notes which part of a datagram a packet is.
func (p *packet) fragment(offset int, more bool, length int, quoted bool) Reason {
	switch {
	case offset == 0 && !more, quoted && offset == 0:
		return None // the whole of it (RFC 6946)
	case quoted:
		return ErrorAlone // what it is about cannot be told
	case length == 0, more && length%8 != 0, offset+length > 0xffff:
		return Malformed
	case offset == 0:
		p.kind = firstFragment
	default:
		p.kind = laterFragment
	}
	p.from, p.end = offset, offset+length
	return None
}

// transport reads the header above those of IP.
func (p *packet) transport(b []byte) Reason {
	short := Malformed
	if p.kind == firstFragment {
		short = FragmentTiny
	}
	switch p.protocol {
	case protoTCP:
		if len(b) < 20 || len(b) < int(b[12]>>4)*4 {
			return short
		}
		p.flags = b[13]
		if b[12]>>4 < 5 || p.flags&flagSYN != 0 && p.flags&(flagFIN|flagRST) != 0 {
			return Malformed
		}
	case protoUDP:
		if len(b) < 8 {
			return short
		}
		if n := int(get16(b[4:])); n < 8 || p.kind == whole && n > len(b) {
			return Malformed
		}
	case protoSCTP, protoDCCP:
		if len(b) < 12 {
			return short
		}
	case protoUDPLite:
		if len(b) < 8 {
			return short
		}
	case protoICMP, protoICMPv6:
		if len(b) < 8 {
			return short
		}
		return p.icmp(b)
	default:
		return None
	}
	p.srcPort, p.dstPort = get16(b), get16(b[2:])
	return None
}

// icmp reads a message of RFC 792 or 4443: echoes, and errors that are about packets. No other passes: they are of links, and the tunnel is
// none, or make a host send its packets elsewhere.
func (p *packet) icmp(b []byte) Reason {
	ask, answer := byte(8), byte(0)
	if p.protocol == protoICMPv6 {
		ask, answer = 128, 129
	}
	switch b[0] {
	case ask:
		p.srcPort = get16(b[4:])
		return None
	case answer:
		p.dstPort, p.answer = get16(b[4:]), true
		return None
	}
	four := b[0] == 3 || b[0] == 11 || b[0] == 12
	six := b[0] >= 1 && b[0] <= 4
	if p.protocol == protoICMP && !four || p.protocol == protoICMPv6 && !six {
		return Unsupported
	}
	if p.kind != whole {
		return Unsupported // none is so large that it would have to be (RFC 1812, section 4.3.2.3; RFC 4443, section 2.4)
	}
	var q packet
	upper, why := q.network(b[8:], true)
	if why != None || q.six != p.six {
		return ErrorAlone
	}
	if why := q.quotedPorts(upper); why != None {
		return why
	}
	p.kind, p.quoted, p.answer = quoting, q.ends, true
	return None
}

// quotedPorts reads the first eight bytes of a header, which is all that an error must quote.
func (p *packet) quotedPorts(b []byte) Reason {
	switch p.protocol {
	case protoTCP, protoUDP, protoSCTP, protoDCCP, protoUDPLite:
		if len(b) < 8 {
			return ErrorAlone
		}
		p.srcPort, p.dstPort = get16(b), get16(b[2:])
	case protoICMP, protoICMPv6:
		if len(b) < 8 {
			return ErrorAlone
		}
		switch {
		case p.protocol == protoICMP && b[0] == 8, p.protocol == protoICMPv6 && b[0] == 128:
			p.srcPort = get16(b[4:])
		case p.protocol == protoICMP && b[0] == 0, p.protocol == protoICMPv6 && b[0] == 129:
			p.dstPort = get16(b[4:])
		default:
			return ErrorAlone
		}
	}
	return None
}

func mapped(a []byte) (out [16]byte) {
	copy(out[:12], fourPrefix[:])
	copy(out[12:], a)
	return out
}

// get16 is in network byte order.
func get16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
