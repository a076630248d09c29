package portmaptest

import (
	"encoding/binary"
	"net/netip"
	"time"
)

const (
	portPCP = 5351

	// Results of PCP; those of NAT-PMP that are used have the same numbers.
	success       = 0
	unsuppVersion = 1
	notAuthorized = 2
	malformed     = 3
	unsuppOpcode  = 4
	mismatch      = 12
	protocolTCP   = 6
	protocolUDP   = 17
)

// servePCP answers one datagram of either protocol; nil: not at all.
func (r *Router) servePCP(b []byte, port uint16, from netip.Addr) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if port != portPCP || len(b) < 2 || b[1]&0x80 != 0 {
		return nil
	}
	switch {
	case b[0] == 0 && r.o.NATPMP && from.Is4():
		r.requests["NAT-PMP"]++
		return r.natpmp(b, from)
	case b[0] == 0 && r.o.PCP:
		return r.pcpError(make([]byte, 24), unsuppVersion)
	case b[0] != 0 && r.o.PCP:
		r.requests["PCP"]++
		return r.pcp(b, from)
	case b[0] != 0 && r.o.NATPMP:
		return r.natpmpError(b[1], unsuppVersion)
	}
	return nil
}

func (r *Router) epoch() uint32 { return uint32(time.Since(r.boot) / time.Second) }

func (r *Router) natpmpError(opcode byte, result uint16) []byte {
	answer := make([]byte, 8)
	answer[1] = opcode | 0x80
	binary.BigEndian.PutUint16(answer[2:], result)
	binary.BigEndian.PutUint32(answer[4:], r.epoch())
	return answer
}

// natpmp is RFC 6886.
func (r *Router) natpmp(b []byte, from netip.Addr) []byte {
	answer := r.natpmpError(b[1], success)
	switch {
	case b[1] == 0:
		addr := r.o.External.As4()
		return append(answer, addr[:]...)
	case b[1] != 1 && b[1] != 2 || len(b) < 12:
		return r.natpmpError(b[1], 5)
	case r.o.Refuse:
		return r.natpmpError(b[1], notAuthorized)
	}
	internal := netip.AddrPortFrom(from, binary.BigEndian.Uint16(b[4:]))
	external := binary.BigEndian.Uint16(b[6:])
	life := r.life(time.Duration(binary.BigEndian.Uint32(b[8:])) * time.Second)
	if life == 0 {
		r.release(internal, b[1] == 2)
		external = 0
	} else {
		external = r.assign(internal, b[1] == 2, external, life, "NAT-PMP", [12]byte{}).External.Port()
	}
	answer = append(answer, b[4], b[5])
	answer = binary.BigEndian.AppendUint16(answer, external)
	return binary.BigEndian.AppendUint32(answer, uint32(life/time.Second))
}

// pcpError turns a request into its answer.
func (r *Router) pcpError(b []byte, result byte) []byte {
	b[0], b[1], b[2], b[3] = 2, b[1]|0x80, 0, result
	clear(b[8:24])
	binary.BigEndian.PutUint32(b[8:], r.epoch())
	if result != success {
		binary.BigEndian.PutUint32(b[4:], 30) // ask again then
	}
	return b
}

// pcp is RFC 6887, sections 11 and 14.
func (r *Router) pcp(b []byte, from netip.Addr) []byte {
	if len(b) < 24 || len(b) > 1100 || len(b)%4 != 0 {
		return nil
	}
	client := netip.AddrFrom16([16]byte(b[8:24])).Unmap()
	switch {
	case b[0] != 2:
		return r.pcpError(b, unsuppVersion)
	case client != from:
		return r.pcpError(b, mismatch)
	case b[1] == 0:
		return r.pcpError(b, success)
	case b[1] != 1:
		return r.pcpError(b, unsuppOpcode)
	case len(b) < 60:
		return r.pcpError(b, malformed)
	}
	body := b[24:60]
	nonce := [12]byte(body[:12])
	internal := netip.AddrPortFrom(client, binary.BigEndian.Uint16(body[16:]))
	life := r.life(time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Second)
	tcp := body[12] == protocolTCP
	i := r.find(func(e Entry) bool { return e.Internal == internal && e.TCP == tcp })
	if r.o.Refuse || !tcp && body[12] != protocolUDP || i >= 0 && r.entries[i].Protocol == "PCP" && r.entries[i].nonce != nonce {
		return r.pcpError(b, notAuthorized)
	}
	if life == 0 {
		r.release(internal, tcp)
	} else {
		e := r.assign(internal, tcp, binary.BigEndian.Uint16(body[18:]), life, "PCP", nonce)
		binary.BigEndian.PutUint16(body[18:], e.External.Port())
		addr := e.External.Addr().As16()
		copy(body[20:], addr[:])
	}
	binary.BigEndian.PutUint32(b[4:], uint32(life/time.Second))
	return r.pcpError(b, success)
}
