// Package nat64 writes IPv4 addresses into the IPv6 prefix of a NAT64 and reads them out of it (RFC 6052), and finds the prefix in
// what DNS answers (RFC 7050). Way is how a host without IPv4 of its own then reaches IPv4: sockets write addresses on their way out
// and read them on their way in, as a customer-side translator would (RFC 6877), so that all above them sees IPv4.
//
// Whom DNS is asked, and when the host has IPv4 of its own, is package dns64's. That a packet is to be written at all is decided where
// it is sent.
//
// All functions and methods may be called concurrently.
package nat64

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"warren/nat/ranges"
)

// Name is what is asked for: it has IPv4 addresses only, WellKnown, so that an IPv6 address of it is a DNS64's (RFC 7050, section 3).
const Name = "ipv4only.arpa"

// WellKnown are the addresses of Name (RFC 7050, section 2.2).
var WellKnown = [2]netip.Addr{netip.AddrFrom4([4]byte{192, 0, 0, 170}), netip.AddrFrom4([4]byte{192, 0, 0, 171})}

// Base is the address that stands for this host where it needs one of IPv4 and has none (RFC 7335): nobody else ever sees it.
var Base = netip.AddrFrom4([4]byte{192, 0, 0, 1})

// wellKnownPrefix is for addresses of the Internet only (RFC 6052, section 3.1).
var wellKnownPrefix = netip.MustParsePrefix("64:ff9b::/96")

// lengths are those that a prefix may have (RFC 6052, section 2.2), the most usual first.
var lengths = [...]int{96, 64, 56, 48, 40, 32}

// Prefix is the IPv6 prefix of a NAT64; the zero Prefix is none.
//
//	bits   0               32  40  48  56  64  72  80  88  96  104        127
//	 32    prefix           v4 . . . . . .  u   zero
//	 40    prefix               v4 . . . .  u  v4  zero
//	 48    prefix                   v4 . .  u  v4 .  zero
//	 56    prefix                       v4  u  v4 . .  zero
//	 64    prefix                           u  v4 . . .  zero
//	 96    prefix                                        v4 . . . .
//
// The byte u is zero, also in a prefix of 96 bits.
type Prefix struct{ p netip.Prefix }

// NewPrefix returns a prefix of 32, 40, 48, 56, 64 or 96 bits; false for one that is none of these, or whose byte u is not zero.
func NewPrefix(p netip.Prefix) (Prefix, bool) {
	if p = p.Masked(); !p.IsValid() || !p.Addr().Is6() || p.Addr().Is4In6() || !slices.Contains(lengths[:], p.Bits()) {
		return Prefix{}, false
	}
	return Prefix{p}, p.Addr().As16()[8] == 0
}

// IsValid reports whether there is a prefix.
func (p Prefix) IsValid() bool { return p.p.IsValid() }

// String returns the prefix in the usual form.
func (p Prefix) String() string { return p.p.String() }

// places are where the four bytes of IPv4 are behind a prefix of so many bits.
func places(bits int) (at [4]int) {
	next := bits / 8
	for i := range at {
		if next == 8 {
			next++ // the byte u
		}
		at[i] = next
		next++
	}
	return at
}

// Write returns an IPv4 address as the NAT64 is told it.
func (p Prefix) Write(v4 netip.Addr) netip.Addr {
	out, four := p.p.Addr().As16(), v4.As4()
	for i, at := range places(p.p.Bits()) {
		out[at] = four[i]
	}
	return netip.AddrFrom16(out)
}

// Read returns the IPv4 address that was written into an address; false for one that is not the prefix's.
func (p Prefix) Read(v6 netip.Addr) (netip.Addr, bool) {
	if !p.IsValid() || !p.p.Contains(v6) {
		return netip.Addr{}, false
	}
	in, four := v6.As16(), [4]byte{}
	for i, at := range places(p.p.Bits()) {
		four[i] = in[at]
	}
	v4 := netip.AddrFrom4(four)
	return v4, p.Write(v4) == v6.WithZone("")
}

// holds reports whether the NAT64 is for an address: never one that nobody has, and with the well-known prefix only those of the
// Internet.
func (p Prefix) holds(v4 netip.Addr) bool {
	kind := ranges.Of(v4)
	return kind == ranges.Public || kind != ranges.Useless && p.p != wellKnownPrefix
}

// Find reads the prefix out of the IPv6 addresses of Name (RFC 7050, section 3): false when there is no DNS64, or nothing that can be
// made sense of. Of several prefixes it is the first.
func Find(answers []netip.Addr) (Prefix, bool) {
	for _, a := range answers {
		if !a.Is6() || a.Is4In6() {
			continue
		}
		for _, bits := range lengths {
			p, ok := NewPrefix(netip.PrefixFrom(a, bits))
			if !ok {
				continue
			}
			if v4, ok := p.Read(a); ok && slices.Contains(WellKnown[:], v4) {
				return p, true
			}
		}
	}
	return Prefix{}, false
}

// advertised is the type of the option PREF64 in a router advertisement (RFC 8781, section 4).
const advertised = 38

// Advertised reads the option PREF64 of a router advertisement, with its header of two bytes: the prefix, and how long it is good for, zero
// when it is no more. It returns false for all other options, and for what makes no sense.
//
//	type 38 | length 2 | lifetime in units of 8 s, 13 bits | code of the prefix's length, 3 bits | the first 96 bits of the prefix
func Advertised(option []byte) (p Prefix, life time.Duration, ok bool) {
	if len(option) != 16 || option[0] != advertised || option[1] != 2 {
		return Prefix{}, 0, false
	}
	both := binary.BigEndian.Uint16(option[2:])
	codes := [...]int{96, 64, 56, 48, 40, 32}
	code := int(both & 7)
	if code >= len(codes) {
		return Prefix{}, 0, false
	}
	var addr [16]byte
	copy(addr[:12], option[4:])
	p, ok = NewPrefix(netip.PrefixFrom(netip.AddrFrom16(addr), codes[code]))
	return p, time.Duration(both&^7) * time.Second, ok
}

// Way is how this host reaches IPv4 by a NAT64, if it does. The zero Way, and a nil one, is none.
type Way struct{ prefix atomic.Pointer[Prefix] }

// Set says by which prefix; the zero Prefix: not at all. It reports whether that is another one than before.
func (w *Way) Set(p Prefix) (changed bool) {
	old := w.prefix.Swap(&p)
	return old == nil && p.IsValid() || old != nil && *old != p
}

// Prefix returns the prefix; the zero Prefix: none.
func (w *Way) Prefix() Prefix {
	if w == nil {
		return Prefix{}
	}
	if p := w.prefix.Load(); p != nil {
		return *p
	}
	return Prefix{}
}

// Out returns where to send what is for an address of the IPv4 Internet, to which this host has no way of its own; false where
// there is none by a NAT64 either, and for all other addresses.
func (w *Way) Out(to netip.AddrPort) (via netip.AddrPort, ok bool) {
	if w.Prefix().IsValid() && ranges.IsPublic(to.Addr()) {
		return w.Fallback(to)
	}
	return to, false
}

// Fallback is Out for any IPv4 address to which the system has said that there is no route: one of a private network is this host's
// own affair first, and that of the NAT64 only then.
func (w *Way) Fallback(to netip.AddrPort) (via netip.AddrPort, ok bool) {
	p, v4 := w.Prefix(), to.Addr().Unmap()
	if !p.IsValid() || !v4.Is4() || !p.holds(v4) {
		return to, false
	}
	return netip.AddrPortFrom(p.Write(v4), to.Port()), true
}

// NoRoute reports whether an error of a socket says that the system knows no way to an address, or does not speak its family.
func NoRoute(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.EAFNOSUPPORT) ||
		errors.Is(err, syscall.EADDRNOTAVAIL)
}

// In returns an address as everybody else has it: what a DNS64 or a NAT64 has written is IPv4 again.
func (w *Way) In(a netip.AddrPort) netip.AddrPort {
	p := w.Prefix()
	if v4, ok := p.Read(a.Addr()); ok && p.holds(v4) {
		return netip.AddrPortFrom(v4, a.Port())
	}
	return a
}
