package bind

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
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

// route is what ChannelData from one Half means: a channel of ours or something to forward, never both.
type route struct {
	own     *channel
	forward *forward
}

// channels holds what ChannelData means. Readers load an immutable map; each change replaces it.
type channels struct {
	// atomic
	routes atomic.Pointer[map[Half]route]

	// guarded by mu
	mu     sync.Mutex
	serial uint64
	own    map[netip.AddrPort]*channel // by virtual address
	flows  map[netip.AddrPort]*source  // by underlay address or stream
}

// source is the flow of one address, and how many forwards begin there.
type source struct {
	flow  flow
	count int
}

func newChannels() *channels {
	c := &channels{own: make(map[netip.AddrPort]*channel), flows: make(map[netip.AddrPort]*source)}
	c.routes.Store(&map[Half]route{})
	return c
}

// byVirtual returns the open channel with this virtual address, or nil.
func (c *channels) byVirtual(a netip.AddrPort) *channel {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.own[a]
}

// change replaces the routes. The caller holds mu.
func (c *channels) change(edit func(map[Half]route)) {
	next := maps.Clone(*c.routes.Load())
	edit(next)
	c.routes.Store(&next)
}

// OpenChannel makes the channel that a relay has allocated for us usable and returns its virtual address, to be used
// like an underlay address: as an endpoint's path and in the STUN lane. Opening an open channel again returns
// the same address.
func (b *Bind) OpenChannel(relay netip.AddrPort, number uint16) (netip.AddrPort, error) {
	at := Half{relay, number}.normal()
	if err := at.check(); err != nil {
		return netip.AddrPort{}, fmt.Errorf("open relay channel: %w", err)
	}
	c := b.channels
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r := (*c.routes.Load())[at]; {
	case r.own != nil:
		return r.own.virtual, nil
	case r.forward != nil:
		return netip.AddrPort{}, fmt.Errorf("open relay channel %#04x at %v: %w", number, at.Addr, ErrChannelInUse)
	}
	c.serial++
	ch := &channel{virtual: virtualAddr(virtualChannel, c.serial), number: number}
	ch.relay.Store(b.hopTo(at.Addr))
	c.own[ch.virtual] = ch
	c.change(func(routes map[Half]route) { routes[at] = route{own: ch} })
	return ch.virtual, nil
}

// MoveChannel says that the relay of an open channel is now spoken to at another address.
func (b *Bind) MoveChannel(virtual, relay netip.AddrPort) error {
	c := b.channels
	c.mu.Lock()
	defer c.mu.Unlock()
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
	if _, taken := (*c.routes.Load())[to]; taken {
		return fmt.Errorf("move relay channel %#04x to %v: %w", ch.number, to.Addr, ErrChannelInUse)
	}
	ch.relay.Store(b.hopTo(to.Addr))
	c.change(func(routes map[Half]route) {
		delete(routes, from)
		routes[to] = route{own: ch}
	})
	return nil
}

// CloseChannel makes a virtual address lead nowhere, for good. Endpoints whose path it is keep it and drop.
func (b *Bind) CloseChannel(virtual netip.AddrPort) {
	c := b.channels
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.own[virtual]
	if ch == nil {
		return
	}
	at := Half{ch.relay.Load().udp.AddrPort, ch.number}
	ch.relay.Store(nil)
	delete(c.own, virtual)
	c.change(func(routes map[Half]route) { delete(routes, at) })
}

// SetForward makes this node relay: ChannelData from one half leaves to the other with the other's channel number. It
// is one direction; a relayed path needs two. Setting a half again moves it and goes on counting.
func (b *Bind) SetForward(from, to Half) (*ForwardCounters, error) {
	from, to = from.normal(), to.normal()
	for _, half := range []Half{from, to} {
		if err := half.check(); err != nil {
			return nil, fmt.Errorf("set forward: %w", err)
		}
	}
	c := b.channels
	c.mu.Lock()
	defer c.mu.Unlock()
	old := (*c.routes.Load())[from]
	if old.own != nil {
		return nil, fmt.Errorf("set forward from channel %#04x at %v: %w", from.Channel, from.Addr, ErrChannelInUse)
	}
	next := &forward{number: to.Channel, to: b.hopTo(to.Addr)}
	if old.forward != nil {
		next.counters, next.flow = old.forward.counters, old.forward.flow
	} else {
		next.counters, next.flow = new(ForwardCounters), c.flow(from.Addr)
	}
	c.change(func(routes map[Half]route) { routes[from] = route{forward: next} })
	return next.counters, nil
}

// RemoveForward ends what SetForward began; it does not touch the other direction.
func (b *Bind) RemoveForward(from Half) {
	from = from.normal()
	c := b.channels
	c.mu.Lock()
	defer c.mu.Unlock()
	if (*c.routes.Load())[from].forward == nil {
		return
	}
	c.change(func(routes map[Half]route) { delete(routes, from) })
	if s := c.flows[from.Addr]; s.count > 1 {
		s.count--
	} else {
		delete(c.flows, from.Addr)
	}
}

// flow returns that of a source, for one forward more. The caller holds mu.
func (c *channels) flow(from netip.AddrPort) *flow {
	s := c.flows[from]
	if s == nil {
		s = new(source)
		c.flows[from] = s
	}
	s.count++
	return &s.flow
}
