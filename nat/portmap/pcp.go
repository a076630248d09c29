package portmap

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// PCP, RFC 6887. All numbers are big endian; IPv4 addresses are mapped into IPv6.
//
//	request   version 2 ‖ opcode ‖ 0 (2) ‖ lifetime, s (4) ‖ address of the client (16)
//	answer    version 2 ‖ opcode with bit 7 ‖ 0 (1) ‖ result (1) ‖ lifetime (4) ‖ epoch, s (4) ‖ 0 (12)
//	MAP       nonce (12) ‖ protocol (1) ‖ 0 (3) ‖ internal port (2) ‖ external port (2) ‖ external address (16)
//
// followed by options, of which none are sent and all are ignored.
const (
	pcpVersion  = 2
	pcpAnnounce = 0
	pcpMap      = 1
	pcpAnswer   = 0x80
	pcpHeader   = 24
	pcpMapSize  = 36
	maxPCP      = 1100 // section 7
	protocolTCP = 6    // IANA
	protocolUDP = 17
)

// pcpResult is a result code, section 7.4.
type pcpResult byte

const (
	pcpSuccess         pcpResult = 0
	pcpUnsuppVersion   pcpResult = 1
	pcpNotAuthorized   pcpResult = 2
	pcpUnsuppOpcode    pcpResult = 4
	pcpNetworkFailure  pcpResult = 7
	pcpNoResources     pcpResult = 8
	pcpUnsuppProtocol  pcpResult = 9
	pcpUserExQuota     pcpResult = 10
	pcpCannotProvide   pcpResult = 11
	pcpAddressMismatch pcpResult = 12
)

// String says in words why.
func (r pcpResult) String() string {
	switch r {
	case pcpSuccess:
		return "done"
	case pcpUnsuppVersion:
		return "the router speaks another version of the protocol"
	case pcpNotAuthorized:
		return "the router's settings forbid it, or the port is another client's"
	case pcpUnsuppOpcode:
		return "the router does not map ports"
	case pcpNetworkFailure:
		return "the router has no public address: its line is down, or it is behind another NAT"
	case pcpNoResources:
		// miniupnpd says so when its line has no public address, too.
		return "the router has no mapping to spare, or no public address because it is behind another NAT"
	case pcpUnsuppProtocol:
		return "the router does not map UDP"
	case pcpUserExQuota:
		return "this host has as many mappings as the router allows"
	case pcpCannotProvide:
		return "the router cannot give the port"
	case pcpAddressMismatch:
		return "another NAT stands between this host and the router"
	}
	return fmt.Sprintf("the router refused with code %d", byte(r))
}

// pcpMessage is an answer.
type pcpMessage struct {
	opcode byte
	result pcpResult
	life   time.Duration
	// Of MAP:
	nonce    [12]byte
	protocol byte
	internal uint16
	external netip.AddrPort
}

// errNATPMP is the answer of a server that knows only PCP's predecessor.
var errNATPMP = fmt.Errorf("%w: the router speaks NAT-PMP only", errAbsent)

// parsePCP reads an answer. errNATPMP says that it is one of NAT-PMP.
func parsePCP(b []byte) (pcpMessage, error) {
	switch {
	case len(b) >= 4 && b[0] == 0 && b[1]&pcpAnswer != 0:
		return pcpMessage{}, errNATPMP
	case len(b) < pcpHeader || len(b) > maxPCP || len(b)%4 != 0:
		return pcpMessage{}, fmt.Errorf("read PCP answer: %d bytes", len(b))
	case b[1]&pcpAnswer == 0:
		return pcpMessage{}, errors.New("read PCP answer: it is a request")
	case b[0] != pcpVersion && pcpResult(b[3]) != pcpUnsuppVersion:
		return pcpMessage{}, fmt.Errorf("read PCP answer: version %d", b[0])
	}
	m := pcpMessage{opcode: b[1] &^ pcpAnswer, result: pcpResult(b[3]), life: time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Second}
	if m.opcode != pcpMap || m.result == pcpUnsuppVersion {
		return m, nil
	}
	if b = b[pcpHeader:]; len(b) < pcpMapSize {
		return pcpMessage{}, errors.New("read PCP answer: no mapping in it")
	}
	copy(m.nonce[:], b)
	m.protocol, m.internal = b[12], binary.BigEndian.Uint16(b[16:])
	addr := netip.AddrFrom16([16]byte(b[20:36])).Unmap()
	m.external = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[18:]))
	return m, nil
}

// pcp is a client for one mapping.
type pcp struct {
	// Constant after newPCP.
	ask   asker
	nonce [12]byte // proves on renewal and removal who made the mapping

	given netip.AddrPort // the external address last given
	asked bool           // there may be a mapping
}

func newPCP(n Network, p place, secret []byte) *pcp {
	c := &pcp{ask: asker{net: n, place: p}}
	if len(secret) == 0 {
		_, _ = rand.Read(c.nonce[:]) // it never fails
		return c
	}
	h := hmac.New(sha256.New, secret)
	fmt.Fprintf(h, "warren PCP nonce v1 %v %v %d", p.gateway.WithZone(""), p.local, p.port)
	if p.tcp {
		h.Write([]byte(" TCP"))
	}
	copy(c.nonce[:], h.Sum(nil))
	return c
}

func (*pcp) name() string { return PCP }

// request returns a request without a body.
func (c *pcp) request(opcode byte, life time.Duration) []byte {
	b := make([]byte, pcpHeader, pcpHeader+pcpMapSize)
	b[0], b[1] = pcpVersion, opcode
	binary.BigEndian.PutUint32(b[4:], uint32(life/time.Second))
	client := c.ask.place.local.As16()
	copy(b[8:], client[:])
	return b
}

// probe asks for an ANNOUNCE, which changes nothing.
func (c *pcp) probe(ctx context.Context) error {
	var result pcpResult
	var other error
	err := c.ask.ask(ctx, c.request(pcpAnnounce, 0), func(b []byte) bool {
		m, err := parsePCP(b)
		if errors.Is(err, errNATPMP) {
			other = err
			return true
		}
		result = m.result
		return err == nil && m.opcode == pcpAnnounce
	})
	switch {
	case err != nil:
		return err
	case other != nil:
		return other
	case result == pcpUnsuppVersion:
		return fmt.Errorf("%w: %v", errAbsent, result)
	case result == pcpAddressMismatch:
		return refusal(result.String())
	}
	// Whatever else the server thinks of ANNOUNCE, it speaks PCP.
	return nil
}

// mapping asks for the mapping, or for its removal.
func (c *pcp) mapping(ctx context.Context, life time.Duration, suggest netip.AddrPort) (pcpMessage, error) {
	place := c.ask.place
	b := append(c.request(pcpMap, life), make([]byte, pcpMapSize)...)
	body := b[pcpHeader:]
	copy(body, c.nonce[:])
	body[12] = place.protocol()
	binary.BigEndian.PutUint16(body[16:], place.port)
	binary.BigEndian.PutUint16(body[18:], suggest.Port())
	external := suggest.Addr().As16()
	copy(body[20:], external[:])
	var m pcpMessage
	err := c.ask.ask(ctx, b, func(b []byte) bool {
		var err error
		m, err = parsePCP(b)
		return err == nil && m.opcode == pcpMap && (m.result == pcpUnsuppVersion ||
			m.nonce == c.nonce && m.protocol == place.protocol() && m.internal == place.port)
	})
	if err == nil && m.result != pcpSuccess {
		err = refusal(m.result.String())
	}
	return m, err
}

func (c *pcp) open(ctx context.Context) (grant, error) {
	suggest := c.given
	if !suggest.IsValid() {
		// The all-zeros address of the family, section 11.1: no preference but for the port.
		suggest = netip.AddrPortFrom(unspecified(c.ask.place.gateway), c.ask.place.port)
	}
	c.asked = true
	m, err := c.mapping(ctx, lifetime, suggest)
	switch {
	case err != nil:
		return grant{}, err
	case m.life == 0 || m.external.Port() == 0 || m.external.Addr().IsUnspecified():
		return grant{}, refusal("the router gave no address")
	}
	c.given = m.external
	return grant{external: m.external, life: m.life}, nil
}

func (c *pcp) close(ctx context.Context) error {
	if !c.asked {
		return nil
	}
	_, err := c.mapping(ctx, 0, netip.AddrPortFrom(unspecified(c.ask.place.gateway), 0))
	c.asked = err != nil
	return err
}

// unspecified returns the all-zeros address of the same family.
func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
