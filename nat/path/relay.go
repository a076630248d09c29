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

func (r *relay) wake() time.Time {
	if r.phase == relayPlanned || r.phase == relayChecking {
		return earlier(r.end, r.at)
	}
	return r.end
}

// progress says in words what becomes of it, for after a semicolon; empty when there is nothing to say.
func (r *relay) progress() string {
	switch r.phase {
	case relayPlanned, relayOpening:
		return fmt.Sprintf("; opening a relay through %s", r.anchor.Short())
	case relayChecking:
		return fmt.Sprintf("; waiting for the peer on the relay through %s", r.anchor.Short())
	}
	if r.why != "" {
		return "; " + r.why
	}
	return ""
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
func (t *route) planRelay(now time.Time, anchor identity.NodeID) {
	if anchor.IsZero() || anchor == t.cfg.Peer || anchor == t.cfg.Self {
		if t.relay.phase == relayOff || t.relay.phase == relayPlanned {
			t.relay = relay{why: "no relay: no anchor in common"}
		}
		return
	}
	if t.relay.anchor == anchor && t.relay.phase >= relayOpening {
		t.relay.end, t.relay.since = time.Time{}, now
		if t.relay.phase == relayReady && t.path.Addr != t.relay.addr {
			// It worked before; whether it still does is not known.
			t.relay.phase, t.relay.at = relayChecking, now
		}
		return
	}
	if t.path.Kind == Relayed && t.path.Addr == t.relay.addr {
		t.set(now, Path{}, "the peer has chosen another relay")
	}
	t.closeRelay()
	t.relay = relay{phase: relayPlanned, anchor: anchor, at: now.Add(relayDelay)}
}

func (t *route) watchRelay(now time.Time) {
	r := &t.relay
	if due(now, r.end) && (t.path.Addr != r.addr || !r.addr.IsValid()) {
		t.closeRelay()
		return
	}
	switch r.phase {
	case relayPlanned:
		if !due(now, r.at) {
			return
		}
		if t.path.Kind == Direct {
			// Nothing needs it now. Should the path die, the next attempt plans one.
			r.phase = relayOff
			return
		}
		r.phase, r.since = relayOpening, now
		t.emit(OpenRelay{Anchor: r.anchor})
	case relayChecking:
		if now.Sub(r.since) >= relayTime {
			t.closeRelay()
			r.why = fmt.Sprintf("relay through %s: the peer did not answer", r.anchor.Short())
		} else if due(now, r.at) {
			r.at = now.Add(relayEvery)
			t.sendCheck(now, r.addr)
		}
	case relayReady:
		t.useRelay(now)
	}
}

func (t *route) relayOpened(now time.Time, in RelayOpened) {
	r := &t.relay
	if r.phase != relayOpening || r.anchor != in.Anchor {
		if in.Addr.IsValid() && in.Addr != r.addr {
			t.emit(CloseRelay{Addr: in.Addr})
		}
		return
	}
	if in.Text != "" {
		*r = relay{anchor: in.Anchor, why: fmt.Sprintf("relay through %s: %s", in.Anchor.Short(), in.Text)}
		return
	}
	r.phase, r.addr, r.since, r.at, r.why = relayChecking, in.Addr, now, now.Add(relayEvery), ""
	t.report(false) // one source more
	t.sendCheck(now, r.addr)
}

// useRelay moves to the relay when it works, there is nothing better, and ICE has had its time.
func (t *route) useRelay(now time.Time) {
	if t.relay.phase != relayReady || t.path.Kind != None || t.trying.on && now.Sub(t.trying.started) < preferDirect {
		return
	}
	t.relay.end = time.Time{}
	t.set(now, Path{Addr: t.relay.addr, Kind: Relayed, Via: t.relay.anchor}, "no direct path yet")
	t.news.relayed = true
}

func (t *route) closeRelay() {
	if t.relay.addr.IsValid() {
		t.emit(CloseRelay{Addr: t.relay.addr})
	}
	t.relay = relay{anchor: t.relay.anchor, why: t.relay.why}
}
