// Package bind shares one UDP port between WireGuard, STUN, relayed packets (TURN ChannelData) and QUIC. It wraps
// WireGuard's own sockets, so that batching, UDP GSO and GRO stay, takes what is not WireGuard's out of the
// received batches, gives each mesh peer one endpoint object whose path can be moved while packets flow, and
// relays for others. For networks that drop UDP it does the same over streams (stream.go). The packet's way in is in
// receive.go, its way out in send.go. Channels, forwards and streams are values of their own, for whoever has to do with
// no more of the socket than these.
//
// Which path is good, and when a relay may be used, is decided by nat and its parts; they speak to the network through
// the STUN lane and the virtual addresses of relay channels. Sessions speak through the QUIC lane. The bind keeps
// no timers, checks no signatures, and never calls the device.
//
// All methods may be called concurrently. Only Open and the functions that it returns are the device's alone.
package bind

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// Options are the settings of a Bind.
type Options struct {
	// Inner has the sockets. Its endpoints must be *conn.StdNetEndpoint. nil: conn.NewStdNetBind().
	Inner  conn.Bind
	Logger *slog.Logger // nil: slog.Default()
}

// Bind is a conn.Bind for a WireGuard device that shares its port.
type Bind struct {
	// constant after New
	inner  conn.Bind
	unsent *unsent
	log    *slog.Logger
	lanes
	peers       *peers
	sources     *sources
	answers     answers
	routes      *routes
	channels    *Channels
	forwards    *Forwards
	streams     *Streams
	out         *outlet
	strays      *strays
	stirs       chan netip.AddrPort
	portChanges chan uint16

	// atomic
	drops drops
	port  atomic.Uint32

	// guarded by mu
	mu        sync.Mutex
	forwarder *forwarder // nil: closed
	closing   chan struct{}
}

// lanes are for what is not WireGuard's.
type lanes struct{ stun, quic, letters *lane }

var _ conn.Bind = (*Bind)(nil)

// New returns a bind that is not open; the device opens it.
func New(o Options) *Bind {
	if o.Inner == nil {
		o.Inner = conn.NewStdNetBind()
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	kept := new(unsent)
	b := &Bind{
		inner:       &gate{o.Inner, kept},
		unsent:      kept,
		log:         o.Logger.With("part", "bind"),
		peers:       newPeers(),
		sources:     newSources(),
		routes:      newRoutes(),
		strays:      newStrays(),
		stirs:       make(chan netip.AddrPort, stirBuffer),
		portChanges: make(chan uint16, 1),
	}
	b.streams = newStreams(&b.drops)
	b.channels = newChannels(b.routes, b.streams)
	b.forwards = newForwards(b.routes, b.streams)
	b.out = newOutlet(b.inner, &b.drops)
	b.stun = newLane(b, stunQueue, DropSTUNQueue, true)
	b.quic = newLane(b, quicQueue, DropQUICQueue, false)
	b.letters = newLane(b, letterQueue, DropLetterQueue, false)
	return b
}

// Open opens the sockets; port 0 means any. See conn.Bind. The last of the functions is that of the streams, and of what is handed
// to the device. The device
// calls it again after each Close, for instance on a change of port.
func (b *Bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	fns, actual, err := openPort(b.inner, port)
	for _, wait := range b.patience() {
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
		time.Sleep(wait)
		fns, actual, err = openPort(b.inner, port)
	}
	if err != nil {
		return nil, 0, err
	}
	f, closing := newForwarder(b.forwards, b.out, b.inner.BatchSize()), make(chan struct{})
	b.mu.Lock()
	b.forwarder, b.closing = f, closing
	b.mu.Unlock()
	fns = append(fns, (&besides{streamReceiver{streams: b.streams, closed: closing}, b.peers.handed}).receive)
	for i, next := range fns {
		r := &receiver{bind: b, next: next, forward: f, todo: make([]pending, 0, b.inner.BatchSize())}
		fns[i] = r.receive
	}
	if old := b.port.Swap(uint32(actual)); old != uint32(actual) {
		putLatest(b.portChanges, actual)
		b.log.Info("port opened", "port", actual)
	}
	return fns, actual, nil
}

// patience is how long the first opening waits for a port that is taken: most likely by the process before this one, which is not gone
// yet. A change of port is refused at once, since all traffic waits meanwhile.
func (b *Bind) patience() []time.Duration {
	if b.port.Load() != 0 {
		return nil
	}
	return []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1500 * time.Millisecond}
}

// openPort works around the inner bind's port 0 where the system has no IPv6: it forgets the port that IPv4 has got.
func openPort(inner conn.Bind, port uint16) ([]conn.ReceiveFunc, uint16, error) {
	fns, actual, err := inner.Open(port)
	if err != nil || actual != 0 {
		return fns, actual, err
	}
	if port != 0 {
		return fns, port, nil
	}
	for range 10 { // another process can take the port in between
		if err := inner.Close(); err != nil {
			return nil, 0, fmt.Errorf("reopen port: %w", err)
		}
		if port, err = freePort(); err != nil {
			return nil, 0, err
		}
		if fns, _, err = inner.Open(port); err == nil {
			return fns, port, nil
		}
	}
	return nil, 0, err
}

func freePort() (uint16, error) {
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return 0, fmt.Errorf("find free port: %w", err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port(), nil
}

// Close closes the sockets. Lanes, endpoints, channels, forwards and streams stay and work again after the next Open.
func (b *Bind) Close() error {
	err := b.inner.Close()
	b.mu.Lock()
	f, closing := b.forwarder, b.closing
	b.forwarder, b.closing = nil, nil
	b.mu.Unlock()
	if f != nil {
		close(closing)
		f.stop()
	}
	return err
}

// SetMark sets the firewall mark of the sockets. See conn.Bind.
func (b *Bind) SetMark(mark uint32) error { return b.inner.SetMark(mark) }

// Exact tells the sockets, if they can be told, whether packets have to arrive as they are sent or not at all; see package
// sockets.
func (b *Bind) Exact(on bool) {
	if inner, ok := b.inner.(*gate).Bind.(interface{ Exact(on bool) }); ok {
		inner.Exact(on)
	}
}

// BatchSize returns the inner bind's. See conn.Bind.
func (b *Bind) BatchSize() int { return b.inner.BatchSize() }

// ErrUnknownHandle is wrapped by the error of ParseEndpoint for a virtual address that is no peer's handle.
var ErrUnknownHandle = errors.New("unknown handle")

// ParseEndpoint returns the endpoint object whose handle s is, or a plain endpoint for an underlay address.
func (b *Bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	a = normal(a)
	if !IsVirtual(a.Addr()) {
		return &conn.StdNetEndpoint{AddrPort: a}, nil
	}
	if e := b.peers.byHandle(a.Addr()); e != nil {
		return e, nil
	}
	return nil, fmt.Errorf("parse endpoint %s: %w", s, ErrUnknownHandle)
}

// Port returns the UDP port that is or was last open; 0 if none ever was.
func (b *Bind) Port() uint16 { return uint16(b.port.Load()) }

// PortChanges delivers the port whenever an Open has changed it. Only the latest value is kept.
func (b *Bind) PortChanges() <-chan uint16 { return b.portChanges }

// putLatest puts port into a channel of one place, over what nobody has taken.
func putLatest(latest chan uint16, port uint16) {
	for {
		select {
		case latest <- port:
			return
		default:
		}
		select {
		case <-latest:
		default:
		}
	}
}

// STUN returns the lane of STUN packets, those that came by streams and open relay channels included. Every call returns the
// same lane. It never yields malformed STUN.
func (b *Bind) STUN() net.PacketConn { return b.stun }

// QUIC returns the lane of QUIC packets. Every call returns the same lane.
func (b *Bind) QUIC() net.PacketConn { return b.quic }

// Letters returns a bind's lane of the datagrams of letters (package mesh/letter). Every call returns the same lane.
func Letters(b *Bind) net.PacketConn { return b.letters }

// Channels are the channels that relays have allocated for us. Every call returns the same.
func (b *Bind) Channels() *Channels { return b.channels }

// Forwards are what this node relays for others. Every call returns the same.
func (b *Bind) Forwards() *Forwards { return b.forwards }

// Streams are the connections that carry datagrams where UDP does not pass. Every call returns the same.
func (b *Bind) Streams() *Streams { return b.streams }

// Strays delivers addresses that the device sends to on its own account: an authentic packet of a peer came from
// a source that is not known, and it roamed there. A peer's handle means that the device has mixed that peer up
// with another one. The cure for both is to give the device the peer's handle again. An address comes up again
// every ten seconds while it lasts.
func (b *Bind) Strays() <-chan netip.AddrPort { return b.strays.out }

// Stirs delivers the handles of peers to which something is sent after a pause of a second. One that finds the queue full is
// lost: the next pause brings another.
func (b *Bind) Stirs() <-chan netip.AddrPort { return b.stirs }

// Calls delivers the addresses of plain endpoints, those of static peers, at which the device begins a handshake: once in two minutes
// where all is well, and every five seconds while nobody answers. What finds the queue full is lost: the next one comes.
func (b *Bind) Calls() <-chan netip.AddrPort { return b.strays.calls }

// SetStatic names the addresses of static peers, which WireGuard speaks to by plain endpoints and which are not strays.
// They also win over anything a mesh peer claims.
func (b *Bind) SetStatic(addrs []netip.AddrPort) {
	want := make(map[netip.AddrPort]rank, len(addrs))
	for _, a := range addrs {
		want[normal(a)] = rankStatic
	}
	b.sources.set(nil, want)
}

// NewEndpoint makes the endpoint object of a peer that has this WireGuard public key. Two calls with one key make two objects that
// have nothing in common: which of them the device is given is decided by whoever calls.
func (b *Bind) NewEndpoint(key [32]byte) *Endpoint { return b.peers.add(b, key) }

// RemoveEndpoint forgets a peer. A device that still has its object drops what it sends.
func (b *Bind) RemoveEndpoint(e *Endpoint) {
	b.peers.forget(e)
	e.remove()
}
