package node

import (
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/tunnel/bind"
)

// stray handles an endpoint that WireGuard took over from a packet of an unknown source: for a member, nat
// learns the address and the peer gets its own endpoint back.
func (n *node) stray(addr netip.AddrPort) {
	if n.member == nil {
		return
	}
	stats, err := n.tunnel.Snapshot()
	if err != nil {
		return
	}
	for key, s := range stats {
		if s.Endpoint == addr {
			n.member.roamed(key, addr)
		}
	}
}

// strayFor is how long a peer's packets follow it to an address that nat did not choose. By then nat has found its own path
// dead and moved, or alive.
const strayFor = 2 * time.Second

// roamed is told that WireGuard authenticated the peer with this key from an address that nat did not choose. Its endpoint is
// put right at once; the packets to it go there for a moment, while nat looks at its own path. Where a relay or a stream
// brought the packet says nothing of where to send.
func (m *member) roamed(key wgtypes.Key, addr netip.AddrPort) {
	for id, p := range m.peers {
		if p.key != key {
			continue
		}
		m.log.Info("peer roamed", "peer", m.nameOf(id), "address", addr.String())
		if !bind.IsVirtual(addr.Addr()) {
			p.endpoint.SetPath(addr)
			p.strayed = time.Now()
			m.nat.Check(id)
			m.retry.Reset(handshakeRetry)
		}
		if err := m.tunnel().SetEndpoint(key, p.endpoint.Handle()); err != nil {
			m.log.Warn("peer roamed", "peer", m.nameOf(id), "error", err)
		}
	}
}

// recall sends a peer's packets by nat's path again when it has strayed long enough; it reports whether it still strays.
func (p *peer) recall(now time.Time) (strays bool) {
	switch {
	case p.strayed.IsZero():
		return false
	case now.Sub(p.strayed) < strayFor:
		return true
	}
	p.strayed = time.Time{}
	if way := p.way(); way.IsValid() {
		p.endpoint.SetPath(way)
	}
	return false
}
