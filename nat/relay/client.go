package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"warren/mesh/identity"
)

// Dialer opens control streams.
type Dialer interface {
	// DialRelay opens one on the direct session with an anchor; if there is none it fails at once or, to wait, only when
	// ctx ends. It returns as well the address of that session, to which the data will go.
	DialRelay(ctx context.Context, anchor identity.NodeID, wait bool) (net.Conn, netip.AddrPort, error)
}

// Channels are those of the socket. Its methods must not block.
type Channels interface {
	// Open has what is sent to the address that it returns wrapped for a relay, Close ends that. To open what
	// is open returns the same address.
	Open(relay netip.AddrPort, number uint16) (netip.AddrPort, error)
	Close(virtual netip.AddrPort)
	// Move says that the relay of an open channel is spoken to at another address now.
	Move(virtual, relay netip.AddrPort) error
}

// ClientOptions are what the client side needs from its node. All but Logger are required.
type ClientOptions struct {
	Dialer   Dialer
	Channels Channels
	Logger   *slog.Logger
}

// Client opens channels at anchors and keeps them open until they are closed.
type Client struct {
	// Constant after NewClient.
	options ClientOptions
	done    chan struct{} // closed when Run's context ends
	news    chan struct{}
	work    sync.WaitGroup // every goroutine

	// Guarded by mu, under which nothing is called.
	mu      sync.Mutex
	closed  bool
	open    map[netip.AddrPort]*opened // by virtual address
	asking  map[identity.NodeID]int    // requests under way
	follows map[identity.NodeID]*followed
}

// opened is one channel of this node.
type opened struct {
	anchor, peer identity.NodeID
	virtual      netip.AddrPort
	relay        netip.AddrPort // guarded by the client's mu
	number       uint16
	stop         context.CancelFunc
	give         chan struct{} // closed by Close: say bye
}

// ErrClosed is returned by Open once Run has returned.
var ErrClosed = errors.New("relay client closed")

// NewClient returns a client without channels.
func NewClient(options ClientOptions) *Client {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	options.Logger = options.Logger.With("part", "relay")
	return &Client{
		options: options, done: make(chan struct{}), news: make(chan struct{}, 1), open: make(map[netip.AddrPort]*opened),
		asking: make(map[identity.NodeID]int), follows: make(map[identity.NodeID]*followed),
	}
}

// Run waits for ctx, then gives every channel back and returns when all is done.
func (c *Client) Run(ctx context.Context) error {
	<-ctx.Done()
	c.mu.Lock()
	c.closed = true
	follows := slices.Collect(maps.Values(c.follows))
	c.mu.Unlock()
	close(c.done)
	for _, f := range follows {
		f.stop()
	}
	c.work.Wait()
	return ctx.Err()
}

// Open asks anchor for a channel towards peer and returns the virtual address that stands for the path. The path
// carries data once the peer has opened its half at the same anchor. Errors: those of the anchor (ErrNotMember,
// ErrFull, ErrVersion, ErrOff), of the session, or ErrClosed.
func (c *Client) Open(ctx context.Context, anchor, peer identity.NodeID) (netip.AddrPort, error) {
	defer c.ask(anchor)()
	stream, relay, number, err := c.request(ctx, anchor, peer)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("open channel: %w", err)
	}
	c.displace(relay, number, peer)
	virtual, err := c.options.Channels.Open(relay, number)
	if err != nil {
		stream.Close()
		return netip.AddrPort{}, fmt.Errorf("open channel: %w", err)
	}
	hold, stop := context.WithCancel(context.Background())
	o := &opened{anchor: anchor, peer: peer, virtual: virtual, relay: relay, number: number, stop: stop, give: make(chan struct{})}
	c.mu.Lock()
	closed, before := c.closed, c.open[virtual]
	if !closed {
		c.open[virtual] = o
		c.work.Go(func() { c.keep(hold, o, stream) }) // counted before Run can begin to wait
	}
	c.mu.Unlock()
	if closed {
		stop()
		stream.Close()
		c.options.Channels.Close(virtual)
		return netip.AddrPort{}, ErrClosed
	}
	if before != nil {
		before.stop() // the same channel asked for again: the newer stream holds it
	}
	return virtual, nil
}

// displace ends a channel to another peer whose number the relay has given anew: it was restarted, and what is sent by that
// channel goes to the wrong one. Its path is dead, and would take the new one with it.
func (c *Client) displace(relay netip.AddrPort, number uint16, peer identity.NodeID) {
	var void []*opened
	c.mu.Lock()
	for virtual, o := range c.open {
		if o.relay == relay && o.number == number && o.peer != peer {
			delete(c.open, virtual)
			void = append(void, o)
		}
	}
	c.mu.Unlock()
	for _, o := range void {
		o.stop()
		c.options.Channels.Close(o.virtual)
	}
}

// Close gives a channel back. Closing an address that is not open does nothing.
func (c *Client) Close(virtual netip.AddrPort) {
	c.mu.Lock()
	o := c.open[virtual]
	delete(c.open, virtual)
	c.mu.Unlock()
	if o != nil {
		close(o.give)
		c.options.Channels.Close(virtual)
	}
}

// request does the exchange on a fresh control stream.
func (c *Client) request(ctx context.Context, anchor, peer identity.NodeID) (net.Conn, netip.AddrPort, uint16, error) {
	stream, relay, err := c.options.Dialer.DialRelay(ctx, anchor, true)
	if err != nil {
		return nil, relay, 0, err
	}
	stop := context.AfterFunc(ctx, func() { stream.SetDeadline(time.Now()) })
	defer stop()
	stream.SetDeadline(time.Now().Add(requestTimeout))
	if err := writeRequest(stream, peer); err != nil {
		stream.Close()
		return nil, relay, 0, err
	}
	number, err := readReply(stream)
	if err != nil {
		stream.Close()
		return nil, relay, 0, err
	}
	stream.SetDeadline(time.Time{})
	return stream, relay, number, nil
}

// keep holds the control stream of a channel and opens it again when it ends by itself: the anchor keeps the
// channel for Linger. It returns when the channel is closed, taken over, or refused.
func (c *Client) keep(hold context.Context, o *opened, stream net.Conn) {
	defer o.stop()
	ctx, cancel := context.WithCancel(hold)
	defer cancel()
	for backoff := 200 * time.Millisecond; ; {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			stream.Read(make([]byte, 1)) // the anchor never writes here: this ends with the stream
		}()
		select {
		case <-ended:
			stream.Close()
		case <-o.give:
			sayBye(stream, ended)
			return
		case <-c.done:
			sayBye(stream, ended)
			return
		case <-hold.Done():
			stream.Close()
			<-ended
			return
		}
		for {
			if !c.pause(hold, o, backoff+rand.N(backoff/2)) {
				return
			}
			attempt, done := context.WithTimeout(ctx, requestTimeout)
			go c.whileRunning(attempt, done) // the anchor may be gone for good: Run must not wait for it
			next, relay, number, err := c.request(attempt, o.anchor, o.peer)
			done()
			if err == nil && number == o.number && c.move(o, relay) {
				stream, backoff = next, 200*time.Millisecond
				break
			}
			if err == nil {
				next.Close() // another channel than the one in use: the path has ended, and nat will see it
				c.options.Logger.Info("relay channel lost", "id", o.peer.Short(), "anchor", o.anchor.Short())
				return
			}
			backoff = min(2*backoff, 10*time.Second)
		}
	}
}

// whileRunning ends an attempt when Run is to return.
func (c *Client) whileRunning(attempt context.Context, end context.CancelFunc) {
	select {
	case <-c.done:
		end()
	case <-attempt.Done():
	}
}

// Moved says that the session with an anchor, and so its relay, is at another address now. The channels there move at
// once; their control streams, which ended with the session before, follow.
func (c *Client) Moved(anchor identity.NodeID, relay netip.AddrPort) {
	c.mu.Lock()
	var there []*opened
	for _, o := range c.open {
		if o.anchor == anchor {
			there = append(there, o)
		}
	}
	c.mu.Unlock()
	for _, o := range there {
		c.move(o, relay)
	}
}

// move sends a channel's packets to where its relay is now; false when that is not possible.
func (c *Client) move(o *opened, relay netip.AddrPort) bool {
	c.mu.Lock()
	same := o.relay == relay
	c.mu.Unlock()
	if same {
		return true
	}
	if err := c.options.Channels.Move(o.virtual, relay); err != nil {
		c.options.Logger.Info("relay channel not moved", "id", o.peer.Short(), "anchor", o.anchor.Short(), "error", err)
		return false
	}
	c.mu.Lock()
	o.relay = relay
	c.mu.Unlock()
	return true
}

// pause waits for d; false when the channel is not wanted any more.
func (c *Client) pause(hold context.Context, o *opened, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-o.give:
	case <-c.done:
	case <-hold.Done():
	}
	return false
}

// sayBye gives the channel back at once instead of leaving it to Linger.
func sayBye(stream net.Conn, ended <-chan struct{}) {
	stream.SetWriteDeadline(time.Now().Add(time.Second))
	stream.Write([]byte{bye})
	stream.Close()
	<-ended
}
