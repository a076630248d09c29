package zone

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// The trees of the names of addresses (RFC 1035, 3.5; RFC 3596, 2.5).
const (
	tree4 = "in-addr.arpa"
	tree6 = "ip6.arpa"
)

const digits = "0123456789abcdef"

// ReverseName is the name under which an address is asked for, without a dot at its end.
func ReverseName(addr netip.Addr) string {
	if addr.Is4() {
		a := addr.As4()
		return fmt.Sprintf("%d.%d.%d.%d.%s", a[3], a[2], a[1], a[0], tree4)
	}
	var name strings.Builder
	a := addr.As16()
	for i := len(a) - 1; i >= 0; i-- {
		name.WriteByte(digits[a[i]&15])
		name.WriteByte('.')
		name.WriteByte(digits[a[i]>>4])
		name.WriteByte('.')
	}
	return name.String() + tree6
}

// addrOf is the reverse of ReverseName, for a name in lower case.
func addrOf(name string) (netip.Addr, bool) {
	if text, ok := strings.CutSuffix(name, "."+tree4); ok {
		labels := strings.Split(text, ".")
		if len(labels) != 4 {
			return netip.Addr{}, false
		}
		var a [4]byte
		for i, label := range labels {
			n, err := strconv.ParseUint(label, 10, 8)
			if err != nil || strconv.FormatUint(n, 10) != label {
				return netip.Addr{}, false
			}
			a[3-i] = byte(n)
		}
		return netip.AddrFrom4(a), true
	}
	text, ok := strings.CutSuffix(name, "."+tree6)
	if !ok || len(text) != 63 {
		return netip.Addr{}, false
	}
	var a [16]byte
	for i := range 32 {
		digit := strings.IndexByte(digits, text[2*i])
		if digit < 0 || i < 31 && text[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		at := 31 - i
		a[at/2] |= byte(digit) << (4 * (1 - at%2))
	}
	return netip.AddrFrom16(a), true
}

// reverseZones are the zones of addresses that a network fills: one, or several where it ends within a label.
func reverseZones(network netip.Prefix) (zones []string) {
	if !network.IsValid() || network.Bits() == 0 {
		return nil
	}
	network = network.Masked()
	step, total, cut := 8, 4, 2 // bits of a label, labels of an address, and how many bytes of text a label of IPv6 takes
	if network.Addr().Is6() {
		step, total = 4, 32
	}
	labels := (network.Bits() + step - 1) / step
	open := labels*step - network.Bits()
	for i := range 1 << open {
		raw := network.Addr().AsSlice()
		last := labels - 1
		if step == 8 {
			raw[last] |= byte(i)
		} else {
			raw[last/2] |= byte(i) << (4 * (1 - last%2))
		}
		addr, _ := netip.AddrFromSlice(raw)
		name := ReverseName(addr)
		if step == 4 {
			zones = append(zones, name[cut*(total-labels):])
			continue
		}
		zones = append(zones, strings.Join(strings.Split(name, ".")[total-labels:], "."))
	}
	return zones
}
