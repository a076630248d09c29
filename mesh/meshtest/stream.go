package meshtest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"warren/mesh/identity"
)

// end is one end of a stream: what it writes can be read at the other after the latency.
type end struct {
	net        *Net
	self, peer identity.NodeID
	in, out    *half
	direct     bool // over one link
	bytes      *int // in Traffic; guarded by net.mu
}

// Direct reports whether nobody forwards the stream, as that of mesh/session does.
func (e *end) Direct() bool { return e.direct }

// half is one direction of a stream. It takes any amount without blocking the writer.
type half struct {
	latency time.Duration

	mu       sync.Mutex
	chunks   []chunk
	end      error // after the chunks; nil: more may come
	deadline time.Time
	changed  chan struct{} // closed and replaced at each change
}

type chunk struct {
	ready time.Time
	data  []byte
}

func newStream(n *Net, from, to identity.NodeID, hops int, bytes *int) (near, far *end) {
	latency, direct := time.Duration(hops)*n.latency, hops == 1
	forth := &half{latency: latency, changed: make(chan struct{})}
	back := &half{latency: latency, changed: make(chan struct{})}
	near = &end{net: n, self: from, peer: to, in: back, out: forth, direct: direct, bytes: bytes}
	far = &end{net: n, self: to, peer: from, in: forth, out: back, direct: direct, bytes: bytes}
	return near, far
}

// change wakes the reader; call it with mu held.
func (h *half) change() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *half) close(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.end == nil {
		h.end = err
		h.change()
	}
}

func (h *half) write(p []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.end != nil {
		return io.ErrClosedPipe
	}
	h.chunks = append(h.chunks, chunk{ready: time.Now().Add(h.latency), data: append([]byte(nil), p...)})
	h.change()
	return nil
}

func (h *half) read(p []byte) (int, error) {
	for {
		n, wait, changed, err := h.tryRead(p)
		if n > 0 || err != nil {
			return n, err
		}
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		}
		select {
		case <-changed:
		case <-timer:
		}
	}
}

// tryRead returns what can be read now, or how long to wait (0: until a change).
func (h *half) tryRead(p []byte) (n int, wait time.Duration, changed <-chan struct{}, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.end == net.ErrClosed {
		return 0, 0, nil, h.end
	}
	if !h.deadline.IsZero() && !now.Before(h.deadline) {
		return 0, 0, nil, os.ErrDeadlineExceeded
	}
	if len(h.chunks) > 0 {
		c := &h.chunks[0]
		if !now.Before(c.ready) {
			n = copy(p, c.data)
			if c.data = c.data[n:]; len(c.data) == 0 {
				h.chunks = h.chunks[1:]
			}
			return n, 0, nil, nil
		}
		wait = c.ready.Sub(now)
	} else if h.end != nil {
		return 0, 0, nil, h.end
	}
	if !h.deadline.IsZero() && (wait == 0 || h.deadline.Sub(now) < wait) {
		wait = h.deadline.Sub(now)
	}
	return 0, wait, h.changed, nil
}

func (e *end) Read(p []byte) (int, error) { return e.in.read(p) }

func (e *end) Write(p []byte) (int, error) {
	if err := e.out.write(p); err != nil {
		return 0, err
	}
	e.net.mu.Lock()
	*e.bytes += len(p)
	e.net.mu.Unlock()
	return len(p), nil
}

// Close ends both directions: the far side reads what was written and then the end.
func (e *end) Close() error {
	e.out.close(io.EOF)
	e.in.close(net.ErrClosed)
	e.net.mu.Lock()
	delete(e.net.streams, e)
	e.net.mu.Unlock()
	return nil
}

func (e *end) SetReadDeadline(t time.Time) error {
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	e.in.deadline = t
	e.in.change()
	return nil
}

func (e *end) SetDeadline(t time.Time) error    { return e.SetReadDeadline(t) }
func (e *end) SetWriteDeadline(time.Time) error { return nil }
func (e *end) LocalAddr() net.Addr              { return addr(e.self) }
func (e *end) RemoteAddr() net.Addr             { return addr(e.peer) }

// addr names an end of a stream.
type addr identity.NodeID

func (addr) Network() string  { return "meshtest" }
func (a addr) String() string { return identity.NodeID(a).Short() }
