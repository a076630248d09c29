package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/pion/stun/v3"

	"warren/nat/path"
)

// STUN attributes and sizes that are looked at before any library sees a packet (RFC 8489, section 14).
const (
	stunHeader     = 20
	stunCookie     = 0x2112A442
	attrUsername   = 0x0006
	attrIntegrity  = 0x0008
	attrXORPeer    = 0x0012
	attrXORRelayed = 0x0016
	attrXORMapped  = 0x0020
	attrPrint      = 0x8028
	maxAttributes  = 24
	maxSTUN        = 1280
	maxUsername    = 80 // two ufrags of 32 and a colon
)

// class is the class of a STUN Binding message.
type class uint16

const (
	classRequest class = 0x0001 // the whole message type: method Binding is in it
	classSuccess class = 0x0101
)

type transaction [12]byte

// packet is a view of a STUN message; username aliases the buffer that was inspected.
type packet struct {
	class     class
	id        transaction
	username  []byte
	integrity bool
	sealed    uint16 // the last of MESSAGE-INTEGRITY and FINGERPRINT seen: what follows is not covered
	raw       []byte
}

// inspect is the cheap and complete check of a STUN Binding request or success response: lengths add
// up, attributes are few, and those whose decoders are known to trip (stun/v2 panics on an empty
// XOR-MAPPED-ADDRESS, GHSA-34rh-wp3j-6cxc) have a size that exists. Whatever else arrives is dropped.
func inspect(p []byte) (packet, bool) {
	if len(p) < stunHeader || len(p) > maxSTUN || binary.BigEndian.Uint32(p[4:]) != stunCookie {
		return packet{}, false
	}
	v := packet{class: class(binary.BigEndian.Uint16(p)), raw: p}
	if v.class != classRequest && v.class != classSuccess {
		return packet{}, false
	}
	if int(binary.BigEndian.Uint16(p[2:])) != len(p)-stunHeader || len(p)%4 != 0 {
		return packet{}, false
	}
	copy(v.id[:], p[8:stunHeader])
	rest := p[stunHeader:]
	for n := 0; len(rest) > 0; n++ {
		if len(rest) < 4 || n == maxAttributes {
			return packet{}, false
		}
		kind, size := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		padded := (size + 3) &^ 3
		if len(rest) < 4+padded {
			return packet{}, false
		}
		value := rest[4 : 4+size]
		rest = rest[4+padded:]
		if !v.note(kind, value) {
			return packet{}, false
		}
	}
	return v, true
}

// note takes one attribute in; false means that the packet is not to be touched further.
func (v *packet) note(kind uint16, value []byte) bool {
	// Nothing but FINGERPRINT follows MESSAGE-INTEGRITY, and nothing FINGERPRINT (RFC 8489, sections 14.5 and 14.7): the
	// library would take in what somebody on the way has appended.
	if v.sealed == attrPrint || v.sealed == attrIntegrity && kind != attrPrint {
		return false
	}
	switch kind {
	case attrXORPeer, attrXORRelayed, attrXORMapped:
		return len(value) == 8 || len(value) == 20
	case attrIntegrity:
		v.integrity, v.sealed = true, kind
		return len(value) == 20
	case attrPrint:
		v.sealed = kind
		return len(value) == 4
	case attrUsername:
		if v.username != nil || len(value) == 0 || len(value) > maxUsername {
			return false
		}
		v.username = value
	}
	return true
}

// decode hands the inspected packet to the library, in a copy of its own.
func (v *packet) decode() (*stun.Message, bool) {
	m := &stun.Message{Raw: append([]byte(nil), v.raw...)}
	if err := m.Decode(); err != nil {
		return nil, false
	}
	return m, true
}

// authentic reports whether the packet's MESSAGE-INTEGRITY was made with that password.
func (v *packet) authentic(pwd string) bool {
	if !v.integrity {
		return false
	}
	m, ok := v.decode()
	return ok && stun.NewShortTermIntegrity(pwd).Check(m) == nil
}

// mapped returns the address in a success response.
func (v *packet) mapped() (netip.AddrPort, bool) {
	m, ok := v.decode()
	if !ok {
		return netip.AddrPort{}, false
	}
	var x stun.XORMappedAddress
	if err := x.GetFrom(m); err != nil {
		return netip.AddrPort{}, false
	}
	addr, ok := netip.AddrFromSlice(x.IP)
	return netip.AddrPortFrom(addr.Unmap(), uint16(x.Port)), ok && x.Port != 0
}

// checkRequest builds a connectivity check: RFC 8445's, section 7.1, without the attributes that only
// nomination needs, which makes it RFC 7675's consent check too.
func checkRequest(own, remote path.Credentials) (raw []byte, id transaction, err error) {
	m, err := stun.Build(stun.BindingRequest, stun.TransactionID,
		stun.NewUsername(remote.Ufrag+":"+own.Ufrag), stun.NewShortTermIntegrity(remote.Pwd), stun.Fingerprint)
	if err != nil {
		return nil, id, fmt.Errorf("build check: %w", err)
	}
	return m.Raw, m.TransactionID, nil
}

// padding makes a probe as long as its longest answer, because strangers get no answer that is larger
// than what they sent: 20 + 24 bytes for an IPv6 address. PADDING is attribute 0x0026 of RFC 5780.
type padding struct{}

func (padding) AddTo(m *stun.Message) error {
	m.Add(stun.AttrType(0x0026), make([]byte, 28))
	return nil
}

// probeRequest builds the question for our own address.
func probeRequest() (raw []byte, id transaction, err error) {
	m, err := stun.Build(stun.BindingRequest, stun.TransactionID, padding{})
	if err != nil {
		return nil, id, fmt.Errorf("build probe: %w", err)
	}
	return m.Raw, m.TransactionID, nil
}

// response builds the success response to a request from that address, signed if pwd is not empty.
func response(id transaction, from netip.AddrPort, pwd string) ([]byte, error) {
	setters := []stun.Setter{
		stun.NewTransactionIDSetter(id), stun.BindingSuccess,
		&stun.XORMappedAddress{IP: from.Addr().AsSlice(), Port: int(from.Port())},
	}
	if pwd != "" {
		setters = append(setters, stun.NewShortTermIntegrity(pwd), stun.Fingerprint)
	}
	m, err := stun.Build(setters...)
	if err != nil {
		return nil, fmt.Errorf("build STUN response: %w", err)
	}
	return m.Raw, nil
}
