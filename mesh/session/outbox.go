package session

import "sync"

// outbox is a bounded queue of frames towards one peer. When it is full the oldest frame is dropped: of gossip and
// signals the newest matter. A goroutine exists only while there is something to send.
type outbox struct {
	// constant; none of the functions is called with mu held
	limit int                // frames
	send  func([]byte) error // may block; an error ends the outbox
	spawn func(func()) bool  // starts a goroutine that the owner waits for; false when the owner has ended
	drop  func()             // counts a dropped frame

	mu      sync.Mutex // guards the rest
	queue   [][]byte
	running bool
	closed  bool
}

// push queues a frame, which the outbox then owns. It reports false when the outbox is closed.
func (o *outbox) push(frame []byte) bool {
	queued, dropped, idle := o.put(frame)
	if dropped {
		o.drop()
	}
	if idle && !o.spawn(o.drain) {
		o.close() // nobody is left to send
		return false
	}
	return queued
}

// put queues a frame. It reports whether it is queued, whether another one had to go for it, and whether nobody is draining: then the
// caller has to see to that.
func (o *outbox) put(frame []byte) (queued, dropped, idle bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false, false, false
	}
	if dropped = len(o.queue) >= o.limit; dropped {
		o.queue[0] = nil
		o.queue = o.queue[1:]
	}
	o.queue = append(o.queue, frame)
	idle, o.running = !o.running, true
	return true, dropped, idle
}

func (o *outbox) drain() {
	for {
		frame := o.next()
		if frame == nil {
			return
		}
		if o.send(frame) != nil {
			o.close()
		}
	}
}

// next takes the oldest frame; nil ends the draining goroutine.
func (o *outbox) next() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == 0 || o.closed {
		o.running, o.queue = false, nil
		return nil
	}
	frame := o.queue[0]
	o.queue[0] = nil
	o.queue = o.queue[1:]
	return frame
}

func (o *outbox) close() {
	o.mu.Lock()
	o.closed, o.queue = true, nil
	o.mu.Unlock()
}
