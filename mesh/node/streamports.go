package node

import (
	"net/netip"
	"slices"

	"warren/mesh/record"
	"warren/nat/portmap"
)

// Where this node accepts streams: as an anchor, on the number of its UDP port and where the settings say.

// listen has streams accepted where strangers can reach this node, and the router map the port.
func (m *member) listen() {
	self, ok := m.mesh.View().Member(m.self)
	wanted := ok && len(self.Record.Endpoints) > 0 && m.socket.Port() != 0
	if m.streams.listening.Swap(wanted) != wanted {
		m.mapper.Changed()
	}
	if !wanted {
		m.streams.server.SetPorts()
		return
	}
	ports := []uint16{m.socket.Port()}
	for _, port := range m.settings().FallbackPorts {
		if !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	m.streams.server.SetPorts(ports...)
}

// ownStreams returns where strangers reach this node by TCP: at the endpoints that it announces, on the ports on which it
// listens.
func (m *member) ownStreams(endpoints []netip.AddrPort) []netip.AddrPort {
	var ports []uint16
	for _, p := range m.streams.server.Ports() {
		if p.Err == nil {
			ports = append(ports, p.Port)
		}
	}
	return streamEndpoints(endpoints, m.external(), m.mapper.TCPMappings(), m.socket.Port(), ports)
}

// streamEndpoints turns the UDP addresses of this node into its TCP addresses. What a router maps is only there if it maps TCP
// too; what a person has forwarded is taken to be forwarded for both.
func streamEndpoints(endpoints, mapped []netip.AddrPort, tcp []portmap.Mapping, own uint16, listening []uint16) (out []netip.AddrPort) {
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
