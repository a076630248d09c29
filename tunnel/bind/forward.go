package bind

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
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

// ForwardCounters counts what one direction of a relayed path has carried.
type ForwardCounters struct {
	packets, bytes, dropped atomic.Uint64
	last                    atomic.Int64
}

// ForwardStats is what ForwardCounters has counted. Bytes are payload without the ChannelData header.
type ForwardStats struct {
	Packets, Bytes, Dropped uint64
	Last                    time.Time // of the last packet; zero: never
}

// Load returns the counts so far.
func (c *ForwardCounters) Load() ForwardStats {
	return ForwardStats{
		Packets: c.packets.Load(), Bytes: c.bytes.Load(), Dropped: c.dropped.Load(), Last: timeOf(c.last.Load()),
	}
}

// forward is an immutable entry of the relay's table.
type forward struct {
	number   uint16
	to       *hop
	flow     *flow // of whoever sends it
	counters *ForwardCounters
}

// source is the flow of one address, and how many forwards begin there.
type source struct {
	flow  flow
	count int
}

// Forwards are what this node relays for others: which ChannelData, and how much of it. They outlive the sockets. All methods
// may be called concurrently.
type Forwards struct {
	// constant after newForwards
	routes  *routes
	streams *Streams

	// guarded by routes.mu
	flows map[netip.AddrPort]*source // by underlay address or stream

	// guarded by mu: the queues between the receive functions and the forwarder
	mu    sync.Mutex
	share share
}

func newForwards(r *routes, s *Streams) *Forwards {
	return &Forwards{routes: r, streams: s, flows: make(map[netip.AddrPort]*source)}
}

// Set makes this node relay: ChannelData from one half leaves to the other with the other's channel number. It
// is one direction; a relayed path needs two. Setting a half again moves it and goes on counting.
func (f *Forwards) Set(from, to Half) (*ForwardCounters, error) {
	from, to = from.normal(), to.normal()
	for _, half := range []Half{from, to} {
		if err := half.check(); err != nil {
			return nil, fmt.Errorf("set forward: %w", err)
		}
	}
	f.routes.mu.Lock()
	defer f.routes.mu.Unlock()
	old := f.routes.of(from)
	if old.own != nil {
		return nil, fmt.Errorf("set forward from channel %#04x at %v: %w", from.Channel, from.Addr, ErrChannelInUse)
	}
	next := &forward{number: to.Channel, to: f.streams.hopTo(to.Addr)}
	if old.forward != nil {
		next.counters, next.flow = old.forward.counters, old.forward.flow
	} else {
		next.counters, next.flow = new(ForwardCounters), f.flow(from.Addr)
	}
	f.routes.put(from, route{forward: next})
	return next.counters, nil
}

// Remove ends what Set began; it does not touch the other direction.
func (f *Forwards) Remove(from Half) {
	from = from.normal()
	f.routes.mu.Lock()
	defer f.routes.mu.Unlock()
	if f.routes.of(from).forward == nil {
		return
	}
	f.routes.remove(from)
	if s := f.flows[from.Addr]; s.count > 1 {
		s.count--
	} else {
		delete(f.flows, from.Addr)
	}
}

// SetLimit bounds what is forwarded, in bytes a second; 0: no limit.
func (f *Forwards) SetLimit(rate int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.share.rate = max(0, rate)
}

// Fill returns how full the queues have been since it was last asked, between 0 and 1.
func (f *Forwards) Fill() float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	peak := f.share.peak
	f.share.peak = f.share.bytes
	return min(1, float64(peak)/float64(f.share.limit()))
}

// flow returns that of a source, for one forward more. The caller holds mu.
func (f *Forwards) flow(from netip.AddrPort) *flow {
	s := f.flows[from]
	if s == nil {
		s = new(source)
		f.flows[from] = s
	}
	s.count++
	return &s.flow
}

// forwarder sends what waits. It lives as long as the sockets are open.
type forwarder struct {
	// constant after newForwarder
	forwards *Forwards
	out      *outlet
	most     int // packets the sockets take at once
	wake     chan struct{}
	done     chan struct{}

	running sync.WaitGroup
}

func newForwarder(f *Forwards, out *outlet, most int) *forwarder {
	r := &forwarder{forwards: f, out: out, most: most, wake: make(chan struct{}, 1), done: make(chan struct{})}
	r.running.Go(r.run)
	return r
}

// stop ends the goroutine and waits for it. The sockets must be closed, so that it cannot be waiting for them.
func (f *forwarder) stop() {
	close(f.done)
	f.running.Wait()
}

// enqueue copies the packets, grouped by destination and otherwise in order, and never waits. It clears todo.
func (f *forwarder) enqueue(todo []pending) {
	dropped := 0
	f.forwards.mu.Lock()
	for i := range todo {
		to := todo[i].forward
		if to == nil {
			continue
		}
		for j := i; j < len(todo); j++ {
			if todo[j].forward != to {
				continue
			}
			displaced, taken := f.forwards.share.push(to.flow, to, todo[j].payload)
			dropped += displaced
			if !taken {
				dropped++
				to.counters.dropped.Add(1)
			}
			todo[j] = pending{}
		}
	}
	f.forwards.mu.Unlock()
	if dropped > 0 {
		f.out.drops.add(DropForwardQueue, dropped)
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
		f.forwards.mu.Lock()
		wait := f.forwards.share.take(time.Now(), p, f.most)
		f.forwards.mu.Unlock()
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
	now := nanos()
	list := p.list
	for _, run := range p.runs {
		c := run.forward.counters
		if err := retried(f.out.sendHop(run.forward.to, list[:run.n])); err != nil {
			f.out.drops.add(DropForwardFailed, run.n)
			c.dropped.Add(uint64(run.n))
		} else {
			c.packets.Add(uint64(run.n))
			c.bytes.Add(uint64(run.bytes))
			c.last.Store(now)
		}
		list = list[run.n:]
	}
}
