package filter

import (
	"net/netip"
	"slices"
)

// prefixKey is a prefix of either family; one of IPv4 has 96 more bits before it (RFC 4291, section 2.5.5.2).
type prefixKey struct {
	addr [16]byte
	bits uint8
}

// prefixes finds what belongs to an address: that of the longest prefix which holds it. It is constant once order was called.
type prefixes[T any] struct {
	of      map[prefixKey]T
	lengths []uint8 // longest first
}

func keyOf(p netip.Prefix) prefixKey {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	return prefixKey{masked(p.Addr().As16(), uint8(bits)), uint8(bits)}
}

// masked returns an address with all but the first bits zero.
func masked(a [16]byte, bits uint8) [16]byte {
	for i := range a {
		switch left := int(bits) - 8*i; {
		case left <= 0:
			a[i] = 0
		case left < 8:
			a[i] &= 0xff << (8 - left)
		}
	}
	return a
}

func (t *prefixes[T]) get(p netip.Prefix) T { return t.of[keyOf(p)] }

func (t *prefixes[T]) set(p netip.Prefix, v T) {
	if t.of == nil {
		t.of = make(map[prefixKey]T)
	}
	t.of[keyOf(p)] = v
}

// order has to be called after the last set.
func (t *prefixes[T]) order() {
	for k := range t.of {
		if !slices.Contains(t.lengths, k.bits) {
			t.lengths = append(t.lengths, k.bits)
		}
	}
	slices.SortFunc(t.lengths, func(a, b uint8) int { return int(b) - int(a) })
}

// longest returns what belongs to an address, or the zero value. An address of IPv6 is in no prefix of IPv4, nor the other way round.
func (t *prefixes[T]) longest(a [16]byte) (none T) {
	least := uint8(0)
	if isFour(a) {
		least = 96
	}
	for _, bits := range t.lengths {
		if bits < least {
			break
		}
		if v, found := t.of[prefixKey{masked(a, bits), bits}]; found {
			return v
		}
	}
	return none
}

// fourPrefix is what an IPv4 address has before it.
var fourPrefix = [12]byte{10: 0xff, 11: 0xff}

func isFour(a [16]byte) bool { return [12]byte(a[:12]) == fourPrefix }
