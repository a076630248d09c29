package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"warren/mesh/identity"
	"warren/nat/relay"
	"warren/tunnel/bind"
	"warren/tunnel/bind/bindtest"
)

// relaying is an anchor and members that use it, each with the socket and the adapter of a node.
type relaying struct {
	t       *testing.T
	network *bindtest.Network
	anchor  *relayed
	remote  sync.Map // identity.NodeID → netip.AddrPort
}

// relayed is one node of it.
type relayed struct {
	relays
	of     *relaying
	id     identity.NodeID
	at     netip.AddrPort
	socket *bind.Bind
	heard  chan netip.AddrPort // from where WireGuard packets came
	gone   []identity.NodeID   // relays that may not be used any more
}

// RelayGone is nat's.
func (x *relayed) RelayGone(id identity.NodeID) { x.gone = append(x.gone, id) }

func newRelaying(t *testing.T) *relaying {
	r := &relaying{t: t, network: bindtest.NewNetwork()}
	r.anchor = r.add(8)
	return r
}

// add makes a node, which runs until the test ends.
func (r *relaying) add(n byte) *relayed {
	r.t.Helper()
	x := &relayed{of: r, id: someone(n), heard: make(chan netip.AddrPort, 100)}
	x.at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, n}), swarmPort)
	r.remote.Store(x.id, x.at)
	quiet := slog.New(slog.DiscardHandler)
	x.socket = bind.New(bind.Options{Inner: thrifty{r.network.Host(x.at.Addr())}, Logger: quiet})
	x.relays = relays{
		paths:   x,
		server:  relay.NewServer(relay.ServerOptions{Self: x.id, Socket: forwarder{x.socket.Forwards()}, Members: r, Logger: quiet}),
		client:  relay.NewClient(relay.ClientOptions{Dialer: x, Channels: x.socket.Channels(), Logger: quiet}),
		forward: x.socket.Forwards(),
	}
	functions, _, err := x.socket.Open(swarmPort)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, receive := range functions {
		running.Go(func() { x.hear(receive) })
	}
	running.Go(func() { _ = x.client.Run(ctx) })
	running.Go(func() { _ = x.server.Run(ctx) })
	r.t.Cleanup(func() {
		cancel()
		_ = x.socket.Close()
		running.Wait()
	})
	return x
}

// hear notes what the device would be given.
func (x *relayed) hear(receive conn.ReceiveFunc) {
	bufs, sizes, endpoints := [][]byte{make([]byte, 1<<16)}, make([]int, 1), make([]conn.Endpoint, 1)
	for {
		if n, err := receive(bufs, sizes, endpoints); err != nil {
			return
		} else if std, ok := endpoints[0].(*conn.StdNetEndpoint); ok && n == 1 && sizes[0] > 0 {
			x.heard <- std.AddrPort
		}
	}
}

// Remote and Member make it the members of all relays.
func (r *relaying) Remote(id identity.NodeID) (netip.AddrPort, bool) {
	at, ok := r.remote.Load(id)
	if !ok {
		return netip.AddrPort{}, false
	}
	return at.(netip.AddrPort), true
}

func (r *relaying) Member(id identity.NodeID) bool {
	_, ok := r.remote.Load(id)
	return ok
}

// DialRelay makes a node the dialler of its own client: all anchors are the anchor.
func (x *relayed) DialRelay(context.Context, identity.NodeID, bool) (net.Conn, netip.AddrPort, error) {
	near, far := net.Pipe()
	go x.of.anchor.server.Serve(context.Background(), x.id, far)
	return near, x.of.anchor.at, nil
}

// open has a node ask the anchor for a channel.
func (x *relayed) open(peer *relayed) netip.AddrPort {
	x.of.t.Helper()
	virtual, err := x.client.Open(x.of.t.Context(), x.of.anchor.id, peer.id)
	if err != nil {
		x.of.t.Fatal(err)
	}
	return virtual
}

// send sends WireGuard packets of so many bytes to an address.
func (x *relayed) send(to netip.AddrPort, packets, size int) {
	x.of.t.Helper()
	for range packets {
		p := make([]byte, size)
		p[0] = 4 // transport data
		if err := x.socket.Send([][]byte{p}, &conn.StdNetEndpoint{AddrPort: to}); err != nil {
			x.of.t.Fatal(err)
		}
	}
	synctest.Wait()
}

// got wants that so many packets have come, all from there.
func (x *relayed) got(what string, want int, from netip.AddrPort) {
	x.of.t.Helper()
	synctest.Wait()
	n := len(x.heard)
	if n != want {
		x.of.t.Errorf("%s: got %d packets, want %d", what, n, want)
	}
	for range n {
		if at := <-x.heard; at != from {
			x.of.t.Errorf("%s: got a packet from %v, want %v", what, at, from)
		}
	}
}

// TestRelaysTellBothParts has what the hub tells of relaying reach the relay for others, the use of others, and the socket.
func TestRelaysTellBothParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelaying(t)
		a, b, elsewhere, far := r.add(1), r.add(2), r.add(3), r.add(4)
		anchor := r.anchor
		if _, err := a.client.Open(t.Context(), anchor.id, b.id); !errors.Is(err, relay.ErrOff) {
			t.Errorf("before it was told to relay: got %v, want %v", err, relay.ErrOff)
		}
		anchor.Set(true, 0)
		toB, toA := a.open(b), b.open(a)
		a.send(toB, 3, 100)
		b.got("without a limit", 3, toA)
		if got := a.Wanted(); !slices.Equal(got, []identity.NodeID{anchor.id}) || len(anchor.Wanted()) != 0 {
			t.Errorf("got anchors %v and %v, want the anchor and none", got, anchor.Wanted())
		}

		// A limit is the socket's too: 10,000 bytes a second.
		anchor.Set(true, 10_000)
		a.send(toB, 20, 1000)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(b.heard); n < 5 || n > 15 {
			t.Errorf("got %d of 20 kB within a second, want about 10", n)
		}
		time.Sleep(2 * time.Second)
		b.got("under a limit", 20, toA)
		anchor.Set(true, 0)

		// The session of b comes from elsewhere now, and then a's with the anchor goes far away. Neither there knows of a channel.
		anchor.Moved(b.id, elsewhere.at)
		synctest.Wait()
		a.send(toB, 1, 100)
		b.got("after it moved", 0, toA)
		a.Moved(anchor.id, far.at)
		a.send(toB, 2, 100)
		came := func(x *relayed) uint64 { return x.socket.Counters()[bind.DropUnknownChannel] }
		if came(elsewhere) != 1 || came(far) != 2 {
			t.Errorf("got %d packets elsewhere and %d far away, want 1 and 2", came(elsewhere), came(far))
		}

		if pairs, _ := anchor.server.Snapshot(); len(pairs) != 1 || !pairs[0].Joined {
			t.Errorf("got pairs %v, want the one", pairs)
		}
		anchor.Drop(b.id)
		synctest.Wait()
		if pairs, _ := anchor.server.Snapshot(); slices.ContainsFunc(pairs, func(p relay.Pair) bool { return p.Joined }) {
			t.Errorf("got pairs %v after one was dropped, want none joined", pairs)
		}
		if want := []identity.NodeID{b.id}; !slices.Equal(anchor.gone, want) {
			t.Errorf("got paths told of %v, want %v", anchor.gone, want)
		}

		// The load of those that may be used is known while they are followed.
		a.Follow([]identity.NodeID{anchor.id})
		synctest.Wait()
		if got := a.Load(anchor.id); got != anchor.server.Load() {
			t.Errorf("got load %d, want what the anchor tells: %d", got, anchor.server.Load())
		}
		a.Follow(nil)
		anchor.Set(false, 0)
		if _, err := b.client.Open(t.Context(), anchor.id, a.id); !errors.Is(err, relay.ErrOff) {
			t.Errorf("told not to relay: got %v, want %v", err, relay.ErrOff)
		}
	})
}
