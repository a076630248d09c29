package bind

import (
	"sync"
	"time"
)

/* Signs of life
 *
 * Anybody can send what looks like WireGuard's from the address of a path. What has been received counts as a sign of life only if
 * the device vouches for it, which knows how many bytes of each peer it has authenticated, but not from where they came:
 *
 *	bytes that came by the path          as the bind has counted them, forged ones too
 *	bytes that came from elsewhere       the same
 *	bytes that the device vouches for    more than those from elsewhere: some have come by the path
 *
 * Forged packets from elsewhere can only hide that the path lives, which costs a check.
 */

// unclaimedFor is how long bytes from elsewhere wait for the device, which takes milliseconds at most.
const unclaimedFor = time.Second

// witness is what was vouched for of one endpoint so far.
type witness struct {
	mu        sync.Mutex // guards the rest
	authentic uint64     // at the last look
	elsewhere uint64
	unclaimed uint64    // of the bytes from elsewhere, those that the device may still vouch for
	since     time.Time // of the last of them
	lastRx    time.Time // by the path
}

// see takes what was counted by now, and returns when a packet that was authentic last came by the path.
func (w *witness) see(now time.Time, authentic, elsewhere uint64, byPath time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if elsewhere > w.elsewhere {
		w.since = now
	} else if now.Sub(w.since) > unclaimedFor {
		w.unclaimed = 0
	}
	w.unclaimed += elsewhere - w.elsewhere
	fresh := authentic - w.authentic
	if authentic < w.authentic {
		fresh = 0 // the device has the peer anew
	}
	w.authentic, w.elsewhere = authentic, elsewhere
	if fresh > w.unclaimed {
		w.unclaimed, w.lastRx = 0, byPath
	} else {
		w.unclaimed -= fresh
	}
	return w.lastRx
}

// Vouched returns the counters, with LastRx only as far as the device vouches for it: authentic is how many bytes of the peer it
// has authenticated so far, handshakes and empty packets included. Between two looks any packet by the path may be taken for
// the last one that was authentic.
func (e *Endpoint) Vouched(authentic uint64) Activity {
	a := e.Activity()
	a.LastRx = e.witness.see(time.Now(), authentic, e.elsewhere.Load(), a.LastRx)
	return a
}
