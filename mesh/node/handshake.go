package node

import (
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/nat"
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

// moveTo has the peer's endpoint follow its way, which was another one before, and sees to the handshake.
func (m *member) moveTo(p *peer, before netip.AddrPort, controlling, restarted bool) {
	way := p.way()
	p.strayed = time.Time{}
	flushed := p.endpoint.SetPath(way)
	switch {
	case !way.IsValid():
	case flushed:
		m.await(p, controlling)
	case restarted || way != before && !m.keysAreGood(p.key):
		m.handshake(p, controlling)
	}
}

// handshake starts one, unless one was started just now: two in a row cross, and the peer takes the second for a flood.
// The side that is not controlling leaves that to the other, and looks whether it comes about.
func (m *member) handshake(p *peer, controlling bool) {
	switch {
	case !controlling:
		m.await(p, false)
	case time.Since(p.shake.since) < handshakeRetry:
		m.await(p, true)
	default:
		m.tunnel().Initiate(p.key, true)
		m.await(p, true)
	}
}

// await has the handshake that was started, or should be by the peer, looked after.
func (m *member) await(p *peer, controlling bool) {
	p.shake = awaited{since: time.Now(), controlling: controlling}
	m.retry.Reset(handshakeRetry)
}

// Handshakes. WireGuard repeats one that got no answer after five seconds, which suits a peer that may be away; here a
// path has just been proved, so that an answer that is missing after handshakeRetry was lost. The other side knows of a
// handshake only when the first packet under the new keys comes. If that one is lost and there is nothing to say, it
// would wait for ever: so that packet is sent twice more, and after handshakeTurn the other side starts a handshake
// itself, later than WireGuard's own repetition.
const (
	handshakeRetry = 700 * time.Millisecond
	handshakeTurn  = 6 * time.Second
	handshakeTries = 10 // of the controlling side: a relay on a bad line may lose a third of all packets
	handshakeTurns = 4  // of the other
	confirmTries   = 2
)

// awaited is a handshake that is looked for.
type awaited struct {
	since       time.Time // zero: none is
	tries       int       // made after the first
	confirms    int       // sent
	controlling bool
}

// look says whether to start the handshake (again) now, or to confirm it once more, given the last one that was done. It
// ends the wait when one was, and after the last try: WireGuard goes on by itself for 90 s from there.
func (a *awaited) look(now, done time.Time) (start, confirm bool) {
	every, early, most := handshakeRetry, time.Duration(0), handshakeTries
	if !a.controlling {
		// The peer may have been told of the path, and have done it, before this side was.
		every, early, most = handshakeTurn, handshakeTurn, handshakeTurns
	}
	switch {
	case a.since.IsZero():
	case a.controlling && a.confirms < confirmTries && done.After(a.since):
		a.confirms++
		return false, true
	case a.tries == most || done.After(a.since.Add(-early)):
		a.since = time.Time{}
	case now.Sub(a.since) >= time.Duration(a.tries+1)*every:
		a.tries++
		return true, false
	}
	return false, false
}

// retryHandshakes starts those again that had no answer.
func (m *member) retryHandshakes() {
	stats, err := m.tunnel().Snapshot()
	again := err != nil
	for _, p := range m.peers {
		if !p.way().IsValid() {
			p.shake = awaited{}
		}
		if err == nil {
			start, confirm := p.shake.look(time.Now(), stats[p.key].LastHandshake)
			switch {
			case start:
				// The session of the side that is not controlling may be good, though not confirmed: it is not given up.
				m.tunnel().Initiate(p.key, p.shake.controlling)
			case confirm:
				m.tunnel().Confirm(p.key)
			}
		}
		again = p.recall(time.Now()) || again || !p.shake.since.IsZero()
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
// WireGuard gives up after 90 s without traffic, so a handshake that was never done is started anew as well.
func (m *member) introduceStale(now time.Time) {
	stats, err := m.tunnel().Snapshot()
	if err != nil {
		return
	}
	for id, p := range m.peers {
		handshake := stats[p.key].LastHandshake
		if !p.way().IsValid() || now.Sub(handshake) <= staleKeys {
			continue
		}
		if now.Sub(p.endpoint.Activity().LastTx) < tickEvery {
			m.log.Info("no keys agreed, introducing anew", "peer", m.nameOf(id))
			m.nat.Introduce(id)
		}
		if handshake.IsZero() && p.shake.since.IsZero() {
			m.handshake(p, m.self.Compare(id) < 0)
		}
	}
}
