package bind

import (
	"bytes"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

/* Handshakes that are carried
 *
 * While two peers look for a path, their introductions can carry the handshake; whoever carries it asks the endpoint objects:
 *
 *	device ─ initiation ─▶ Endpoint (no path: held) ─▶ Initiation ══ offer ══▶ Respond ─▶ handed ─▶ device
 *	device ◀─ handed ◀─ Conclude ◀══ answer ══ captured by the Endpoint ◀─ response ─ device
 *	device ─ first packets under the new keys ─▶ Endpoint (no path: held) ─ SetPath ─▶ they leave
 *
 * What is handed to the device comes out of a receive function as if a socket had brought it, with the object of the peer whose introduction it
 * was. A handshake is the same by whichever way it goes: an initiation that is handed twice is answered by the response to the
 * first, and so is one that comes by a path after an introduction has brought it, which the device would take for a replay.
 */

const (
	// carriedFor is how long a carried handshake counts: WireGuard makes another initiation after that time (RekeyTimeout), which ends the one before.
	carriedFor = 5 * time.Second
	// maxKept packets of one peer wait for a path, as many as the device lets wait for keys. The oldest goes.
	maxKept = 128
	// handedQueue bounds what waits for the device: more than the members that answer an offer at once. What finds it full is lost.
	handedQueue = 256
)

// Carried are the handshakes with one peer that need no path, and what waits for one. Its methods may be called at any time by anyone.
type Carried struct {
	// constant after peers.add
	queue chan<- handed
	peer  *Endpoint // whose object goes with what is handed to the device
	drops *drops

	// atomic
	keyed atomic.Pointer[chan struct{}] // closed, and taken away, when the device sends under the keys of a response that was handed to it; nil: nobody waits

	// guarded by mu
	mu        sync.Mutex
	removed   bool
	held      [device.MessageInitiationSize]byte // our newest initiation for which there was no path
	heldAt    time.Time                          // zero: none is held
	offered   [device.MessageInitiationSize]byte // our last one that was given to be carried
	offeredAt time.Time                          // zero: none
	attempt   uint64                             // of the introduction that carries it
	concluded bool                               // the response to it was handed to the device

	initiation [device.MessageInitiationSize]byte // the peer's last one that was handed to the device
	handedAt   time.Time                          // zero: none
	response   []byte                             // the device's to that; nil: not yet
	responded  chan struct{}                      // closed with it

	kept      [][]byte  // packets that wait for a path, the oldest first
	keepUntil time.Time // zero: what has no path is dropped
}

// handed is a message that did not come by a socket.
type handed struct {
	message  []byte
	endpoint *Endpoint
}

// Initiation returns a copy of the initiation that is held for a path, for an attempt at an introduction to carry beside it; nil when none is held,
// the device is about to make another one, or another attempt has carried it: the response to it may be made already, under the preshared
// key of that one. It goes on being held.
func (c *Carried) Initiation(now time.Time, attempt uint64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heldAt.IsZero() || now.Sub(c.heldAt) >= carriedFor {
		return nil
	}
	switch {
	case c.offered != c.held:
		c.offered, c.offeredAt, c.attempt, c.concluded = c.held, c.heldAt, attempt, false
	case c.attempt != attempt:
		return nil
	}
	return slices.Clone(c.held[:])
}

// Respond hands the device an initiation of the peer that was carried, and waits for the response: nil when none comes in time, as from a device that is
// under load. The caller has to know that the peer made it: the device will take the one who did to be where this object leads. The response to
// an initiation that was handed before is returned again.
func (c *Carried) Respond(initiation []byte, within time.Duration) (response []byte) {
	if !isInitiation(initiation) {
		return nil
	}
	now := time.Now()
	c.mu.Lock()
	again := !c.handedAt.IsZero() && now.Sub(c.handedAt) < carriedFor && bytes.Equal(c.initiation[:], initiation)
	if !again {
		copy(c.initiation[:], initiation)
		c.handedAt, c.response, c.responded = now, nil, make(chan struct{})
	}
	responded, removed := c.responded, c.removed
	c.mu.Unlock()
	if removed || !again && !c.hand(initiation) {
		return nil
	}
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-responded:
	case <-timer.C:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.responded != responded {
		return nil // another initiation has come meanwhile
	}
	return slices.Clone(c.response)
}

// Conclude hands the device the response to the initiation that Initiation has returned last, and waits until it sends under the new keys, but no
// longer than within. The first packets under these keys wait for a path, if there is none. It returns since when the initiation was held, zero
// when the response is to none that is carried for this peer, and whether this was the first time: done is when the last handshake with the
// peer was done, and one since then needs no response.
func (c *Carried) Conclude(response []byte, done time.Time, within time.Duration) (since time.Time, first bool) {
	if !isResponse(response) {
		return time.Time{}, false
	}
	c.mu.Lock()
	// The index is this node's for the handshake. A response to another peer's handshake must not come with this peer's object.
	if c.offeredAt.IsZero() || c.removed || !bytes.Equal(response[8:12], c.offered[4:8]) {
		c.mu.Unlock()
		return time.Time{}, false
	}
	since = c.offeredAt
	if c.concluded || !done.Before(since) {
		c.mu.Unlock()
		return since, false
	}
	// From here on the initiation is of no use: the device knows it no more.
	c.concluded = true
	if c.held == c.offered {
		c.heldAt = time.Time{}
	}
	c.keepUntil = time.Now().Add(carriedFor)
	wait := make(chan struct{})
	c.keyed.Store(&wait)
	c.mu.Unlock()
	if !c.hand(response) {
		return since, true
	}
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-wait:
	case <-timer.C:
	}
	return since, true
}

// Void forgets all handshakes that are carried: the peer is another process than the one with which they were.
func (c *Carried) Void() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget()
}

// remove has nothing handed to the device any more.
func (c *Carried) remove() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removed = true
	c.forget()
}

// forget drops everything. The caller holds mu.
func (c *Carried) forget() {
	c.peer.bind.answers.forget(c.peer)
	c.heldAt = time.Time{}
	c.offeredAt, c.concluded, c.handedAt, c.response = time.Time{}, false, time.Time{}, nil
	c.kept, c.keepUntil = nil, time.Time{}
}

// hand gives the device a message of the peer; false: the queue is full. The device counts it as received, and so it is counted here, as what
// did not come by the path.
func (c *Carried) hand(message []byte) bool {
	select {
	case c.queue <- handed{slices.Clone(message), c.peer}:
		c.peer.elsewhere.Add(uint64(len(message)))
		c.peer.rx.add(1, len(message), 0)
		return true
	default:
		c.drops.add(DropCarried, 1)
		return false
	}
}

// capture keeps a response for whoever carries it, if it is to the initiation that was handed to the device, and reports whether it is.
func (c *Carried) capture(response []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.handedAt.IsZero() || c.response != nil || !bytes.Equal(response[8:12], c.initiation[4:8]) {
		return false
	}
	c.response = slices.Clone(response)
	close(c.responded)
	return true
}

// again returns the response to an initiation that was carried before and now comes by a path too; nil for any other.
func (c *Carried) again(initiation []byte, now int64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.response == nil || now-nanosOf(c.handedAt) >= int64(carriedFor) || !bytes.Equal(c.initiation[:], initiation) {
		return nil
	}
	return c.response
}

// sentUnderKeys tells whoever waits for the keys of a response.
func (c *Carried) sentUnderKeys() {
	if wait := c.keyed.Swap(nil); wait != nil {
		close(*wait)
	}
}

// hold keeps our newest initiation for a path.
func (c *Carried) hold(initiation []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.removed {
		c.heldAt = time.Now()
		copy(c.held[:], initiation)
	}
}

// drop holds no initiation any more: it is the peer's turn.
func (c *Carried) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heldAt = time.Time{}
}

// crossed is told that the device answers a handshake of the peer: it knows one with each peer, so it has forgotten its own, which must not leave
// any more, and whose response it does not take.
func (c *Carried) crossed() {
	c.peer.bind.answers.forget(c.peer)
	c.drop()
}

// keep has packets wait for a path, and reports whether they do.
func (c *Carried) keep(bufs [][]byte, now time.Time) (kept bool, lost int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.After(c.keepUntil) {
		c.kept = nil
		return false, 0
	}
	for _, p := range bufs {
		c.kept = append(c.kept, slices.Clone(p))
	}
	lost = max(0, len(c.kept)-maxKept)
	c.kept = c.kept[lost:]
	return true, lost
}

// take returns what has waited for a path: an initiation, nil for none, and packets.
func (c *Carried) take(now time.Time) (initiation []byte, kept [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.heldAt.IsZero() {
		initiation = slices.Clone(c.held[:])
	}
	if !now.After(c.keepUntil) {
		kept = c.kept
	}
	c.heldAt, c.kept, c.keepUntil = time.Time{}, nil, time.Time{}
	return initiation, kept
}

// besides is the receive function of what comes by no UDP socket: the streams, and what is handed over.
type besides struct {
	streamReceiver
	handed <-chan handed
}

// receive is a conn.ReceiveFunc. It waits for a packet and takes what else is there.
func (r *besides) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	if r.current == nil {
		select {
		case <-r.closed:
			return 0, net.ErrClosed
		case h := <-r.handed:
			sizes[0], eps[0] = copy(bufs[0], h.message), h.endpoint
			return 1, nil
		case r.current = <-r.streams.inbox:
		}
	}
	return r.streamReceiver.receive(bufs, sizes, eps)
}

func isResponse(p []byte) bool {
	return len(p) == device.MessageResponseSize && p[0] == device.MessageResponseType
}
