package noise

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ratelimiter"
	"golang.zx2c4.com/wireguard/tai64n"
	"golang.zx2c4.com/wireguard/tun/tuntest"
)

// The twin is the module's own device. It runs in a bubble of testing/synctest, where the clock that it reads goes as fast as
// nothing happens. Ours is handed in, and may run ahead of it.

// memory is a conn.Bind over channels: what the device sends comes out of sent, what is put into take it receives.
type memory struct {
	sent, take chan []byte
	mu         sync.Mutex
	closed     chan struct{}
}

type place struct{ netip.AddrPort }

func (place) ClearSrc()             {}
func (place) SrcToString() string   { return "" }
func (p place) DstToString() string { return p.String() }
func (p place) DstToBytes() []byte  { b, _ := p.MarshalBinary(); return b }
func (p place) DstIP() netip.Addr   { return p.Addr() }
func (place) SrcIP() netip.Addr     { return netip.Addr{} }

func (m *memory) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	closed := make(chan struct{})
	m.closed = closed
	return []conn.ReceiveFunc{func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		select {
		case <-closed:
			return 0, net.ErrClosed
		case b := <-m.take:
			sizes[0], eps[0] = copy(bufs[0], b), place{source}
			return 1, nil
		}
	}}, 9, nil
}

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed != nil {
		close(m.closed)
		m.closed = nil
	}
	return nil
}

func (m *memory) SetMark(uint32) error { return nil }
func (m *memory) BatchSize() int       { return 1 }
func (m *memory) Send(bufs [][]byte, _ conn.Endpoint) error {
	for _, b := range bufs {
		select {
		case m.sent <- bytes.Clone(b):
		default: // a network may lose
		}
	}
	return nil
}
func (m *memory) ParseEndpoint(string) (conn.Endpoint, error) { return place{source}, nil }

// pairing is our machine beside a device.
type pairing struct {
	t     *testing.T
	m     *Machine
	p     *Peer
	dev   *device.Device
	tun   *tuntest.ChannelTUN
	wire  *memory
	start time.Time
	ahead time.Duration // of our clock
	load  bool
	acts  []Action // all that our side did
	drops map[Drop]int
}

var ours, theirs = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")

// pairUp makes both ends. lines are added to the device's peer.
func pairUp(t *testing.T, psk PresharedKey, lines string) *pairing {
	t.Helper()
	x := &pairing{t: t, tun: tuntest.NewChannelTUN(), start: time.Now(), drops: map[Drop]int{},
		wire: &memory{sent: make(chan []byte, 4096), take: make(chan []byte, 8192)}}
	private, other := testKey(1), testKey(101)
	var err error
	if x.m, err = New(Options{Private: private}); err != nil {
		t.Fatal(err)
	}
	if x.p, err = x.m.Add(other.Public()); err != nil {
		t.Fatal(err)
	}
	x.p.SetPresharedKey(psk)
	x.dev = deviceOn(t, x.tun, x.wire, x.m.Public(), psk, lines)
	t.Cleanup(func() { x.dev.Close() })
	return x
}

// deviceOn makes a device that is up, with one peer.
func deviceOn(t *testing.T, tun *tuntest.ChannelTUN, wire *memory, public PublicKey, psk PresharedKey, lines string) *device.Device {
	t.Helper()
	other := testKey(101)
	dev := device.NewDevice(tun.TUN(), wire, device.NewLogger(device.LogLevelSilent, ""))
	config := fmt.Sprintf("private_key=%s\nlisten_port=9\npublic_key=%s\npreshared_key=%s\nallowed_ip=10.0.0.1/32\nendpoint=192.0.2.1:9277\n%s",
		hex.EncodeToString(other[:]), hex.EncodeToString(public[:]), hex.EncodeToString(psk[:]), lines)
	if err := dev.IpcSet(config); err != nil {
		t.Fatal(err)
	}
	if err := dev.Up(); err != nil {
		t.Fatal(err)
	}
	kept.mu.Lock()
	kept.peers = append(kept.peers, dev.LookupPeer(device.NoisePublicKey(public)))
	kept.mu.Unlock()
	return dev
}

// kept are the peers of all devices. Their queues are emptied when the collector finds them, which is outside of the bubble and ends
// the process, so it does not.
var kept struct {
	mu    sync.Mutex
	peers []*device.Peer
}

func (x *pairing) now() Moment {
	return Moment{Instant(time.Since(x.start)+x.ahead) + second, time.Now().Add(x.ahead)}
}

// act does what our machine says.
func (x *pairing) act(acts []Action) {
	x.acts = append(x.acts, acts...)
	for _, a := range acts {
		if a.Packet != nil {
			x.wire.take <- a.Packet
		}
	}
}

func (x *pairing) count(kind Kind) (n int) {
	for _, a := range x.acts {
		if a.Kind == kind {
			n++
		}
	}
	return n
}

// next takes the next message of the device and returns what it was, and what was in it.
func (x *pairing) next(patience time.Duration) (Type, []byte) {
	x.t.Helper()
	timeout := time.After(patience)
	for {
		step := time.NewTimer(max(0, min(time.Hour, x.p.Next().Sub(x.now().At))))
		select {
		case <-timeout:
			return None, nil
		case <-step.C:
			x.act(x.p.Step(x.now(), nil))
		case msg := <-x.wire.sent:
			kind := TypeOf(msg)
			if kind == Transport {
				o := x.m.Open(msg[HeaderSize:HeaderSize], msg, x.now().At)
				x.drops[o.Drop]++
				if o.Signal&Wake != 0 {
					x.act(x.p.Step(x.now(), nil))
				}
				if o.Drop != Kept {
					continue
				}
				return kind, o.Plain
			}
			r, acts := x.m.Receive(msg, source, x.load, x.now(), nil)
			x.drops[r.Drop]++
			x.act(acts)
			return kind, nil
		}
	}
}

// until takes messages of the device until one is of a kind.
func (x *pairing) until(kind Type, data bool) []byte {
	x.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		if got, plain := x.next(time.Until(deadline)); got == kind && (!data || len(plain) > 0) {
			return plain
		}
	}
	x.t.Fatalf("no message of type %d came; dropped: %v", kind, x.drops)
	return nil
}

// packet is one of IPv4, of a size.
func packet(from, to netip.Addr, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i * size)
	}
	b[0] = 0x45
	binary.BigEndian.PutUint16(b[2:], uint16(size))
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	return b
}

// ask has the device send a packet, and waits for it.
func (x *pairing) ask(size int) {
	x.t.Helper()
	b := packet(theirs, ours, size)
	x.tun.Outbound <- b
	got := x.until(Transport, true)
	if len(got) != Padded(size, device.DefaultMTU) || !bytes.Equal(got[:size], b) || len(bytes.Trim(got[size:], "\x00")) > 0 {
		x.t.Fatalf("size %d: got %d other bytes", size, len(got))
	}
}

// tell sends a packet of ours, and waits until the device hands it on.
func (x *pairing) tell(size, padded int) {
	x.t.Helper()
	b := packet(ours, theirs, size)
	plain := append(bytes.Clone(b), make([]byte, padded-size)...)
	msg, signal := x.p.Seal(nil, plain, x.now().At)
	if signal&NoKey != 0 {
		x.t.Fatalf("size %d: no key", size)
	}
	x.wire.take <- msg
	select {
	case got := <-x.tun.Inbound:
		if !bytes.Equal(got, b) {
			x.t.Fatalf("size %d: got %d other bytes", size, len(got))
		}
	case <-time.After(30 * time.Second):
		x.t.Fatalf("size %d: the device did not hand it on", size)
	}
}

// TestDevice: the handshake in both roles, with and without a preshared key, then data both ways.
func TestDevice(t *testing.T) {
	for name, psk := range map[string]PresharedKey{"no preshared key": {}, "preshared key": {1, 2, 3}} {
		t.Run("we begin, "+name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				x := pairUp(t, psk, "")
				x.act(x.p.Handshake(x.now(), nil))
				x.until(Response, false)
				if x.count(Ready) != 1 || x.count(SendKeepalive) != 1 {
					t.Fatalf("got %v, dropped %v", x.acts, x.drops)
				}
				x.tell(84, 96)
				x.ask(84)
			})
		})
		t.Run("it begins, "+name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				x := pairUp(t, psk, "")
				x.ask(84) // the device keeps it until there is a key
				if x.count(SendResponse) != 1 || x.count(Ready) != 1 || x.count(SendInitiation) != 0 {
					t.Fatalf("got %v, dropped %v", x.acts, x.drops)
				}
				x.tell(84, 84)
			})
		})
		t.Run("both begin, "+name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				x := pairUp(t, psk, "")
				initiation := x.p.Carry(x.now())
				x.tun.Outbound <- packet(theirs, ours, 100)
				var crossed []byte
				select {
				case crossed = <-x.wire.sent: // its initiation has left before ours arrives
				case <-time.After(30 * time.Second):
					t.Fatal("no initiation")
				}
				x.wire.take <- initiation
				_, acts := x.m.Receive(crossed, source, false, x.now(), nil)
				x.until(Response, false)
				x.act(acts) // our response, to an initiation that the device has forgotten for ours
				x.until(Transport, true)
				x.tell(84, 84)
				x.ask(84)
			})
		})
	}
}

// TestDeviceSizes: data of every size up to the MTU, both ways.
func TestDeviceSizes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := pairUp(t, PresharedKey{9}, "")
		x.act(x.p.Handshake(x.now(), nil))
		x.until(Response, false)
		for size := 20; size <= device.DefaultMTU; size++ {
			x.tell(size, Padded(size, device.DefaultMTU))
			if size%7 == 0 {
				x.tell(size, size) // it takes packets without padding, too
			}
			x.ask(size)
		}
		delete(x.drops, Kept)
		if len(x.drops) > 0 {
			t.Errorf("dropped %v", x.drops)
		}
	})
}

// TestDeviceWrongKey: preshared keys that differ make no session, until they are the same.
func TestDeviceWrongKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := pairUp(t, PresharedKey{1}, "")
		x.p.SetPresharedKey(PresharedKey{2})
		msg := x.p.Carry(x.now())
		x.wire.take <- msg
		var response []byte
		select {
		case response = <-x.wire.sent:
		case <-time.After(30 * time.Second):
			t.Fatal("no response")
		}
		if r, _ := x.m.Receive(response, source, false, x.now(), nil); r.Drop != DropForged {
			t.Fatalf("got %v for a response with another preshared key", r.Drop)
		}
		x.p.SetPresharedKey(PresharedKey{1})
		r, acts := x.m.Receive(response, source, false, x.now(), nil)
		if r.Peer != x.p {
			t.Fatalf("got %v once it is known", r.Drop)
		}
		x.act(acts)
		x.tell(84, 96)
		x.ask(84)
	})
}

// TestDeviceKeepalives: each side's passive and persistent keepalives are taken by the other.
func TestDeviceKeepalives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := pairUp(t, PresharedKey{}, "persistent_keepalive_interval=1\n")
		x.until(Initiation, false) // by its persistent keepalive
		for range 3 {
			if got := x.until(Transport, false); len(got) != 0 {
				t.Fatalf("got %d bytes in a keepalive", len(got))
			}
		}
		rx := x.statistic("rx_bytes")
		x.p.SetPersistent(time.Second, x.now().At)
		x.act(x.p.Step(x.now(), nil))
		x.until(Transport, false)
		deadline := time.Now().Add(20 * time.Second)
		for x.statistic("rx_bytes") <= rx {
			if time.Now().After(deadline) {
				t.Fatal("our keepalives were not counted")
			}
			x.next(50 * time.Millisecond)
		}
		if x.count(SendKeepalive) == 0 {
			t.Error("we sent none")
		}
		if x.statistic("last_handshake_time_sec") == 0 {
			t.Error("the device has not noted the handshake")
		}
	})
}

// statistic reads a number of the device's peer.
func (x *pairing) statistic(key string) (n int64) {
	all, err := x.dev.IpcGet()
	if err != nil {
		x.t.Fatal(err)
	}
	for line := range strings.Lines(all) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			fmt.Sscan(value, &n)
		}
	}
	return n
}

// TestDeviceUnderLoad: the device under load asks for a cookie, and our next initiation shows it.
func TestDeviceUnderLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := pairUp(t, PresharedKey{3}, "")
		/* Junk with a good first MAC: it costs the device an agreement each, so its queue fills, and for a second after that it is under
		 * load, while it looks at ours.
		 */
		junk := make([]byte, InitiationSize)
		binary.LittleEndian.PutUint32(junk, uint32(Initiation))
		var m macs
		m.init(x.p.Key())
		burst := func() {
			for i := range uint32(900) {
				binary.LittleEndian.PutUint32(junk[8:], i)
				m.add(junk, x.p.Key(), 0)
				x.wire.take <- bytes.Clone(junk)
			}
		}
		shown := false // whether an initiation with a cookie was answered
		deadline := time.Now().Add(60 * time.Second)
		for done := 0; !shown || x.count(Ready) == done; {
			done = x.count(Ready)
			if time.Now().After(deadline) {
				t.Fatalf("no session under load: did %d, dropped %v", len(x.acts), x.drops)
			}
			x.ahead += RekeyTimeout + time.Second // so that we need not wait
			burst()
			shown = x.p.macs.since != Never
			x.act(x.p.Handshake(x.now(), nil))
			for kind, _ := x.next(300 * time.Millisecond); kind != None && x.count(Ready) == done; kind, _ = x.next(300 * time.Millisecond) {
			}
		}
		x.tell(84, 96)
	})
}

// TestDeviceAnswersCookie: we are under load; the device keeps our cookie and shows it with its next initiation, 5 s later.
func TestDeviceAnswersCookie(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := pairUp(t, PresharedKey{4}, "")
		x.load = true
		x.ask(100)
		if x.count(SendCookie) != 1 || x.count(SendResponse) != 1 {
			t.Errorf("got %d cookies and %d responses, want one each; dropped %v", x.count(SendCookie), x.count(SendResponse), x.drops)
		}
		x.tell(84, 96)
	})
}

// TestDeviceRekeys: traffic goes on while each side renews the session.
func TestDeviceRekeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := pairUp(t, PresharedKey{5}, "")
		x.act(x.p.Handshake(x.now(), nil))
		x.until(Response, false)
		for i := range 5 {
			x.tell(84, 96)
			x.ask(84)
			x.next(50 * time.Millisecond) // the device drops initiations that come within 20 ms
			x.ahead += RekeyAfterTime     // ours is old, so the next packet renews it
			msg, signal := x.p.Seal(nil, make([]byte, 16), x.now().At)
			if signal&NoKey != 0 || signal&Wake == 0 {
				t.Fatalf("round %d: got signal %v", i, signal)
			}
			x.wire.take <- msg
			x.act(x.p.Step(x.now(), nil))
			x.until(Response, false)
		}
		if got := x.count(SendInitiation); got != 6 {
			t.Errorf("got %d initiations, want 6", got)
		}
		x.tell(84, 96)
		x.ask(84)
	})
}

// TestModuleLimiter: the module's ratelimiter fits, and lets a few through of many that show a cookie.
func TestModuleLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var limiter ratelimiter.Ratelimiter
		limiter.Init()
		defer limiter.Close()
		s := newSim(t, 1)
		a, b := s.nodes[0], s.nodes[1]
		b.m.limiter = &limiter
		taken := 0
		for i := range 20 {
			s.now += second
			r, acts := b.m.Receive(a.p.Carry(a.moment()), source, true, b.moment(), nil)
			switch {
			case i == 0:
				a.m.Receive(acts[0].Packet, source, false, a.moment(), nil) // the cookie
			case r.Drop == Kept:
				taken++
			}
		}
		if taken < 3 || taken > 6 {
			t.Errorf("got %d of 19 initiations taken at once, want the burst of the limiter", taken)
		}
	})
}

// TestStamp: our stamps are the module's.
func TestStamp(t *testing.T) {
	for range 100 {
		before, module, after := stampOf(time.Now()), tai64n.Now(), stampOf(time.Now())
		if before.After(module) || module.After(after) {
			t.Errorf("got %v and %v around %v", before, after, module)
		}
	}
	last := stampOf(time.Unix(1000, 999_999_999))
	for range 200 {
		next := later(time.Unix(5, 0), last)
		if !next.After(last) || binary.BigEndian.Uint32(next[8:]) >= 1e9 {
			t.Fatalf("got %v after %v", next, last)
		}
		last = next
	}
	if got := later(time.Unix(2000, 0), last); got != stampOf(time.Unix(2000, 0)) {
		t.Errorf("got %v, want the calendar's", got)
	}
}

// TestDeviceDay: a day of traffic both ways. Whichever side began, it renews the session each 120 s, and nothing is lost.
func TestDeviceDay(t *testing.T) {
	t.Parallel()
	hours := 24 * time.Hour
	if raceEnabled || testing.Short() {
		hours = 2 * time.Hour
	}
	for _, weBegin := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			x := pairUp(t, PresharedKey{6}, "")
			began := time.Now()
			sent, got := 0, 0
			if weBegin {
				x.act(x.p.Handshake(x.now(), nil))
				x.until(Response, false)
			}
			for time.Since(began) < hours {
				x.ask(84)
				x.tell(84, 96)
				sent, got = sent+1, got+1
				for kind, _ := x.next(10 * time.Second); kind != None; kind, _ = x.next(10 * time.Second) {
				}
			}
			delete(x.drops, Kept)
			if len(x.drops) > 0 {
				t.Errorf("dropped %v", x.drops)
			}
			all := x.count(SendInitiation) + x.count(SendResponse)
			t.Logf("we begin %v: %v: %d initiations of ours, %d of the device's, %d packets each way", weBegin, hours, x.count(SendInitiation), x.count(SendResponse), sent)
			if want := int(hours / (131 * time.Second)); all < want {
				t.Errorf("got %d handshakes, want one with the first packet after 120 s", all)
			}
		})
	}
}
