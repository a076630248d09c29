package natprobe

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pion/stun/v3"
)

// padding makes a request as long as its longest answer, 20 + 24 bytes: strangers answer nothing that is larger than what they
// were sent. The attribute is PADDING of RFC 5780, section 7.6.
const padding = 28

// socket is one of a measurement's own.
type socket struct {
	conn net.PacketConn
	port uint16
	done chan struct{} // closed when read has ended
}

// event is a STUN Binding message that came in: a response if mapped is valid, else a request.
type event struct {
	socket *socket
	id     [12]byte
	from   netip.AddrPort
	mapped netip.AddrPort
	padded bool // it is as large as its answer
	at     time.Time
}

func newSocket(c net.PacketConn) (*socket, error) {
	local, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return nil, fmt.Errorf("measure NAT: %T is no UDP address", c.LocalAddr())
	}
	return &socket{conn: c, port: local.AddrPort().Port(), done: make(chan struct{})}, nil
}

// read hands on what is well-formed until the socket is closed. What does not fit is lost, as in the network.
func (s *socket) read(events chan<- event) {
	defer close(s.done)
	buf := make([]byte, 512)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return // closed: a socket that is not connected has no other errors
		}
		e, ok := parse(buf[:n])
		udp, isUDP := from.(*net.UDPAddr)
		if !ok || !isUDP {
			continue
		}
		addr := udp.AddrPort()
		e.socket, e.from, e.at = s, netip.AddrPortFrom(addr.Addr().Unmap().WithZone(""), addr.Port()), time.Now()
		select {
		case events <- e:
		default:
		}
	}
}

func (s *socket) write(raw []byte, to netip.AddrPort) {
	_, _ = s.conn.WriteTo(raw, net.UDPAddrFromAddrPort(to)) // what cannot be sent is lost
}

// parse reads a Binding request or success response (RFC 8489, section 5): no other attribute than XOR-MAPPED-ADDRESS is looked
// at.
func parse(raw []byte) (e event, ok bool) {
	if len(raw) < 20 || int(binary.BigEndian.Uint16(raw[2:])) != len(raw)-20 || binary.BigEndian.Uint32(raw[4:]) != 0x2112A442 {
		return event{}, false
	}
	copy(e.id[:], raw[8:20])
	switch binary.BigEndian.Uint16(raw) {
	case 0x0001:
		e.padded = len(raw) >= 20+4+padding
		return e, true
	case 0x0101:
		m := &stun.Message{Raw: append([]byte(nil), raw...)}
		var x stun.XORMappedAddress
		if m.Decode() != nil || x.GetFrom(m) != nil || x.Port == 0 {
			return event{}, false
		}
		addr, valid := netip.AddrFromSlice(x.IP)
		e.mapped = netip.AddrPortFrom(addr.Unmap(), uint16(x.Port))
		return e, valid && e.mapped.Addr().IsGlobalUnicast()
	}
	return event{}, false
}

// request builds a Binding request; with padding where an answer is wanted.
func request(id [12]byte, padded bool) []byte {
	size := 0
	if padded {
		size = 4 + padding
	}
	raw := make([]byte, 20+size)
	binary.BigEndian.PutUint16(raw, 0x0001)
	binary.BigEndian.PutUint16(raw[2:], uint16(size))
	binary.BigEndian.PutUint32(raw[4:], 0x2112A442)
	copy(raw[8:], id[:])
	if padded {
		binary.BigEndian.PutUint16(raw[20:], 0x0026)
		binary.BigEndian.PutUint16(raw[22:], padding)
	}
	return raw
}

// answer builds the success response to a request from that address.
func answer(id [12]byte, from netip.AddrPort) []byte {
	m, err := stun.Build(stun.NewTransactionIDSetter(id), stun.BindingSuccess, &stun.XORMappedAddress{IP: from.Addr().AsSlice(), Port: int(from.Port())})
	if err != nil {
		panic("internal error: build STUN response: " + err.Error()) // no address of a packet can cause it
	}
	return m.Raw
}
