package portmap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// NAT-PMP, RFC 6886: PCP's predecessor, on the same port. All numbers are big endian.
//
//	address request   version 0 ‖ 0
//	        answer    version 0 ‖ 128 ‖ result (2) ‖ epoch, s (4) ‖ external address (4)
//	mapping request   version 0 ‖ 1 (UDP) or 2 (TCP) ‖ 0 (2) ‖ internal port (2) ‖ external port (2) ‖ lifetime, s (4)
//	        answer    version 0 ‖ 129 or 130 ‖ result (2) ‖ epoch (4) ‖ internal port (2) ‖ external port (2) ‖ lifetime (4)
//
// It is spoken here, and not by a library, because it is the smaller half of what PCP needs anyway: the one exchange
// with its retransmission, and a network that tests can replace.
const (
	natpmpAddress = 0
	natpmpMap     = 1
	natpmpMapTCP  = 2
	natpmpAnswer  = 0x80
)

// natpmpResult is a result code, section 3.5.
type natpmpResult uint16

const (
	natpmpSuccess natpmpResult = iota
	natpmpUnsuppVersion
	natpmpNotAuthorized
	natpmpNetworkFailure
	natpmpNoResources
	natpmpUnsuppOpcode
)

// String says in words why.
func (r natpmpResult) String() string {
	switch r {
	case natpmpSuccess:
		return "done"
	case natpmpUnsuppVersion:
		return pcpUnsuppVersion.String()
	case natpmpNotAuthorized:
		return pcpNotAuthorized.String()
	case natpmpNetworkFailure:
		return pcpNetworkFailure.String()
	case natpmpNoResources:
		return pcpNoResources.String()
	case natpmpUnsuppOpcode:
		return pcpUnsuppOpcode.String()
	}
	return fmt.Sprintf("the router refused with code %d", uint16(r))
}

// natpmpMessage is an answer.
type natpmpMessage struct {
	opcode             byte
	result             natpmpResult
	addr               netip.Addr // of natpmpAddress
	internal, external uint16     // of natpmpMap and natpmpMapTCP
	life               time.Duration
}

// errPCP is the answer of a server that knows only NAT-PMP's successor.
var errPCP = fmt.Errorf("%w: the router speaks PCP only", errAbsent)

// parseNATPMP reads an answer. errPCP says that it is one of PCP. A refusal may be short of its body.
func parseNATPMP(b []byte) (natpmpMessage, error) {
	switch {
	case len(b) >= 4 && b[0] == pcpVersion && b[1]&natpmpAnswer != 0:
		return natpmpMessage{}, errPCP
	case len(b) < 4 || b[0] != 0 || b[1]&natpmpAnswer == 0:
		return natpmpMessage{}, errors.New("read NAT-PMP answer: malformed")
	}
	m := natpmpMessage{opcode: b[1] &^ natpmpAnswer, result: natpmpResult(binary.BigEndian.Uint16(b[2:]))}
	if m.result != natpmpSuccess {
		return m, nil
	}
	switch {
	case m.opcode == natpmpAddress && len(b) >= 12:
		m.addr = netip.AddrFrom4([4]byte(b[8:12]))
	case (m.opcode == natpmpMap || m.opcode == natpmpMapTCP) && len(b) >= 16:
		m.internal, m.external = binary.BigEndian.Uint16(b[8:]), binary.BigEndian.Uint16(b[10:])
		m.life = time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Second
	default:
		return natpmpMessage{}, fmt.Errorf("read NAT-PMP answer: opcode %d with %d bytes", m.opcode, len(b))
	}
	return m, nil
}

// natpmp is a client for one mapping.
type natpmp struct {
	ask asker // constant

	given uint16 // the external port last given
	asked bool   // there may be a mapping
}

func (*natpmp) name() string { return NATPMP }

// exchange sends one request. A result other than success is a refusal.
func (c *natpmp) exchange(ctx context.Context, request []byte) (natpmpMessage, error) {
	var m natpmpMessage
	var other error
	err := c.ask.ask(ctx, request, func(b []byte) bool {
		var err error
		m, err = parseNATPMP(b)
		if errors.Is(err, errPCP) {
			other = err
			return true
		}
		mine := m.opcode == natpmpAddress || m.result != natpmpSuccess || m.internal == c.ask.place.port
		return err == nil && m.opcode == request[1] && mine
	})
	switch {
	case err != nil:
		return m, err
	case other != nil:
		return m, other
	case m.result == natpmpUnsuppVersion:
		return m, fmt.Errorf("%w: %v", errAbsent, m.result)
	case m.result != natpmpSuccess:
		return m, refusal(m.result.String())
	}
	return m, nil
}

// mapping asks for the mapping, or for its removal.
func (c *natpmp) mapping(ctx context.Context, life time.Duration, external uint16) (natpmpMessage, error) {
	b := make([]byte, 12)
	b[1] = natpmpMap
	if c.ask.place.tcp {
		b[1] = natpmpMapTCP
	}
	binary.BigEndian.PutUint16(b[4:], c.ask.place.port)
	binary.BigEndian.PutUint16(b[6:], external)
	binary.BigEndian.PutUint32(b[8:], uint32(life/time.Second))
	return c.exchange(ctx, b)
}

// probe asks for the external address, which changes nothing.
func (c *natpmp) probe(ctx context.Context) error {
	_, err := c.exchange(ctx, []byte{0, natpmpAddress})
	return err
}

func (c *natpmp) open(ctx context.Context) (grant, error) {
	suggest := c.given
	if suggest == 0 {
		suggest = c.ask.place.port
	}
	c.asked = true
	m, err := c.mapping(ctx, lifetime, suggest)
	if err != nil {
		return grant{}, err
	}
	at, err := c.exchange(ctx, []byte{0, natpmpAddress})
	switch {
	case err != nil:
		return grant{}, err
	case m.life == 0 || m.external == 0 || at.addr.IsUnspecified():
		return grant{}, refusal("the router gave no address")
	}
	c.given = m.external
	return grant{external: netip.AddrPortFrom(at.addr, m.external), life: m.life}, nil
}

func (c *natpmp) close(ctx context.Context) error {
	if !c.asked {
		return nil
	}
	_, err := c.mapping(ctx, 0, 0)
	c.asked = err != nil
	return err
}
