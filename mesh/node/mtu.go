package node

import (
	"warren/nat"
	"warren/tunnel"
	"warren/tunnel/bind"
	"warren/tunnel/osnet"
)

// mtu is the MTU that is configured for the interface; 0: the tunnel chooses it.
func (n *node) mtu() int { return n.settings.Interface.MTU }

// sizeOf describes the peer's way as far as it matters for the size of packets. The link is looked up when the way changes.
func (m *member) sizeOf(p *peer) tunnel.Path {
	way := p.way()
	if way == p.size.Addr {
		return p.size
	}
	p.size = tunnel.Path{Addr: way, Direct: way.IsValid() && !bind.IsVirtual(way.Addr())}
	if p.size.Direct && p.path.Kind == nat.Direct {
		if link, err := osnet.LinkMTU(way.Addr()); err == nil { // else the link is taken for an ordinary one
			p.size.Link = link
		}
	}
	return p.size
}
