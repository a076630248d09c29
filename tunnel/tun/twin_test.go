package tun

import (
	"encoding/binary"
	"slices"
)

// What the pure parts do, written so that one sees that it is right.

// slowSum is RFC 1071 word by word.
func slowSum(parts ...[]byte) uint16 {
	var s uint32
	for _, b := range parts {
		for i := 0; i < len(b); i += 2 {
			word := uint32(b[i]) << 8
			if i+1 < len(b) {
				word |= uint32(b[i+1])
			}
			s += word
			s = s&0xffff + s>>16
		}
	}
	return uint16(s)
}

// slowPseudo is the pseudo-header.
func slowPseudo(p []byte, protocol byte, length int) []byte {
	addresses := p[12:20]
	if p[0]>>4 == 6 {
		addresses = p[8:40]
	}
	return append(slices.Clone(addresses), 0, protocol, byte(length>>8), byte(length))
}

// seal writes all lengths and checksums of a packet whose transport begins at start.
func seal(p []byte, protocol byte, start int) []byte {
	b := binary.BigEndian
	if p[0]>>4 == 4 {
		b.PutUint16(p[2:], uint16(len(p)))
		b.PutUint16(p[10:], 0)
		b.PutUint16(p[10:], ^slowSum(p[:start]))
	} else {
		b.PutUint16(p[4:], uint16(len(p)-40))
	}
	t, at := p[start:], 16
	if protocol == protoUDP {
		at = 6
		b.PutUint16(t[4:], uint16(len(t)))
	}
	b.PutUint16(t[at:], 0)
	c := ^slowSum(slowPseudo(p, protocol, len(t)), t)
	if c == 0 && protocol == protoUDP {
		c = 0xffff
	}
	b.PutUint16(t[at:], c)
	return p
}

// slowSplit is Segments for frames that have a kind.
func slowSplit(frame []byte) (out [][]byte) {
	h, packet := readHeader(frame), frame[HeaderSize:]
	n, _ := Length(packet)
	packet = packet[:n]
	protocol, head := byte(protoUDP), h.start+8
	if h.kind&^kindECN != kindUDP {
		protocol, head = protoTCP, h.start+int(packet[h.start+12]>>4)*4
	}
	for i, payload := range slices.Collect(slices.Chunk(packet[head:], h.size)) {
		p := append(slices.Clone(packet[:head]), payload...)
		if p[0]>>4 == 4 {
			binary.BigEndian.PutUint16(p[4:], binary.BigEndian.Uint16(p[4:])+uint16(i))
		}
		if protocol == protoTCP {
			t := p[h.start:]
			binary.BigEndian.PutUint32(t[4:], binary.BigEndian.Uint32(t[4:])+uint32(i*h.size))
			if head+(i+1)*h.size < len(packet) {
				t[13] &= 0xff - 0x01 - 0x08
			}
			if i > 0 {
				t[13] &= 0xff - 0x80
			}
		}
		out = append(out, seal(p, protocol, h.start))
	}
	return out
}

// collect splits a frame with Segments.
func collect(frame []byte) (out [][]byte, err error) {
	var s Segments
	if err := s.Split(slices.Clone(frame)); err != nil {
		return nil, err
	}
	for p, ok := s.Next(); ok; p, ok = s.Next() {
		out = append(out, slices.Clone(p))
	}
	return out, nil
}

// written keeps the frames that a Joiner writes.
type written [][]byte

func (w *written) Write(frame []byte) (int, error) {
	*w = append(*w, slices.Clone(frame))
	return len(frame), nil
}

// join has a Joiner take packets, each with some padding behind it.
func join(packets [][]byte, with Offloads) (written, error) {
	var w written
	j := NewJoiner(&w, with)
	for i, p := range packets {
		padding := make([]byte, i%16)
		if _, ok := Length(p); !ok {
			padding = nil // it might become the rest of what it lacks
		}
		place, err := j.Place(len(p) + len(padding))
		if err != nil {
			return nil, err
		}
		if i%3 == 0 { // one that could not be opened: the cipher leaves zeros
			clear(place[:len(p)])
			if place, err = j.Place(len(p) + len(padding)); err != nil {
				return nil, err
			}
		}
		place = append(place, p...)
		place = append(place, padding...)
		if err := j.Take(len(place)); err != nil && err != ErrFrame {
			return nil, err
		}
	}
	return w, j.Flush()
}

// same compares packets but for what a frame cannot keep: the numbers of IPv4 packets that are never fragmented, and which of
// the two zeros a checksum is.
func same(a, b []byte) bool {
	return string(plain(a)) == string(plain(b))
}

func plain(p []byte) []byte {
	p = slices.Clone(p)
	n, ok := Length(p)
	if !ok {
		return p
	}
	p = p[:n]
	f := flowOf(p)
	if f.protocol == 0 {
		return p
	}
	at := f.start + checksumTCP
	if f.protocol == protoUDP {
		at = f.start + checksumUDP
	}
	if f.right(p) && !(f.protocol == protoUDP && f.none(p)) {
		p[at], p[at+1] = 0xaa, 0xaa
	}
	if p[0]>>4 == 4 {
		if slowSum(p[:f.start]) == 0xffff {
			p[10], p[11] = 0xaa, 0xaa
			if p[6]&0x40 != 0 {
				p[4], p[5] = 0, 0
			}
		}
	}
	return p
}
