package sockets

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"warren/tunnel/osnet/osnettest"
)

// targets are two addresses of each family on loopback.
var targets = []string{"127.0.0.1", "fd00::1", "127.0.0.2", "fd00::2"}

// prepare gives loopback the addresses of targets.
func prepare(t *testing.T) {
	t.Helper()
	osnettest.Own(t, "fd00::1", "fd00::2")
}

// lost sends a packet to each of targets in turn, and counts those that did not arrive within wait.
func lost(t *testing.T, b conn.Bind, wait time.Duration) (n int) {
	t.Helper()
	if _, _, err := b.Open(0); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	buffer := make([]byte, 16)
	for _, target := range targets {
		l, err := net.ListenPacket("udp", net.JoinHostPort(target, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		at := netip.MustParseAddrPort(l.LocalAddr().String())
		for round := range 20 {
			// One of the other family before, to leave its mark in the pool.
			other := netip.MustParseAddrPort("127.0.0.9:9")
			if at.Addr().Is4() {
				other = netip.MustParseAddrPort("[fd00::2]:9")
			}
			_ = b.Send([][]byte{{0}}, &conn.StdNetEndpoint{AddrPort: other})
			if err := b.Send([][]byte{{byte(round)}}, &conn.StdNetEndpoint{AddrPort: at}); err != nil {
				n++ // the wrong address need not have a route
				continue
			}
			if err := l.SetReadDeadline(time.Now().Add(wait)); err != nil {
				t.Fatal(err)
			}
			if size, _, err := l.ReadFrom(buffer); err != nil || size != 1 || buffer[0] != byte(round) {
				n++
			}
		}
	}
	return n
}

func TestBothFamiliesInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	prepare(t)
	b := New()
	for range 2 { // it opens again after a close
		if n := lost(t, b, 10*time.Second); n > 0 {
			t.Errorf("%d of %d packets went elsewhere, want none", n, 20*len(targets))
		}
	}
}

// TestStillNeededInNamespace fails when conn.StdNetBind has been mended.
func TestStillNeededInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	prepare(t)
	// On loopback a packet is there when the send returns, but on a busy machine.
	if n := lost(t, conn.NewStdNetBind(), 60*time.Millisecond); n == 0 {
		t.Error("conn.StdNetBind sends to the right addresses by itself: package sockets is not needed any more")
	} else {
		t.Logf("conn.StdNetBind: %d of %d packets went elsewhere", n, 20*len(targets))
	}
}

func TestOpenAndClose(t *testing.T) {
	b := New()
	if err := b.Close(); err != nil {
		t.Errorf("close before open: got %v, want nil", err)
	}
	ep, err := b.ParseEndpoint("127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	if b.Send([][]byte{{1}}, ep) == nil {
		t.Error("send before open: got no error")
	}
	functions, port, err := b.Open(0)
	if err != nil || port == 0 || len(functions) == 0 {
		t.Fatalf("open: got %d functions, port %d, %v", len(functions), port, err)
	}
	if _, _, err := b.Open(0); !errors.Is(err, conn.ErrBindAlreadyOpen) {
		t.Errorf("open twice: got %v, want ErrBindAlreadyOpen", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	// A receive function of closed sockets returns, as the device needs it to.
	sizes, endpoints := make([]int, b.BatchSize()), make([]conn.Endpoint, b.BatchSize())
	bufs := make([][]byte, b.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, 64)
	}
	for _, receive := range functions {
		if _, err := receive(bufs, sizes, endpoints); !errors.Is(err, net.ErrClosed) {
			t.Errorf("receive after close: got %v, want net.ErrClosed", err)
		}
	}
	if _, again, err := b.Open(port); err != nil || again != port {
		t.Errorf("open again: got port %d, %v, want %d", again, err, port)
	}
	_ = b.Close()
}

// narrow makes a link of 1,280 bytes whose far end is a namespace of nothing: what leaves is counted.
func narrow(t *testing.T) {
	t.Helper()
	for _, line := range []string{
		"ip link add thin mtu 1280 type veth peer name far", "ip link set thin up", "ip link set far up",
		"ip addr add 10.9.0.1/24 dev thin", "ip addr add fd09::1/64 dev thin nodad",
		"ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:01 dev thin", "ip neigh add fd09::2 lladdr 02:00:00:00:00:01 dev thin",
	} {
		if text, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, text)
		}
	}
}

// TestTooLargeInNamespace sends batches of which one packet, or all, are larger than the link.
func TestTooLargeInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	narrow(t)
	b := New()
	b.Exact(true) // before it is open
	if _, _, err := b.Open(0); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	small, large := make([]byte, 1000), make([]byte, 1400)
	for _, to := range []string{"10.9.0.2:9", "[fd09::2]:9"} {
		ep, err := b.ParseEndpoint(to)
		if err != nil {
			t.Fatal(err)
		}
		tests := []struct {
			name   string
			exact  bool
			batch  [][]byte
			frames int // on the link
			failed bool
		}{
			{"fits", true, [][]byte{small, small, small}, 3, false},
			{"one is too large", true, [][]byte{small, small, large, small, small}, 4, true},
			{"the first is", true, [][]byte{large, small, small}, 2, true},
			{"fragmented", false, [][]byte{large, large, large}, 6, false},
			{"and what fits beside it is not", false, [][]byte{small, large, small}, 4, false},
		}
		for _, test := range tests {
			b.Exact(test.exact)
			before := frames(t)
			err := b.Send(test.batch, ep)
			// What was accepted before the refusal may leave twice.
			if got := frames(t) - before; got < test.frames || got > 2*test.frames || (err != nil) != test.failed {
				t.Errorf("%s to %s: got %d frames, %v, want %d, failure %v", test.name, to, got, err, test.frames, test.failed)
			}
		}
	}
}

// frames is how many packets the link has sent.
func frames(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/sys/class/net/thin/statistics/tx_packets")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// What a peer names as its address may be the broadcast address of a network here.
func TestNoBroadcast(t *testing.T) {
	b := New()
	if _, _, err := b.Open(0); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	send := func(addr string) error {
		return b.Send([][]byte{{0}}, &conn.StdNetEndpoint{AddrPort: netip.MustParseAddrPort(addr)})
	}
	if err := send("127.255.255.255:9277"); !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v from sending to the broadcast address of loopback, want it refused", err)
	}
	if err := send("127.0.0.1:9277"); err != nil {
		t.Errorf("got %v from sending to one host, want none", err)
	}
}
