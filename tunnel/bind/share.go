package bind

import (
	"encoding/binary"
	"time"
)

/* Sharing the uplink of a relay
 *
 * What is to be forwarded waits in one queue for each source, that is for each member, and leaves in turns of equal size
 * (deficit round robin: Shreedhar and Varghese, 1995). A member that sends more than its share thereby only makes its
 * own queue longer; and when there is no room left, the longest queue gives way. So the others neither wait for it nor
 * lose anything to it. All is bounded, and nothing is allocated for a packet.
 */

const (
	// shareBytes is how much waits at most: 12 ms at 1 Gbit/s. With a limit on the rate it is what leaves in shareTime,
	// but no less than shareLeast, which holds a turn of every member of a small mesh.
	shareBytes = 1536 << 10
	shareTime  = 50 * time.Millisecond
	shareLeast = 64 << 10

	// blockRoom fits one UDP GSO message, or a packet of any size that WireGuard sends; blockFrames is the most that the
	// system makes packets of at once (UDP_MAX_SEGMENTS was 64 before Linux 6.9).
	blockRoom   = 64 << 10
	blockFrames = 64
	maxBlocks   = 64

	// A turn. A block is one UDP GSO message; with a limit it is what leaves in a millisecond, so that nobody waits long.
	// What is less than a packet is kept for the next turn.
	turnMost  = blockRoom
	turnLeast = 1500
)

// frame is one ChannelData message in a block.
type frame struct {
	forward    *forward
	start, end int
}

// block holds frames of one flow back to back.
type block struct {
	next       *block
	head, tail int // frames[head:tail] wait
	frames     [blockFrames]frame
	buf        [blockRoom]byte
}

// end is where the next frame begins.
func (b *block) end() int {
	if b.tail == 0 {
		return 0
	}
	return b.frames[b.tail-1].end
}

// flow is the queue of one source.
type flow struct {
	first, last *block
	bytes       int
	deficit     int
	next        *flow // in the ring of those that have something waiting
	waiting     bool
}

// share holds the queues and says what is next. It is not safe for concurrent use.
type share struct {
	rate  int // bytes a second, 0: no limit
	bytes int // waiting
	peak  int // of bytes, since it was last read

	blocks int // made so far
	free   *block
	last   *flow // of the ring; the next turn is last.next's

	tokens float64
	filled time.Time
}

// limit is how many bytes may wait.
func (s *share) limit() int {
	if s.rate == 0 {
		return shareBytes
	}
	return min(shareBytes, max(shareLeast, int(float64(s.rate)*shareTime.Seconds())))
}

func (s *share) turn() int {
	if s.rate == 0 {
		return turnMost
	}
	return min(turnMost, max(turnLeast, s.rate/1000))
}

// push appends one packet to a flow, and returns how many of others it has displaced and whether it was taken itself.
func (s *share) push(fl *flow, to *forward, payload []byte) (displaced int, taken bool) {
	size := channelHeaderSize + len(payload)
	if size > blockRoom {
		return 0, false
	}
	for s.bytes+size > s.limit() {
		longest := s.longest(fl)
		if longest == nil || !s.pop(longest) {
			return displaced, false
		}
		displaced++
	}
	b := fl.last
	if b == nil || b.tail == blockFrames || b.end()+size > blockRoom {
		var n int
		if b, n = s.block(fl); b == nil {
			return displaced + n, false
		}
		displaced += n
		if fl.last == nil {
			fl.first = b
		} else {
			fl.last.next = b
		}
		fl.last = b
	}
	start := b.end()
	binary.BigEndian.PutUint16(b.buf[start:], to.number)
	binary.BigEndian.PutUint16(b.buf[start+2:], uint16(len(payload)))
	copy(b.buf[start+channelHeaderSize:], payload)
	b.frames[b.tail] = frame{to, start, start + size}
	b.tail++
	fl.bytes += size
	s.bytes += size
	s.peak = max(s.peak, s.bytes)
	s.enter(fl)
	return displaced, true
}

// enter puts a flow at the end of the ring.
func (s *share) enter(fl *flow) {
	if fl.waiting {
		return
	}
	fl.waiting, fl.deficit = true, min(fl.deficit, 0) // what it has had too much of is not forgotten
	if s.last == nil {
		fl.next = fl
	} else {
		fl.next, s.last.next = s.last.next, fl
	}
	s.last = fl
}

// longest returns the flow with the most bytes waiting, nil if that is fl.
func (s *share) longest(fl *flow) (longest *flow) {
	most := fl.bytes
	if s.last == nil {
		return nil
	}
	for other := s.last.next; ; other = other.next {
		if other != fl && other.bytes > most {
			longest, most = other, other.bytes
		}
		if other == s.last {
			return longest
		}
	}
}

// pop drops the newest packet of a flow. The first block, of which a part may be on its way, stays where it is.
func (s *share) pop(fl *flow) bool {
	b := fl.last
	if b.tail == b.head {
		return false
	}
	b.tail--
	f := b.frames[b.tail]
	b.frames[b.tail] = frame{}
	f.forward.counters.dropped.Add(1)
	fl.bytes -= f.end - f.start
	s.bytes -= f.end - f.start
	if b.tail == b.head && b != fl.first {
		before := fl.first
		for before.next != b {
			before = before.next
		}
		before.next, fl.last = nil, before
		s.put(b)
	}
	return true
}

// block returns an empty one, if need be the last of the longest flow, and how many packets were in it.
func (s *share) block(fl *flow) (b *block, displaced int) {
	if s.free == nil && s.blocks < maxBlocks {
		s.blocks++
		return new(block), 0
	}
	for s.free == nil {
		longest := s.longest(fl)
		if longest == nil || longest.first == longest.last || !s.pop(longest) {
			return nil, displaced
		}
		displaced++
	}
	b, s.free = s.free, s.free.next
	b.next = nil
	return b, displaced
}

func (s *share) put(b *block) {
	clear(b.frames[:b.tail])
	b.head, b.tail = 0, 0
	b.next, s.free = s.free, b
}

// parcel is what leaves at once.
type parcel struct {
	list [][]byte // their capacity ends with what is back to back
	runs []forwardRun
	done *block // to be given back when it has left
}

// forwardRun is the next n frames of a parcel, to one destination.
type forwardRun struct {
	forward *forward
	n       int
	bytes   int // of payload
}

// add appends a run, to the one before if that has the same destination: they are then one call of the sockets, though
// not one message.
func (p *parcel) add(run forwardRun) {
	if last := len(p.runs) - 1; last >= 0 && p.runs[last].forward == run.forward {
		p.runs[last].n += run.n
		p.runs[last].bytes += run.bytes
		return
	}
	p.runs = append(p.runs, run)
}

// take fills an empty parcel with at most so many frames, in turns. When nothing may leave yet it returns for how long.
func (s *share) take(now time.Time, p *parcel, most int) (wait time.Duration) {
	s.release(p)
	if s.last == nil {
		return 0
	}
	budget := 1 << 30
	if s.rate > 0 {
		if budget = s.refill(now); budget <= 0 {
			return time.Duration(float64(s.turn()-budget) / float64(s.rate) * float64(time.Second))
		}
	}
	for s.last != nil && len(p.list) < most && budget > 0 {
		fl := s.last.next
		if fl.deficit < turnLeast {
			fl.deficit += s.turn()
		}
		spent := s.drain(fl, p, most, min(budget, fl.deficit))
		fl.deficit -= spent
		budget -= spent
		s.tokens -= float64(spent)
		switch {
		case fl.bytes == 0:
			s.leave(fl, p)
		case fl.deficit < turnLeast:
			s.last = fl
		}
	}
	return 0
}

// refill lets the allowance grow: at most two turns, or what comes in a few milliseconds, since timers are that late.
func (s *share) refill(now time.Time) (tokens int) {
	burst := max(float64(2*s.turn()), float64(s.rate)/200)
	if s.filled.IsZero() {
		s.tokens = burst
	}
	s.tokens = min(burst, s.tokens+now.Sub(s.filled).Seconds()*float64(s.rate))
	s.filled = now
	return int(s.tokens)
}

// drain moves frames of a flow into the parcel until their size reaches the budget.
func (s *share) drain(fl *flow, p *parcel, most, budget int) (spent int) {
	for spent < budget && len(p.list) < most && fl.bytes > 0 {
		b := fl.first
		if b.head == b.tail { // its rest was dropped
			s.detach(fl, p)
			continue
		}
		from := b.head
		to := b.frames[from].forward
		run := forwardRun{forward: to}
		for b.head < b.tail && b.frames[b.head].forward == to && spent < budget && len(p.list)+run.n < most {
			size := b.frames[b.head].end - b.frames[b.head].start
			spent += size
			fl.bytes -= size
			s.bytes -= size
			run.n++
			run.bytes += size - channelHeaderSize
			b.head++
		}
		// The bind below coalesces for GSO by appending to the first packet, and finds the next ones already in place.
		end := b.frames[b.head-1].end
		for _, f := range b.frames[from:b.head] {
			p.list = append(p.list, b.buf[f.start:f.end:end])
		}
		p.add(run)
		if b.head == b.tail {
			s.detach(fl, p)
			if budget-spent < turnLeast {
				return spent // the rest of the turn would be a small message by itself
			}
		}
	}
	return spent
}

// detach takes a flow's first block away, of which everything has left or is in the parcel.
func (s *share) detach(fl *flow, p *parcel) {
	b := fl.first
	if fl.first = b.next; fl.first == nil {
		fl.last = nil
	}
	b.next, p.done = p.done, b
}

// leave takes a flow that has nothing waiting out of the ring. It is the one whose turn it is.
func (s *share) leave(fl *flow, p *parcel) {
	for fl.first != nil {
		s.detach(fl, p)
	}
	if fl.next == fl {
		s.last = nil
	} else {
		s.last.next = fl.next
	}
	fl.next, fl.waiting = nil, false
}

// release empties a parcel that has left.
func (s *share) release(p *parcel) {
	for p.done != nil {
		b := p.done
		p.done = b.next
		s.put(b)
	}
	clear(p.list)
	clear(p.runs)
	p.list, p.runs = p.list[:0], p.runs[:0]
}
