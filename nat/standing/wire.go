package standing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

/* Messages of protocol 6
 *
 *	dial back:  version 1 (1) ‖ transaction (12) ‖ port (2, big endian) ‖ address (4 or 16)
 *	try:        version 2 (1) ‖ transaction (12) ‖ port (2, big endian) ‖ address (4 or 16)
 *	told:       version 3 (1) ‖ transaction (12) ‖ port of the helper's socket (2, big endian)
 *	unable:     version 4 (1) ‖ transaction (12)
 *
 * The first two are asks, told answers a try, unable a request to dial back.
 */
const (
	versionDialBack = 1
	versionTry      = 2
	versionTold     = 3
	versionUnable   = 4
)

// Where the parts are.
const (
	idEnd   = 1 + 12
	portEnd = idEnd + 2
)

// errMalformed is wrapped by what is wrong with a message.
var errMalformed = errors.New("malformed message about reachability")

// message is any of them. addr is of asks; of told only its port counts, and the address is zero.
type message struct {
	version byte
	id      [12]byte
	addr    netip.AddrPort
}

func encode(m message) []byte {
	raw := make([]byte, 0, portEnd+16)
	raw = append(append(raw, m.version), m.id[:]...)
	if m.version == versionUnable {
		return raw
	}
	raw = binary.BigEndian.AppendUint16(raw, m.addr.Port())
	return append(raw, m.addr.Addr().AsSlice()...) // none for told
}

// decode is the reverse of encode. It takes no address that a packet cannot be sent to from afar.
func decode(raw []byte) (m message, err error) {
	if len(raw) < idEnd {
		return m, fmt.Errorf("%d bytes: %w", len(raw), errMalformed)
	}
	m.version, m.id = raw[0], [12]byte(raw[1:idEnd])
	size := len(raw)
	switch m.version {
	case versionDialBack, versionTry:
		if size != portEnd+4 && size != portEnd+16 {
			return message{}, fmt.Errorf("%d bytes: %w", size, errMalformed)
		}
		ip, _ := netip.AddrFromSlice(raw[portEnd:])
		m.addr = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(raw[idEnd:]))
		if ip.Is4In6() || !ip.IsGlobalUnicast() || m.addr.Port() == 0 {
			return message{}, fmt.Errorf("address %s: %w", m.addr, errMalformed)
		}
	case versionTold:
		if size != portEnd {
			return message{}, fmt.Errorf("%d bytes: %w", size, errMalformed)
		}
		m.addr = netip.AddrPortFrom(netip.Addr{}, binary.BigEndian.Uint16(raw[idEnd:]))
	case versionUnable:
		if size != idEnd {
			return message{}, fmt.Errorf("%d bytes: %w", size, errMalformed)
		}
	default:
		return message{}, fmt.Errorf("version %d: %w", m.version, errMalformed)
	}
	return m, nil
}
