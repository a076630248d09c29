package bind

import (
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

/* Responses in the device
 *
 * The device works out the response to a handshake of ours without a lock, and then writes what has come of it into whatever handshake it has
 * with the peer by that time (ConsumeMessageResponse). When it is told to begin anew in between, the keys of the one get the index of the other,
 * or none: what this side sends is understood, and what the peer sends is dropped, for the 15 seconds after which WireGuard misses an answer.
 * It takes a third of a millisecond, but on a busy machine any time, and the moment is a likely one: a path comes up just when the introduction
 * does that has carried the response. So nobody begins anew while the device has a response (Carried.Anew), and whoever does has no response
 * to the one before reach it any more.
 *
 * Of a response that it takes the device says so by the time of the last handshake. One that it does not take it mentions in its log, with the name
 * of the endpoint that the response came with: so each comes with one of its own, which notes that it was asked.
 */

// answerTime is how long a device may have a response of which nothing is heard: it was lost among too many.
const answerTime = 2 * time.Second

// answers are the handshakes of ours that wait for a response, the newest with each peer.
type answers struct {
	mu   sync.Mutex
	ours map[[4]byte]*awaited // by our index for the handshake
	of   map[*Endpoint]*awaited
}

// awaited is one of them. It belongs to answers.
type awaited struct {
	index     [4]byte
	inside    int       // responses that the device has, or has taken
	answered  time.Time // when it was given the first of them
	renounced bool
}

// answering is the endpoint of a response.
type answering struct {
	conn.Endpoint
	answers *answers
	to      *awaited
	told    bool // guarded by answers.mu
}

// DstToString implements conn.Endpoint. The device calls it when it does not take the response; once it has taken it, whoever reads its state does.
func (r *answering) DstToString() string {
	r.answers.mu.Lock()
	if !r.told {
		r.told = true
		r.to.inside--
	}
	r.answers.mu.Unlock()
	return r.Endpoint.DstToString()
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

// admit reports whether a response may reach the device. It is given the endpoint with which it comes.
func (a *answers) admit(response []byte, ep *conn.Endpoint) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.ours[[4]byte(response[8:12])]
	switch {
	case h == nil:
		return true // that of no peer which has an Endpoint
	case h.renounced:
		return false
	}
	if h.inside == 0 {
		h.answered = time.Now()
	}
	h.inside++
	*ep = &answering{Endpoint: *ep, answers: a, to: h}
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
// device any more, unless there is no other then. done is when the last one was done. False says that the device has a response of which
// nothing has come yet; then begin is not called.
func (c *Carried) Anew(done time.Time, begin func()) bool {
	e := c.peer
	a := &e.bind.answers
	a.mu.Lock()
	before := a.of[e]
	if before != nil {
		if before.inside > 0 && done.Before(before.answered) && time.Since(before.answered) < answerTime {
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
