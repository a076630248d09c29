package tunnel

import (
	"context"
	"net/netip"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
	"warren/tunnel/bind"
	"warren/tunnel/fit"
	"warren/tunnel/osnet"
	"warren/tunnel/pathmtu"
)

// The bytes that a packet inside the tunnel gains on its way out, on the worst path: relayed, over IPv6.
//
//	| IPv6 40 | UDP 8 | ChannelData 4 | WireGuard header 16 | packet | tag 16 |
//
// IPv4 has a header of 20, and a direct path has no ChannelData; but the path may change at any moment, and the MTU
// of the interface is one for all peers. What the path of each really carries is measured (packages pathmtu and fit), and
// holds the packets to that peer.
const (
	ipv4Header     = 20
	ipv6Header     = 40
	udpHeader      = 8
	channelHeader  = 4  // RFC 8656, section 12.4
	wireguardExtra = 32 // type, receiver and counter before, Poly1305 tag after
	overhead       = ipv6Header + udpHeader + channelHeader + wireguardExtra
)

// defaultPath is a path MTU that nearly every access network has: Ethernet's 1,500 less 8 for PPPoE, 20 for the
// IP-in-IP or 32 for the DS-Lite, 464XLAT or cloud overlay that providers add without saying so.
const defaultPath = 1460

// DefaultMTU is the MTU of the interface when the configuration has none: 1,460 − 84 = 1,376, which happens to be
// 86 × 16: WireGuard pads each packet to a multiple of 16, so that the last bytes below the next one cannot be used anyway.
const DefaultMTU = (defaultPath - overhead) &^ 15

// Jumbo frames. A direct path whose link has them is tried with them; once they have been verified with a peer, the interface's
// own MTU grows to that size, unless it is configured, and stays so: its packets to all others are held to their paths.
const (
	ethernet = 1500
	maxLink  = 9216 // the largest that common switches have
)

// sizeWays looks up what the new ways of members mean for the size of packets, until ctx ends. What is not found of a link is taken
// for an ordinary one.
func (w *ways) sizeWays(ctx context.Context) {
	for {
		select {
		case u := <-w.links:
			p := path{Addr: u.way, Direct: u.way.IsValid() && !bind.IsVirtual(u.way.Addr())}
			if p.Direct {
				if link, err := w.linkMTU(u.way.Addr()); err == nil {
					p.Link = link
				}
			}
			w.device.SetPath(u.of, p)
		case <-ctx.Done():
			return
		}
	}
}

// path is the way that a member's packets take now, as far as their size depends on it.
type path struct {
	Addr   netip.AddrPort // an underlay address, or what stands for a relay or a stream; zero: there is none
	Direct bool           // the peer itself has the address
	Link   int            // MTU of this machine's link towards it; 0: unknown
}

// question is what is asked about a path; fixed is the interface's MTU when it is configured, else 0.
func (p path) question(fixed int) pathmtu.Path {
	q := pathmtu.Path{Addr: p.Addr, Overhead: overhead, Top: DefaultMTU, Default: DefaultMTU}
	if p.Direct {
		q.Overhead = wireguardExtra + udpHeader + ipv6Header
		if p.Addr.Addr().Is4() {
			q.Overhead = wireguardExtra + udpHeader + ipv4Header
		}
	}
	switch {
	case fixed != 0:
		q.Top, q.Default = min(fixed, device.MaxContentSize), fixed
	case p.Direct && p.Link > ethernet:
		q.Top = (min(p.Link, maxLink) - q.Overhead) &^ 15
	}
	return q
}

// sized is a member's path, found by its way, while it had this key.
type sized struct {
	key  wgtypes.Key
	path path
}

// linkFacts are what the sizes of packets have to know of the link that was last asked for.
type linkFacts struct {
	self netip.Addr // this node's IPv6 address inside the tunnel
	mtu  int        // as configured; 0: it is not
}

func factsOf(config osnet.Config) linkFacts {
	facts := linkFacts{mtu: config.MTU}
	for _, p := range config.Addrs {
		if p.Addr().Is6() && !facts.self.IsValid() {
			facts.self = p.Addr()
		}
	}
	return facts
}

// fitter holds packets to sizes. *fit.Device does.
type fitter interface {
	SetPeers(self netip.Addr, list []fit.Peer)
	SetPath(key [32]byte, path pathmtu.Path)
}

// sizes is what an open interface knows about sizes. It belongs to the run loop. The link and the peers may be told in any order.
type sizes struct {
	fit   fitter
	link  linkFacts
	peers []Peer
	paths map[identity.NodeID]sized // of the members; others have none
}

// setLink tells what link there is to be.
func (s *sizes) setLink(link linkFacts) {
	if s.link != link {
		s.link = link
		s.setPeers(s.peers)
	}
}

// setPeers tells what peers there are.
func (s *sizes) setPeers(peers []Peer) {
	list, paths := make([]fit.Peer, len(peers)), make(map[identity.NodeID]sized, len(peers))
	for i, p := range peers {
		way := sized{key: p.PublicKey}
		if !p.ID.IsZero() {
			if old := s.paths[p.ID]; old.key == p.PublicKey {
				way = old
			}
			paths[p.ID] = way
		}
		list[i] = fit.Peer{Key: p.PublicKey, AllowedIPs: p.AllowedIPs, Addr: p.Answers, Hosted: p.Hosted, Path: way.path.question(s.link.mtu)}
	}
	s.peers, s.paths = peers, paths
	s.fit.SetPeers(s.link.self, list)
}

// setPath tells of another path of a member, if it still is one with this key.
func (s *sizes) setPath(m *member, way path) {
	if old, ok := s.paths[m.id]; ok && old.key == m.key {
		s.paths[m.id] = sized{m.key, way}
		s.fit.SetPath(m.key, way.question(s.link.mtu))
	}
}
