package path

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"warren/nat/ranges"
)

// CandidateType says how a candidate address was learnt (RFC 8445, section 4).
type CandidateType uint8

// The types that are signalled. Peer-reflexive ones are learnt from packets; a relay is no candidate here.
const (
	Host            CandidateType = iota + 1
	ServerReflexive               // learnt from an anchor's STUN answer
)

// typePreference is RFC 8445's, section 5.1.2.2.
func (t CandidateType) typePreference() uint32 {
	if t == Host {
		return 126
	}
	return 100
}

// Candidate is an address, of UDP and component 1, at which its owner may be reached.
type Candidate struct {
	Type     CandidateType
	Addr     netip.AddrPort
	Priority uint32
}

// NewCandidate returns a candidate whose priority follows RFC 8445, section 5.1.2.1. rank orders the
// candidates of one type, 0 for the best.
func NewCandidate(t CandidateType, addr netip.AddrPort, rank int) Candidate {
	preference := uint32(max(0, 65535-rank))
	return Candidate{
		Type:     t,
		Addr:     netip.AddrPortFrom(addr.Addr().Unmap().WithZone(""), addr.Port()),
		Priority: t.typePreference()<<24 | preference<<8 | 255,
	}
}

// String returns the line of RFC 8839, section 5.1, without "candidate:". The base of a
// server-reflexive candidate is not told: the peer has no use for it.
func (c Candidate) String() string {
	typ, related := "host", ""
	if c.Type == ServerReflexive {
		typ, related = "srflx", " raddr 0.0.0.0 rport 0"
	}
	family := 4
	if c.Addr.Addr().Is6() {
		family = 6
	}
	return fmt.Sprintf("%d%d 1 udp %d %s %d typ %s%s", c.Type, family, c.Priority, c.Addr.Addr(), c.Addr.Port(), typ, related)
}

// ParseCandidate reads one line as String writes it: UDP, component 1, a literal address that is Usable, type host, srflx or
// prflx. Extensions after the type are
// ignored. Its error wraps ErrMalformed.
func ParseCandidate(line string) (Candidate, error) {
	bad := func(what string) (Candidate, error) {
		return Candidate{}, fmt.Errorf("parse candidate: %s: %w", what, ErrMalformed)
	}
	if len(line) > maxLine {
		return bad("too long")
	}
	f := strings.Fields(line)
	if len(f) < 8 || f[6] != "typ" {
		return bad("want FOUNDATION 1 udp PRIORITY ADDRESS PORT typ TYPE")
	}
	if f[1] != "1" || !strings.EqualFold(f[2], "udp") {
		return bad("not component 1 over udp")
	}
	priority, err := strconv.ParseUint(f[3], 10, 31)
	if err != nil || priority == 0 {
		return bad("priority")
	}
	addr, err := netip.ParseAddr(f[4])
	if err != nil || addr.Zone() != "" {
		return bad("address")
	}
	port, err := strconv.ParseUint(f[5], 10, 16)
	if err != nil || port == 0 {
		return bad("port")
	}
	c := Candidate{Addr: netip.AddrPortFrom(addr.Unmap(), uint16(port)), Priority: uint32(priority)}
	switch f[7] {
	case "host":
		c.Type = Host
	case "srflx", "prflx":
		c.Type = ServerReflexive
	default:
		return bad("type")
	}
	if !Usable(c.Addr.Addr()) {
		return bad("address not usable")
	}
	return c, nil
}

// discard is the prefix (RFC 6666) inside which the bind writes relay channels as addresses.
var discard = netip.MustParsePrefix("0100::/64")

// IsVirtual reports whether addr stands for a relay channel.
func IsVirtual(addr netip.Addr) bool { return discard.Contains(addr) }

// Usable reports whether addr can be a candidate: a unicast address of a range that somebody has, which means the same to both
// sides and is no relay channel. IPv4 link-local ones are all that a LAN without DHCP has (RFC 3927); IPv6 ones need a
// zone, which means something on one machine only. Loopback, multicast, unspecified and reserved ones are not, nor is
// 255.255.255.255; the broadcast address of a network cannot be told, and the sockets refuse it (tunnel/sockets).
func Usable(addr netip.Addr) bool {
	addr = addr.Unmap()
	return (ranges.Of(addr) != ranges.Useless || addr.Is4() && addr.IsLinkLocalUnicast()) && !IsVirtual(addr)
}

// InOverlay reports whether an address, IPv4 in IPv6 form or not, lies in one of the prefixes.
func InOverlay(overlay []netip.Prefix, addr netip.Addr) bool {
	addr = addr.Unmap()
	return slices.ContainsFunc(overlay, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// ParseCandidates reads the lines of a message; what is malformed, of the overlay or repeated is left out.
func ParseCandidates(lines []string, overlay []netip.Prefix) []Candidate {
	var list []Candidate
	for _, line := range lines {
		c, err := ParseCandidate(line)
		if err != nil || InOverlay(overlay, c.Addr.Addr()) {
			continue
		}
		list, _ = merge(list, []Candidate{c})
	}
	return list
}

// merge appends those of more whose address is new, up to MaxCandidates and maxPorts of one IP address, and returns them too.
func merge(list, more []Candidate) (all, added []Candidate) {
	for _, c := range more {
		if len(list) >= MaxCandidates {
			break
		}
		known, ports := false, 0
		for _, have := range list {
			known = known || have.Addr == c.Addr
			if have.Addr.Addr() == c.Addr.Addr() {
				ports++
			}
		}
		if !known && ports < maxPorts {
			list = append(list, c)
			added = append(added, c)
		}
	}
	return list, added
}

// Lines returns the candidates as message lines.
func Lines(list []Candidate) []string {
	lines := make([]string, 0, min(len(list), MaxCandidates))
	for _, c := range list {
		if len(lines) == MaxCandidates {
			break
		}
		lines = append(lines, c.String())
	}
	return lines
}
