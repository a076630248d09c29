package bind

import (
	"encoding/binary"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// Relaying is split in two, because sending waits when the uplink is full and receiving must not: the receive
// functions copy what is to be forwarded, sorted by destination, into a batch, and one goroutine per opened
// socket pair sends batches. There are eight batches, about a thousand packets; when all are under way, the
// newest packets are dropped and counted.
const (
	forwardBatches = 8

	// arenaSize fits a full receive batch (128) of full-sized packets.
	arenaSize = conn.IdealBatchSize * 1500
)

// frames is a run of ChannelData messages, back to back in one arena. The slices have capacity up to the arena's
// end, so that the bind below, which coalesces for UDP GSO by appending to the first packet, finds the bytes
// of the next ones already in place.
type frames struct {
	arena []byte
	list  [][]byte
}

func newFrames() *frames {
	return &frames{arena: make([]byte, 0, arenaSize), list: make([][]byte, 0, conn.IdealBatchSize)}
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

// batch is what one call of a receive function hands to the forwarder.
type batch struct {
	frames
	runs []forwardRun
}

// forwardRun is the next n frames of a batch, all to one destination.
type forwardRun struct {
	forward *forward
	n       int
	bytes   int
}

// forwarder sends batches. It lives as long as the sockets are open.
type forwarder struct {
	// constant after newForwarder
	bind *Bind
	free chan *batch
	full chan *batch
	done chan struct{}

	running sync.WaitGroup
}

func newForwarder(b *Bind) *forwarder {
	f := &forwarder{
		bind: b,
		free: make(chan *batch, forwardBatches),
		full: make(chan *batch, forwardBatches),
		done: make(chan struct{}),
	}
	for range forwardBatches {
		f.free <- new(batch) // the arena is made when first needed: most nodes never relay
	}
	f.running.Go(f.run)
	return f
}

// stop ends the goroutine and waits for it. The sockets must be closed, so that it cannot be waiting for them.
func (f *forwarder) stop() {
	close(f.done)
	f.running.Wait()
}

func (f *forwarder) run() {
	for {
		select {
		case <-f.done:
			return
		case b := <-f.full:
			f.send(b)
			b.reset()
			clear(b.runs)
			b.runs = b.runs[:0]
			f.free <- b
		}
	}
}

func (f *forwarder) send(b *batch) {
	now := time.Now().UnixNano()
	list := b.list
	for _, run := range b.runs {
		c := run.forward.counters
		if err := retried(f.bind.inner.Send(list[:run.n], run.forward.to)); err != nil {
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

// pending is a received packet that is to be forwarded.
type pending struct {
	forward *forward // nil: done
	payload []byte
}

// enqueue copies the packets, grouped by destination and otherwise in order, and never waits.
func (f *forwarder) enqueue(todo []pending) {
	var b *batch
	for i := range todo {
		to := todo[i].forward
		if to == nil {
			continue
		}
		n, bytes := 0, 0
		for j := i; j < len(todo); j++ {
			if todo[j].forward != to {
				continue
			}
			todo[j].forward = nil
			if b == nil {
				b = f.take()
			}
			if b != nil && !b.add(to.number, todo[j].payload) {
				f.submit(b, to, n, bytes)
				n, bytes = 0, 0
				if b = f.take(); b != nil && !b.add(to.number, todo[j].payload) {
					f.drop(to, 1)
					continue
				}
			}
			if b == nil {
				f.drop(to, 1)
				continue
			}
			n++
			bytes += len(todo[j].payload)
		}
		if b != nil && n > 0 {
			b.runs = append(b.runs, forwardRun{to, n, bytes})
		}
	}
	if b != nil {
		f.full <- b
	}
}

// submit hands b over, with n frames to one destination that are not yet noted as a run.
func (f *forwarder) submit(b *batch, to *forward, n, bytes int) {
	if n > 0 {
		b.runs = append(b.runs, forwardRun{to, n, bytes})
	}
	f.full <- b // never waits: it has room for every batch there is
}

// take returns an empty batch, or nil if all are under way.
func (f *forwarder) take() *batch {
	select {
	case b := <-f.free:
		if b.arena == nil {
			b.frames = *newFrames()
		}
		return b
	default:
		return nil
	}
}

func (f *forwarder) drop(to *forward, n int) {
	f.bind.drops.add(DropForwardQueue, n)
	to.counters.dropped.Add(uint64(n))
}
