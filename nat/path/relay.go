package path

import (
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/nat/due"
)

// Times of relays.
const (
	// relayDelay spares the anchors the channels of pairs that ICE connects at once.
	relayDelay = 150 * time.Millisecond
	slowDelay  = 500 * time.Millisecond // the same at most, where all takes long: checks too are answered late then
	// farRelay is the round trip to an anchor from which on its channel waits for nothing: ICE needs two round trips to the peer, and one
	// more before packets arrive, while a channel that both have opened carries the first packet.
	farRelay    = 20 * time.Millisecond
	relayEvery  = 100 * time.Millisecond // between checks of a new channel at first; see relay.pace
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

// relays are the channels to the peer: the one agreed on, a spare one, and those that were left. They live by themselves;
// which of them is the path, if any, is told with each call.
type relays struct {
	*core
	channels
	checks  *checks
	agreed  choice // in the newest attempt
	avoided avoidance
	gone    []identity.NodeID // anchors that are no members any more, the latest last; at most maxRelays
	why     Reason            // there is none
	// prepared is the number of the last offer for which a channel was opened before its answer.
	prepared uint64
}

// channels finds one of several.
type channels struct {
	list []*relay // at most maxChannels
}

// maxChannels are the two agreed on, the one in use, and one that lingers.
const maxChannels = 4

// noneInCommon is so as long as neither side has an anchor to name that may be used.
const noneInCommon Reason = "no relay: no anchor in common"

// choice names the anchors that both ends agreed on: the one to use, and the one to hold ready. Zero for none.
type choice struct{ first, spare identity.NodeID }

func (c choice) has(id identity.NodeID) bool { return !id.IsZero() && (id == c.first || id == c.spare) }

func (s *channels) by(anchor identity.NodeID) *relay {
	for _, r := range s.list {
		if r.anchor == anchor {
			return r
		}
	}
	return nil
}

// fresh returns the channel on an anchor if it is open and nobody has answered through it yet; nil for none.
func (s *channels) fresh(anchor identity.NodeID) *relay {
	if r := s.by(anchor); r != nil && r.phase == relayChecking {
		return r
	}
	return nil
}

func (s *channels) at(addr netip.AddrPort) *relay {
	for _, r := range s.list {
		if r.addr == addr && addr.IsValid() {
			return r
		}
	}
	return nil
}

// addrs lists the addresses of the channels that are open.
func (s *channels) addrs() (list []netip.AddrPort) {
	for _, r := range s.list {
		if r.addr.IsValid() {
			list = append(list, r.addr)
		}
	}
	return list
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

// other returns a channel that works and is not in use; nil for none.
func (s *relays) other(u used) *relay {
	for _, r := range s.list {
		if r.phase == relayReady && !u.by(r) {
			return r
		}
	}
	return nil
}

// use is what the choice of a relay has to know.
func (s *relays) use(now time.Time, u used, local []RelayOffer) (use relayUse) {
	for _, r := range s.list {
		switch {
		case u.by(r):
			use.inUse = r.anchor
		case r.phase == relayReady && r.end.IsZero():
			use.spare = r.anchor
		}
	}
	use.avoided = s.avoided.now(now, local)
	return use
}

// wake is the earliest time at which something is due.
func (s *relays) wake(u used) (first time.Time) {
	for _, r := range s.list {
		first = due.Sooner(first, due.Sooner(r.end, r.wake(u)))
	}
	if u.path.Kind == None && s.ready() != nil {
		first = due.Sooner(first, u.trying.headStart())
	}
	return first
}

func (r *relay) wake(u used) time.Time {
	switch {
	case r.phase == relayPlanned, r.phase == relayChecking && r.end.IsZero() && !u.by(r):
		return r.at
	case r.phase == relayReady && !u.by(r) && r.end.IsZero():
		return r.wakeSpare(u)
	}
	return time.Time{}
}

// usable reports whether an anchor may relay between these two.
func (s *relays) usable(id identity.NodeID) bool {
	return !id.IsZero() && id != s.cfg.Peer && id != s.cfg.Self && !slices.Contains(s.gone, id)
}

// any reports whether one of the anchors that this node can name may be used.
func (s *relays) any(local []RelayOffer) bool {
	return slices.ContainsFunc(local, func(o RelayOffer) bool { return s.usable(o.Anchor) })
}

// plan prepares the channels on the agreed anchors. It reports whether there are any.
func (s *relays) plan(now time.Time, u used, agreed choice) bool {
	if !s.usable(agreed.spare) || agreed.spare == agreed.first {
		agreed.spare = identity.NodeID{}
	}
	if !s.usable(agreed.first) {
		agreed = choice{first: agreed.spare}
	}
	s.agreed = agreed
	for _, r := range slices.Clone(s.list) {
		if !agreed.has(r.anchor) {
			s.retire(now, u, r)
		}
	}
	if agreed.first.IsZero() {
		if len(s.list) == 0 {
			s.why = noneInCommon
		}
		return false
	}
	for n, anchor := range []identity.NodeID{agreed.first, agreed.spare} {
		switch r := s.by(anchor); {
		case anchor.IsZero():
		case r == nil:
			s.why = ""
			at := u.trying.started.Add(s.cfg.Answers.share(now, relayDelay, slowDelay) + time.Duration(n)*spareDelay)
			if u.path.Kind == Relayed || n == 0 && (u.trying.forlorn || u.trying.far) {
				at = now // it is wanted whatever becomes of the attempt, or before anything can become of it
			}
			s.add(u, &relay{phase: relayPlanned, anchor: anchor, at: at})
		default:
			s.renewAgreed(now, u, r)
		}
	}
	return true
}

// renewAgreed keeps a channel that is agreed on once more, and opens it anew unless it lately worked.
func (s *relays) renewAgreed(now time.Time, u used, r *relay) {
	r.end = time.Time{}
	fresh := u.path.Kind == Relayed && !u.restarted && now.Sub(r.heard) < idleEvery+2*settle
	switch {
	case r.phase == relayReady && !u.by(r) && !fresh, r.phase == relayChecking && now.Sub(r.since) >= renewAfter:
		// It worked before, or should; whether the anchor still has it is not known.
		s.open(now, r)
	case r.phase == relayChecking:
		r.since, r.at = now, now
	}
}

// add makes room by closing the oldest channel that nobody wants.
func (s *relays) add(u used, r *relay) {
	if len(s.list) >= maxChannels {
		if old := slices.IndexFunc(s.list, func(r *relay) bool { return !u.by(r) && !s.agreed.has(r.anchor) }); old >= 0 {
			s.close(s.list[old])
		}
	}
	s.list = append(s.list, r)
}

// retire lets a channel go soon, or at once if it was never opened. The path in use stays.
func (s *relays) retire(now time.Time, u used, r *relay) {
	switch {
	case u.by(r):
	case r.phase == relayPlanned:
		s.close(r)
	case r.end.IsZero():
		r.end = now.Add(relayLinger)
	}
}

// retireAll lets all go: there is a direct path.
func (s *relays) retireAll(now time.Time, u used) {
	for _, r := range slices.Clone(s.list) {
		s.retire(now, u, r)
	}
}

// watch does what is due. It reports whether a channel that could have been used was lost.
func (s *relays) watch(now time.Time, u used) (unspared bool) {
	for _, r := range slices.Clone(s.list) {
		if isDue(now, r.end) {
			if r.end = (time.Time{}); !u.by(r) {
				s.close(r)
				continue
			}
		}
		switch r.phase {
		case relayPlanned:
			switch {
			case !isDue(now, r.at):
			case u.path.Kind == Direct && u.works() && !u.trying.forlorn:
				// Nothing needs it now. Should the path die, the next attempt plans one.
				s.close(r)
			default:
				s.open(now, r)
			}
		case relayOpening:
		case relayChecking:
			if u.by(r) {
				continue // it is watched as the path
			}
			if now.Sub(r.since) >= relayTime {
				unspared = s.lose(now, u, r, because("relay through %s: the peer did not answer", r.anchor)) || unspared
			} else if isDue(now, r.at) && r.end.IsZero() { // nobody waits for one that was left
				r.at = now.Add(r.pace(now))
				s.check(now, r)
			}
		case relayReady:
			unspared = s.watchSpare(now, u, r) || unspared
		}
	}
	return unspared
}

// open asks the anchor for the channel, or once more for one that it may have forgotten: if it has not, nothing changes.
func (s *relays) open(now time.Time, r *relay) {
	r.phase, r.since = relayOpening, now
	s.emit(OpenRelay{Anchor: r.anchor})
}

// renew opens the idle channels anew whose anchor this node has another session with: it may have been restarted.
func (s *relays) renew(now time.Time, u used, local []RelayOffer) {
	s.gone = slices.DeleteFunc(s.gone, func(id identity.NodeID) bool { // it is a member again
		return slices.ContainsFunc(local, func(o RelayOffer) bool { return o.Anchor == id })
	})
	if s.why == noneInCommon && s.any(local) {
		s.why = ""
	}
	for _, r := range s.list {
		newer := func(o RelayOffer) bool { return o.Anchor == r.anchor && o.Since.After(r.since) }
		if r.phase == relayReady && !u.by(r) && r.end.IsZero() && slices.ContainsFunc(local, newer) {
			s.open(now, r)
		}
	}
}

// pace is the time between two checks of a channel that nobody has answered yet: half as long as it has been checked. Over a long line
// the first answers are on their way, and over a slow one it would be full of questions.
func (r *relay) pace(now time.Time) time.Duration { return max(relayEvery, now.Sub(r.since)/2) }

func (s *relays) check(now time.Time, r *relay) {
	r.lastCheck = now
	s.checks.send(now, r.addr)
}

// lose closes a channel that is not in use and does not work. If it is open, that may be the anchor's fault only if
// something works: it reports whether that is so.
func (s *relays) lose(now time.Time, u used, r *relay, why Reason) (works bool) {
	works = u.works()
	if works || r.phase == relayOpening {
		s.avoided.put(now, later(r.since, r.heard), r.anchor)
	}
	s.close(r)
	s.why = why
	return works
}

// opened takes what the anchor said. It returns the channel if that is to be checked now, and whether one that could have been
// used was lost.
func (s *relays) opened(now time.Time, u used, in RelayOpened) (r *relay, unspared bool) {
	r = s.by(in.Anchor)
	if r == nil || r.phase != relayOpening {
		if in.Addr.IsValid() && (r == nil || in.Addr != r.addr) {
			s.emit(CloseRelay{Anchor: in.Anchor, Addr: in.Addr})
		}
		return nil, false
	}
	if in.Text != "" {
		unspared = s.lose(now, u, r, because("relay through %s: %s", in.Anchor, in.Text))
		if spare := s.by(s.agreed.spare); spare != nil && spare.phase == relayPlanned {
			spare.at = now
		}
		return nil, unspared
	}
	if r.addr.IsValid() && r.addr != in.Addr {
		s.emit(CloseRelay{Anchor: r.anchor, Addr: r.addr})
	}
	r.phase, r.addr, r.since, r.at = relayChecking, in.Addr, now, now.Add(relayEvery)
	s.why = ""
	return r, false
}

// answered notes that the peer answered a check through one of the channels; false when it went elsewhere.
func (s *relays) answered(now time.Time, check pendingCheck) bool {
	r := s.at(check.to)
	if r == nil {
		return false
	}
	r.heard, r.rtt, r.tries = now, check.trip(now), 0
	// The session with the anchor keeps the mapping open; this only finds out.
	r.at = now.Add(idleEvery + time.Duration(s.random.Float64()*float64(settle)))
	if !s.controlling && now.Sub(r.peerCheck) < idleEvery+2*settle {
		r.at = now.Add(followEvery)
	}
	if r.phase == relayChecking {
		r.phase, s.why = relayReady, ""
	}
	return true
}

// bar has an anchor not used until this node names it again.
func (s *relays) bar(anchor identity.NodeID) {
	s.gone = append(slices.DeleteFunc(s.gone, func(id identity.NodeID) bool { return id == anchor }), anchor)
	s.gone = s.gone[max(0, len(s.gone)-maxRelays):]
}

// without closes a channel whose anchor may not be used, and reports whether it was of use.
func (s *relays) without(r *relay) (ready bool) {
	if s.agreed.first == r.anchor {
		s.agreed.first, s.agreed.spare = s.agreed.spare, identity.NodeID{}
	}
	if s.agreed.spare == r.anchor {
		s.agreed.spare = identity.NodeID{}
	}
	s.close(r)
	return r.phase == relayReady
}

// close forgets a channel.
func (s *relays) close(r *relay) {
	if r.addr.IsValid() {
		s.emit(CloseRelay{Anchor: r.anchor, Addr: r.addr})
	}
	s.list = slices.DeleteFunc(s.list, func(o *relay) bool { return o == r })
}

func (s *relays) closeAll() {
	for _, r := range slices.Clone(s.list) {
		s.close(r)
	}
}
