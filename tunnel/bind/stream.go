package bind

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

/* Streams: datagrams over a connection, for networks that drop UDP
 *
 * A stream is a reliable connection, in practice TLS over TCP, that carries datagrams, each as a frame:
 *
 *	 0                   1
 *	+-------------------+----------------------------+
 *	| length, big endian | as many bytes of datagram |
 *	+-------------------+----------------------------+
 *
 * A frame of length 0 means nothing. A length above maxStreamPacket ends the stream, since no such packet is ever sent.
 *
 * Each stream has a virtual address. What comes in is dealt with as if it had come by UDP from there (its reader fills
 * chunks, and one more receive function takes the packets out of them: streamin.go); what is sent there, by whichever
 * way, waits in the stream's queue for its writer.
 */

const (
	maxStreams = 512 // a few megabytes of buffers per hundred

	// maxStreamPacket is more than WireGuard sends with the MTU of jumbo frames (9,000).
	maxStreamPacket = 10 << 10

	streamHeaderSize = 2

	// chunkSize is the plaintext of one TLS record (RFC 8446, section 5.1), so that a full chunk is one record.
	chunkSize = 16 << 10

	// streamQueue is how many chunks wait towards one stream: more than the device sends at once (128 packets).
	streamQueue = 16

	// streamWait is how long packets may wait for TCP. What comes later than that is of no use to a call, and tells the
	// TCP inside too late to slow down: an uplink of 5 Mbit/s would need twice as long for a full queue.
	streamWait = 200 * time.Millisecond

	// streamInbox is how many received chunks wait for the receive function. Then the readers wait, and TCP with them.
	streamInbox = 32
)

// ErrTooManyStreams is wrapped by the error of Attach at the limit.
var ErrTooManyStreams = errors.New("too many streams")

// StreamOptions say what a stream may carry.
type StreamOptions struct {
	QUICOnly bool // inward, nothing but QUIC: the far side has not proved to be a member
}

// stream is one attached connection.
type stream struct {
	// constant after Attach
	all      *Streams
	conn     net.Conn
	quicOnly bool
	endpoint *conn.StdNetEndpoint // the virtual address as a packet's source; shared and never written
	wake     chan struct{}
	stop     chan struct{}
	done     chan struct{}

	once    sync.Once
	running sync.WaitGroup // the writer, and the closing of conn

	// guarded by mu
	mu    sync.Mutex
	queue [streamQueue]*chunk
	head  int
	count int
	ended bool
}

// chunk holds whole frames, back to back; a stream's reader also has the beginning of the next one in it.
type chunk struct {
	from       *stream // of what was received
	start, end int
	frames     int       // of what is to be sent
	since      time.Time // the same: when the first of them came
	buf        [chunkSize]byte
}

// Streams are the attached streams, by virtual address. They outlive closing and opening of the bind. All methods may be
// called concurrently. Readers of the table load an immutable map; each change replaces it.
type Streams struct {
	// constant after newStreams
	drops  *drops
	inbox  chan *chunk
	chunks sync.Pool // of *chunk

	// atomic
	table atomic.Pointer[map[netip.AddrPort]*stream]

	// guarded by mu
	mu     sync.Mutex
	serial uint64
}

func newStreams(drops *drops) *Streams {
	s := &Streams{drops: drops, inbox: make(chan *chunk, streamInbox), chunks: sync.Pool{New: func() any { return new(chunk) }}}
	s.table.Store(&map[netip.AddrPort]*stream{})
	return s
}

// byVirtual returns the attached stream with this virtual address, or nil.
func (s *Streams) byVirtual(a netip.AddrPort) *stream { return (*s.table.Load())[a] }

func (s *Streams) get() *chunk {
	c := s.chunks.Get().(*chunk)
	c.from, c.start, c.end, c.frames = nil, 0, 0, 0
	return c
}

func (s *Streams) put(c *chunk) { s.chunks.Put(c) }

// Attach takes over a connection that carries framed datagrams and returns the virtual address that stands for
// its far end, to be used like an underlay address: as an endpoint's path, in both lanes, as the relay of a channel and
// as a half of a forward. Addresses are never used again. The channel closes when the stream has ended and conn is
// closed; conn's deadlines stay the caller's. At most 512 streams can be attached; then the error wraps
// ErrTooManyStreams, and conn stays the caller's.
func (s *Streams) Attach(c net.Conn, o StreamOptions) (virtual netip.AddrPort, done <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(*s.table.Load()) >= maxStreams {
		return netip.AddrPort{}, nil, fmt.Errorf("attach stream: %w", ErrTooManyStreams)
	}
	s.serial++
	virtual = virtualAddr(virtualStream, s.serial)
	one := &stream{
		all: s, conn: c, quicOnly: o.QUICOnly, endpoint: &conn.StdNetEndpoint{AddrPort: virtual},
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	next := maps.Clone(*s.table.Load())
	next[virtual] = one
	s.table.Store(&next)
	one.running.Go(one.write)
	go one.read()
	return virtual, one.done, nil
}

// Detach ends a stream; it does not wait for that. Whoever has the address drops what it sends there.
func (s *Streams) Detach(virtual netip.AddrPort) {
	if one := s.byVirtual(virtual); one != nil {
		one.end()
	}
}

// end begins the end of the stream. Closing may wait for the far side, so it has a goroutine of its own.
func (s *stream) end() {
	s.once.Do(func() {
		close(s.stop)
		s.running.Go(func() { s.conn.Close() })
	})
}

// finish takes the stream out of the table when its goroutines but the calling one have ended.
func (s *stream) finish() {
	s.end()
	s.running.Wait()
	all := s.all
	all.mu.Lock()
	next := maps.Clone(*all.table.Load())
	delete(next, s.endpoint.AddrPort)
	all.table.Store(&next)
	all.mu.Unlock()

	s.mu.Lock()
	s.ended = true
	for s.count > 0 {
		c := s.pop()
		s.all.drops.add(DropStreamGone, c.frames)
		all.put(c)
	}
	s.mu.Unlock()
	close(s.done)
}

// send queues packets for the writer and never waits. When the queue is full, the oldest chunk of it is dropped, and so is
// what has waited for longer than streamWait when the writer comes to it.
func (s *stream) send(bufs [][]byte) {
	now := time.Now()
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		s.all.drops.add(DropStreamGone, len(bufs))
		return
	}
	for _, p := range bufs {
		if len(p) > maxStreamPacket {
			s.all.drops.add(DropTooLarge, 1)
			continue
		}
		c := s.room(now, streamHeaderSize+len(p))
		binary.BigEndian.PutUint16(c.buf[c.end:], uint16(len(p)))
		c.end += streamHeaderSize
		c.end += copy(c.buf[c.end:], p)
		c.frames++
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// room returns the last chunk of the queue, or a new one, with size bytes free. An old one is not added to, or what is new
// would be dropped with it. The caller holds mu.
func (s *stream) room(now time.Time, size int) *chunk {
	if s.count > 0 {
		last := s.queue[(s.head+s.count-1)%streamQueue]
		if last.end+size <= chunkSize && now.Sub(last.since) < streamWait/4 {
			return last
		}
	}
	c := s.all.get()
	c.since = now
	if s.count == streamQueue {
		s.drop(s.pop())
	}
	s.queue[(s.head+s.count)%streamQueue] = c
	s.count++
	return c
}

// pop takes the oldest chunk out of the queue, which is not empty. The caller holds mu.
func (s *stream) pop() *chunk {
	c := s.queue[s.head]
	s.queue[s.head] = nil
	s.head = (s.head + 1) % streamQueue
	s.count--
	return c
}

func (s *stream) drop(c *chunk) {
	s.all.drops.add(DropStreamQueue, c.frames)
	s.all.put(c)
}

// take returns the oldest chunk that has not waited too long, or nil.
func (s *stream) take() *chunk {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.count > 0 {
		c := s.pop()
		if time.Since(c.since) <= streamWait {
			return c
		}
		s.drop(c)
	}
	return nil
}

// write is the writer's goroutine: a lone packet leaves at once, and what comes meanwhile leaves together.
func (s *stream) write() {
	defer s.end()
	for {
		c := s.take()
		if c == nil {
			select {
			case <-s.wake:
				continue
			case <-s.stop:
				return
			}
		}
		_, err := s.conn.Write(c.buf[:c.end])
		if err != nil {
			s.all.drops.add(DropStreamGone, c.frames)
		}
		s.all.put(c)
		if err != nil {
			return
		}
	}
}
