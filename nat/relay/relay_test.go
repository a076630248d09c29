package relay

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"warren/mesh/identity"
)

// world is one relay with members a, b and c, and the table its socket would have.
type world struct {
	mu      sync.Mutex
	forward map[Half]Half
	remote  map[identity.NodeID]netip.AddrPort
	cut     bool
	relay   netip.AddrPort // where clients reach the relay
	streams map[net.Conn]bool
	dialled int // streams so far
	sent    map[Half]Traffic

	server *Server
	ctx    context.Context
}

// What a Server uses of its node.

func (w *world) Forward(from, to Half) (Counter, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forward[from] = to
	return worldCounter{w, from}, nil
}

func (w *world) Unforward(from Half) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.forward, from)
}

func (*world) Fill() float64 { return 0 }

func (w *world) Remote(id identity.NodeID) (netip.AddrPort, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	addr, ok := w.remote[id]
	return addr, ok
}

func (*world) Member(id identity.NodeID) bool { return id != stranger }

type worldCounter struct {
	w    *world
	from Half
}

func (c worldCounter) Traffic() Traffic {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return c.w.sent[c.from]
}

var (
	a, b, c, stranger = identity.NodeID{1}, identity.NodeID{2}, identity.NodeID{3}, identity.NodeID{9}
	anchor            = identity.NodeID{8}
	anchorAddr        = netip.MustParseAddrPort("203.0.113.1:9277")
)

func newWorld(t *testing.T) (*world, context.CancelFunc) {
	w := &world{
		forward: make(map[Half]Half), sent: make(map[Half]Traffic), streams: make(map[net.Conn]bool), relay: anchorAddr,
		remote: map[identity.NodeID]netip.AddrPort{
			a: netip.MustParseAddrPort("198.51.100.1:1"), b: netip.MustParseAddrPort("198.51.100.2:2"), c: netip.MustParseAddrPort("198.51.100.3:3"),
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.ctx = ctx
	w.server = NewServer(ServerOptions{Self: anchor, Socket: w, Members: w})
	w.server.Set(Terms{Enabled: true})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.server.Run(ctx)
	}()
	return w, func() { cancel(); <-ended }
}

// lane is a member's way to the relay, by pipes into the server, and its socket's channels.
type lane struct {
	w    *world
	id   identity.NodeID
	mine map[netip.AddrPort]Half
}

// client returns a client of member id, and the channels of its socket.
func (w *world) client(id identity.NodeID) (*Client, map[netip.AddrPort]Half) {
	l := &lane{w, id, make(map[netip.AddrPort]Half)}
	return NewClient(ClientOptions{Dialer: l, Channels: l}), l.mine
}

func (l *lane) DialRelay(context.Context, identity.NodeID, bool) (net.Conn, netip.AddrPort, error) {
	w := l.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return nil, netip.AddrPort{}, errors.New("no session")
	}
	near, far := net.Pipe()
	w.streams[far] = true
	w.dialled++
	go w.server.Serve(w.ctx, l.id, far)
	return near, w.relay, nil
}

func (l *lane) Open(relay netip.AddrPort, number uint16) (netip.AddrPort, error) {
	virtual := netip.AddrPortFrom(netip.MustParseAddr("100::1"), number)
	l.mine[virtual] = Half{relay, number}
	return virtual, nil
}

func (l *lane) Close(virtual netip.AddrPort) { delete(l.mine, virtual) }

func (l *lane) Move(virtual, relay netip.AddrPort) error {
	l.mine[virtual] = Half{relay, l.mine[virtual].Channel}
	return nil
}

func (w *world) table() map[Half]Half {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[Half]Half)
	for from, to := range w.forward {
		out[from] = to
	}
	return out
}

// breakStreams ends every control stream as the loss of the sessions would.
func (w *world) breakStreams() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.streams {
		s.Close()
	}
	clear(w.streams)
}

func run(t *testing.T, clients ...*Client) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for _, c := range clients {
		group.Go(func() { c.Run(ctx) })
	}
	return func() { cancel(); group.Wait() }
}

func open(t *testing.T, c *Client, peer identity.NodeID) netip.AddrPort {
	t.Helper()
	virtual, err := c.Open(t.Context(), anchor, peer)
	if err != nil {
		t.Fatal(err)
	}
	return virtual
}

func TestTwoHalvesAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cancel := newWorld(t)
		defer cancel()
		ca, channels := w.client(a)
		cb, _ := w.client(b)
		stop := run(t, ca, cb)
		va := open(t, ca, b)
		if got := w.table(); len(got) != 0 {
			t.Fatalf("one half alone forwards: %v", got)
		}
		vb := open(t, cb, a)
		open(t, ca, c) // a second channel of a has a number of its own
		ha, hb := Half{w.remote[a], va.Port()}, Half{w.remote[b], vb.Port()}
		if got := w.table(); len(got) != 2 || got[ha] != hb || got[hb] != ha {
			t.Fatalf("got table %v, want %v and %v joined", got, ha, hb)
		}
		if va.Port() < middleChannel {
			t.Fatalf("got channel %#x from a relay with the greater ID, want one of the upper half", va.Port())
		}
		if len(channels) != 2 {
			t.Fatalf("got channels %v, want two numbers", channels)
		}
		cb.Close(vb)
		synctest.Wait()
		if got := w.table(); len(got) != 0 {
			t.Fatalf("got table %v after one half was given back, want none", got)
		}
		stop()
		synctest.Wait()
		if got, _ := w.server.Snapshot(); len(got) != 0 {
			t.Fatalf("got %v after all clients ended, want no pair", got)
		}
	})
}

// A relay that was restarted gives each channel the number that it had, whichever is asked for first.
func TestNumbersOutliveTheRelay(t *testing.T) {
	numbers := func(peers ...identity.NodeID) map[identity.NodeID]uint16 {
		w, cancel := newWorld(t)
		defer cancel()
		got := make(map[identity.NodeID]uint16)
		for _, peer := range peers {
			number, status := w.server.grant(a, peer, nil)
			if status != granted {
				t.Fatalf("channel to %v: got status %d", peer, status)
			}
			got[peer] = number
		}
		return got
	}
	before, after := numbers(b, c), numbers(c, b)
	if before[b] == before[c] || !maps.Equal(before, after) {
		t.Errorf("got numbers %v before and %v after, want two that stay", before, after)
	}
	alike := c
	alike[31] = 1
	if got := numbers(c, alike); got[c] == got[alike] {
		t.Errorf("got number %#x for two peers", got[c])
	}
}

// A number that is given to another peer does not keep the channel that had it.
func TestNumberGivenAnew(t *testing.T) {
	w, cancel := newWorld(t)
	defer cancel()
	ca, channels := w.client(a)
	stop := run(t, ca)
	defer stop()
	va := open(t, ca, b)
	ca.mu.Lock()
	relay, number := ca.open[va].relay, ca.open[va].number
	ca.mu.Unlock()
	ca.displace(relay, number, b)
	if len(channels) != 1 {
		t.Fatalf("got channels %v after the same one was asked for again, want it kept", channels)
	}
	ca.displace(relay, number, c)
	if len(channels) != 0 || len(ca.Anchors()) != 0 {
		t.Errorf("got channels %v after the number went to another peer, want none", channels)
	}
}

func TestChannelOutlivesItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cancel := newWorld(t)
		defer cancel()
		ca, _ := w.client(a)
		cb, _ := w.client(b)
		defer run(t, ca, cb)()
		open(t, ca, b)
		open(t, cb, a)
		before := w.table()

		w.mu.Lock()
		w.cut = true
		w.mu.Unlock()
		w.breakStreams()
		time.Sleep(Linger - time.Second)
		if got := w.table(); len(got) != 2 {
			t.Fatalf("got table %v while lingering, want both directions", got)
		}
		w.mu.Lock()
		w.cut = false
		w.mu.Unlock()
		time.Sleep(20 * time.Second)
		if got := w.table(); len(got) != 2 || len(before) != 2 {
			t.Fatalf("got table %v after the sessions came back, want %v", got, before)
		}
		for from, to := range before {
			if w.table()[from] != to {
				t.Fatalf("got table %v, want the same numbers as before: %v", w.table(), before)
			}
		}

		w.mu.Lock()
		w.cut = true
		w.mu.Unlock()
		w.breakStreams()
		time.Sleep(Linger + 11*time.Second)
		if got := w.table(); len(got) != 0 {
			t.Fatalf("got table %v a minute after the sessions ended, want none", got)
		}
	})
}

func TestMemberThatMovesIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cancel := newWorld(t)
		defer cancel()
		ca, _ := w.client(a)
		cb, _ := w.client(b)
		defer run(t, ca, cb)()
		va, vb := open(t, ca, b), open(t, cb, a)
		moved := netip.MustParseAddrPort("198.51.100.77:7")
		w.server.Moved(a, moved)
		synctest.Wait()
		ha, hb := Half{moved, va.Port()}, Half{w.remote[b], vb.Port()}
		if got := w.table(); len(got) != 2 || got[ha] != hb || got[hb] != ha {
			t.Fatalf("got table %v, want only %v and %v", got, ha, hb)
		}
	})
}

func TestRevokedMemberIsCutAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cancel := newWorld(t)
		defer cancel()
		ca, _ := w.client(a)
		cb, _ := w.client(b)
		cc, _ := w.client(c)
		defer run(t, ca, cb, cc)()
		open(t, ca, b)
		open(t, cb, a)
		open(t, cc, b)
		open(t, cb, c)
		w.server.Drop(a)
		synctest.Wait()
		if got := w.table(); len(got) != 2 {
			t.Fatalf("got table %v, want only the pair b and c", got)
		}
		for from, to := range w.table() {
			if from.Addr == w.remote[a] || to.Addr == w.remote[a] {
				t.Fatalf("the revoked member is still forwarded: %v to %v", from, to)
			}
		}
	})
}

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cancel := newWorld(t)
		defer cancel()
		ca, _ := w.client(a)
		cs, _ := w.client(stranger)
		defer run(t, ca, cs)()
		if _, err := ca.Open(t.Context(), anchor, stranger); !errors.Is(err, ErrNotMember) {
			t.Errorf("channel to a stranger: got %v, want %v", err, ErrNotMember)
		}
		if _, err := cs.Open(t.Context(), anchor, a); !errors.Is(err, ErrNotMember) {
			t.Errorf("channel for a stranger: got %v, want %v", err, ErrNotMember)
		}
		if _, err := ca.Open(t.Context(), anchor, a); !errors.Is(err, ErrNotMember) {
			t.Errorf("channel to itself: got %v, want %v", err, ErrNotMember)
		}
		w.server.Set(Terms{})
		if _, err := ca.Open(t.Context(), anchor, b); !errors.Is(err, ErrOff) {
			t.Errorf("channel at a node that does not relay: got %v, want %v", err, ErrOff)
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add(append([]byte{version}, a[:]...))
	f.Add(make([]byte, 33))
	f.Add(append([]byte{version}, make([]byte, 32)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		peer, status, err := readRequest(bytes.NewReader(data))
		if err == nil && status == granted && !bytes.Equal(peer[:], data[1:33]) {
			t.Fatalf("got peer %v from %x", peer, data)
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add([]byte{0, 0x40, 0})
	f.Add([]byte{0, 0, 0})
	f.Add([]byte{5, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		if number, err := readReply(bytes.NewReader(data)); err == nil && (number < firstChannel || number > lastChannel) {
			t.Fatalf("got channel %#x from %x", number, data)
		}
	})
}

// The session with a relay comes up elsewhere, as when UDP is blocked: channels go on there.
func TestRelayThatMovesIsFollowed(t *testing.T) {
	for _, told := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w, cancel := newWorld(t)
			defer cancel()
			ca, channels := w.client(a)
			cb, _ := w.client(b)
			defer run(t, ca, cb)()
			va := open(t, ca, b)
			open(t, cb, a)
			elsewhere := netip.MustParseAddrPort("[100::300:0:0:1]:9")
			w.mu.Lock()
			w.relay = elsewhere
			w.mu.Unlock()
			w.breakStreams()
			if told {
				ca.Moved(anchor, elsewhere)
			} else {
				time.Sleep(time.Second)
				synctest.Wait()
			}
			if got, want := channels[va], (Half{elsewhere, va.Port()}); got != want {
				t.Errorf("told %v: got channel at %v, want %v", told, got, want)
			}
			time.Sleep(2 * Linger)
			if got := w.table(); len(got) != 2 {
				t.Errorf("told %v: got table %v, want both directions kept", told, got)
			}
		})
	}
}
