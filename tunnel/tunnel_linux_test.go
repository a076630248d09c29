package tunnel

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/tun/tuntest"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/tunnel/osnet"
	"warren/tunnel/osnet/osnettest"
)

// patience bounds every wait of these tests.
const patience = 40 * time.Second

// wait polls until done returns true.
func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// run runs a tool and returns what it prints, in one line.
func run(t *testing.T, argv ...string) string {
	t.Helper()
	text, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, text)
	}
	return strings.Join(strings.Fields(string(text)), " ")
}

// side is a tunnel that runs until the test ends, or until stop.
type side struct {
	*Tunnel
	key  wgtypes.Key // public
	tun  *tuntest.ChannelTUN
	stop func() error
}

// named gives a TUN a name of its own.
type named struct {
	tun.Device
	name string
}

func (n named) Name() (string, error) { return n.name, nil }

// start runs a tunnel and waits until it is ready.
func start(t *testing.T, opts Options) *side {
	t.Helper()
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	opts.PrivateKey = private
	tunnel, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- tunnel.Run(ctx) }()
	s := &side{Tunnel: tunnel, key: private.PublicKey(), stop: func() error {
		cancel()
		err := <-result
		result <- err
		return err
	}}
	t.Cleanup(func() { _ = s.stop() })
	select {
	case <-tunnel.Ready():
	case err := <-result:
		t.Fatalf("run tunnel: %v", err)
	case <-time.After(patience):
		t.Fatal("run tunnel: not ready")
	}
	return s
}

// inMemory runs a tunnel whose TUN is a pair of channels and whose link is on m.
func inMemory(t *testing.T, name string, m *osnettest.Machine) *side {
	t.Helper()
	channels := tuntest.NewChannelTUN()
	s := start(t, Options{TUN: named{channels.TUN(), name}, Links: m})
	s.tun = channels
	return s
}

// port asks the device, as wg(8) does.
func (s *side) port(t *testing.T) uint16 {
	t.Helper()
	n, err := strconv.ParseUint(run(t, "wg", "show", s.Name(), "listen-port"), 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(n)
}

// at is where the side is reached on loopback.
func (s *side) at(t *testing.T) netip.AddrPort {
	t.Helper()
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.port(t))
}

// carries sends a packet from one side and waits for it at the other.
func carries(t *testing.T, from, to *side, src, dst string) {
	t.Helper()
	packet := tuntest.Ping(netip.MustParseAddr(dst), netip.MustParseAddr(src))
	from.tun.Outbound <- packet
	select {
	case got := <-to.tun.Inbound:
		if string(got) != string(packet) {
			t.Errorf("%s to %s: got another packet", src, dst)
		}
	case <-time.After(patience):
		t.Fatalf("%s to %s: nothing within %v", src, dst, patience)
	}
}

func (s *side) handshake(t *testing.T, peer wgtypes.Key) time.Time {
	t.Helper()
	stats, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return stats[peer].LastHandshake
}

func TestPeersInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	m := osnettest.New()
	a, b, c := inMemory(t, "wa", m), inMemory(t, "wb", m), inMemory(t, "wc", m)
	peerA := Peer{PublicKey: a.key, AllowedIPs: prefixes("10.0.0.1/32")}
	peerB := Peer{PublicKey: b.key, AllowedIPs: prefixes("10.0.0.2/32"), Endpoint: b.at(t), PresharedKey: key(7)}
	peerC := Peer{PublicKey: c.key, AllowedIPs: prefixes("10.0.0.3/32"), Endpoint: c.at(t), Keepalive: 25 * time.Second}
	set := func(s *side, peers ...Peer) {
		t.Helper()
		if err := s.SetPeers(peers); err != nil {
			t.Fatal(err)
		}
	}
	withKey := peerA
	withKey.PresharedKey = key(7)
	set(b, withKey)
	set(c, peerA)
	set(a, peerB, peerC)
	carries(t, a, b, "10.0.0.1", "10.0.0.2")
	carries(t, a, c, "10.0.0.1", "10.0.0.3")
	carries(t, b, a, "10.0.0.2", "10.0.0.1")

	stats, err := a.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if s := stats[b.key]; len(stats) != 2 || s.Endpoint != b.at(t) || s.LastHandshake.IsZero() || s.RxBytes == 0 || s.TxBytes == 0 {
		t.Errorf("snapshot: got %+v", stats)
	}
	show := run(t, "wg", "show", "wa")
	for _, want := range []string{"interface: wa", "public key: " + a.key.String(), "peer: " + b.key.String(), "allowed ips: 10.0.0.3/32", "persistent keepalive: every 25 seconds"} {
		if !strings.Contains(show, want) {
			t.Errorf("wg show: got %q, want %q in it", show, want)
		}
	}

	// Changes to C, and of everything else about B, leave B's session as it is; what wg(8) adds goes.
	before := a.handshake(t, b.key)
	run(t, "wg", "set", "wa", "peer", key('x').String(), "allowed-ips", "10.9.0.0/16")
	peerC.AllowedIPs = prefixes("10.0.0.3/32 10.3.0.0/16")
	peerB.AllowedIPs = prefixes("10.0.0.2/32 10.2.0.0/16")
	set(a, peerB, peerC)
	if err := a.do(func(o *open) error { a.compare(o); return nil }); err != nil { // as once a minute
		t.Fatal(err)
	}
	carries(t, a, c, "10.0.0.1", "10.3.0.9")
	carries(t, a, b, "10.0.0.1", "10.2.0.9")
	set(a, peerB)
	carries(t, b, a, "10.0.0.2", "10.0.0.1")
	if after := a.handshake(t, b.key); !after.Equal(before) {
		t.Errorf("handshake of the peer that stayed: got a new one at %v, want that of %v", after, before)
	}
	if show := run(t, "wg", "show", "wa", "peers"); show != b.key.String() {
		t.Errorf("peers: got %q, want only B", show)
	}

	// A peer that restarted is met with a new handshake at once.
	initiate(attached{a.Tunnel}.lookup(b.key), true)
	wait(t, "fresh handshake", func() bool { return a.handshake(t, b.key).After(before) })
	carries(t, a, b, "10.0.0.1", "10.0.0.2")

	// Somebody deletes the control socket. The same peers again need none.
	const socket = "/var/run/wireguard/wa.sock"
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	set(a, peerB)
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the same peers again: got %v, want the socket untouched", err)
	}
	set(a, peerB, peerC)
	if show := run(t, "wg", "show", "wa", "peers"); !strings.Contains(show, c.key.String()) {
		t.Errorf("after the socket was deleted: got peers %q", show)
	}

	// Static peers roam by themselves; another endpoint that is set brings them back.
	run(t, "wg", "set", "wa", "peer", b.key.String(), "endpoint", "127.0.0.1:9")
	set(a, peerB, peerC)
	if s, _ := a.Snapshot(); s[b.key].Endpoint.Port() != 9 {
		t.Errorf("endpoint moved by others: got %v, want it left", s[b.key].Endpoint)
	}
	peerB.Endpoint = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), b.port(t))
	set(a, peerB, peerC)
	carries(t, a, b, "10.0.0.1", "10.0.0.2")

	if err := a.stop(); err != nil {
		t.Errorf("run: got %v, want nil", err)
	}
	if err := a.SetPeers(nil); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after the end: got %v, want ErrNotRunning", err)
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("control socket after the end: got %v, want none", err)
	}
	if _, ok := m.Config("wa"); ok {
		t.Error("link after the end: still open")
	}
}

func TestPortInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	m := osnettest.New()
	a := inMemory(t, "wa", m)
	occupied, err := net.ListenPacket("udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer occupied.Close()
	taken := netip.MustParseAddrPort(occupied.LocalAddr().String()).Port()
	old := a.port(t)
	if err := a.SetPort(taken); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("taken port: got %v, want EADDRINUSE", err)
	}
	if got := a.port(t); got != old {
		t.Errorf("after a failed change: got port %d, want %d", got, old)
	}
	// The same from outside.
	_ = exec.Command("wg", "set", "wa", "listen-port", strconv.Itoa(int(taken))).Run()
	if got := a.port(t); got != old {
		t.Errorf("after a failed change by wg: got port %d, want %d", got, old)
	}
	occupied.Close()
	if err := a.SetPort(taken); err != nil || a.port(t) != taken {
		t.Errorf("free port: got %v and port %d, want %d", err, a.port(t), taken)
	}
	// The address of the port is open for others.
	b := inMemory(t, "wb", m)
	if err := a.SetPeers([]Peer{{PublicKey: b.key, AllowedIPs: prefixes("10.0.0.2/32"), Endpoint: b.at(t)}}); err != nil {
		t.Fatal(err)
	}
	if err := b.SetPeers([]Peer{{PublicKey: a.key, AllowedIPs: prefixes("10.0.0.1/32"), Endpoint: a.at(t)}}); err != nil {
		t.Fatal(err)
	}
	carries(t, b, a, "10.0.0.2", "10.0.0.1")

	// A port that is taken from the start is an error of Run.
	tunnel, err := New(Options{TUN: named{tuntest.NewChannelTUN().TUN(), "wc"}, Links: m, PrivateKey: key(1), Port: taken})
	if err != nil {
		t.Fatal(err)
	}
	if err := tunnel.Run(t.Context()); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), strconv.Itoa(int(taken))) {
		t.Errorf("run on a taken port: got %v, want EADDRINUSE with the port", err)
	}
}

func TestInterfaceInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	a := start(t, Options{})
	if a.Name() != "warren0" {
		t.Errorf("name: got %q, want warren0", a.Name())
	}
	config := osnet.Config{Addrs: prefixes("100.70.1.2/32 fd01::2/128"), Routes: prefixes("100.70.0.0/16 fd01::/48"), MTU: 1280, Up: true}
	if err := a.SetLink(config); err != nil {
		t.Fatal(err)
	}
	if got, want := run(t, "ip", "-br", "addr", "show", "warren0"), "warren0 UNKNOWN 100.70.1.2/32 fd01::2/128"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// An interface that is taken down keeps its socket open, for STUN and the control sessions.
	port := a.port(t)
	run(t, "ip", "link", "set", "warren0", "down")
	for range 14 {
		if l, err := net.ListenPacket("udp4", ":"+strconv.Itoa(int(port))); err == nil {
			l.Close()
			t.Fatal("interface down: the UDP port was closed")
		}
		time.Sleep(100 * time.Millisecond) // longer than the device's own watcher needs to notice
	}
	if err := a.SetLink(config); err != nil {
		t.Fatal(err)
	}
	if got := run(t, "ip", "route", "show", "dev", "warren0"); !strings.HasPrefix(got, "100.70.0.0/16") {
		t.Errorf("up again: got routes %q", got)
	}

	// Its name is taken while it lives.
	other, err := New(Options{PrivateKey: key(1)})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Run(t.Context()); !errors.Is(err, osnet.ErrBusy) {
		t.Errorf("same name: got %v, want osnet.ErrBusy", err)
	}
	// Somebody removes it.
	run(t, "ip", "link", "del", "warren0")
	select {
	case <-a.gone:
	case <-time.After(patience):
		t.Fatal("interface removed: still running")
	}
	if err := a.stop(); !errors.Is(err, ErrGone) {
		t.Errorf("interface removed: got %v, want ErrGone", err)
	}
	// A bridge has the name; then a persistent TUN with a stale control socket.
	run(t, "ip", "link", "add", "warren0", "type", "bridge")
	if other, err = New(Options{PrivateKey: key(1)}); err != nil {
		t.Fatal(err)
	}
	if err := other.Run(t.Context()); !errors.Is(err, osnet.ErrForeign) {
		t.Errorf("name of a bridge: got %v, want osnet.ErrForeign", err)
	}
	run(t, "ip", "link", "del", "warren0")
	run(t, "ip", "tuntap", "add", "warren0", "mode", "tun")
	run(t, "ip", "addr", "add", "10.9.9.9/24", "dev", "warren0")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: "/var/run/wireguard/warren0.sock"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	b := start(t, Options{})
	if err := b.SetLink(config); err != nil {
		t.Fatal(err)
	}
	if got, want := run(t, "ip", "-br", "addr", "show", "warren0"), " 100.70.1.2/32 fd01::2/128"; !strings.HasSuffix(got, want) || strings.Contains(got, "10.9.9.9") {
		t.Errorf("taken over: got %q, want just %q", got, want)
	}
}

func TestWithoutIPv6InNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	m := osnettest.New()
	m.Without6()
	a := inMemory(t, "wa", m)
	m.Take(netip.MustParsePrefix("10.1.0.0/16"))
	for range 2 {
		if err := a.SetLink(osnet.Config{Addrs: prefixes("100.70.1.2/32 fd01::2/128"), MTU: 1376, Up: true}); err != nil {
			t.Errorf("got %v, want nil", err)
		}
	}
	err := a.SetLink(osnet.Config{Addrs: prefixes("100.70.1.2/32 fd01::2/128"), Routes: prefixes("10.1.0.0/16"), MTU: 1376, Up: true})
	if !errors.Is(err, os.ErrExist) || errors.Is(err, osnet.ErrNoIPv6) {
		t.Errorf("and a route that is taken: got %v, want os.ErrExist alone", err)
	}
}

// A client of the control socket that stops in the middle of an operation does not keep the tunnel from ending.
func TestStuckControlClientInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	a := inMemory(t, "wa", osnettest.New())
	c, err := net.Dial("unix", "/var/run/wireguard/wa.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("set=1\n")); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- a.stop() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("got %v, want nil", err)
		}
	case <-time.After(patience):
		t.Fatal("still running")
	}
}

func TestManyPeersInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	a := inMemory(t, "wa", osnettest.New())
	var peers []Peer
	for i := range 1000 {
		var k wgtypes.Key
		binary.BigEndian.PutUint32(k[:], uint32(i+1))
		ip4 := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		peers = append(peers, Peer{PublicKey: k, AllowedIPs: []netip.Prefix{netip.PrefixFrom(ip4, 32)}})
	}
	if err := a.SetPeers(peers); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	stats, err := a.Snapshot()
	if err != nil || len(stats) != 1000 {
		t.Errorf("got %d peers, %v, want 1000", len(stats), err)
	}
	t.Logf("snapshot of 1000 peers: %v", time.Since(began))
}

func TestNotRunning(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("no private key: got no error")
	}
	tunnel, err := New(Options{PrivateKey: key(1)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tunnel.Snapshot(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v, want ErrNotRunning", err)
	}
	initiate(attached{tunnel}.lookup(key(2)), true) // nothing happens
}
