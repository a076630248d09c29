package beacon

import (
	"time"

	"warren/nat/limit"
)

// Bounds of what is looked at and sent. A LAN of a hundred members that start together sends about 600 in two seconds, of
// which three members suffice.
var (
	readRate   = limit.Rate{PerSecond: 200, Burst: 400} // all together: each costs a microsecond for each key
	sourceRate = limit.Rate{PerSecond: 10, Burst: 40}   // of one address
	writeRate  = limit.Rate{PerSecond: 20, Burst: 40}   // answers
	burstRate  = limit.Rate{PerSecond: burstPerMin / 60.0, Burst: 3}
)

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
