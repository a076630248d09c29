package beacon

import (
	"net/netip"
	"time"
)

// Bounds of what is looked at and sent, in beacons a second and in a burst. A LAN of a hundred members that start together
// sends about 600 in two seconds, of which three members suffice.
const (
	readRate, readBurst     = 200.0, 400.0 // all together: each costs a microsecond for each key
	sourceRate, sourceBurst = 10.0, 40.0   // of one address
	writeRate, writeBurst   = 20.0, 40.0   // answers
	maxSources              = 256
)

// bucket is a token bucket.
type bucket struct {
	left float64
	last time.Time
}

// take reports whether one more is allowed.
func (b *bucket) take(now time.Time, rate, burst float64) bool {
	if b.last.IsZero() {
		b.left = burst
	} else {
		b.left = min(burst, b.left+rate*max(0, now.Sub(b.last).Seconds()))
	}
	b.last = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// gate bounds what is read, by source and all together. Sources can be made up, so their number is bounded too: while
// the table is full of busy ones, a new one has the common bucket only.
type gate struct {
	all     bucket
	sources map[netip.Addr]*bucket
	swept   time.Time // when sources were last looked through for those to forget
}

func (g *gate) enter(now time.Time, from netip.Addr) bool {
	from = from.WithZone("")
	b := g.sources[from]
	if b == nil && len(g.sources) >= maxSources && now.Sub(g.swept) > time.Second {
		g.swept = now
		for addr, old := range g.sources {
			if now.Sub(old.last).Seconds()*sourceRate >= sourceBurst { // full again: it can be forgotten
				delete(g.sources, addr)
			}
		}
	}
	if b == nil && len(g.sources) < maxSources {
		b = new(bucket)
		if g.sources == nil {
			g.sources = make(map[netip.Addr]*bucket)
		}
		g.sources[from] = b
	}
	if b != nil && !b.take(now, sourceRate, sourceBurst) {
		return false
	}
	return g.all.take(now, readRate, readBurst)
}

// nonces remembers the nonces of beacons that were read, so that a repeated one does nothing. Two generations bound it
// in time and size; only who holds a key gets in.
type nonces struct {
	young, old map[[nonceSize]byte]bool
	since      time.Time
}

// maxNonces is the size of a generation.
const maxNonces = 4096

// fresh notes a nonce and reports whether it was not there.
func (n *nonces) fresh(now time.Time, nonce [nonceSize]byte) bool {
	// A beacon is believed from one window before its time to one after: a generation lasts as long.
	if len(n.young) >= maxNonces || now.Sub(n.since) > 2*Window || n.young == nil {
		n.young, n.old, n.since = make(map[[nonceSize]byte]bool), n.young, now
	}
	if n.young[nonce] || n.old[nonce] {
		return false
	}
	n.young[nonce] = true
	return true
}
