package roster

import (
	"maps"
	"slices"

	"warren/mesh/identity"
)

// hiding keeps what has fallen by the root's word out of sight: the set that others see, the digests and the store are without it, so that
// the root empties a set that somebody has filled. A record has fallen if it rests on a key that the root has revoked and is not listed to
// stay; the key's own record stays, and with it what it has used up. What has fallen shows all the same while something that stands rests on it,
// for that is verified by it:
//
//	admin X (revoked by the root) ─▶ invite (fallen) ─▶ node a (fallen, hidden)
//	                                    ╰─ shown for ─▶ node b (listed: it stays)
//
// Of what is hidden some is kept, since what rests on it may be on its way.
type hiding struct {
	set     *set
	revoked *revocations
	change  *change
	seen    map[*entry]bool // whether an entry shows
}

// run brings up to date which records are hidden: of all, or of those that are new.
func (h *hiding) run(all bool) {
	if len(h.set.rooted.targets) == 0 && len(h.set.hidden) == 0 {
		return
	}
	h.seen = make(map[*entry]bool)
	var look []*entry
	if all {
		look = slices.Collect(maps.Values(h.set.records))
	} else {
		for key := range h.change.added {
			if e := h.set.records[key]; e != nil {
				look = append(look, e)
			}
		}
	}
	for _, e := range look {
		if e.Node == nil {
			e.fallen = h.hasFallen(e)
		}
	}
	if !all { // what was hidden may be needed now
		look = append(look, slices.Collect(maps.Keys(h.set.hidden))...)
	}
	for _, e := range look {
		h.show(e, h.shows(e))
	}
}

// hasFallen says it of all but nodes, on which judge has decided.
func (h *hiding) hasFallen(e *entry) bool {
	switch {
	case e.isPromotion():
		return len(h.set.rooted.ofGround(e)) > 0
	case e.byRoot():
		return false
	case e.isInvite():
		return len(h.set.rooted.ofGround(e.issuer)) > 0
	case h.revoked.counting[e]:
		return false
	}
	for _, ground := range h.set.grounds(identity.NodeID(e.Signer)) {
		if len(h.set.rooted.ofGround(ground)) == 0 {
			return false
		}
	}
	return true
}

// shows reports whether an entry of the set is for others to see.
func (h *hiding) shows(e *entry) bool {
	if !e.in {
		return false
	}
	if !e.fallen {
		return true
	}
	shows, ok := h.seen[e]
	if !ok {
		shows = h.isNeeded(e)
		h.seen[e] = shows
	}
	return shows
}

// isNeeded reports whether something that shows rests on an entry. What a member signed as an admin rests on its promotions, all of them.
func (h *hiding) isNeeded(e *entry) bool {
	for other := range h.set.rests[e.ref] {
		if h.shows(other) {
			return true
		}
	}
	if e.isPromotion() {
		for other := range h.set.rests[ref(e.keyID)] {
			if other.Certificate == nil && h.shows(other) {
				return true
			}
		}
	}
	return false
}

func (h *hiding) show(e *entry, shows bool) {
	switch {
	case shows && e.hidden:
		e.hidden, e.refusal = false, nil
		delete(h.set.hidden, e)
		h.set.buckets.note(e.Key, e.Version)
		h.change.enters(e)
	case !shows && !e.hidden:
		e.hidden = true
		e.refusal = refuse(ReasonIssuerRevoked, "%s: it rests on what the root has revoked", e.Kind)
		if e.Node != nil {
			e.refusal = e.out
		}
		h.set.hidden[e] = true
		h.set.buckets.drop(e.Key)
		h.change.leaves(e)
	}
}

// evict keeps what is hidden within its bound: what rests on others goes first.
func (h *hiding) evict() {
	if len(h.set.hidden) <= maxAside {
		return
	}
	hidden := slices.SortedFunc(maps.Keys(h.set.hidden), func(a, b *entry) int {
		if a.Certificate == nil != (b.Certificate == nil) {
			if b.Certificate == nil {
				return -1 // statements last
			}
			return 1
		}
		return a.compare(b)
	})
	for _, e := range hidden[maxAside:] {
		h.set.take(e)
		h.set.forget(e)
	}
}
