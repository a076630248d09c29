package bind

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

var quiet = slog.New(slog.DiscardHandler)

// script is an inner bind whose receive function returns what the test puts in and whose Send keeps what came out.
type script struct {
	conn.Bind // nil: panics where the test does not expect a call

	in      []sent // what the next call of the receive function returns
	mu      sync.Mutex
	out     []sent
	refuse  error
	port    uint16
	noPort  bool // as where there is no IPv6
	onSends func(bufs [][]byte)
}

type sent struct {
	addr netip.AddrPort // destination, or source for what is received
	p    []byte
}

func (s *script) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	s.port = port
	if s.noPort {
		return []conn.ReceiveFunc{s.receive}, 0, nil
	}
	if port == 0 {
		s.port = 4242
	}
	return []conn.ReceiveFunc{s.receive}, s.port, nil
}

func (s *script) Close() error   { return nil }
func (s *script) BatchSize() int { return conn.IdealBatchSize }

func (s *script) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	for i, in := range s.in {
		sizes[i] = copy(bufs[i], in.p)
		eps[i] = &conn.StdNetEndpoint{AddrPort: in.addr}
	}
	return len(s.in), nil
}

func (s *script) Send(bufs [][]byte, ep conn.Endpoint) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.onSends != nil {
		s.onSends(bufs)
	}
	for _, p := range bufs {
		s.out = append(s.out, sent{ep.(*conn.StdNetEndpoint).AddrPort, append([]byte(nil), p...)})
	}
	return s.refuse
}

// taken returns what was sent since the last call.
func (s *script) taken() []sent {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.out
	s.out = nil
	return out
}

// scripted returns an open bind over a script, and a function that feeds it one batch and returns the batch as the
// device would see it.
func scripted(t testing.TB) (*Bind, *script, func(...sent) []received) {
	s := new(script)
	b := New(Options{Inner: s, Logger: quiet})
	fns, _, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	bufs, sizes, eps := buffers()
	return b, s, func(in ...sent) []received {
		s.in = in
		n, err := fns[0](bufs, sizes, eps)
		if err != nil || n != len(in) {
			t.Fatalf("receive: got %d, %v, want %d packets", n, err, len(in))
		}
		var got []received
		for i := range n {
			if sizes[i] > 0 {
				got = append(got, received{eps[i], append([]byte(nil), bufs[i][:sizes[i]]...)})
			}
		}
		return got
	}
}

type received struct {
	ep conn.Endpoint
	p  []byte
}

func buffers() (bufs [][]byte, sizes []int, eps []conn.Endpoint) {
	for range conn.IdealBatchSize {
		bufs = append(bufs, make([]byte, 1<<16-1))
	}
	return bufs, make([]int, conn.IdealBatchSize), make([]conn.Endpoint, conn.IdealBatchSize)
}

// pump opens a bind and calls its receive functions as a device would, without one.
func pump(t testing.TB, b *Bind, each func(p []byte, ep conn.Endpoint)) netip.AddrPort {
	fns, port, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for _, fn := range fns {
		running.Go(func() {
			bufs, sizes, eps := buffers()
			for {
				n, err := fn(bufs, sizes, eps)
				if err != nil {
					return
				}
				for i := range n {
					if sizes[i] > 0 && each != nil {
						each(bufs[i][:sizes[i]], eps[i])
					}
				}
			}
		})
	}
	t.Cleanup(func() {
		b.Close()
		running.Wait()
	})
	return loopback(port)
}

func loopback(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
}

// tap keeps a copy of everything that is sent through an inner bind.
type tap struct {
	conn.Bind
	mu   sync.Mutex
	sent [][]byte
}

func (t *tap) Send(bufs [][]byte, ep conn.Endpoint) error {
	t.mu.Lock()
	for _, p := range bufs {
		t.sent = append(t.sent, append([]byte(nil), p...))
	}
	t.mu.Unlock()
	return t.Bind.Send(bufs, ep)
}

func (t *tap) packets() [][]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([][]byte(nil), t.sent...)
}

// node is a WireGuard device over a Bind, with a TUN made of channels.
type node struct {
	t    testing.TB
	bind *Bind
	dev  *device.Device
	tun  *tuntest.ChannelTUN
	key  wgtypes.Key
	addr netip.AddrPort // underlay
	ip   netip.Addr     // overlay
}

func startNode(t testing.TB, inner conn.Bind, ip string) *node {
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{
		t: t, bind: New(Options{Inner: inner, Logger: quiet}), tun: tuntest.NewChannelTUN(),
		key: key, ip: netip.MustParseAddr(ip),
	}
	n.dev = device.NewDevice(n.tun.TUN(), n.bind, device.NewLogger(device.LogLevelSilent, ""))
	t.Cleanup(n.dev.Close)
	n.set("private_key=" + hex.EncodeToString(key[:]) + "\n")
	if err := n.dev.Up(); err != nil {
		t.Fatal(err)
	}
	n.addr = loopback(n.bind.Port())
	return n
}

func (n *node) set(config string) {
	n.t.Helper()
	if err := n.dev.IpcSet(config); err != nil {
		n.t.Fatal(err)
	}
}

// peer adds other as a mesh peer.
func (n *node) peer(other *node, controlling bool) *Endpoint {
	public := other.key.PublicKey()
	e := n.bind.NewEndpoint(public)
	e.SetControlling(controlling)
	n.configure(other, e.Handle())
	return e
}

func (n *node) configure(other *node, endpoint netip.AddrPort) {
	n.t.Helper()
	public := other.key.PublicKey()
	n.set(fmt.Sprintf("public_key=%s\nendpoint=%v\nreplace_allowed_ips=true\nallowed_ip=%v/32\n",
		hex.EncodeToString(public[:]), endpoint, other.ip))
}

// ping sends one echo request with a number in it through the tunnel.
func (n *node) ping(to *node, number uint32) {
	p := tuntest.Ping(to.ip, n.ip)
	p = append(p, byte(number>>24), byte(number>>16), byte(number>>8), byte(number))
	p[2], p[3] = 0, byte(len(p)) // the header's checksum no longer fits; nobody here looks at it
	n.tun.Outbound <- p
}

// number waits for a ping and returns its number.
func (n *node) number(wait time.Duration) (uint32, bool) {
	select {
	case p := <-n.tun.Inbound:
		p = p[len(p)-4:]
		return uint32(p[0])<<24 | uint32(p[1])<<16 | uint32(p[2])<<8 | uint32(p[3]), true
	case <-time.After(wait):
		return 0, false
	}
}

// beforeRetry starts a clock, and returns what fails the test when WireGuard's repetition after five seconds may have been what
// helped. What this process waited for processors meanwhile does not count.
func beforeRetry(t *testing.T) (soon func(what string)) {
	t.Helper()
	start, stop, late := time.Now(), make(chan struct{}), make(chan time.Duration, 1)
	go func() {
		const tick = 5 * time.Millisecond
		var sum time.Duration
		for {
			before := time.Now()
			select {
			case <-stop:
				late <- sum
				return
			case <-time.After(tick):
				sum += time.Since(before) - tick
			}
		}
	}()
	return func(what string) {
		t.Helper()
		took := time.Since(start)
		close(stop)
		starved := <-late
		if took-starved > 4*time.Second {
			t.Errorf("%s took %v, of which %v were waiting for processors, want it long before WireGuard's five seconds", what, took, starved)
		}
		t.Logf("%s: %v", what, took)
	}
}

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// read returns the next packet of a lane, or fails.
func read(t testing.TB, l net.PacketConn) ([]byte, netip.AddrPort) {
	t.Helper()
	l.SetReadDeadline(time.Now().Add(30 * time.Second))
	p := make([]byte, 2048)
	n, from, err := l.ReadFrom(p)
	if err != nil {
		t.Fatal(err)
	}
	return p[:n], from.(*net.UDPAddr).AddrPort()
}
