package osnet_test

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"warren/tunnel/osnet"
	"warren/tunnel/osnet/osnettest"
)

func TestLinkMTUInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	for _, line := range []string{
		"link add thin mtu 1280 type veth peer name far1", "link add wide mtu 9000 type veth peer name far2",
		"link set thin up", "link set far1 up", "link set wide up", "link set far2 up",
		"addr add 10.9.0.1/24 dev thin", "addr add fd09::1/64 dev thin nodad", "addr add 10.10.0.1/24 dev wide", "route add default via 10.9.0.2",
	} {
		if text, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", line, err, text)
		}
	}
	for to, want := range map[string]int{"10.9.0.7": 1280, "fd09::7": 1280, "10.10.0.7": 9000, "192.0.2.1": 1280} {
		if got, err := osnet.LinkMTU(netip.MustParseAddr(to)); err != nil || got != want {
			t.Errorf("to %s: got %d, %v, want %d", to, got, err, want)
		}
	}
	if got, err := osnet.LinkMTU(netip.MustParseAddr("2001:db8::1")); err == nil {
		t.Errorf("without a route: got %d, want an error", got)
	}
}
