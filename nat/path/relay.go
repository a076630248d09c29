package path

import (
	"fmt"
	"net/netip"
	"time"

	"warren/mesh/identity"
)

// Times of a relay.
const (
	// relayDelay spares the anchors the channels of pairs that ICE connects at once.
	relayDelay  = 150 * time.Millisecond
	relayEvery  = 100 * time.Millisecond // between checks of a new channel
	relayTime   = 10 * time.Second       // until an unanswered channel is given up
	relayLinger = 10 * time.Second       // after a direct path came up: the peer may switch later, or the path may fail young
)

type relayPhase uint8

//	relayDelay            opened             check answered
//
// planned ─────────────► opening ───────► checking ─────────────────► ready
const (
	relayOff relayPhase = iota
	relayPlanned
	relayOpening
	relayChecking
	relayReady
)

// relay is the channel on the anchor agreed on in the newest attempt.
type relay struct {
	phase  relayPhase
	anchor identity.NodeID
	addr   netip.AddrPort
	at     time.Time // planned: when to open; checking: the next check
	since  time.Time // of checking
	end    time.Time // when to close, zero for not
	why    string    // there is none
}

func (r *relay) wake(m *Machine) time.Time {
	t := r.end
	switch r.phase {
	case relayPlanned, relayChecking:
		t = earlier(t, r.at)
	case relayReady:
		if m.cur.path.Kind == None && m.try.on {
			t = earlier(t, m.try.started.Add(preferDirect))
		}
	}
	return t
}

// retire lets the relay go soon: there is a direct path.
func (r *relay) retire(now time.Time) {
	if r.phase == relayPlanned {
		r.phase = relayOff
	}
	if r.phase != relayOff {
		r.end = now.Add(relayLinger)
	}
}

// planRelay prepares the channel on the agreed anchor.
func (m *Machine) planRelay(now time.Time, anchor identity.NodeID) {
	if anchor.IsZero() || anchor == m.cfg.Peer || anchor == m.cfg.Self {
		if m.relay.phase == relayOff || m.relay.phase == relayPlanned {
			m.relay = relay{why: "no relay: no anchor in common"}
		}
		return
	}
	if m.relay.anchor == anchor && m.relay.phase >= relayOpening {
		m.relay.end, m.relay.since = time.Time{}, now
		if m.relay.phase == relayReady && m.cur.path.Addr != m.relay.addr {
			// It worked before; whether it still does is not known.
			m.relay.phase, m.relay.at = relayChecking, now
		}
		return
	}
	if m.cur.path.Kind == Relayed && m.cur.path.Addr == m.relay.addr {
		m.setPath(now, Path{}, "the peer has chosen another relay")
	}
	m.closeRelay()
	m.relay = relay{phase: relayPlanned, anchor: anchor, at: now.Add(relayDelay)}
}

func (m *Machine) watchRelay(now time.Time) {
	r := &m.relay
	if due(now, r.end) && m.cur.path.Addr != r.addr {
		m.closeRelay()
		return
	}
	switch r.phase {
	case relayPlanned:
		if !due(now, r.at) {
			return
		}
		if m.cur.path.Kind == Direct {
			// Nothing needs it now. Should the path die, the next attempt plans one.
			r.phase = relayOff
			return
		}
		r.phase, r.since = relayOpening, now
		m.emit(OpenRelay{Anchor: r.anchor})
	case relayChecking:
		if now.Sub(r.since) >= relayTime {
			m.closeRelay()
			r.why = fmt.Sprintf("relay through %s: the peer did not answer", r.anchor.Short())
		} else if due(now, r.at) {
			r.at = now.Add(relayEvery)
			m.sendCheck(now, r.addr)
		}
	case relayReady:
		m.useRelay(now)
	}
}

func (m *Machine) relayOpened(now time.Time, in RelayOpened) {
	r := &m.relay
	if r.phase != relayOpening || r.anchor != in.Anchor {
		if in.Addr.IsValid() && in.Addr != r.addr {
			m.emit(CloseRelay{Addr: in.Addr})
		}
		return
	}
	if in.Text != "" {
		*r = relay{anchor: in.Anchor, why: fmt.Sprintf("relay through %s: %s", in.Anchor.Short(), in.Text)}
		return
	}
	r.phase, r.addr, r.since, r.at, r.why = relayChecking, in.Addr, now, now.Add(relayEvery), ""
	m.report(false) // one source more
	m.sendCheck(now, r.addr)
}

// useRelay moves to the relay when it works, there is nothing better, and ICE has had its time.
func (m *Machine) useRelay(now time.Time) {
	if m.relay.phase != relayReady || m.cur.path.Kind != None {
		return
	}
	if m.try.on && now.Sub(m.try.started) < preferDirect {
		return
	}
	m.relay.end = time.Time{}
	m.retry.rung = 0
	m.setPath(now, Path{Addr: m.relay.addr, Kind: Relayed, Via: m.relay.anchor}, "no direct path yet")
	if !m.try.on && !m.sig.waiting {
		m.climb(now)
	}
}

func (m *Machine) closeRelay() {
	if m.relay.addr.IsValid() {
		m.emit(CloseRelay{Addr: m.relay.addr})
	}
	m.relay = relay{anchor: m.relay.anchor, why: m.relay.why}
}
