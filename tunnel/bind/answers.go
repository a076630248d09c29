package bind

import (
	"sync"
	"time"
)

/* Responses in the device
 *
 * The device works out the response to a handshake of ours without a lock, and then writes what has come of it into whatever handshake it has
 * with the peer by that time (ConsumeMessageResponse). When it is told to begin anew in between, the keys of the one get the index of the other,
 * or none: what this side sends is understood, and what the peer sends is dropped, for the 15 seconds after which WireGuard misses an answer.
 * It takes a third of a millisecond, but on a busy machine any time, and the moment is a likely one: a path comes up just when the introduction
 * does that has carried the response. So nobody begins anew while the device has a response (Carried.Anew), and whoever does has no response
 * to the one before reach it any more.
 */

// answers are the handshakes of ours that wait for a response, the newest with each peer.
type answers struct {
	mu   sync.Mutex
	ours map[[4]byte]*awaited // by our index for the handshake
	of   map[*Endpoint]*awaited
}

// awaited is one of them. It belongs to answers.
type awaited struct {
	index     [4]byte
	answered  time.Time // when the response was given to the device; zero: not yet
	renounced bool
}

// begun notes that the device has made an initiation.
func (a *answers) begun(e *Endpoint, initiation []byte) {
	index := [4]byte(initiation[4:8])
	a.mu.Lock()
	defer a.mu.Unlock()
	last := a.of[e]
	if last != nil && last.index == index {
		return // the same one, which leaves again
	}
	if last != nil {
		delete(a.ours, last.index)
	}
	if a.ours == nil {
		a.ours, a.of = make(map[[4]byte]*awaited), make(map[*Endpoint]*awaited)
	}
	now := &awaited{index: index}
	a.of[e], a.ours[index] = now, now
}

// admit reports whether a response may reach the device, and notes that it has.
func (a *answers) admit(response []byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.ours[[4]byte(response[8:12])]
	switch {
	case h == nil:
		return true // that of no peer which has an Endpoint
	case h.renounced:
		return false
	case h.answered.IsZero():
		h.answered = time.Now()
	}
	return true
}

// forget drops what is known of a peer.
func (a *answers) forget(e *Endpoint) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if last := a.of[e]; last != nil {
		delete(a.ours, last.index)
		delete(a.of, e)
	}
}

// Anew has the device begin another handshake with the peer: begin does, and waits for nothing. The response to the one before does not reach the
// device any more, unless there is no other then. done is when the last one was done. False says that the device has a response, for less time
// than it may take, and nothing has come of it yet; then begin is not called.
func (c *Carried) Anew(done time.Time, mayTake time.Duration, begin func()) bool {
	e := c.peer
	a := &e.bind.answers
	a.mu.Lock()
	before := a.of[e]
	if before != nil {
		if !before.answered.IsZero() && done.Before(before.answered) && time.Since(before.answered) < mayTake {
			a.mu.Unlock()
			return false
		}
		before.renounced = true
	}
	a.mu.Unlock()
	begin()
	a.mu.Lock()
	defer a.mu.Unlock()
	if before != nil && a.of[e] == before {
		before.renounced = false
	}
	return true
}
