package path

import (
	"net/netip"
	"slices"
	"time"

	"warren/mesh/identity"
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

// doubt reports whether a relayed path in use is suspect, and from when the others are asked as well.
func (t *route) doubt() (from time.Time, in bool) {
	if t.path.Kind != Relayed || t.life.suspectSince.IsZero() {
		return time.Time{}, false
	}
	return t.life.suspectSince.Add(max(doubtFirst, 3*t.path.RTT/2)), true
}

// spareCheck is when an idle channel is to be checked: seldom, and often while the one in use is in doubt.
func (t *route) spareCheck(r *relay) time.Time {
	if from, in := t.doubt(); in {
		return earlier(r.at, later(from, r.lastCheck.Add(t.checkInterval())))
	}
	return r.at
}

// watchSpare checks a channel that works and is not in use.
func (t *route) watchSpare(now time.Time, r *relay) {
	if t.uses(r) || !r.end.IsZero() || !due(now, t.spareCheck(r)) {
		return
	}
	if _, in := t.doubt(); !in {
		if r.tries >= spareTries {
			t.loseRelay(now, r, because("relay through %s does not answer", r.anchor))
			return
		}
		r.tries++
	}
	r.at = now.Add(spareRetry)
	t.checkRelay(now, r)
}

// relayChecked notes a check of the peer through one of the channels that is not the path.
func (t *route) relayChecked(now time.Time, from netip.AddrPort) {
	r := t.relays.at(from)
	early := r != nil && now.Sub(r.peerCheck) < spareEarly
	if r != nil {
		r.peerCheck = now
		if r.phase == relayChecking && now.Sub(r.lastCheck) >= relayEvery/10 {
			// The peer has opened its half since our last check, which was lost.
			r.at = now.Add(relayEvery)
			t.checkRelay(now, r)
		}
		if r.phase == relayReady && !t.controlling {
			r.at = later(r.at, now.Add(idleEvery+settle))
			if last := r.heard.Add(followEvery); r.at.After(last) {
				r.at = last
			}
		}
	}
	switch {
	case now.Sub(t.since) < settle:
	case t.path.Kind == Direct, t.path.Kind == Relayed && early:
		// The peer uses or tries another way. It may know why.
		t.suspect(now)
	}
}

// leaveRelay moves to a channel that answers from one that is in doubt and does not.
func (t *route) leaveRelay(now time.Time) {
	from, in := t.doubt()
	if !in || now.Before(from.Add(failOver-doubtFirst)) {
		return
	}
	for _, r := range t.relays.list {
		if r.phase != relayReady || t.uses(r) || !r.heard.After(t.life.suspectSince) {
			continue
		}
		old := t.relays.at(t.path.Addr)
		reason := because("relay through %s does not answer, that through %s does", t.path.Via, r.anchor)
		t.avoid(now, t.life.suspectSince.Add(-silence), t.path.Via)
		t.relays.agreed = choice{first: r.anchor}
		t.moveRelay(now, r, reason)
		if old != nil {
			t.closeRelay(old)
		}
		t.news.died = true
		return
	}
}

// avoid puts an anchor last for a while, unless its session has come up since it failed: then it was restarted.
func (t *route) avoid(now, failed time.Time, anchor identity.NodeID) {
	t.relays.avoided = slices.DeleteFunc(t.relays.avoided, func(a avoided) bool { return a.anchor == anchor || a.over(now, nil) })
	t.relays.avoided = append(t.relays.avoided, avoided{anchor, failed, now.Add(avoidFor)})
}
