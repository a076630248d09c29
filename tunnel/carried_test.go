package tunnel

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
	"warren/tunnel/bind"
	"warren/tunnel/bind/bindtest"
)

// way is how long a packet takes, and an introduction.
const way = 50 * time.Millisecond

// immortal keeps the peers of devices that have run in virtual time: the device has their queues drained when they are collected, which is outside
// of the bubble, and a panic.
var immortal sync.Map

// met is a tunnel over a real device, without an interface: in virtual time.
type met struct {
	*Tunnel
	t       *testing.T
	id      identity.NodeID
	private wgtypes.Key
	device  *device.Device
	tun     *tuntest.ChannelTUN
	addr    netip.AddrPort // underlay
	inside  netip.Addr
	log     *strings.Builder
}

// newMet makes the i-th of some tunnels on a network. Those that are made first have the first word.
func newMet(t *testing.T, network *bindtest.Network, i byte) *met {
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	m := &met{t: t, id: id(i), private: private, inside: netip.AddrFrom4([4]byte{10, 0, 0, i}), log: new(strings.Builder)}
	host := netip.AddrFrom4([4]byte{192, 0, 2, i})
	log := slog.New(slog.NewTextHandler(m.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	socket := bind.New(bind.Options{Inner: network.Host(host), Logger: slog.New(slog.DiscardHandler)})
	if m.Tunnel, err = New(Options{PrivateKey: private, Bind: socket, Logger: log}); err != nil {
		t.Fatal(err)
	}
	m.ways.linkMTU = func(netip.Addr) (int, error) { return 1500, nil }
	m.tun = tuntest.NewChannelTUN()
	m.device = device.NewDevice(m.tun.TUN(), m.bind, device.NewLogger(device.LogLevelSilent, ""))
	m.say(fmt.Sprintf("private_key=%s\n", hex.EncodeToString(private[:])))
	if err := m.device.Up(); err != nil {
		t.Fatal(err)
	}
	m.addr = netip.AddrPortFrom(host, socket.Port())
	m.running.Store(m.device)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		m.ways.run(ctx, attached{m.Tunnel})
		close(ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		m.device.Close()
	})
	return m
}

func (m *met) say(config string) {
	m.t.Helper()
	if err := m.device.IpcSet(config); err != nil {
		m.t.Fatal(err)
	}
}

// know sets the other tunnels as members, as SetPeers does.
func (m *met) know(others ...*met) {
	m.t.Helper()
	var peers []Peer
	for _, o := range others {
		peers = append(peers, Peer{ID: o.id, PublicKey: o.private.PublicKey(), Controlling: m.id.Compare(o.id) < 0})
	}
	want, table, err := m.ways.prepare(peers)
	if err != nil {
		m.t.Fatal(err)
	}
	for i, p := range want {
		m.say(fmt.Sprintf("public_key=%s\nendpoint=%v\nallowed_ip=%v/32\n", hex.EncodeToString(p.PublicKey[:]), p.Endpoint, others[i].inside))
	}
	for _, o := range others {
		immortal.Store(m.device.LookupPeer(device.NoisePublicKey(o.private.PublicKey())), m)
	}
	m.ways.publish(table)
	synctest.Wait()
}

func (m *met) share(o *met, psk byte) {
	public := o.private.PublicKey()
	m.say(fmt.Sprintf("public_key=%s\nupdate_only=true\npreshared_key=%s\n", hex.EncodeToString(public[:]), hex.EncodeToString([]byte{31: psk})))
}

// introduce carries an offer and its answer, with what handshake there is, as courier does, and reports whether that is done.
func introduce(a, b *met, psk byte) bool {
	initiation := a.Initiation(b.id, uint64(psk))
	time.Sleep(way)
	b.share(a, psk)
	var response []byte
	if initiation != nil {
		var err error
		if response, err = b.Respond(a.id, initiation); err != nil {
			a.t.Error(err)
		}
	}
	time.Sleep(way)
	a.share(b, psk)
	if response != nil && a.Conclude(b.id, [8]byte{1}, response) {
		return true
	}
	a.Agreed(b.id, [8]byte{1})
	return false
}

// Another attempt has another preshared key, and so another handshake: the response to the one before was made under the key of that one.
func TestAnswerThatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := acquainted(t)
		first := a.Initiation(b.id, 7)
		b.share(a, 7)
		if response, err := b.Respond(a.id, first); err != nil || len(response) == 0 {
			t.Fatalf("got %x, %v, want a response, which is lost", response, err)
		}
		if again := a.Initiation(b.id, 7); !bytes.Equal(again, first) {
			t.Error("the offer of one attempt, repeated: got another initiation, want the same")
		}
		time.Sleep(300 * time.Millisecond)
		if !introduce(a, b, 8) {
			t.Error("the next attempt has not done the handshake")
		}
	})
}

func (m *met) ping(o *met, number byte) {
	p := append(tuntest.Ping(o.inside, m.inside), number)
	p[2], p[3] = 0, byte(len(p)) // nobody looks at the header's checksum
	m.tun.Outbound <- p
}

// hears wants a ping within a time.
func (m *met) hears(number byte, within time.Duration) {
	m.t.Helper()
	began := time.Now()
	select {
	case p := <-m.tun.Inbound:
		if got := p[len(p)-1]; got != number || time.Since(began) != within {
			m.t.Errorf("got ping %d after %v, want %d after %v", got, time.Since(began), number, within)
		}
	case <-time.After(20 * time.Second):
		m.t.Errorf("got no ping within 20 s, want %d after %v", number, within)
	}
}

// acquainted is two tunnels that know each other and have no ways yet.
func acquainted(t *testing.T) (network *bindtest.Network, a, b *met) {
	network = bindtest.NewNetwork()
	network.Delay(way)
	a, b = newMet(t, network, 1), newMet(t, network, 9)
	a.know(b)
	b.know(a)
	return network, a, b
}

// The handshake is done before there is a way, and the first packet is there one way after that.
func TestKeysBeforeTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := acquainted(t)
		a.ping(b, 1)
		b.ping(a, 2)
		synctest.Wait()
		if !introduce(a, b, 7) {
			t.Fatal("the handshake was not done by the introduction")
		}
		if _, path := a.Activity(b.id); path.IsValid() || a.LastHandshake(b.id).IsZero() {
			t.Errorf("got path %v, handshake %v, want the handshake and no path", path, a.LastHandshake(b.id))
		}
		time.Sleep(3 * time.Second) // a way takes its time, and WireGuard does not try again meanwhile
		a.SetWay(b.id, Way{Addr: b.addr})
		b.SetWay(a.id, Way{Addr: a.addr})
		b.hears(1, way)
		a.hears(2, way)
		if n := strings.Count(a.log.String(), "handshake done by introduction"); n != 1 {
			t.Errorf("got %d lines of the handshake, want one:\n%s", n, a.log)
		}
		// None is due any more.
		if a.Initiation(b.id, 1) != nil || introduce(a, b, 8) {
			t.Error("a handshake is begun while the keys are good")
		}
		a.SetWay(b.id, Way{})
		if synctest.Wait(); a.Initiation(b.id, 1) != nil {
			t.Error("a handshake is begun while the keys are good, without a way")
		}
		if b.Initiation(a.id, 1) != nil {
			t.Error("the side that has not the first word begins one")
		}
	})
}

// The first packet under new keys is what tells the other side of them. When it is lost, another one follows soon, though there is nothing to say.
func TestFirstPacketUnderCarriedKeysIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, a, b := acquainted(t)
		b.ping(a, 2)
		synctest.Wait()
		if !introduce(a, b, 7) {
			t.Fatal("the handshake was not done by the introduction")
		}
		up := time.Now()
		network.Lose(func(from, _ netip.AddrPort, _ []byte) bool { return from == a.addr && time.Since(up) < way })
		a.SetWay(b.id, Way{Addr: b.addr})
		b.SetWay(a.id, Way{Addr: a.addr})
		a.hears(2, handshakeRetry+2*way)
	})
}

// An introduction that has carried no response, or none that the device takes, leaves the handshake to the way, at once.
func TestWayAfterHalfAHandshake(t *testing.T) {
	for _, c := range []struct {
		name  string
		carry func(a, b *met)
	}{
		{"no offer came", func(a, b *met) { a.Initiation(b.id, 1) }},
		{"no answer came", func(a, b *met) {
			_, err := b.Respond(a.id, a.Initiation(b.id, 1))
			if err != nil {
				a.t.Error(err)
			}
		}},
		{"an answer came without a response", func(a, b *met) {
			if _, err := b.Respond(a.id, a.Initiation(b.id, 1)); err != nil {
				a.t.Error(err)
			}
			a.Agreed(b.id, [8]byte{1})
		}},
		{"the response is made under another preshared key", func(a, b *met) {
			b.share(a, 8)
			response, _ := b.Respond(a.id, a.Initiation(b.id, 1))
			b.share(a, 7)
			if a.Conclude(b.id, [8]byte{1}, response) {
				a.t.Error("such a response was taken")
			}
			a.Agreed(b.id, [8]byte{1})
			time.Sleep(way) // or the device takes the next initiation for a flood
		}},
		{"the other side had begun too", func(a, b *met) {
			b.ping(a, 3)
			synctest.Wait()
			a.Initiation(b.id, 1)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, a, b := acquainted(t)
				a.share(b, 7)
				b.share(a, 7)
				a.ping(b, 1)
				synctest.Wait()
				c.carry(a, b)
				time.Sleep(way)
				a.SetWay(b.id, Way{Addr: b.addr})
				b.SetWay(a.id, Way{Addr: a.addr})
				b.hears(1, 3*way)
			})
		})
	}
}

// A way that comes up while the device works out the response that an introduction has carried leaves both sides with the same keys, by which packets
// go both ways. The device itself mixes the two handshakes up then, in most rounds of this test: the peer's packets are dropped for 15 s.
func TestWayWhileTheResponseIsWorkedOut(t *testing.T) {
	for round := range 40 {
		synctest.Test(t, func(t *testing.T) {
			_, a, b := acquainted(t)
			initiation := a.Initiation(b.id, 1)
			b.share(a, 7)
			response, err := b.Respond(a.id, initiation)
			if err != nil || response == nil {
				t.Fatalf("got %x, %v, want a response", response, err)
			}
			a.share(b, 7)
			b.SetWay(a.id, Way{Addr: a.addr})
			synctest.Wait()
			m := a.ways.member(b.id)
			go m.endpoint.Carried().Conclude(response, time.Time{}, deviceTime)
			for range round * 5000 { // it takes the device a third of a millisecond
				m.endpoint.Path()
			}
			a.SetWay(b.id, Way{Addr: b.addr})
			time.Sleep(6 * way)
			a.ping(b, 1)
			select {
			case <-b.tun.Inbound:
			case <-time.After(time.Second): // the way was first, and the device has taken its handshake for a flood
				t.Errorf("got nothing of the side that has begun within a second")
			}
			b.ping(a, 2)
			a.hears(2, way)
		})
	}
}

// Who is asked for a handshake by a path, while its own is carried, answers and has forgotten its own: the response that it gets is of no use, and a
// way that comes begins another one at once.
func TestWayAfterCrossedHandshakes(t *testing.T) {
	for _, answered := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			_, a, b := acquainted(t)
			a.share(b, 7)
			b.share(a, 7)
			initiation := a.Initiation(b.id, 1)
			b.SetWay(a.id, Way{Addr: a.addr})
			synctest.Wait()
			b.ping(a, 2)
			time.Sleep(way) // the initiation of b is answered
			synctest.Wait()
			response, err := b.Respond(a.id, initiation)
			if err != nil || response == nil {
				t.Fatalf("got %x, %v, want a response", response, err)
			}
			if answered && a.Conclude(b.id, [8]byte{1}, response) {
				t.Error("got the handshake done, want it crossed")
			}
			a.Agreed(b.id, [8]byte{1})
			time.Sleep(way)
			a.SetWay(b.id, Way{Addr: b.addr})
			a.ping(b, 1)
			b.hears(1, 3*way)
		})
	}
}

// A member that carries another one's handshake is found out before the device sees it: the device would send to the one where the other is.
func TestHandshakeOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, a, b := acquainted(t)
		evil := newMet(t, network, 3)
		b.know(a, evil)
		initiation := a.Initiation(b.id, 1)
		for _, wrong := range [][]byte{initiation, evil.Initiation(b.id, 1), nil, make([]byte, 148), initiation[:147]} {
			if response, err := b.Respond(evil.id, wrong); !errors.Is(err, ErrForeign) || response != nil {
				t.Errorf("got a response of %d bytes, error %v, want ErrForeign", len(response), err)
			}
		}
		if response, err := b.Respond(id('x'), initiation); err != nil || response != nil {
			t.Errorf("for who is no member: got a response of %d bytes, error %v, want none", len(response), err)
		}
		if response, err := b.Respond(a.id, initiation); err != nil || response == nil {
			t.Errorf("for who has made it: got a response of %d bytes, error %v, want one", len(response), err)
		}
	})
}

// TestInitiator asserts that the maker of an initiation is read by whom it is for, and by nobody else.
func TestInitiator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := acquainted(t)
		initiation := a.Initiation(b.id, 1)
		if by, ok := initiator(b.private, initiation); !ok || by != a.private.PublicKey() {
			t.Errorf("got %v, %v, want that a has made it", by, ok)
		}
		if _, ok := initiator(a.private, initiation); ok {
			t.Error("it was read with the wrong key")
		}
		for i := range 88 { // what follows is the device's to check
			if i >= 1 && i < 8 {
				continue // reserved, and the index: part of no hash
			}
			spoilt := slices.Clone(initiation)
			spoilt[i] ^= 1
			if by, ok := initiator(b.private, spoilt); ok && by == a.private.PublicKey() {
				t.Errorf("byte %d was changed, and a has made it still", i)
			}
		}
	})
}

// A restarted peer is met anew: what was carried with the process before does not count.
func TestCarriedHandshakeOfTheProcessBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := acquainted(t)
		response, err := b.Respond(a.id, a.Initiation(b.id, 1))
		if err != nil || response == nil {
			t.Fatalf("got %d bytes, %v, want a response", len(response), err)
		}
		a.Anew(b.id)
		if a.Conclude(b.id, [8]byte{2}, response) {
			t.Error("a handshake with the process before was taken")
		}
	})
}
