package session

import "sync"

// outbox is a bounded queue of frames towards one peer. When it is full the oldest frame is dropped: of gossip and
// signals the newest matter. A goroutine exists only while there is something to send.
type outbox struct {
	limit int                // constant: frames
	send  func([]byte) error // constant: may block; an error ends the outbox
	spawn func(func())       // constant: starts a goroutine that the owner waits for
	drop  func()             // constant: counts a dropped frame

	mu      sync.Mutex // guards the rest
	queue   [][]byte
	running bool
	closed  bool
}

// push queues a frame, which the outbox then owns. It reports false when the outbox is closed.
func (o *outbox) push(frame []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	if len(o.queue) >= o.limit {
		o.queue[0] = nil
		o.queue = o.queue[1:]
		o.drop()
	}
	o.queue = append(o.queue, frame)
	if !o.running {
		o.running = true
		o.spawn(o.drain)
	}
	return true
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
