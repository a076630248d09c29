package osnettest

import (
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"
)

// Own gives loopback these addresses, and returns when packets to them arrive: the kernel finishes with an IPv6 address in its own time.
// A system without IPv6 skips the test.
func Own(t testing.TB, addrs ...string) {
	t.Helper()
	for _, text := range addrs {
		a := netip.MustParseAddr(text)
		argv := []string{"addr", "add", netip.PrefixFrom(a, a.BitLen()).String(), "dev", "lo"}
		if a.Is6() {
			argv = append(argv, "nodad")
		}
		if out, err := exec.Command("ip", argv...).CombinedOutput(); err != nil {
			t.Skipf("give loopback %s: %v: %s", a, err, out)
		}
	}
	for _, text := range addrs {
		for deadline := time.Now().Add(10 * time.Second); !arrives(text); {
			if time.Now().After(deadline) {
				t.Fatalf("%s on loopback is of no use after 10 s", text)
			}
		}
	}
}

// arrives sends a packet to an address of this host, and reports whether it came.
func arrives(addr string) bool {
	c, err := net.ListenPacket("udp", net.JoinHostPort(addr, "0"))
	if err != nil {
		time.Sleep(5 * time.Millisecond)
		return false
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := c.WriteTo([]byte{1}, c.LocalAddr()); err != nil {
		return false
	}
	_, _, err = c.ReadFrom(make([]byte, 1))
	return err == nil
}
