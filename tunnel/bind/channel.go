package bind

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Half is one end of a relayed path as the relay's socket sees it: ChannelData with this number, from or to this
// underlay address or stream.
type Half struct {
	Addr    netip.AddrPort
	Channel uint16
}

func (h Half) normal() Half { return Half{normal(h.Addr), h.Channel} }

// check refuses what could not be a TURN channel (RFC 8656, section 12).
func (h Half) check() error {
	if h.Channel < channelMin || h.Channel > channelMax {
		return fmt.Errorf("channel %#04x: want 0x4000 to 0x4fff", h.Channel)
	}
	if !h.Addr.IsValid() || h.Addr.Port() == 0 || IsVirtual(h.Addr.Addr()) && !IsStream(h.Addr.Addr()) {
		return fmt.Errorf("channel %#04x: %v is neither an underlay address nor a stream", h.Channel, h.Addr)
	}
	return nil
}

// ErrChannelInUse says that ChannelData with this number from this address already means something else.
var ErrChannelInUse = errors.New("channel in use")

// channel is a channel of ours through a relay, known to the layers above by its virtual address.
type channel struct {
	virtual netip.AddrPort
	number  uint16
	relay   atomic.Pointer[hop] // nil: closed
}

// route is what ChannelData from one Half means: a channel of ours or something to forward, never both.
type route struct {
	own     *channel
	forward *forward
}

// routes holds what ChannelData means, for Channels and Forwards together. Readers load an immutable map; each change
// replaces it.
type routes struct {
	// atomic
	table atomic.Pointer[map[Half]route]

	// mu guards changes of the table, and what Channels and Forwards keep beside it.
	mu sync.Mutex
}

func newRoutes() *routes {
	r := new(routes)
	r.table.Store(&map[Half]route{})
	return r
}

// of returns what ChannelData from there means.
func (r *routes) of(at Half) route { return (*r.table.Load())[at] }

// put and remove replace the table. The caller holds mu.
func (r *routes) put(at Half, to route) {
	next := maps.Clone(*r.table.Load())
	next[at] = to
	r.table.Store(&next)
}

func (r *routes) remove(at Half) {
	next := maps.Clone(*r.table.Load())
	delete(next, at)
	r.table.Store(&next)
}

// move is both at once: no packet finds neither.
func (r *routes) move(from, at Half, to route) {
	next := maps.Clone(*r.table.Load())
	delete(next, from)
	next[at] = to
	r.table.Store(&next)
}

// Channels are the channels that relays have allocated for us. All methods may be called concurrently.
type Channels struct {
	// constant after newChannels
	routes  *routes
	streams *Streams

	// guarded by routes.mu
	serial uint64
	own    map[netip.AddrPort]*channel // by virtual address
}

func newChannels(r *routes, s *Streams) *Channels {
	return &Channels{routes: r, streams: s, own: make(map[netip.AddrPort]*channel)}
}

// byVirtual returns the open channel with this virtual address, or nil.
func (c *Channels) byVirtual(a netip.AddrPort) *channel {
	c.routes.mu.Lock()
	defer c.routes.mu.Unlock()
	return c.own[a]
}

// Open makes the channel that a relay has allocated for us usable and returns its virtual address, to be used
// like an underlay address: as an endpoint's path and in the STUN lane. Opening an open channel again returns
// the same address.
func (c *Channels) Open(relay netip.AddrPort, number uint16) (netip.AddrPort, error) {
	at := Half{relay, number}.normal()
	if err := at.check(); err != nil {
		return netip.AddrPort{}, fmt.Errorf("open relay channel: %w", err)
	}
	c.routes.mu.Lock()
	defer c.routes.mu.Unlock()
	switch r := c.routes.of(at); {
	case r.own != nil:
		return r.own.virtual, nil
	case r.forward != nil:
		return netip.AddrPort{}, fmt.Errorf("open relay channel %#04x at %v: %w", number, at.Addr, ErrChannelInUse)
	}
	c.serial++
	ch := &channel{virtual: virtualAddr(virtualChannel, c.serial), number: number}
	ch.relay.Store(c.streams.hopTo(at.Addr))
	c.own[ch.virtual] = ch
	c.routes.put(at, route{own: ch})
	return ch.virtual, nil
}

// Move says that the relay of an open channel is now spoken to at another address.
func (c *Channels) Move(virtual, relay netip.AddrPort) error {
	c.routes.mu.Lock()
	defer c.routes.mu.Unlock()
	ch := c.own[virtual]
	if ch == nil {
		return fmt.Errorf("move relay channel %v: not open", virtual)
	}
	from, to := Half{ch.relay.Load().udp.AddrPort, ch.number}, Half{relay, ch.number}.normal()
	if err := to.check(); err != nil {
		return fmt.Errorf("move relay channel: %w", err)
	}
	if from == to {
		return nil
	}
	if c.routes.of(to) != (route{}) {
		return fmt.Errorf("move relay channel %#04x to %v: %w", ch.number, to.Addr, ErrChannelInUse)
	}
	ch.relay.Store(c.streams.hopTo(to.Addr))
	c.routes.move(from, to, route{own: ch})
	return nil
}

// Close makes a virtual address lead nowhere, for good. Endpoints whose path it is keep it and drop.
func (c *Channels) Close(virtual netip.AddrPort) {
	c.routes.mu.Lock()
	defer c.routes.mu.Unlock()
	ch := c.own[virtual]
	if ch == nil {
		return
	}
	at := Half{ch.relay.Load().udp.AddrPort, ch.number}
	ch.relay.Store(nil)
	delete(c.own, virtual)
	c.routes.remove(at)
}
