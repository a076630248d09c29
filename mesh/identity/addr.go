package identity

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"

	"warren/nat/ranges"
)

// Prefix6 returns the mesh's IPv6 overlay network: a unique local /48 (RFC 4193) whose 40-bit global ID is the
// start of the mesh ID, a hash.
func (id MeshID) Prefix6() netip.Prefix {
	addr := [16]byte{0: 0xfd}
	copy(addr[1:6], id[:5])
	return netip.PrefixFrom(netip.AddrFrom16(addr), 48)
}

// Addr6 returns a node's IPv6 overlay address: the mesh's Prefix6 and the first 80 bits of the node ID. It can be
// checked by anyone who knows the node's key, and two nodes do not share one.
func Addr6(mesh MeshID, node NodeID) netip.Addr {
	addr := mesh.Prefix6().Addr().As16()
	copy(addr[6:], node[:10])
	return netip.AddrFrom16(addr)
}

// Prefix4 picks an IPv4 overlay network for a new mesh: the first /16 of 100.64.0.0/10, counted on from one that the mesh
// ID hashes to, that overlaps nothing in avoid. Default routes in avoid, halved ones too, take up no room and are passed over. It
// returns the zero Prefix when all 64 networks overlap.
func Prefix4(mesh MeshID, avoid []netip.Prefix) netip.Prefix {
	start := hash64("warren prefix4 v1", mesh[:])
	for i := range uint64(64) {
		base := ranges.Carrier.Addr().As4()
		base[1] += byte((start + i) % 64)
		if prefix := netip.PrefixFrom(netip.AddrFrom4(base), 16); !overlaps(prefix, avoid) {
			return prefix
		}
	}
	return netip.Prefix{}
}

// Addr4 returns the address in prefix that a node claims at the given probe: the one that its ID hashes to for
// probe 0, then those that follow, round and round, so that probing finds every free address. The first and last of
// the prefix, network and broadcast address, are left out. It returns the zero Addr for a prefix that is not IPv4
// or has no room.
func Addr4(prefix netip.Prefix, node NodeID, probe int) netip.Addr {
	if !prefix.Addr().Is4() || prefix.Bits() < 1 || prefix.Bits() > 30 || probe < 0 {
		return netip.Addr{}
	}
	hosts := uint64(1)<<(32-prefix.Bits()) - 2
	host := (hash64("warren addr4 v1", node[:])%hosts+uint64(probe)%hosts)%hosts + 1
	base := prefix.Masked().Addr().As4()
	binary.BigEndian.PutUint32(base[:], binary.BigEndian.Uint32(base[:])+uint32(host))
	return netip.AddrFrom4(base)
}

// IsReachable reports whether an underlay address has a form that strangers could send to: a unicast address without zone that is not
// IPv4 in IPv6 form, and a port. It may still be private: a mesh may live in one building.
func IsReachable(endpoint netip.AddrPort) bool {
	addr := endpoint.Addr()
	return addr.IsValid() && endpoint.Port() != 0 && addr.Zone() == "" && !addr.Is4In6() && !addr.IsUnspecified() &&
		!addr.IsMulticast() && addr != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// MaxProbes is how many candidates of Addr4 a node may claim: in a /16 that is half full all are taken once in 2^64. Few as they are, a
// key can be made for which another's address is among them: that an address is taken already is for others to see to.
const MaxProbes = 64

// ProbeOf4 returns at which probe Addr4 gives a node this address, from 0; false for an address that no node has in prefix.
func ProbeOf4(prefix netip.Prefix, node NodeID, addr netip.Addr) (probe int, ok bool) {
	first := Addr4(prefix, node, 0)
	if !first.IsValid() || !addr.Is4() || !prefix.Contains(addr) {
		return 0, false
	}
	hosts := int64(1)<<(32-prefix.Bits()) - 2
	offset := func(a netip.Addr) int64 {
		base, raw := prefix.Masked().Addr().As4(), a.As4()
		return int64(binary.BigEndian.Uint32(raw[:])) - int64(binary.BigEndian.Uint32(base[:])) - 1
	}
	at := offset(addr)
	if at < 0 || at >= hosts {
		return 0, false
	}
	return int((at - offset(first) + hosts) % hosts), true
}

func overlaps(prefix netip.Prefix, others []netip.Prefix) bool {
	for _, other := range others {
		if other.Bits() >= 8 && prefix.Overlaps(other) {
			return true
		}
	}
	return false
}

func hash64(domain string, id []byte) uint64 {
	sum := sha256.Sum256(append([]byte(domain), id...))
	return binary.BigEndian.Uint64(sum[:])
}
