package path

import (
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
	"warren/nat/due"
)

// Times of a spare relay: a second channel, on another anchor, that takes over when the one in use falls silent.
const (
	// spareDelay is how much later than the relay to be used the spare one is opened: most pairs are direct by then.
	spareDelay = time.Second
	// spareRetry and spareTries give a spare relay up that answers nothing for so long, while the one in use does.
	spareRetry = time.Second
	spareTries = 4
	// spareEarly is below the time between two checks of an idle spare relay: a peer that checks it sooner doubts the
	// one in use.
	spareEarly = 20 * time.Second
	// doubtFirst is how long the path in use has to answer before the spare one is asked too, and failOver before it
	// is left for the spare one that did answer: two checks, of which one may be lost.
	doubtFirst = 100 * time.Millisecond
	failOver   = 250 * time.Millisecond
	// avoidFor is how long an anchor that failed comes last. If it is dead, its session ends within 2 s, since the path in
	// doubt has it checked; if that lives on, it was the peer's end of the relay that failed, and the peer knows.
	avoidFor = 5 * time.Second
)

// avoided is an anchor that failed while another way to the peer worked.
type avoided struct {
	anchor identity.NodeID
	failed time.Time // since when
	until  time.Time
}

// over reports whether it may be used again: a session that came up since shows that it works.
func (a avoided) over(now time.Time, local []RelayOffer) bool {
	return !now.Before(a.until) ||
		slices.ContainsFunc(local, func(o RelayOffer) bool { return o.Anchor == a.anchor && o.Since.After(a.failed) })
}

// avoidance are the anchors that come last for a while.
type avoidance []avoided

// put adds an anchor, unless its session has come up since it failed: then it was restarted.
func (a *avoidance) put(now, failed time.Time, anchor identity.NodeID) {
	*a = slices.DeleteFunc(*a, func(a avoided) bool { return a.anchor == anchor || a.over(now, nil) })
	*a = append(*a, avoided{anchor, failed, now.Add(avoidFor)})
}

// now lists those that are to be avoided at now.
func (a avoidance) now(now time.Time, local []RelayOffer) (list []identity.NodeID) {
	for _, one := range a {
		if !one.over(now, local) {
			list = append(list, one.anchor)
		}
	}
	return list
}

// doubt reports whether a relayed path in use is suspect, and from when the others are asked as well.
func (u used) doubt() (from time.Time, in bool) {
	if u.path.Kind != Relayed || u.suspect.IsZero() {
		return time.Time{}, false
	}
	return u.suspect.Add(max(doubtFirst, 3*u.path.trip()/2)), true
}

// spareCheck is when an idle channel is to be checked: seldom, and often while the one in use is in doubt.
func (r *relay) spareCheck(u used) time.Time {
	if from, in := u.doubt(); in {
		return due.Sooner(r.at, later(from, r.lastCheck.Add(u.path.checkInterval())))
	}
	return r.at
}

// wakeSpare is when an idle channel is to be checked, or moved to.
func (r *relay) wakeSpare(u used) time.Time {
	at := r.spareCheck(u)
	if from, in := u.doubt(); in && r.heard.After(u.suspect) {
		return due.Sooner(at, from.Add(failOver-doubtFirst))
	}
	return at
}

// watchSpare checks a channel that works and is not in use. It reports whether the channel was lost, which could have been used.
func (s *relays) watchSpare(now time.Time, u used, r *relay) (lost bool) {
	if u.by(r) || !r.end.IsZero() || !isDue(now, r.spareCheck(u)) {
		return false
	}
	if _, in := u.doubt(); !in {
		if r.tries >= spareTries {
			return s.lose(now, u, r, because("relay through %s does not answer", r.anchor))
		}
		r.tries++
	}
	r.at = now.Add(spareRetry)
	s.check(now, r)
	return false
}

// checked notes a check of the peer through one of the channels that is not the path. It reports whether that came earlier
// than an idle channel is checked.
func (s *relays) checked(now time.Time, from netip.AddrPort) (early bool) {
	r := s.at(from)
	if r == nil {
		return false
	}
	early = now.Sub(r.peerCheck) < spareEarly
	r.peerCheck = now
	if r.phase == relayChecking && now.Sub(r.lastCheck) >= r.pace(now)/10 {
		// The peer has opened its half since our last check, which was lost.
		r.at = now.Add(r.pace(now))
		s.check(now, r)
	}
	if r.phase == relayReady && !s.controlling {
		r.at = followed(now, r.at, r.heard)
	}
	return early
}

// refuge returns a channel that answers while the one in use is in doubt and does not; nil for none.
func (s *relays) refuge(now time.Time, u used) *relay {
	from, in := u.doubt()
	if !in || now.Before(from.Add(failOver-doubtFirst)) {
		return nil
	}
	for _, r := range s.list {
		if r.phase == relayReady && !u.by(r) && r.heard.After(u.suspect) {
			return r
		}
	}
	return nil
}
