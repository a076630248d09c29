// Package stunwire reads and writes the STUN messages of the shared port (RFC 8489): Binding requests and their success
// responses, and nothing else.
//
// Whatever comes from the network passes Inspect before any library sees it; what passes is decoded by pion/stun. Which
// messages are sent, and who is answered, is left to its users.
//
// Its functions may be called concurrently. They keep nothing of what they are given, but for Packet, which aliases it.
package stunwire

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/pion/stun/v3"
)

// Sizes in bytes.
const (
	MaxSize = 1280 // of a message that Inspect passes

	// ProbeSize is that of a Probe, which is as long as its longest answer: 20 + 24 bytes, for an IPv6 address, and a rest
	// for an attribute that the answerer may add. Strangers get no answer that is larger than what they sent.
	ProbeSize = header + 4 + padding

	header        = 20
	padding       = 28
	maxAttributes = 24 // ICE's largest message has a dozen
	maxUsername   = 80 // two ufrags of 32 and a colon
)

// Attributes that are looked at before any library sees a packet (RFC 8489, section 14; RFC 5780, section 7.6).
const (
	cookie          = 0x2112A442
	attrUsername    = 0x0006
	attrIntegrity   = 0x0008
	attrXORPeer     = 0x0012
	attrXORRelayed  = 0x0016
	attrXORMapped   = 0x0020
	attrNominate    = 0x0025
	attrPadding     = 0x0026
	attrPrint       = 0x8028
	attrControlled  = 0x8029
	attrControlling = 0x802A
)

// Class is the whole message type: the method Binding is in it.
type Class uint16

// The classes that Inspect passes.
const (
	Request Class = 0x0001
	Success Class = 0x0101
)

// ID names a transaction.
type ID [12]byte

// NewID returns an unguessable one.
func NewID() (id ID) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}

// Packet is a view of a Binding request or success response that Inspect has passed.
type Packet struct {
	Class    Class
	ID       ID
	Username []byte // nil: none. It aliases Raw.
	Raw      []byte

	// What a check of ICE says of its sender's role (RFC 8445, section 7.1.3).
	Controlling, Controlled bool
	Nominates               bool // USE-CANDIDATE

	integrity bool
	sealed    uint16 // the last of MESSAGE-INTEGRITY and FINGERPRINT seen: what follows is not covered
}

// Is reports whether a datagram claims to be STUN: two zero bits and the magic cookie (RFC 8489, section 5).
func Is(p []byte) bool {
	return len(p) >= header && p[0]&0xC0 == 0 && binary.BigEndian.Uint32(p[4:]) == cookie
}

// Sound reports whether the lengths of a message, of whatever method, add up and XOR addresses are as long as their family
// says: one that is not can end a process that hands it to pion/stun v2 (GHSA-34rh-wp3j-6cxc). Many attributes are not sound:
// ICE's largest message has a dozen.
func Sound(p []byte) bool {
	a, ok := attributesOf(p)
	for ok && len(a.rest) > 0 {
		_, _, ok = a.next()
	}
	return ok
}

// attributes walks those of one message.
type attributes struct {
	rest  []byte
	count int
}

func attributesOf(p []byte) (attributes, bool) {
	return attributes{rest: p[min(len(p), header):]}, Is(p) && int(binary.BigEndian.Uint16(p[2:])) == len(p)-header
}

// next takes the first attribute off the rest, which is not empty; false means that the message is not to be touched further.
func (a *attributes) next() (kind uint16, value []byte, ok bool) {
	if a.count++; len(a.rest) < 4 || a.count > maxAttributes {
		return 0, nil, false
	}
	size := int(binary.BigEndian.Uint16(a.rest[2:]))
	padded := 4 + (size+3)&^3
	if padded > len(a.rest) {
		return 0, nil, false
	}
	kind, value = binary.BigEndian.Uint16(a.rest), a.rest[4:4+size]
	a.rest = a.rest[padded:]
	switch kind {
	case attrXORPeer, attrXORRelayed, attrXORMapped:
		if !(size == 8 && value[1] == 1 || size == 20 && value[1] == 2) {
			return 0, nil, false
		}
	}
	return kind, value, true
}

// Inspect is the cheap and complete check of a Binding request or success response: it is Sound and not large, and attributes
// have a size that exists. Whatever else arrives is to be dropped.
func Inspect(p []byte) (Packet, bool) {
	a, ok := attributesOf(p)
	if !ok || len(p) > MaxSize {
		return Packet{}, false
	}
	v := Packet{Class: Class(binary.BigEndian.Uint16(p)), Raw: p}
	if v.Class != Request && v.Class != Success {
		return Packet{}, false
	}
	copy(v.ID[:], p[8:header])
	for len(a.rest) > 0 {
		kind, value, ok := a.next()
		if !ok || !v.note(kind, value) {
			return Packet{}, false
		}
	}
	return v, true
}

// note takes one attribute in; false means that the packet is not to be touched further.
func (v *Packet) note(kind uint16, value []byte) bool {
	// Nothing but FINGERPRINT follows MESSAGE-INTEGRITY, and nothing FINGERPRINT (RFC 8489, sections 14.5 and 14.7): the
	// library would take in what somebody on the way has appended.
	if v.sealed == attrPrint || v.sealed == attrIntegrity && kind != attrPrint {
		return false
	}
	switch kind {
	case attrIntegrity:
		v.integrity, v.sealed = true, kind
		return len(value) == 20
	case attrPrint:
		v.sealed = kind
		return len(value) == 4
	case attrNominate:
		v.Nominates = true
	case attrControlled:
		v.Controlled = true
	case attrControlling:
		v.Controlling = true
	case attrUsername:
		if v.Username != nil || len(value) == 0 || len(value) > maxUsername {
			return false
		}
		v.Username = value
	}
	return true
}

// decode hands the inspected packet to the library, in a copy of its own.
func (v *Packet) decode() (*stun.Message, bool) {
	m := &stun.Message{Raw: append([]byte(nil), v.Raw...)}
	if err := m.Decode(); err != nil {
		return nil, false
	}
	return m, true
}

// Authentic reports whether the packet's MESSAGE-INTEGRITY was made with that password.
func (v *Packet) Authentic(pwd string) bool {
	if !v.integrity {
		return false
	}
	m, ok := v.decode()
	return ok && stun.NewShortTermIntegrity(pwd).Check(m) == nil
}

// Mapped returns the address in a success response; IPv4 in IPv6 form comes as IPv4.
func (v *Packet) Mapped() (netip.AddrPort, bool) {
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

// Bare returns a Binding request without attributes: one that comes from where nobody has written to shows who is let in. It
// gets no answer, which would be larger.
func Bare(id ID) []byte { return request(id, header) }

// Probe returns the question for the own address, of ProbeSize.
func Probe(id ID) []byte {
	raw := request(id, ProbeSize)
	binary.BigEndian.PutUint16(raw[header:], attrPadding)
	binary.BigEndian.PutUint16(raw[header+2:], padding)
	return raw
}

// Sized returns Probe in another size, to see whether a path carries it: a multiple of four from 24 to 1,500 bytes.
func Sized(id ID, size int) []byte {
	raw := request(id, size)
	binary.BigEndian.PutUint16(raw[header:], attrPadding)
	binary.BigEndian.PutUint16(raw[header+2:], uint16(size-header-4))
	return raw
}

func request(id ID, size int) []byte {
	raw := make([]byte, size)
	binary.BigEndian.PutUint16(raw, uint16(Request))
	binary.BigEndian.PutUint16(raw[2:], uint16(size-header))
	binary.BigEndian.PutUint32(raw[4:], cookie)
	copy(raw[8:], id[:])
	return raw
}

// Check returns a connectivity check: RFC 8445's, section 7.1, without the attributes that only nomination needs, which makes
// it RFC 7675's consent check too.
func Check(id ID, username, pwd string) ([]byte, error) {
	m, err := stun.Build(stun.NewTransactionIDSetter(id), stun.BindingRequest, stun.NewUsername(username), stun.NewShortTermIntegrity(pwd), stun.Fingerprint)
	if err != nil {
		return nil, fmt.Errorf("build check: %w", err)
	}
	return m.Raw, nil
}

// Answer returns the success response to a request from that address, signed if pwd is not empty.
func Answer(id ID, from netip.AddrPort, pwd string) ([]byte, error) {
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
