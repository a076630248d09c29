//go:build linux

package natlab

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"time"
)

// maxHeld bounds the packets on their way in one direction: full ones are 75 MB.
const maxHeld = 50_000

// wire decides when each packet of one direction arrives. It is a pure machine: packets go in with the time, and come out with the
// time. Loss comes first, then the wait for the rate, then the way.
type wire struct {
	rng     *rand.Rand
	carried Carried

	held flight
	seq  uint64
	free time.Time // when the packet that was accepted last has been sent
	last time.Time // when the packet that was accepted last arrives
}

// newWire makes one. The same seed and direction draw the same.
func newWire(seed, direction uint64) *wire { return &wire{rng: rand.New(rand.NewPCG(seed, direction))} }

// push takes a copy of a frame that begins to be sent now, or loses it.
func (w *wire) push(now time.Time, l Line, frame []byte) {
	if l.Loss > 0 && w.rng.Float64() < l.Loss {
		w.carried.Lost++
		return
	}
	sent := now
	if l.Rate > 0 {
		takes := func(bytes int) time.Duration {
			return time.Duration(float64(8*bytes) / float64(l.Rate) * float64(time.Second))
		}
		queue := l.Queue
		if queue == 0 {
			queue = max(100*time.Millisecond, takes(8*1514))
		}
		if w.free.After(now) {
			sent = w.free
		}
		if sent.Sub(now) > queue {
			w.carried.Overflowed++
			return
		}
		sent = sent.Add(takes(len(frame)))
	}
	if len(w.held) == maxHeld {
		w.carried.Overflowed++
		return
	}
	w.free = sent
	at := sent.Add(l.Delay)
	if l.Jitter > 0 {
		at = at.Add(time.Duration(w.rng.Int64N(int64(l.Jitter))))
	} else if at.Before(w.last) {
		at = w.last // the line has just become shorter: what is ahead stays ahead
	}
	w.last = at
	w.seq++
	w.carried.Packets++
	w.carried.Bytes += int64(len(frame))
	heap.Push(&w.held, packet{at, w.seq, slices.Clone(frame)})
}

// pop returns a frame that has arrived by now, the earliest first, or nil.
func (w *wire) pop(now time.Time) []byte {
	if len(w.held) == 0 || w.held[0].at.After(now) {
		return nil
	}
	return heap.Pop(&w.held).(packet).frame
}

// next is when the next packet arrives; the zero time: there is none.
func (w *wire) next() time.Time {
	if len(w.held) == 0 {
		return time.Time{}
	}
	return w.held[0].at
}

// packet is one frame on its way.
type packet struct {
	at    time.Time
	seq   uint64 // among those that arrive at the same time
	frame []byte
}

// flight is a heap of what is on its way, the earliest first.
type flight []packet

func (f flight) Len() int { return len(f) }
func (f flight) Less(i, j int) bool {
	if !f[i].at.Equal(f[j].at) {
		return f[i].at.Before(f[j].at)
	}
	return f[i].seq < f[j].seq
}
func (f flight) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *flight) Push(x any)   { *f = append(*f, x.(packet)) }
func (f *flight) Pop() any {
	old := *f
	p := old[len(old)-1]
	old[len(old)-1] = packet{}
	*f = old[:len(old)-1]
	return p
}
