package tun

import "encoding/binary"

// Segments are the packets of one frame, each complete: what the network card would have sent.
//
// They are made where the frame lies. The headers of each are written over the end of the one before, so that one has to be
// used (sealed somewhere else) before the next is asked for, and no byte of a payload moves.
type Segments struct {
	packet   []byte
	size     int // of a payload; 0: one packet, as it is
	start    int // of the transport's header
	head     int // length of all headers
	at       int // of the next payload in packet
	protocol byte
	sequence uint32
	id       uint16
	flags    byte
	base     uint64 // sum of an IPv4 header without what differs
	headers  [maxHead]byte
}

// maxHead is the most that headers may have: what IPv6 with some extension headers and TCP with all its options need.
const maxHead = 256

// Split begins to take a frame apart. The errors are ErrFrame.
func (s *Segments) Split(frame []byte) error {
	s.packet, s.size, s.at = nil, 0, 0
	if len(frame) < HeaderSize {
		return ErrFrame
	}
	h, packet := readHeader(frame), frame[HeaderSize:]
	n, ok := Length(packet)
	if !ok {
		return ErrFrame
	}
	packet = packet[:n]
	if h.kind&^kindECN == kindNone {
		if h.flags&flagPartial != 0 && !complete(packet, h) {
			return ErrFrame
		}
		s.packet = packet
		return nil
	}
	return s.begin(packet, h)
}

// complete finishes the checksum that the kernel began: the field has the sum of the pseudo-header.
func complete(packet []byte, h header) bool {
	at := h.start + h.offsetSum
	if h.start < 20 || at+2 > len(packet) {
		return false
	}
	var protocol byte // TCP, or any that may have a checksum of 0
	if h.offsetSum == checksumUDP {
		protocol = protoUDP
	}
	put(packet[at:], sum(packet[h.start:], 0), protocol)
	return true
}

// begin reads the headers that all segments have.
func (s *Segments) begin(packet []byte, h header) error {
	four, least := packet[0]>>4 == 4, 40
	if four {
		least = int(packet[0]&15) * 4
	}
	if h.size == 0 || h.start < least || least < 20 || four && h.start != least {
		return ErrFrame
	}
	switch kind := h.kind &^ kindECN; {
	case kind == kindTCP4 && four || kind == kindTCP6 && !four:
		if len(packet) < h.start+20 {
			return ErrFrame
		}
		s.protocol, s.head = protoTCP, h.start+int(packet[h.start+12]>>4)*4
		s.sequence, s.flags = binary.BigEndian.Uint32(packet[h.start+4:]), packet[h.start+13]
		if s.head < h.start+20 {
			return ErrFrame
		}
	case kind == kindUDP:
		s.protocol, s.head = protoUDP, h.start+8
	default:
		return ErrFrame
	}
	if s.head > maxHead || s.head >= len(packet) {
		return ErrFrame
	}
	s.packet, s.size, s.start, s.at = packet, h.size, h.start, s.head
	copy(s.headers[:], packet[:s.head])
	if four {
		s.id = binary.BigEndian.Uint16(packet[4:])
		clear(s.headers[2:6])
		clear(s.headers[10:12])
		s.base = sum(s.headers[:s.start], 0)
	}
	return nil
}

// Next returns the next packet, false when there is none. It is good until the next call; bytes behind its length are not to be
// written to, they are the payload of the one that follows.
func (s *Segments) Next() ([]byte, bool) {
	if s.size == 0 {
		packet := s.packet
		s.packet = nil
		return packet, packet != nil
	}
	if s.at >= len(s.packet) {
		return nil, false
	}
	end := min(s.at+s.size, len(s.packet))
	last := end == len(s.packet)
	p := s.packet[s.at-s.head : end : end]
	copy(p, s.headers[:s.head])
	s.network(p)
	t := p[s.start:]
	at := checksumUDP
	if s.protocol == protoTCP {
		at = checksumTCP
		s.tcp(t, last)
		s.sequence += uint32(end - s.at)
	} else {
		binary.BigEndian.PutUint16(t[4:], uint16(len(t)))
	}
	clear(t[at : at+2])
	put(t[at:], sum(t, pseudo(p, s.protocol, len(t))), s.protocol)
	s.at = end
	return p, true
}

// network writes what differs in the IP header.
func (s *Segments) network(p []byte) {
	if p[0]>>4 == 6 {
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
		return
	}
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	binary.BigEndian.PutUint16(p[4:], s.id) // each has its own (RFC 6864), as the kernel counts them
	s.id++
	put(p[10:], sum(p[2:6], s.base), 0)
}

// tcp writes what differs in the TCP header. FIN and PSH are about the end of what is sent; CWR is said once (RFC 3168,
// section 6.1.2).
func (s *Segments) tcp(t []byte, last bool) {
	binary.BigEndian.PutUint32(t[4:], s.sequence)
	t[13] = s.flags
	if !last {
		t[13] &^= flagFIN | flagPSH
	}
	if s.at > s.head {
		t[13] &^= flagCWR
	}
}
