package node

import (
	"net/netip"
	"time"

	"warren/nat"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// pathChanged moves the peer's endpoint and, on the controlling side, starts the WireGuard handshake that the new
// path needs: none when the session keys are good, for then only the address has changed.
func (m *member) pathChanged(e nat.Event) {
	p := m.peers[e.Peer]
	if p == nil {
		return
	}
	moved := e.Path.Addr != p.path.Addr
	if moved {
		m.log.Info("path changed", "peer", m.nameOf(e.Peer), "path", e.Path.Kind.String(), "address", e.Path.Addr, "reason", e.Reason)
	}
	before := p.way()
	p.path, p.sources = e.Path, e.Sources
	p.endpoint.SetSources(p.allSources())
	m.moveTo(p, before, e.Controlling, e.PeerRestarted)
	if e.Path.Kind == nat.Relayed {
		m.outlook.want()
	}
}

// way is where the peer's packets go: nat's path, or a stream when that is preferred or there is no path; zero when
// there is neither.
func (p *peer) way() netip.AddrPort {
	if p.path.Addr.IsValid() && !(p.preferStream && p.stream.virtual.IsValid()) {
		return p.path.Addr
	}
	return p.stream.virtual
}

// allSources are where the peer's packets may come from, beside the way in use.
func (p *peer) allSources() []netip.AddrPort {
	if !p.stream.virtual.IsValid() {
		return p.sources
	}
	return append([]netip.AddrPort{p.stream.virtual}, p.sources...)
}

// moveTo has the peer's endpoint follow its way, which was another one before, and starts the handshake.
func (m *member) moveTo(p *peer, before netip.AddrPort, controlling, restarted bool) {
	way := p.way()
	flushed := p.endpoint.SetPath(way)
	switch {
	case !way.IsValid():
	case flushed:
		m.await(p)
	case controlling && (restarted || way != before && !m.keysAreGood(p.key)):
		m.handshake(p)
	}
}

// Handshakes. WireGuard repeats one that got no answer after five seconds, which suits a peer that may be away; here a
// path has just been proved, so that an answer that is missing after handshakeRetry was lost.
const (
	handshakeRetry = 700 * time.Millisecond
	handshakeTries = 4
)

// handshake starts one, unless one was started just now: two in a row cross, and the peer takes the second for a flood.
func (m *member) handshake(p *peer) {
	if time.Since(p.awaits) < handshakeRetry {
		p.awaits = time.Now()
		return
	}
	m.tunnel().Initiate(p.key, true)
	m.await(p)
}

// await has the handshake that was started looked after.
func (m *member) await(p *peer) {
	p.awaits, p.tries = time.Now(), 0
	m.retry.Reset(handshakeRetry)
}

// retryHandshakes starts those again that had no answer.
func (m *member) retryHandshakes() {
	stats, err := m.tunnel().Snapshot()
	if err != nil {
		return
	}
	again := false
	for _, p := range m.peers {
		switch {
		case p.awaits.IsZero():
		case !p.way().IsValid() || p.tries == handshakeTries || stats[p.key].LastHandshake.After(p.awaits):
			p.awaits = time.Time{}
		case time.Since(p.awaits) < time.Duration(p.tries+1)*handshakeRetry:
			again = true
		default:
			p.tries++
			m.tunnel().Initiate(p.key, true)
			again = true
		}
	}
	if again {
		m.retry.Reset(handshakeRetry)
	}
}

// keysAreGood reports whether the WireGuard session with a peer will last for a while: it is rekeyed after two
// minutes and refused after three (WireGuard, section 6.1).
func (m *member) keysAreGood(key wgtypes.Key) bool {
	stats, err := m.tunnel().Snapshot()
	return err == nil && time.Since(stats[key].LastHandshake) < 150*time.Second
}

// staleKeys is the age of a WireGuard session that refuses packets (WireGuard, section 6.1).
const staleKeys = 180 * time.Second

// introduceStale asks for new introductions to the peers whose path works and carries packets one way, while WireGuard
// agrees on no keys: the two ends then have different preshared keys, because every answer of an introduction was lost.
func (m *member) introduceStale(now time.Time) {
	stats, err := m.tunnel().Snapshot()
	if err != nil {
		return
	}
	for id, p := range m.peers {
		handshake := stats[p.key].LastHandshake
		if p.way().IsValid() && now.Sub(p.endpoint.Activity().LastTx) < tickEvery && now.Sub(handshake) > staleKeys {
			m.log.Info("no keys agreed, introducing anew", "peer", m.nameOf(id))
			m.nat.Introduce(id)
		}
	}
}

// roamed is told that WireGuard authenticated the peer with this key from an address that nat did not choose.
func (m *member) roamed(key wgtypes.Key, addr netip.AddrPort) {
	for id, p := range m.peers {
		if p.key == key {
			m.log.Info("peer roamed", "peer", m.nameOf(id), "address", addr.String())
			p.endpoint.SetPath(addr)
			if err := m.tunnel().SetEndpoint(key, p.endpoint.Handle()); err != nil {
				m.log.Warn("peer roamed", "peer", m.nameOf(id), "error", err)
			}
		}
	}
}
