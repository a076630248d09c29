package natprobe

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"warren/nat/stunwire"
)

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

// parse reads a Binding request or success response: no other attribute than XOR-MAPPED-ADDRESS is looked at.
func parse(raw []byte) (e event, ok bool) {
	p, ok := stunwire.Inspect(raw)
	if !ok {
		return event{}, false
	}
	e.id = p.ID
	if p.Class == stunwire.Request {
		e.padded = len(raw) >= stunwire.ProbeSize
		return e, true
	}
	e.mapped, ok = p.Mapped()
	return e, ok && e.mapped.Addr().IsGlobalUnicast()
}

// answer builds the success response to a request from that address.
func answer(id stunwire.ID, from netip.AddrPort) []byte {
	raw, err := stunwire.Answer(id, from, "")
	if err != nil {
		panic("internal error: " + err.Error()) // no address of a packet can cause it
	}
	return raw
}
