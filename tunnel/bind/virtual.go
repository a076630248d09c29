package bind

import (
	"encoding/binary"
	"net/netip"
)

// Virtual addresses stand for things that have no underlay address of their own. They lie in the discard
// prefix (RFC 6666), so a packet that escapes to one goes nowhere:
//
//	0100:0000:0000:0000 : KK 00 : 48-bit serial number     KK: 1 peer's handle, 2 relay channel, 3 stream
//
// Serial numbers are never used again, so that an address kept too long cannot mean somebody else.
const (
	virtualHandle  = 1
	virtualChannel = 2
	virtualStream  = 3
)

// virtualPort is the port of every virtual address: discard (RFC 863), since WireGuard's tools want one.
const virtualPort = 9

var virtualPrefix = netip.MustParsePrefix("100::/64")

// IsVirtual reports whether a is a virtual address: a peer's handle, a relay channel or a stream.
func IsVirtual(a netip.Addr) bool { return virtualPrefix.Contains(a) }

// IsStream reports whether a is the virtual address of a stream.
func IsStream(a netip.Addr) bool { return IsVirtual(a) && a.As16()[8] == virtualStream }

func virtualAddr(kind byte, serial uint64) netip.AddrPort {
	var a [16]byte
	binary.BigEndian.PutUint64(a[8:], serial)
	a[0], a[8], a[9] = 1, kind, 0
	return netip.AddrPortFrom(netip.AddrFrom16(a), virtualPort)
}

// normal returns a in the one form in which addresses are compared: IPv4 never mapped into IPv6 (which would also
// go to the wrong socket), and no zone (which WireGuard's tools cannot read, and the sockets do not use).
func normal(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
