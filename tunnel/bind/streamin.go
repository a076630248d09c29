package bind

import (
	"encoding/binary"
	"net"

	"golang.zx2c4.com/wireguard/conn"
)

// wholeFrames returns how many bytes at the beginning of p are whole frames. It reports false when what follows them
// can be no frame: then the stream has lost its way.
func wholeFrames(p []byte) (n int, ok bool) {
	for len(p)-n >= streamHeaderSize {
		size := int(binary.BigEndian.Uint16(p[n:]))
		if size > maxStreamPacket {
			return n, false
		}
		if len(p)-n < streamHeaderSize+size {
			break
		}
		n += streamHeaderSize + size
	}
	return n, true
}

// next returns the next packet of a chunk of whole frames, empty ones left out; nil when there is none.
func (c *chunk) next() []byte {
	for c.start < c.end {
		size := int(binary.BigEndian.Uint16(c.buf[c.start:]))
		p := c.buf[c.start+streamHeaderSize:][:size]
		c.start += streamHeaderSize + size
		if size > 0 {
			return p
		}
	}
	return nil
}

// read is the reader's goroutine. It hands over whole frames by the chunk. When the inbox is full it waits, so that
// TCP slows the far side down, whose queue then drops the oldest.
func (s *stream) read() {
	defer s.finish()
	all := s.all
	c := all.get()
	for {
		n, err := s.conn.Read(c.buf[c.end:])
		c.end += n
		whole, ok := wholeFrames(c.buf[:c.end])
		if whole > 0 {
			rest := all.get()
			rest.end = copy(rest.buf[:], c.buf[whole:c.end])
			c.end, c.from = whole, s
			select {
			case all.inbox <- c:
			case <-s.stop:
				return
			}
			c = rest
		}
		if !ok {
			s.all.drops.add(DropStreamBroken, 1)
			return
		}
		if err != nil {
			return
		}
	}
}

// streamReceiver is the receive function of all streams. Only the one goroutine that calls it touches current.
type streamReceiver struct {
	streams *Streams
	closed  <-chan struct{}
	current *chunk
}

// receive is a conn.ReceiveFunc. It waits for a packet and takes what else is there.
func (r *streamReceiver) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	select {
	case <-r.closed:
		return 0, net.ErrClosed
	default:
	}
	all := r.streams
	n := 0
	for n < len(bufs) {
		if r.current == nil && n == 0 {
			select {
			case r.current = <-all.inbox:
			case <-r.closed:
				return 0, net.ErrClosed
			}
		} else if r.current == nil {
			select {
			case r.current = <-all.inbox:
			default:
				return n, nil
			}
		}
		p := r.current.next()
		switch {
		case p == nil:
			all.put(r.current)
			r.current = nil
		case r.current.from.quicOnly && Classify(p) != QUIC:
			r.streams.drops.add(DropStreamRefused, 1)
		default:
			sizes[n] = copy(bufs[n], p)
			eps[n] = r.current.from.endpoint
			n++
		}
	}
	return n, nil
}
