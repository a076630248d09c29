package bind

import (
	"encoding/binary"
	"sync"
	"time"
)

// Relaying is split in two, because sending waits when the uplink is full and receiving must not. The receive
// functions copy what is to be forwarded, sorted by destination, into one batch; a goroutine, one per open
// pair of sockets, sends another meanwhile, and the two change places. So a lone packet leaves at once and a
// flood in large batches. What does not fit is dropped and counted, the newest first.

const (
	// forwardQueue is how many packets wait at most: 12 ms at 1 Gbit/s.
	forwardQueue = 1024

	// roomPerPacket is what an arena has for each packet: an Ethernet frame. Larger ones take the room of several.
	roomPerPacket = 1500
)

// frames is a run of ChannelData messages, back to back in one arena. The slices have capacity up to the arena's
// end, so that the bind below, which coalesces for UDP GSO by appending to the first packet, finds the bytes
// of the next ones already in place.
type frames struct {
	arena []byte
	list  [][]byte
}

func newFrames(packets int) *frames {
	return &frames{arena: make([]byte, 0, packets*roomPerPacket), list: make([][]byte, 0, packets)}
}

// add appends payload under a channel number; it reports false if there is no room.
func (f *frames) add(number uint16, payload []byte) bool {
	start := len(f.arena)
	if start+channelHeaderSize+len(payload) > cap(f.arena) || len(f.list) == cap(f.list) || len(payload) > 0xFFFF {
		return false
	}
	f.arena = binary.BigEndian.AppendUint16(f.arena, number)
	f.arena = binary.BigEndian.AppendUint16(f.arena, uint16(len(payload)))
	f.arena = append(f.arena, payload...)
	f.list = append(f.list, f.arena[start:])
	return true
}

func (f *frames) reset() {
	f.arena, f.list = f.arena[:0], f.list[:0]
}

// batch is frames with their destinations.
type batch struct {
	*frames
	runs []forwardRun
}

// forwardRun is the next n frames of a batch, all to one destination, and no more than the sockets take at once.
type forwardRun struct {
	forward *forward
	n       int
	bytes   int
}

// add appends one packet; it reports false if there is no room.
func (b *batch) add(to *forward, payload []byte, most int) bool {
	if b.frames == nil {
		b.frames = newFrames(forwardQueue) // only now: most nodes never relay
	}
	if !b.frames.add(to.number, payload) {
		return false
	}
	if last := len(b.runs) - 1; last < 0 || b.runs[last].forward != to || b.runs[last].n == most {
		b.runs = append(b.runs, forwardRun{forward: to})
	}
	run := &b.runs[len(b.runs)-1]
	run.n++
	run.bytes += len(payload)
	return true
}

func (b *batch) reset() {
	b.frames.reset()
	clear(b.runs)
	b.runs = b.runs[:0]
}

// pending is a received packet that is to be forwarded.
type pending struct {
	forward *forward // nil: done
	payload []byte
}

// forwarder sends batches. It lives as long as the sockets are open.
type forwarder struct {
	// constant after newForwarder
	bind *Bind
	most int // packets the sockets take at once
	wake chan struct{}
	done chan struct{}

	running sync.WaitGroup

	// guarded by mu
	mu      sync.Mutex
	filling *batch
}

func newForwarder(b *Bind) *forwarder {
	f := &forwarder{
		bind: b, most: b.inner.BatchSize(),
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
		filling: new(batch),
	}
	f.running.Go(f.run)
	return f
}

// stop ends the goroutine and waits for it. The sockets must be closed, so that it cannot be waiting for them.
func (f *forwarder) stop() {
	close(f.done)
	f.running.Wait()
}

// enqueue copies the packets, grouped by destination and otherwise in order, and never waits. It clears todo.
func (f *forwarder) enqueue(todo []pending) {
	f.mu.Lock()
	for i := range todo {
		to := todo[i].forward
		if to == nil {
			continue
		}
		for j := i; j < len(todo); j++ {
			if todo[j].forward != to {
				continue
			}
			if !f.filling.add(to, todo[j].payload, f.most) {
				f.bind.drops.add(DropForwardQueue, 1)
				to.counters.dropped.Add(1)
			}
			todo[j] = pending{}
		}
	}
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *forwarder) run() {
	sending := new(batch)
	for {
		select {
		case <-f.done:
			return
		case <-f.wake:
		}
		f.mu.Lock()
		sending, f.filling = f.filling, sending
		f.mu.Unlock()
		if len(sending.runs) > 0 {
			f.send(sending)
			sending.reset()
		}
	}
}

func (f *forwarder) send(b *batch) {
	now := time.Now().UnixNano()
	list := b.list
	for _, run := range b.runs {
		c := run.forward.counters
		if err := retried(f.bind.sendHop(run.forward.to, list[:run.n])); err != nil {
			f.bind.drops.add(DropForwardFailed, run.n)
			c.dropped.Add(uint64(run.n))
		} else {
			c.packets.Add(uint64(run.n))
			c.bytes.Add(uint64(run.bytes))
			c.last.Store(now)
		}
		list = list[run.n:]
	}
}
