package standing

import (
	"net"
	"net/netip"

	"warren/nat/nat64"
	"warren/nat/netwatch"
)

// system is the Host that this process runs on.
type system struct {
	foreign func(ifname string) bool
	way     *nat64.Way
}

// System returns this machine. foreign reports the names of interfaces whose addresses are none of ours to offer: the mesh's own.
// way is how it reaches IPv4 where it has none of its own.
func System(foreign func(ifname string) bool, way *nat64.Way) Host { return system{foreign, way} }

func (s system) Addresses() ([]netip.Addr, error) { return netwatch.Addresses(s.foreign) }

func (s system) NAT64() nat64.Prefix { return s.way.Prefix() }

// family opens a host's sockets of one address family.
type family struct {
	host Host
	v4   bool
}

func (f family) Listen() (net.PacketConn, error) { return f.host.Listen(f.v4) }

func (s system) Listen(v4 bool) (net.PacketConn, error) {
	if v4 {
		return net.ListenUDP("udp4", nil)
	}
	return net.ListenUDP("udp6", nil)
}
