package sessiontest

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var (
	addrA = netip.MustParseAddrPort("10.0.0.1:1")
	addrB = netip.MustParseAddrPort("10.0.0.2:2")
	addrC = netip.MustParseAddrPort("[2001:db8::3]:3")
)

func send(t *testing.T, c *PacketConn, to netip.AddrPort, text string) {
	t.Helper()
	if n, err := c.WriteTo([]byte(text), net.UDPAddrFromAddrPort(to)); n != len(text) || err != nil {
		t.Errorf("write: got %d, %v", n, err)
	}
}

// receive returns what arrives within a second as "sender text"; empty when nothing does.
func receive(t *testing.T, c *PacketConn) string {
	t.Helper()
	buf := make([]byte, 100)
	c.SetReadDeadline(time.Now().Add(time.Second))
	n, from, err := c.ReadFrom(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return from.String() + " " + string(buf[:n])
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Options{Latency: 10 * time.Millisecond})
		a, b, c := n.Listen(addrA), n.ListenNAT(addrB), n.Listen(addrC)

		start := time.Now()
		for _, text := range []string{"one", "two", "three"} {
			send(t, a, addrC, text)
		}
		expect(t, "first", receive(t, c), "10.0.0.1:1 one")
		if took := time.Since(start); took != 10*time.Millisecond {
			t.Errorf("latency: got %v", took)
		}
		expect(t, "second", receive(t, c), "10.0.0.1:1 two")
		expect(t, "third", receive(t, c), "10.0.0.1:1 three")

		send(t, a, addrB, "unasked")
		expect(t, "through the NAT", receive(t, b), "")
		send(t, b, addrA, "hole")
		send(t, a, addrB, "answer")
		send(t, c, addrB, "from another")
		expect(t, "through the hole", receive(t, b), "10.0.0.1:1 answer")
		expect(t, "through another's hole", receive(t, b), "")
		time.Sleep(filterTime)
		send(t, a, addrB, "late")
		expect(t, "through a hole that has closed", receive(t, b), "")
		expect(t, "hole", receive(t, a), "10.0.0.2:2 hole")

		moved := netip.MustParseAddrPort("10.0.0.9:9")
		c.Move(moved)
		send(t, a, addrC, "to the old address")
		send(t, a, moved, "to the new one")
		expect(t, "after a move", receive(t, c), "10.0.0.1:1 to the new one")
		send(t, c, addrA, "hello")
		expect(t, "from the new address", receive(t, a), "10.0.0.9:9 hello")

		n.Cut(addrA.Addr(), moved.Addr(), true)
		send(t, a, moved, "cut")
		expect(t, "over the cut", receive(t, c), "")
		n.Cut(addrA.Addr(), moved.Addr(), false)
		send(t, a, moved, "mended")
		expect(t, "over the mended way", receive(t, c), "10.0.0.1:1 mended")

		a.SetDown(true)
		if _, err := a.WriteTo(nil, net.UDPAddrFromAddrPort(moved)); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("write without a cable: got %v", err)
		}
		go func() {
			time.Sleep(time.Second)
			a.Close()
		}()
		a.SetReadDeadline(time.Time{})
		if _, _, err := a.ReadFrom(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read on a closed connection: got %v", err)
		}
	})
}

func TestLoss(t *testing.T) {
	n := New(Options{Loss: 0.25, Seed: 1})
	a, b := n.Listen(addrA), n.Listen(addrB)
	for range 1000 {
		send(t, a, addrB, "x")
	}
	if got := len(b.queue); got < 700 || got > 800 {
		t.Errorf("got %d of 1000 through, want about 750", got)
	}
	if n.Sent() != 1000 {
		t.Errorf("sent: got %d", n.Sent())
	}
}
