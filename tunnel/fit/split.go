package fit

import "encoding/binary"

// split cuts packet i of a batch into fragments of at most size bytes that its destination puts together. The first one
// takes the packet's place and has the length that is returned; the others follow in the batch or wait. 0 means that it
// cannot be cut.
//
// Of IPv6 only the source may fragment (RFC 8200, section 4.5). Here it is done in its stead, where the alternatives are
// fragments outside the tunnel, which many networks drop, and a packet that vanishes.
func (r *reader) split(b *batch, i, size int) int {
	packet := b.bufs[i][b.offset:][:b.sizes[i]]
	if packet[0]>>4 == 4 {
		return r.split4(b, packet, size)
	}
	return r.split6(b, b.bufs[i][b.offset:], len(packet), size)
}

// split4 is RFC 791's fragmentation. A packet that said DF has no identification that is worth anything (RFC 6864).
func (r *reader) split4(b *batch, packet []byte, size int) int {
	header := int(packet[0]&15) * 4
	step := (size - header) &^ 7
	if header < ipv4Header || len(packet) <= header || step <= 0 {
		return 0
	}
	if packet[6]&flagDF != 0 {
		packet[6] &^= flagDF
		put16(packet[4:], int(uint16(r.nextID())))
	}
	field := get16(packet[6:]) // flags and offset in units of 8
	body := packet[header:]
	for at := step; at < len(body); at += step {
		end := min(at+step, len(body))
		p := r.room(b, header+end-at)
		copy(p, packet[:header])
		copy(p[header:], body[at:end])
		bareOptions(p[:header])
		more := field & (flagMF << 8)
		if end < len(body) {
			more = flagMF << 8
		}
		put16(p[6:], field&0x1fff+at/8|more)
		finish4(p, header)
	}
	put16(packet[6:], field&0x1fff|flagMF<<8)
	finish4(packet[:header+step], header)
	return header + step
}

// finish4 sets the length and the checksum of a header.
func finish4(p []byte, header int) {
	put16(p[2:], len(p))
	p[10], p[11] = 0, 0
	put16(p[10:], int(^fold(sum16(p[:header]))))
}

// bareOptions blanks the options that only the first fragment has (RFC 791, section 3.1).
func bareOptions(header []byte) {
	for i := ipv4Header; i < len(header) && header[i] != 0; {
		length := 1
		if header[i] != 1 {
			if i+1 >= len(header) || header[i+1] < 2 || i+int(header[i+1]) > len(header) {
				return
			}
			length = int(header[i+1])
		}
		if header[i]&0x80 == 0 {
			for j := range length {
				header[i+j] = 1
			}
		}
		i += length
	}
}

const fragmentHeader = 8 // of RFC 8200, section 4.5

// split6 cuts the packet of length bytes at the beginning of buf, which has room behind it.
func (r *reader) split6(b *batch, buf []byte, length, size int) int {
	at, next := unfragmentable(buf[:length])
	if at == 0 {
		return 0
	}
	proto, field, id, body := buf[next], 0, uint32(0), at // of a packet that is whole
	if proto == 44 {
		if length < at+fragmentHeader {
			return 0
		}
		proto, field, id, body = buf[at], get16(buf[at+2:]), binary.BigEndian.Uint32(buf[at+4:]), at+fragmentHeader
	} else {
		id = r.nextID()
		if len(buf) < length+fragmentHeader {
			return 0
		}
	}
	step := (size - at - fragmentHeader) &^ 7
	if step <= 0 || length-body <= step {
		return 0
	}
	header := func(p []byte, offset int, more bool) {
		p[next] = 44
		put16(p[4:], len(p)-ipv6Header)
		h := p[at:]
		h[0], h[1] = proto, 0
		f := field&^7 + offset
		if more {
			f |= 1
		}
		put16(h[2:], f)
		binary.BigEndian.PutUint32(h[4:], id)
	}
	for from := body + step; from < length; from += step {
		end := min(from+step, length)
		p := r.room(b, at+fragmentHeader+end-from)
		copy(p, buf[:at])
		copy(p[at+fragmentHeader:], buf[from:end])
		header(p, from-body, end < length || field&1 != 0)
	}
	first := buf[:at+fragmentHeader+step]
	copy(first[at+fragmentHeader:], buf[body:body+step])
	header(first, 0, true)
	return len(first)
}

// unfragmentable returns where the part of an IPv6 packet ends that every fragment has, and where the byte is that says what
// follows. 0 when the packet is damaged.
func unfragmentable(p []byte) (end, next int) {
	const (
		hopByHop    = 0
		routing     = 43
		destination = 60
	)
	end, next = ipv6Header, 6
	at, proto := end, 6
	for {
		switch kind := p[proto]; {
		case kind != hopByHop && kind != routing && kind != destination:
			return end, next
		case len(p) < at+8:
			return 0, 0
		default:
			length := (int(p[at+1]) + 1) * 8
			if len(p) < at+length {
				return 0, 0
			}
			proto = at
			at += length
			// Destination options belong to it only if a routing header follows.
			if kind != destination {
				end, next = at, proto
			}
		}
	}
}
