//go:build linux

package natlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/pion/stun/v3"
)

// Dependence says on what of the remote side a NAT's mapping or filtering depends.
type Dependence int

// The dependences of RFC 4787, sections 4.1 and 5; Blocked when not even the
// plain request was answered.
const (
	Blocked Dependence = iota
	EndpointIndependent
	AddressDependent
	AddressPortDependent
)

// String returns the dependence in the words of the RFC.
func (d Dependence) String() string {
	return [...]string{"blocked", "endpoint-independent", "address-dependent", "address-and-port-dependent"}[d]
}

// Behaviour is what Measure has found.
type Behaviour struct {
	Mapping    Dependence
	Filtering  Dependence
	Translated bool // the server saw another address or port than the host's own
}

// String returns both dependences.
func (b Behaviour) String() string {
	return fmt.Sprintf("mapping %s, filtering %s", b.Mapping, b.Filtering)
}

// CHANGE-REQUEST and its flags, RFC 5780 section 7.2.
const (
	changeRequest = stun.AttrType(0x0003)
	changeIP      = 4
	changePort    = 2
)

// The two ports of a STUNServer.
const (
	stunPort  = 3478
	stunPort2 = 3479
)

// STUNServer answers Binding requests on two addresses and two ports of each
// family, and from another of them when CHANGE-REQUEST asks for it (RFC 5780).
type STUNServer struct {
	addrs [2][2]netip.Addr // [0] IPv4, [1] IPv6: first and second address
	conns []*net.UDPConn
}

// ServeSTUN runs the server on a host on the Internet until Close.
func ServeSTUN(h *Host) (*STUNServer, error) {
	s := &STUNServer{}
	alias4, alias6 := h.Alias()
	s.addrs = [2][2]netip.Addr{{h.Addr4(), alias4}, {h.Addr6(), alias6}}
	for _, pair := range s.addrs {
		if !pair[0].IsValid() {
			continue
		}
		var conns [2][2]*net.UDPConn
		for i, addr := range pair {
			for j, port := range []uint16{stunPort, stunPort2} {
				c, err := h.ListenUDP(netip.AddrPortFrom(addr, port))
				if err != nil {
					return nil, errors.Join(fmt.Errorf("serve STUN: %w", err), s.Close())
				}
				conns[i][j] = c
				s.conns = append(s.conns, c)
			}
		}
		for i := range 2 {
			for j := range 2 {
				go serveSTUN(conns, i, j)
			}
		}
	}
	return s, nil
}

// Close ends the server.
func (s *STUNServer) Close() error {
	var errs []error
	for _, c := range s.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// serveSTUN answers what arrives on address i and port j, until that is closed.
func serveSTUN(conns [2][2]*net.UDPConn, i, j int) {
	buf := make([]byte, 1500)
	for {
		n, from, err := conns[i][j].ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		req := &stun.Message{Raw: append([]byte(nil), buf[:n]...)}
		if req.Decode() != nil || req.Type != stun.BindingRequest {
			continue
		}
		out := conns[i][j]
		if v, err := req.Get(changeRequest); err == nil && len(v) == 4 {
			out = conns[i^int(v[3]&changeIP)/changeIP][j^int(v[3]&changePort)/changePort]
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		res, err := stun.Build(stun.NewTransactionIDSetter(req.TransactionID), stun.BindingSuccess,
			&stun.XORMappedAddress{IP: from.Addr().AsSlice(), Port: int(from.Port())})
		if err == nil {
			out.WriteToUDPAddrPort(res.Raw, from) // a lost answer is asked for again
		}
	}
}

// Measure determines the behaviour of whatever is between the host and the
// server, over IPv6 or IPv4, by the tests of RFC 5780, sections 4.3 and 4.4.
func Measure(h *Host, s *STUNServer, v6 bool) (Behaviour, error) {
	m := prober{server: s.addrs[0], local: h.Addr4()}
	if v6 {
		m.server, m.local = s.addrs[1], h.Addr6()
	}
	if !m.local.IsValid() || !m.server[0].IsValid() {
		return Behaviour{}, fmt.Errorf("measure %s: no address of that family", h.Name)
	}
	var b Behaviour
	// Each of the two with a socket of its own: the mapping tests have opened
	// the filter for the server's other address.
	for _, test := range []func() error{
		func() (err error) { b.Mapping, b.Translated, err = m.mapping(); return err },
		func() (err error) { b.Filtering, err = m.filtering(); return err },
	} {
		var err error
		if m.conn, err = h.ListenUDP(netip.AddrPortFrom(m.local, 0)); err != nil {
			return Behaviour{}, err
		}
		err = test()
		m.conn.Close()
		if err != nil {
			return Behaviour{}, fmt.Errorf("measure %s: %w", h.Name, err)
		}
	}
	return b, nil
}

// prober is one measurement under way.
type prober struct {
	conn   *net.UDPConn
	local  netip.Addr
	server [2]netip.Addr
}

func (m *prober) mapping() (Dependence, bool, error) {
	var seen [3]netip.AddrPort
	for i, to := range []netip.AddrPort{
		netip.AddrPortFrom(m.server[0], stunPort),
		netip.AddrPortFrom(m.server[1], stunPort),
		netip.AddrPortFrom(m.server[1], stunPort2),
	} {
		var ok bool
		var err error
		if seen[i], ok, err = m.ask(to, 0); err != nil || !ok {
			return Blocked, false, err
		}
	}
	translated := seen[0] != m.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	switch {
	case seen[0] == seen[1]:
		return EndpointIndependent, translated, nil
	case seen[1] == seen[2]:
		return AddressDependent, translated, nil
	}
	return AddressPortDependent, translated, nil
}

func (m *prober) filtering() (Dependence, error) {
	to := netip.AddrPortFrom(m.server[0], stunPort)
	for _, test := range []struct {
		change byte
		then   Dependence // what an answer proves
	}{{0, Blocked}, {changeIP | changePort, EndpointIndependent}, {changePort, AddressDependent}} {
		_, ok, err := m.ask(to, test.change)
		switch {
		case err != nil:
			return Blocked, err
		case test.change == 0 && !ok:
			return Blocked, nil
		case test.change != 0 && ok:
			return test.then, nil
		}
	}
	return AddressPortDependent, nil
}

// The waits of ask. On a busy machine an answer has taken half a second, and one that is late must not pass for one that was filtered.
const (
	again     = 150 * time.Millisecond // the lab's round trip is far below it
	patience  = 4 * time.Second        // until a server that does not answer at all is blocked
	behindIt  = 100 * time.Millisecond // for the answer in question, after one that was asked for later has come
	questions = 3                      // unanswered ones, each with a later one that was answered, until that is what the NAT does
)

// ask sends Binding requests and returns the address that the server has seen; false when no answer came. A plain one is repeated until its
// answer comes, or for as long as patience says. One for an answer from elsewhere has a plain one sent after it: the server takes
// both in their order, so the plain answer says that the other one has been sent.
func (m *prober) ask(to netip.AddrPort, change byte) (netip.AddrPort, bool, error) {
	if change == 0 {
		req, err := stun.Build(stun.TransactionID, stun.BindingRequest)
		if err != nil {
			return netip.AddrPort{}, false, err
		}
		for end := time.Now().Add(patience); time.Now().Before(end); {
			if err := m.send(to, req); err != nil {
				return netip.AddrPort{}, false, err
			}
			if _, seen, ok, err := m.answer(again, req); err != nil || ok {
				return seen, ok, err
			}
		}
		return netip.AddrPort{}, false, nil
	}
	for range questions {
		req, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.RawAttribute{Type: changeRequest, Value: []byte{0, 0, 0, change}})
		if err != nil {
			return netip.AddrPort{}, false, err
		}
		after, err := stun.Build(stun.TransactionID, stun.BindingRequest)
		if err != nil {
			return netip.AddrPort{}, false, err
		}
		if err := errors.Join(m.send(to, req), m.send(to, after)); err != nil {
			return netip.AddrPort{}, false, err
		}
		which, seen, ok, err := m.answer(patience, req, after)
		if err == nil && ok && which == 1 {
			_, seen, ok, err = m.answer(behindIt, req)
		}
		if err != nil || ok {
			return seen, ok, err
		}
	}
	return netip.AddrPort{}, false, nil
}

func (m *prober) send(to netip.AddrPort, req *stun.Message) error {
	_, err := m.conn.WriteToUDPAddrPort(req.Raw, to)
	return err
}

// answer waits so long for an answer to one of the requests, and returns to which, and the address in it; false when none came.
func (m *prober) answer(wait time.Duration, to ...*stun.Message) (which int, seen netip.AddrPort, ok bool, err error) {
	buf := make([]byte, 1500)
	m.conn.SetReadDeadline(time.Now().Add(wait))
	for {
		n, err := m.conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, netip.AddrPort{}, false, nil
		}
		if err != nil {
			return 0, netip.AddrPort{}, false, err
		}
		res := &stun.Message{Raw: buf[:n]}
		var mapped stun.XORMappedAddress
		if res.Decode() != nil || mapped.GetFrom(res) != nil {
			continue
		}
		for i, req := range to {
			if res.TransactionID == req.TransactionID {
				addr, _ := netip.AddrFromSlice(mapped.IP)
				return i, netip.AddrPortFrom(addr.Unmap(), uint16(mapped.Port)), true, nil
			}
		}
	}
}
