package bind

import (
	"encoding/binary"
	"sync"
	"time"
)

// Relaying is split in two, because sending waits when the uplink is full and receiving must not. The receive
// functions copy what is to be forwarded, sorted by destination, into queues (share.go); a goroutine, one per open
// pair of sockets, takes from them in turns and sends meanwhile. So a lone packet leaves at once and a flood in large
// batches. What does not fit is dropped and counted.

// roomPerPacket is what an arena has for each packet: an Ethernet frame. Larger ones take the room of several.
const roomPerPacket = 1500

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

// pending is a received packet that is to be forwarded.
type pending struct {
	forward *forward // nil: done
	payload []byte
}

// forwards are the queues between the receive functions and the forwarder. They outlive the sockets.
type forwards struct {
	// guarded by mu
	mu    sync.Mutex
	share share
}

// SetRelayLimit bounds what this node forwards for others, in bytes a second; 0: no limit.
func (b *Bind) SetRelayLimit(rate int) {
	f := &b.forwards
	f.mu.Lock()
	defer f.mu.Unlock()
	f.share.rate = max(0, rate)
}

// RelayFill returns how full the queues to be forwarded have been since it was last asked, between 0 and 1.
func (b *Bind) RelayFill() float64 {
	f := &b.forwards
	f.mu.Lock()
	defer f.mu.Unlock()
	peak := f.share.peak
	f.share.peak = f.share.bytes
	return min(1, float64(peak)/float64(f.share.limit()))
}

// forwarder sends what waits. It lives as long as the sockets are open.
type forwarder struct {
	// constant after newForwarder
	bind *Bind
	most int // packets the sockets take at once
	wake chan struct{}
	done chan struct{}

	running sync.WaitGroup
}

func newForwarder(b *Bind) *forwarder {
	f := &forwarder{
		bind: b, most: b.inner.BatchSize(),
		wake: make(chan struct{}, 1),
		done: make(chan struct{}),
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
	dropped := 0
	f.bind.forwards.mu.Lock()
	for i := range todo {
		to := todo[i].forward
		if to == nil {
			continue
		}
		for j := i; j < len(todo); j++ {
			if todo[j].forward != to {
				continue
			}
			displaced, taken := f.bind.forwards.share.push(to.flow, to, todo[j].payload)
			dropped += displaced
			if !taken {
				dropped++
				to.counters.dropped.Add(1)
			}
			todo[j] = pending{}
		}
	}
	f.bind.forwards.mu.Unlock()
	if dropped > 0 {
		f.bind.drops.add(DropForwardQueue, dropped)
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *forwarder) run() {
	p := &parcel{list: make([][]byte, 0, f.most), runs: make([]forwardRun, 0, f.most)}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		f.bind.forwards.mu.Lock()
		wait := f.bind.forwards.share.take(time.Now(), p, f.most)
		f.bind.forwards.mu.Unlock()
		if len(p.runs) > 0 {
			f.send(p)
			continue
		}
		if wait > 0 {
			timer.Reset(wait)
			select {
			case <-f.done:
				return
			case <-timer.C:
			}
			continue
		}
		select {
		case <-f.done:
			return
		case <-f.wake:
		}
	}
}

func (f *forwarder) send(p *parcel) {
	now := time.Now().UnixNano()
	list := p.list
	for _, run := range p.runs {
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
