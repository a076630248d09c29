package path

import (
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
)

// Times of relays.
const (
	// relayDelay spares the anchors the channels of pairs that ICE connects at once.
	relayDelay  = 150 * time.Millisecond
	relayEvery  = 100 * time.Millisecond // between checks of a new channel
	relayTime   = 10 * time.Second       // until an unanswered channel is given up
	relayLinger = 10 * time.Second       // after a better path came up: the peer may switch later, or the path may fail young
	renewAfter  = time.Second            // of checks without an answer, at a new introduction
)

type relayPhase uint8

//	relayDelay            opened             check answered
//
// planned ─────────────► opening ───────► checking ─────────────────► ready
const (
	relayPlanned relayPhase = iota
	relayOpening
	relayChecking
	relayReady
)

// relay is a channel to the peer through one anchor.
type relay struct {
	phase     relayPhase
	anchor    identity.NodeID
	addr      netip.AddrPort
	at        time.Time // planned: when to open; checking, and ready but idle: the next check
	since     time.Time // of checking
	end       time.Time // when to close, zero for not
	heard     time.Time // the last answer through it
	rtt       time.Duration
	lastCheck time.Time
	tries     int       // checks of the idle channel since heard
	peerCheck time.Time // the peer's last check through it
}

// relays are the channels that the route may use: the one agreed on, a spare one, and those that it has left.
type relays struct {
	list    []*relay // at most maxChannels
	agreed  choice   // in the newest attempt
	avoided []avoided
	eased   time.Time // until when its load is no reason for another introduction
	eases   int       // such introductions in a row
	sought  time.Time // the last introduction made for want of a spare one
	seeks   int       // such introductions in a row
	why     Reason    // there is none
}

// maxChannels are the two agreed on, the one in use, and one that lingers.
const maxChannels = 4

// choice names the anchors that both ends agreed on: the one to use, and the one to hold ready. Zero for none.
type choice struct{ first, spare identity.NodeID }

func (c choice) has(id identity.NodeID) bool { return !id.IsZero() && (id == c.first || id == c.spare) }

func (s *relays) by(anchor identity.NodeID) *relay {
	for _, r := range s.list {
		if r.anchor == anchor {
			return r
		}
	}
	return nil
}

func (s *relays) at(addr netip.AddrPort) *relay {
	for _, r := range s.list {
		if r.addr == addr && addr.IsValid() {
			return r
		}
	}
	return nil
}

// ready returns the best channel that works: as agreed, else any.
func (s *relays) ready() (best *relay) {
	for _, r := range s.list {
		if r.phase == relayReady && (best == nil || r.anchor == s.agreed.first || r.anchor == s.agreed.spare && best.anchor != s.agreed.first) {
			best = r
		}
	}
	return best
}

// uses reports whether r is the path.
func (t *route) uses(r *relay) bool { return t.path.Kind == Relayed && r.addr == t.path.Addr }

// relayWake is the earliest time at which something is due.
func (t *route) relayWake() (first time.Time) {
	for _, r := range t.relays.list {
		first = earlier(first, r.end)
		switch {
		case r.phase == relayPlanned || r.phase == relayChecking:
			first = earlier(first, r.at)
		case r.phase == relayReady && !t.uses(r) && r.end.IsZero():
			first = earlier(first, t.spareCheck(r))
			if from, in := t.doubt(); in && r.heard.After(t.life.suspectSince) {
				first = earlier(first, from.Add(failOver-doubtFirst))
			}
		}
	}
	if t.path.Kind == None && t.trying.on && t.relays.ready() != nil {
		first = earlier(first, t.trying.started.Add(t.headStart()))
	}
	return first
}

// planRelay prepares the channels on the agreed anchors. The path in use is left alone until a better one works.
func (t *route) planRelay(now time.Time, agreed choice) {
	s := &t.relays
	usable := func(id identity.NodeID) bool { return !id.IsZero() && id != t.cfg.Peer && id != t.cfg.Self }
	if !usable(agreed.spare) || agreed.spare == agreed.first {
		agreed.spare = identity.NodeID{}
	}
	if !usable(agreed.first) {
		agreed = choice{first: agreed.spare}
	}
	s.agreed = agreed
	for _, r := range slices.Clone(s.list) {
		if !agreed.has(r.anchor) {
			t.retire(now, r)
		}
	}
	if agreed.first.IsZero() {
		if len(s.list) == 0 {
			s.why = "no relay: no anchor in common"
		}
		return
	}
	for n, anchor := range []identity.NodeID{agreed.first, agreed.spare} {
		switch r := s.by(anchor); {
		case anchor.IsZero():
		case r == nil:
			s.why = ""
			at := t.trying.started.Add(relayDelay + time.Duration(n)*spareDelay)
			if t.path.Kind == Relayed || n == 0 && t.trying.forlorn {
				at = now // it is wanted whatever becomes of the attempt
			}
			t.addRelay(&relay{phase: relayPlanned, anchor: anchor, at: at})
		default:
			r.end = time.Time{}
			fresh := t.path.Kind == Relayed && !t.restarted && now.Sub(r.heard) < idleEvery+2*settle
			switch {
			case r.phase == relayReady && !t.uses(r) && !fresh, r.phase == relayChecking && now.Sub(r.since) >= renewAfter:
				// It worked before, or should; whether the anchor still has it is not known.
				t.openRelay(now, r)
			case r.phase == relayChecking:
				r.since = now
			}
		}
	}
	t.useRelay(now)
}

// addRelay makes room by closing the oldest channel that nobody wants.
func (t *route) addRelay(r *relay) {
	s := &t.relays
	if len(s.list) >= maxChannels {
		if old := slices.IndexFunc(s.list, func(r *relay) bool { return !t.uses(r) && !s.agreed.has(r.anchor) }); old >= 0 {
			t.closeRelay(s.list[old])
		}
	}
	s.list = append(s.list, r)
}

// retire lets a channel go soon, or at once if it was never opened. The path in use stays.
func (t *route) retire(now time.Time, r *relay) {
	switch {
	case t.uses(r):
	case r.phase == relayPlanned:
		t.closeRelay(r)
	case r.end.IsZero():
		r.end = now.Add(relayLinger)
	}
}

// retireRelays lets all go: there is a direct path.
func (t *route) retireRelays(now time.Time) {
	for _, r := range slices.Clone(t.relays.list) {
		t.retire(now, r)
	}
}

func (t *route) watchRelay(now time.Time) {
	for _, r := range slices.Clone(t.relays.list) {
		if due(now, r.end) {
			if r.end = (time.Time{}); !t.uses(r) {
				t.closeRelay(r)
				continue
			}
		}
		switch r.phase {
		case relayPlanned:
			switch {
			case !due(now, r.at):
			case t.path.Kind == Direct && t.life.suspectSince.IsZero() && !t.trying.forlorn:
				// Nothing needs it now. Should the path die, the next attempt plans one.
				t.closeRelay(r)
			default:
				t.openRelay(now, r)
			}
		case relayOpening:
		case relayChecking:
			if now.Sub(r.since) >= relayTime {
				t.loseRelay(now, r, because("relay through %s: the peer did not answer", r.anchor))
			} else if due(now, r.at) {
				r.at = now.Add(relayEvery)
				t.checkRelay(now, r)
			}
		case relayReady:
			t.watchSpare(now, r)
		}
	}
	t.leaveRelay(now)
	t.useRelay(now)
}

// openRelay asks the anchor for the channel, or once more for one that it may have forgotten: if it has not, nothing changes.
func (t *route) openRelay(now time.Time, r *relay) {
	r.phase, r.since = relayOpening, now
	t.emit(OpenRelay{Anchor: r.anchor})
}

// renewRelays opens the idle channels anew whose anchor this node has another session with: it may have been restarted.
func (t *route) renewRelays(now time.Time, local []RelayOffer) {
	for _, r := range t.relays.list {
		newer := func(o RelayOffer) bool { return o.Anchor == r.anchor && o.Since.After(r.since) }
		if r.phase == relayReady && !t.uses(r) && r.end.IsZero() && slices.ContainsFunc(local, newer) {
			t.openRelay(now, r)
		}
	}
}

func (t *route) checkRelay(now time.Time, r *relay) {
	r.lastCheck = now
	t.sendCheck(now, r.addr)
}

// loseRelay closes a channel that is not in use and does not work. If it is open, that may be the anchor's fault only if
// something works.
func (t *route) loseRelay(now time.Time, r *relay, why Reason) {
	works := t.path.Kind != None && t.life.suspectSince.IsZero()
	if works || r.phase == relayOpening {
		t.avoid(now, later(r.since, r.heard), r.anchor)
	}
	if works {
		t.news.unspared = true
	}
	t.closeRelay(r)
	t.relays.why = why
}

func (t *route) relayOpened(now time.Time, in RelayOpened) {
	r := t.relays.by(in.Anchor)
	if r == nil || r.phase != relayOpening {
		if in.Addr.IsValid() && (r == nil || in.Addr != r.addr) {
			t.emit(CloseRelay{Anchor: in.Anchor, Addr: in.Addr})
		}
		return
	}
	if in.Text != "" {
		t.loseRelay(now, r, because("relay through %s: %s", in.Anchor, in.Text))
		if spare := t.relays.by(t.relays.agreed.spare); spare != nil && spare.phase == relayPlanned {
			spare.at = now
		}
		return
	}
	if r.addr.IsValid() && r.addr != in.Addr {
		t.emit(CloseRelay{Anchor: r.anchor, Addr: r.addr})
	}
	r.phase, r.addr, r.since, r.at = relayChecking, in.Addr, now, now.Add(relayEvery)
	t.relays.why = ""
	t.report(false) // one source more
	t.checkRelay(now, r)
}

// relayAnswered notes that the peer answered a check through one of the channels.
func (t *route) relayAnswered(now time.Time, check pendingCheck) {
	r := t.relays.at(check.to)
	if r == nil {
		return
	}
	r.heard, r.rtt, r.tries = now, max(now.Sub(check.at), time.Microsecond), 0
	// The session with the anchor keeps the mapping open; this only finds out.
	r.at = now.Add(idleEvery + time.Duration(t.random.Float64()*float64(settle)))
	if !t.controlling && now.Sub(r.peerCheck) < idleEvery+2*settle {
		r.at = now.Add(followEvery)
	}
	if r.phase == relayChecking {
		r.phase, t.relays.why = relayReady, ""
	}
	t.leaveRelay(now)
	t.leaveDirect(now)
	t.useRelay(now)
}

// useRelay moves to a relay when one works, there is nothing better, and ICE has had its time; and from one relay to
// another when both ends have agreed on that.
func (t *route) useRelay(now time.Time) {
	best := t.relays.ready()
	switch {
	case best == nil || t.uses(best):
	case t.path.Kind == None && !(t.trying.on && now.Sub(t.trying.started) < t.headStart()):
		t.moveRelay(now, best, "no direct path yet")
		t.news.relayed = true
	case t.path.Kind == Relayed && best.anchor == t.relays.agreed.first:
		old := t.relays.at(t.path.Addr)
		t.moveRelay(now, best, "both ends have agreed on another relay")
		if old != nil && !t.relays.agreed.has(old.anchor) {
			t.retire(now, old)
		}
	}
}

// headStart is how long a relay that works waits for ICE.
func (t *route) headStart() time.Duration {
	if t.trying.forlorn {
		return 0
	}
	return preferDirect
}

func (t *route) moveRelay(now time.Time, r *relay, reason Reason) {
	r.end = time.Time{}
	t.set(now, Path{Addr: r.addr, Kind: Relayed, Via: r.anchor, RTT: r.rtt}, reason)
}

// closeRelay forgets a channel.
func (t *route) closeRelay(r *relay) {
	if r.addr.IsValid() {
		t.emit(CloseRelay{Anchor: r.anchor, Addr: r.addr})
	}
	t.relays.list = slices.DeleteFunc(t.relays.list, func(o *relay) bool { return o == r })
}

func (t *route) closeRelays() {
	for _, r := range slices.Clone(t.relays.list) {
		t.closeRelay(r)
	}
}
