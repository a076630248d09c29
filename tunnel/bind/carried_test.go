package bind

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"warren/tunnel/bind/bindtest"
)

const (
	trip   = 50 * time.Millisecond // of a packet, and of an introduction
	within = 20 * time.Millisecond
)

// couple is two devices in virtual time, a way of a trip apart. a has the first word; neither has a path to the other.
type couple struct {
	t       *testing.T
	network *bindtest.Network
	a, b    *node
	ea, eb  *Endpoint
	began   time.Time
	sent    atomic.Int64 // initiations by paths
}

// immortal keeps the peers of devices that have run in virtual time: the device has their queues drained when they are collected, which is outside
// of the bubble, and a panic.
var immortal sync.Map

func newCouple(t *testing.T) *couple {
	c := &couple{t: t, network: bindtest.NewNetwork()}
	c.network.Delay(trip)
	start := func(host, ip string) *node {
		n := startNode(t, c.network.Host(netip.MustParseAddr(host)), ip)
		n.addr = netip.AddrPortFrom(netip.MustParseAddr(host), n.bind.Port())
		return n
	}
	c.a, c.b = start("192.0.2.1", "10.0.0.1"), start("192.0.2.2", "10.0.0.2")
	c.ea, c.eb = c.a.peer(c.b, true), c.b.peer(c.a, false)
	immortal.Store(peerOf(c.a, c.b), peerOf(c.b, c.a))
	c.network.Lose(func(_, _ netip.AddrPort, p []byte) bool {
		if isInitiation(p) {
			c.sent.Add(1)
		}
		return false
	})
	c.began = time.Now()
	return c
}

// share sets the preshared key of one side.
func (c *couple) share(n, other *node, psk byte) {
	public := other.key.PublicKey()
	n.set(fmt.Sprintf("public_key=%s\nupdate_only=true\npreshared_key=%s\n", hex.EncodeToString(public[:]), hex.EncodeToString([]byte{31: psk})))
}

// begin has a make the initiation of a handshake, as when it has something to say.
func (c *couple) begin() []byte {
	c.t.Helper()
	peerOf(c.a, c.b).SendHandshakeInitiation(false)
	initiation := c.ea.Carried().Initiation(time.Now(), 1)
	if !isInitiation(initiation) {
		c.t.Fatalf("got an initiation of %d bytes, want one", len(initiation))
	}
	return initiation
}

func peerOf(n, other *node) *device.Peer {
	return n.dev.LookupPeer(device.NoisePublicKey(other.key.PublicKey()))
}

// introduce carries an initiation to b, and the response back. It ends two trips later.
func (c *couple) introduce(initiation []byte) (done bool) {
	time.Sleep(trip)
	c.share(c.b, c.a, 7)
	response := c.eb.Carried().Respond(initiation, within)
	time.Sleep(trip)
	c.share(c.a, c.b, 7)
	since, _ := c.ea.Carried().Conclude(response, time.Time{}, within)
	return response != nil && !since.IsZero()
}

func (c *couple) paths() {
	c.ea.SetPath(c.b.addr)
	c.eb.SetPath(c.a.addr)
}

// at is the time since the beginning.
func (c *couple) at() time.Duration { return time.Since(c.began) }

// arrives waits for a ping at a node and wants it after so many trips.
func (c *couple) arrives(n *node, number uint32, trips int) {
	c.t.Helper()
	got, ok := n.number(10 * time.Second)
	if at := c.at(); !ok || got != number || at != time.Duration(trips)*trip {
		c.t.Errorf("got ping %d, %v, after %v, want %d after %d trips", got, ok, at, number, trips)
	}
}

// How many trips a first packet takes, from the offer on, where a path is there with the answer: two for the introduction, one for the
// packet. Without the handshake in it there are two more.
func TestFirstPacketAfterTheAnswer(t *testing.T) {
	for _, c := range []struct {
		name    string
		carried bool
		trips   int
	}{{"carried", true, 3}, {"by the path", false, 5}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newCouple(t)
				w.a.ping(w.b, 1)
				w.b.ping(w.a, 2)
				synctest.Wait()
				if c.carried {
					if !w.introduce(w.begin()) {
						t.Fatal("the handshake was not carried")
					}
					if peer := peerOf(w.a, w.b); peer == nil || w.ea.Path().IsValid() {
						t.Fatal("there is a path already")
					}
				} else {
					time.Sleep(2 * trip)
					w.share(w.a, w.b, 7)
					w.share(w.b, w.a, 7)
				}
				w.paths()
				w.arrives(w.b, 1, c.trips)
				w.arrives(w.a, 2, c.trips+1) // who has answered the handshake speaks after the first packet
				if n := w.sent.Load(); c.carried && n != 0 {
					t.Errorf("got %d initiations by the path, want none", n)
				}
			})
		})
	}
}

// Whatever an introduction loses, the path that comes up has the handshake at once: never after WireGuard's five seconds, or our own 0.7 s. (The
// two have the same preshared key all along.)
func TestPathWithoutTheCarriedHandshake(t *testing.T) {
	for _, c := range []struct {
		name string
		path time.Duration // when it comes up
		lose func(w *couple, initiation []byte)
	}{
		{"the offer is lost", 2 * trip, func(*couple, []byte) {}},
		{"the answer is lost", 2 * trip, func(w *couple, initiation []byte) {
			time.Sleep(trip)
			w.eb.Carried().Respond(initiation, within)
		}},
		// The device has just consumed the initiation, and would take another one for a flood.
		{"the path is there before the answer", trip + 5*time.Millisecond, func(w *couple, initiation []byte) {
			time.Sleep(trip)
			w.eb.Carried().Respond(initiation, within)
		}},
		{"the path is there before the offer", trip / 2, func(*couple, []byte) {}},
		{"garbage is carried beside it", 2 * trip, func(w *couple, initiation []byte) {
			garbage := append([]byte(nil), initiation...)
			garbage[20]++
			if got := w.eb.Carried().Respond(garbage, within); got != nil {
				w.t.Errorf("got a response to garbage, want none")
			}
		}},
		{"what is answered is garbage", 2 * trip, func(w *couple, initiation []byte) {
			time.Sleep(trip)
			response := w.eb.Carried().Respond(initiation, within)
			response[20]++
			w.ea.Carried().Conclude(response, time.Time{}, within)
			peerOf(w.a, w.b).ExpireCurrentKeypairs() // as tunnel has the next handshake begin
			peerOf(w.a, w.b).SendHandshakeInitiation(false)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newCouple(t)
				w.a.ping(w.b, 1)
				synctest.Wait()
				initiation := w.begin()
				c.lose(w, initiation)
				time.Sleep(c.path - w.at())
				w.paths()
				got, ok := w.b.number(10 * time.Second)
				if want := c.path + 3*trip; !ok || got != 1 || w.at() != want {
					t.Errorf("got ping %d, %v, after %v, want 1 after %v", got, ok, w.at(), want)
				}
				// An offer that is late has nothing to undo.
				if response := w.eb.Carried().Respond(initiation, within); response != nil {
					w.ea.Carried().Conclude(response, time.Time{}, within)
				}
				w.a.ping(w.b, 2)
				if n, ok := w.b.number(time.Second); !ok || n != 2 {
					t.Errorf("after the late offer: got %d, %v, want ping 2", n, ok)
				}
			})
		})
	}
}

// An offer is repeated, and may come by two carriers: all of them get the one response, and the device sees the initiation once.
func TestRepeatedOffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCouple(t)
		w.a.ping(w.b, 1)
		synctest.Wait()
		initiation := w.begin()
		first := w.eb.Carried().Respond(initiation, within)
		for range 3 {
			began := time.Now()
			if got := w.eb.Carried().Respond(initiation, within); string(got) != string(first) || time.Since(began) != 0 {
				t.Errorf("got %d bytes after %v, want the first response at once", len(got), time.Since(began))
			}
		}
		for range 2 { // and so may the answer
			if since, _ := w.ea.Carried().Conclude(first, time.Time{}, within); since != w.began {
				t.Errorf("got a handshake since %v, want one since the beginning", since)
			}
		}
		w.paths()
		w.arrives(w.b, 1, 1)
	})
}

// A session that is up stays in use until the peer uses the new keys.
func TestCarriedHandshakeLeavesTheSessionAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCouple(t)
		w.paths()
		w.a.ping(w.b, 1)
		w.arrives(w.b, 1, 3)
		w.b.ping(w.a, 2)
		w.arrives(w.a, 2, 4)
		// a has lost its path, and its keys are old; b knows of neither.
		time.Sleep(time.Minute)
		w.ea.SetPath(netip.AddrPort{})
		peerOf(w.a, w.b).ExpireCurrentKeypairs()
		initiation := w.begin()
		if w.eb.Carried().Respond(initiation, within) == nil {
			t.Fatal("no response")
		}
		w.b.ping(w.a, 3)
		if n, ok := w.a.number(time.Second); !ok || n != 3 {
			t.Errorf("got %d, %v, want ping 3 under the keys that there were", n, ok)
		}
	})
}

// A response goes to the device only with the object of the peer that it is from: another member cannot have this node believe that the peer is where
// it is itself.
func TestResponseOfAnotherPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCouple(t)
		evil := w.a.bind.NewEndpoint([32]byte{9})
		evil.SetControlling(true)
		response := w.eb.Carried().Respond(w.begin(), within)
		if since, _ := evil.Carried().Conclude(response, time.Time{}, within); !since.IsZero() {
			t.Error("a response was taken for that to another peer's handshake")
		}
		for _, wrong := range [][]byte{nil, {2}, make([]byte, 92), response[:91], append(response[:92:92], 0)} {
			if since, _ := w.ea.Carried().Conclude(wrong, time.Time{}, within); !since.IsZero() {
				t.Errorf("%d bytes were taken for the response", len(wrong))
			}
		}
		if since, _ := w.ea.Carried().Conclude(response, time.Time{}, within); since.IsZero() {
			t.Error("the right one was not")
		}
	})
}

// Who is forgotten, or is another process, has no handshake on its way.
func TestForgottenPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCouple(t)
		initiation := w.begin()
		response := w.eb.Carried().Respond(initiation, within)
		w.ea.Carried().Void()
		if since, _ := w.ea.Carried().Conclude(response, time.Time{}, within); !since.IsZero() || w.ea.Carried().Initiation(time.Now(), 1) != nil {
			t.Error("after Void there is a handshake still")
		}
		w.b.bind.RemoveEndpoint(w.eb)
		if w.eb.Carried().Respond(initiation, within) != nil {
			t.Error("a peer that was removed has a response")
		}
	})
}

// Packets wait for a path only under keys that were carried, and only so many for so long: the oldest goes.
func TestPacketsThatWaitForAPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			name        string
			pings       int
			pause       time.Duration
			first, last uint32 // that arrive; zero: none
		}{
			{"few", 3, 0, 1, 3},
			{"many", maxKept + 10, 0, 11, maxKept + 10},
			{"too long ago", 3, carriedFor + 1, 0, 0},
		} {
			w := newCouple(t)
			if !w.introduce(w.begin()) {
				t.Fatal("the handshake was not carried")
			}
			for i := range c.pings {
				w.a.ping(w.b, uint32(i+1))
				synctest.Wait()
			}
			time.Sleep(c.pause)
			w.paths()
			var got []uint32
			for {
				n, ok := w.b.number(time.Second)
				if !ok {
					break
				}
				got = append(got, n)
			}
			slices.Sort(got) // they left at one moment
			if c.first == 0 && len(got) > 0 || c.first > 0 && (len(got) != int(c.last-c.first)+1 || got[0] != c.first) {
				t.Errorf("%s: got %v, want %d to %d", c.name, got, c.first, c.last)
			}
			// The next packet goes by the path in any case.
			w.a.ping(w.b, 1000)
			if n, ok := w.b.number(time.Second); !ok || n != 1000 {
				t.Errorf("%s: got %d, %v, want ping 1000", c.name, n, ok)
			}
		}
	})
}
