package path

import (
	"cmp"
	"slices"
	"time"

	"warren/mesh/identity"
)

// What an anchor tells of its load, 0 to 255, and what follows. The steps apart keep pairs from going to and fro.
const (
	loadBusy = 128 // from here on it costs
	loadFull = 224 // 7/8: it is left for another
	loadEasy = 192 // 6/8: another that has at most this is worth it
)

// Costs in the choice of a relay, in milliseconds of round trip.
const (
	costBusy    = 2       // for each step of load above loadBusy
	costFar     = 20      // more than twice as far and this is worth a change
	costPrivate = 50      // for a neighbour that is no anchor: it may be a laptop, about to be carried away
	costFull    = 1 << 16 // for an anchor that is full
	costAbsent  = 1 << 12 // for one that the chooser has no session with yet, twice for the peer: the answer tells what it opens
	costAvoided = 1 << 18 // for one that failed lately
	costBarred  = 1 << 20 // for one that is no anchor, as far as is known, so that one side can hardly get a session with it
)

// relayUse is what the choice has to know of the route.
type relayUse struct {
	inUse   identity.NodeID // the relay of the path, if it is relayed
	spare   identity.NodeID // another that works
	avoided []identity.NodeID
}

// offers lists the relays to name in an offer: all but those that failed lately, unless there are no others.
func (u relayUse) offers(local []RelayOffer) []RelayOffer {
	list := slices.DeleteFunc(slices.Clone(local), func(o RelayOffer) bool { return slices.Contains(u.avoided, o.Anchor) })
	if len(list) == 0 {
		return local
	}
	return list
}

// bid is an anchor that may be chosen.
type bid struct {
	anchor  identity.NodeID
	cost    uint64
	load    uint8
	lacking bool // one side has no session with it, or it failed lately
}

// keep moves an anchor that works now to the front, unless the first one is better by far.
func keep(bids []bid, anchor identity.NodeID) {
	at := slices.IndexFunc(bids, func(b bid) bool { return b.anchor == anchor })
	if at <= 0 || bids[at].lacking {
		return
	}
	now, best := bids[at], bids[0]
	full := now.load >= loadFull && best.load <= loadEasy
	far := now.cost > 2*best.cost+costFar
	if !best.lacking && (full || now.load < loadFull && far) {
		return
	}
	copy(bids[1:at+1], bids[:at])
	bids[0] = now
}

// chooseRelays picks the anchor with the shortest way from peer to peer that is not full, and the next best as spare.
// With none in common, it is the one nearest to the peer. What is in use stays unless another is better by far, so that
// a retry for a direct path leaves the relayed one alone. only says that the peer can use what it offers, and nothing else.
func (l Local) chooseRelays(cfg *Config, use relayUse, only bool, offers []RelayOffer) choice {
	var bids []bid
	add := func(o RelayOffer, cost uint64) {
		if o.Anchor == cfg.Self || o.Anchor == cfg.Peer {
			return
		}
		lacking := cost >= costAbsent
		if slices.Contains(use.avoided, o.Anchor) {
			cost, lacking = cost+costAvoided, true
		}
		if o.Load >= loadFull {
			cost += costFull
		} else if o.Load > loadBusy {
			cost += costBusy * uint64(o.Load-loadBusy)
		}
		bids = append(bids, bid{o.Anchor, cost + uint64(o.RTTms), o.Load, lacking})
	}
	for _, theirs := range offers {
		at := slices.IndexFunc(l.Relays, func(o RelayOffer) bool { return o.Anchor == theirs.Anchor })
		if at < 0 {
			switch {
			case l.NoUDP: // none can be had
			case l.Dialable != nil && !l.Dialable[theirs.Anchor]:
				add(theirs, costBarred)
			default:
				add(theirs, costAbsent)
			}
			continue
		}
		ours, cost := l.Relays[at], uint64(theirs.RTTms)
		if ours.Private {
			cost += costPrivate
		}
		add(RelayOffer{Anchor: ours.Anchor, Load: max(ours.Load, theirs.Load), RTTms: ours.RTTms}, min(cost, costAbsent-1))
	}
	for _, ours := range l.Relays {
		if !slices.ContainsFunc(offers, func(o RelayOffer) bool { return o.Anchor == ours.Anchor }) {
			// The peer may have left it out because it failed, or have made its offer before it had a session.
			switch {
			case only:
			case ours.Private:
				add(ours, costBarred)
			default:
				add(ours, 2*costAbsent)
			}
		}
	}
	slices.SortFunc(bids, func(a, b bid) int { return cmp.Or(cmp.Compare(a.cost, b.cost), a.anchor.Compare(b.anchor)) })
	bids = slices.CompactFunc(bids, func(a, b bid) bool { return a.anchor == b.anchor })
	keep(bids, use.inUse)
	if len(bids) > 1 {
		keep(bids[1:], use.spare)
	}
	var c choice
	if len(bids) > 0 {
		c.first = bids[0].anchor
	}
	if len(bids) > 1 && bids[1].cost < costAvoided {
		c.spare = bids[1].anchor
	}
	return c
}

// far reports whether an anchor is a long line away.
func (o RelayOffer) far() bool { return time.Duration(o.RTTms)*time.Millisecond >= farRelay }

// far reports whether the session with an anchor, if there is one, goes over a long line.
func (l Local) far(anchor identity.NodeID) bool {
	return slices.ContainsFunc(l.Relays, func(o RelayOffer) bool { return o.Anchor == anchor && o.far() })
}

// reaches reports whether there is a session with one of the anchors.
func (l Local) reaches(anchors choice) bool {
	return slices.ContainsFunc(l.Relays, func(o RelayOffer) bool { return anchors.has(o.Anchor) })
}
