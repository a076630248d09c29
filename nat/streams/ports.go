package streams

import (
	"net/netip"
	"slices"

	"warren/mesh/record"
	"warren/nat/portmap"
)

// Where a node accepts streams: as an anchor, on the number of its UDP port and where the settings say.

// Endpoints turns the UDP addresses that a node announces into its TCP addresses, on the ports on which it listens; own is the
// number of its UDP port. What a router maps (mapped) is only there if it maps TCP too (tcp); what a person has forwarded is
// taken to be forwarded for both. There are record.MaxEndpoints at most, in a fixed order.
func Endpoints(endpoints, mapped []netip.AddrPort, tcp []portmap.Mapping, own uint16, listening []uint16) (out []netip.AddrPort) {
	add := func(a netip.AddrPort) {
		if !slices.Contains(out, a) && len(out) < record.MaxEndpoints {
			out = append(out, a)
		}
	}
	direct := func(e netip.AddrPort) bool { return !slices.Contains(mapped, e) }
	if slices.Contains(listening, own) {
		for _, e := range endpoints {
			if direct(e) {
				add(e)
				continue
			}
			for _, t := range tcp {
				if t.External.Addr() == e.Addr() {
					add(t.External)
				}
			}
		}
	}
	for _, port := range listening {
		for _, e := range endpoints {
			if port != own && direct(e) {
				add(netip.AddrPortFrom(e.Addr(), port))
			}
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out
}

// Listening returns the ports on which streams are really accepted.
func (s *Snapshot) Listening() (ports []uint16) {
	for _, p := range s.Ports {
		if p.Err == nil {
			ports = append(ports, p.Port)
		}
	}
	return ports
}
