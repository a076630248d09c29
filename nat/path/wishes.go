package path

import (
	"slices"
	"time"

	"warren/mesh/identity"
)

const (
	// easeEvery is between introductions made for load alone, doubled up to five times while they go on: a pair that fills
	// every relay by itself gains nothing by wandering.
	easeEvery  = 30 * time.Second
	easeWithin = 10 * time.Second
	// seekEvery is between introductions made for want of a spare relay, doubled up to six times unless an anchor has come up
	// since. All pairs on a relay that fell want another at once.
	seekEvery  = 10 * time.Second
	seekWithin = 300 * time.Millisecond
	punchTime  = 2 * time.Second // in which punching works that works at all
)

// wishes are for other relays than a relayed path has, which only an introduction can bring. They come seldom, and the less
// often the longer they stay in vain.
type wishes struct {
	eased  time.Time // until when the load of the relay in use is no reason for another introduction
	eases  int       // such introductions in a row
	sought time.Time // the last introduction made for want of a spare one
	seeks  int       // such introductions in a row
}

// ease reports whether the relay in use is full and another is not, for the first time in a while.
func (w *wishes) ease(now time.Time, peer identity.NodeID, use relayUse, relays []RelayOffer) bool {
	full := func(o RelayOffer) bool { return o.Anchor == use.inUse && o.Load >= loadFull }
	easy := func(o RelayOffer) bool {
		return o.Anchor != use.inUse && o.Anchor != peer && o.Load <= loadEasy && !slices.Contains(use.avoided, o.Anchor)
	}
	if use.inUse.IsZero() || now.Before(w.eased) || !slices.ContainsFunc(relays, full) || !slices.ContainsFunc(relays, easy) {
		return false
	}
	if now.Sub(w.eased) > easeEvery<<5 {
		w.eases = 0
	}
	w.eased = now.Add(easeEvery << w.eases)
	w.eases = min(w.eases+1, 5)
	return true
}

// seek reports whether there is a relay that could be the spare one, for the first time in a while.
func (w *wishes) seek(now time.Time, peer identity.NodeID, use relayUse, relays []RelayOffer) bool {
	if slices.ContainsFunc(relays, func(o RelayOffer) bool { return o.Since.After(w.sought) }) {
		w.seeks = 0 // there is news
	}
	if now.Sub(w.sought) < seekEvery<<w.seeks || !slices.ContainsFunc(relays, func(o RelayOffer) bool {
		return o.Anchor != use.inUse && o.Anchor != peer && !slices.Contains(use.avoided, o.Anchor)
	}) {
		return false
	}
	w.sought, w.seeks = now, min(w.seeks+1, 6)
	return true
}

// ease plans an introduction when the relay in use is full and another is not. It comes at a time of chance, for all
// pairs on that relay hear of its load at once: those that go first make room for the rest.
func (m *Machine) ease(now time.Time) {
	relays := m.intro.local.Relays
	if m.intro.idle() && m.wishes.ease(now, m.core.cfg.Peer, m.route.relayUse(now, relays), relays) {
		m.intro.retry.sooner(now.Add(time.Duration(m.core.random.Float64() * float64(easeWithin))))
	}
}

// seekSpare plans an introduction when a relayed path has no other relay beside it, and there is one that could be.
func (m *Machine) seekSpare(now time.Time) {
	if m.route.path.Kind != Relayed || len(m.route.relays.list) > 1 || m.intro.sig.waiting ||
		m.intro.try.on && now.Sub(m.intro.try.started) < punchTime {
		return
	}
	relays := m.intro.local.Relays
	if !m.wishes.seek(now, m.core.cfg.Peer, m.route.relayUse(now, relays), relays) {
		return
	}
	wait := time.Duration(m.core.random.Float64() * float64(seekWithin))
	if !m.core.controlling {
		wait += seekWithin // the other may be about to
	}
	m.intro.retry.sooner(now.Add(wait))
}
