package osnet_test

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/tun"

	"warren/tunnel/osnet"
	"warren/tunnel/osnet/osnettest"
)

func prefixes(list string) (out []netip.Prefix) {
	for _, f := range strings.Fields(list) {
		out = append(out, netip.MustParsePrefix(f))
	}
	return out
}

// ip runs ip(8) and returns what it prints, in one line.
func ip(t *testing.T, args ...string) string {
	t.Helper()
	text, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, text)
	}
	return strings.Join(strings.Fields(string(text)), " ")
}

// createTUN makes a TUN device that lives until the test ends.
func createTUN(t *testing.T, name string) tun.Device {
	t.Helper()
	dev, err := tun.CreateTUN(name, 1376)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	go func() {
		for range dev.Events() {
		}
	}()
	return dev
}

func TestLinkInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	ip(t, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
	ip(t, "addr", "add", "192.168.7.1/24", "dev", "eth0")
	ip(t, "link", "set", "eth0", "up")
	ip(t, "link", "set", "eth1", "up")
	createTUN(t, "warren0")
	l, err := osnet.Open("warren0", nil)
	if err != nil {
		t.Fatal(err)
	}
	config := osnet.Config{Addrs: prefixes("100.70.1.2/16 fd01::2/128"), Routes: prefixes("100.70.0.0/16 10.3.0.0/24 fd01::/48"), MTU: 1344, Up: true}
	if err := l.Set(config); err != nil {
		t.Fatal(err)
	}
	if got, want := ip(t, "-4", "-br", "addr", "show", "warren0"), "warren0 UNKNOWN 100.70.1.2/16"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := ip(t, "-6", "-br", "addr", "show", "warren0"), "warren0 UNKNOWN fd01::2/128"; got != want {
		t.Errorf("got %q, want %q (and no link-local address)", got, want)
	}
	if got, want := ip(t, "-4", "route", "show", "dev", "warren0"), "10.3.0.0/24 proto static scope link 100.70.0.0/16 proto static scope link"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := ip(t, "link", "show", "warren0"); !strings.Contains(got, "mtu 1344") {
		t.Errorf("got %q, want mtu 1344", got)
	}

	// The kernel's view does not change when the same is set again.
	monitor := exec.Command("ip", "monitor", "link", "address", "route")
	out, err := monitor.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := monitor.Start(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := l.Set(config); err != nil {
			t.Fatal(err)
		}
	}
	// One change of another address marks the end, once the monitor listens.
	done := make(chan string)
	go func() {
		buffer := make([]byte, 4096)
		n, _ := out.Read(buffer)
		done <- string(buffer[:n])
	}()
	mark := "192.168.7.9"
	var first string
	for i := 0; first == ""; i++ {
		ip(t, "addr", []string{"add", "del"}[i%2], mark+"/32", "dev", "eth0")
		select {
		case first = <-done:
		default:
		}
	}
	if !strings.Contains(first, mark) {
		t.Errorf("repeated Set: the kernel tells of %q", first)
	}
	if err := monitor.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = monitor.Wait()

	// What others have is refused and left; what is ours goes.
	err = l.Set(osnet.Config{Addrs: prefixes("100.70.1.3/32"), Routes: prefixes("192.168.7.0/24 100.70.0.0/16"), Up: true})
	if err != nil && !errors.Is(err, os.ErrExist) || err == nil || !strings.Contains(err.Error(), "interface eth0") {
		t.Errorf("route of eth0: got %v, want os.ErrExist with its name", err)
	}
	if got := ip(t, "route", "show", "192.168.7.0/24"); !strings.Contains(got, "dev eth0") {
		t.Errorf("route of eth0: got %q", got)
	}
	if got, want := ip(t, "-br", "addr", "show", "warren0"), "warren0 UNKNOWN 100.70.1.3/32"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}

	every := prefixes("192.168.0.0/16 100.64.0.0/10")
	local, err := l.Elsewhere(every...)
	lan, marked := osnet.Route{Prefix: netip.MustParsePrefix("192.168.7.0/24"), Interface: "eth0"}, osnet.Route{Prefix: netip.MustParsePrefix("192.168.7.9/32"), Interface: "eth0"}
	if err != nil || !slices.Equal(local, []osnet.Route{lan, marked}) && !slices.Equal(local, []osnet.Route{lan}) {
		t.Errorf("local routes: got %v, %v, want eth0's", local, err)
	}
	if local, err = osnet.Routes(every...); err != nil || !slices.Contains(local, osnet.Route{Prefix: netip.MustParsePrefix("100.70.0.0/16"), Interface: "warren0"}) {
		t.Errorf("local routes: got %v, %v, want warren0's too", local, err)
	}

	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if got := ip(t, "-br", "addr", "show", "warren0"); got != "warren0 UNKNOWN" {
		t.Errorf("after close: got %q, want no address", got)
	}
}

func TestLinkWithoutIPv6InNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil {
		t.Skipf("needs a kernel with IPv6: %v", err)
	}
	createTUN(t, "warren0")
	l, err := osnet.Open("warren0", nil)
	if err != nil {
		t.Fatal(err)
	}
	err = l.Set(osnet.Config{Addrs: prefixes("100.70.1.2/32 fd01::2/128"), Routes: prefixes("100.70.0.0/16 fd01::/48"), MTU: 1376, Up: true})
	if !errors.Is(err, osnet.ErrNoIPv6) {
		t.Errorf("got %v, want ErrNoIPv6", err)
	}
	if got := ip(t, "-4", "route", "show", "dev", "warren0"); !strings.HasPrefix(got, "100.70.0.0/16 ") {
		t.Errorf("IPv4 route: got %q", got)
	}
}

func TestClaimInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	if err := osnet.Claim("warren0"); err != nil {
		t.Errorf("free name: got %v", err)
	}
	if _, err := osnet.Open("warren0", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("open what is not there: got %v, want os.ErrNotExist", err)
	}
	createTUN(t, "warren1")
	if err := osnet.Claim("warren1"); !errors.Is(err, osnet.ErrBusy) {
		t.Errorf("held TUN: got %v, want ErrBusy", err)
	}
	ip(t, "tuntap", "add", "warren2", "mode", "tun")
	if err := osnet.Claim("warren2"); err != nil {
		t.Errorf("persistent TUN: got %v", err)
	}
	createTUN(t, "warren2")
	ip(t, "link", "add", "bridge0", "type", "bridge")
	if err := osnet.Claim("bridge0"); !errors.Is(err, osnet.ErrForeign) || !strings.Contains(err.Error(), "bridge interface") {
		t.Errorf("bridge: got %v, want ErrForeign with its type", err)
	}
	ip(t, "tuntap", "add", "tap0", "mode", "tap")
	if err := osnet.Claim("tap0"); !errors.Is(err, osnet.ErrForeign) {
		t.Errorf("TAP: got %v, want ErrForeign", err)
	}
	for _, bad := range []string{"", "a/b", "sixteen-letters-", "..", "w%d", "a b"} {
		if osnet.Claim(bad) == nil {
			t.Errorf("name %q: got no error", bad)
		}
	}
}
