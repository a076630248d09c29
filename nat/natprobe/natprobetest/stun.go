package natprobetest

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/pion/stun/v3"
)

// The sizes of a Binding request without attributes, and of one that is as long as its longest answer (RFC 5780, section 7.6).
const (
	bareSize   = 20
	paddedSize = 52
)

// Serve answers STUN Binding requests that are padded, as an anchor does, until the socket is closed. It calls bare with the
// transaction of those that are not, which get no answer.
func (s *Socket) Serve(bare func(id [12]byte)) {
	buf := make([]byte, 512)
	for {
		n, from, err := s.ReadFrom(buf)
		if err != nil {
			return
		}
		raw := buf[:n]
		if n < bareSize || binary.BigEndian.Uint16(raw) != 1 || binary.BigEndian.Uint32(raw[4:]) != 0x2112A442 {
			continue
		}
		id := [12]byte(raw[8:bareSize])
		if n < paddedSize {
			bare(id)
			continue
		}
		s.WriteTo(answer(id, from.(*net.UDPAddr).AddrPort()), from)
	}
}

func answer(id [12]byte, from netip.AddrPort) []byte {
	m, err := stun.Build(stun.NewTransactionIDSetter(id), stun.BindingSuccess, &stun.XORMappedAddress{IP: from.Addr().Unmap().AsSlice(), Port: int(from.Port())})
	if err != nil {
		panic("internal error: build STUN response: " + err.Error())
	}
	return m.Raw
}
