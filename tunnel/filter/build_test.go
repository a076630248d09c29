package filter

import (
	"encoding/binary"
	"net/netip"
)

// ip makes packets of either family for tests; checksums are left zero, for nobody here looks at them.
func ip(from, to string, protocol byte, payload []byte) []byte {
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	var p []byte
	if src.Is4() {
		p = make([]byte, 20, 20+len(payload))
		p[0], p[8], p[9] = 0x45, 64, protocol
		binary.BigEndian.PutUint16(p[2:], uint16(20+len(payload)))
		copy(p[12:], src.AsSlice())
		copy(p[16:], dst.AsSlice())
	} else {
		p = make([]byte, 40, 40+len(payload))
		p[0], p[6], p[7] = 0x60, protocol, 64
		binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
		copy(p[8:], src.AsSlice())
		copy(p[24:], dst.AsSlice())
	}
	return append(p, payload...)
}

func ports(b []byte, from, to uint16) []byte {
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	return b
}

func tcp(from, to uint16, flags byte) []byte {
	b := ports(make([]byte, 20), from, to)
	b[12], b[13] = 5<<4, flags
	return b
}

func udp(from, to uint16, length int) []byte {
	b := ports(make([]byte, 8+length), from, to)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return b
}

// icmp makes a message: an echo when rest is nil, else an error that quotes rest.
func icmp(kind byte, id uint16, rest []byte) []byte {
	b := append(make([]byte, 8), rest...)
	b[0] = kind
	binary.BigEndian.PutUint16(b[4:], id)
	return b
}

// fragmentOf makes one fragment of IPv4.
func fragmentOf(p []byte, id uint16, offset int, more bool) []byte {
	binary.BigEndian.PutUint16(p[4:], id)
	place := uint16(offset / 8)
	if more {
		place |= 0x2000
	}
	binary.BigEndian.PutUint16(p[6:], place)
	return p
}

// fragment6 is the header of a fragment of IPv6.
func fragment6(next byte, id uint32, offset int, more bool, payload []byte) []byte {
	b := make([]byte, 8)
	b[0] = next
	place := uint16(offset)
	if more {
		place |= 1
	}
	binary.BigEndian.PutUint16(b[2:], place)
	binary.BigEndian.PutUint32(b[4:], id)
	return append(b, payload...)
}

// extension is an extension header of 8 bytes.
func extension(next byte, rest []byte) []byte {
	return append([]byte{next, 0, 1, 4, 0, 0, 0, 0}, rest...)
}

func prefixesOf(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}
