package osnet_test

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"warren/tunnel/osnet"
	"warren/tunnel/osnet/osnettest"
)

func TestLeavingInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	ip := func(line string) {
		t.Helper()
		if text, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", line, err, text)
		}
	}
	for _, line := range []string{
		"link add ours type veth peer name far", "link add theirs type veth peer name beyond", "link set ours up", "link set far up", "link set theirs up",
		"link set beyond up", "addr add 100.91.0.1/32 dev ours", "addr add fd91::1/128 dev ours nodad", "route add 100.91.0.0/16 dev ours", "route add fd91::/64 dev ours",
	} {
		ip(line)
	}
	four, six := netip.MustParseAddr("100.91.0.2"), netip.MustParseAddr("fd91::2")
	is := func(when string, to netip.Addr, want osnet.Leaving) {
		t.Helper()
		if got, err := osnet.LeavingFor(to); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", when, got, err, want)
		}
	}
	is("as it is to be", four, osnet.Leaving{Interface: "ours", Table: 254, Rule: 32766})
	is("as it is to be", six, osnet.Leaving{Interface: "ours", Table: 254, Rule: 32766})

	ip("route add 100.64.0.0/10 dev theirs table 52")
	ip("rule add priority 5270 lookup 52")
	is("another VPN's table", four, osnet.Leaving{Interface: "theirs", Table: 52, Rule: 5270})
	is("the other family", six, osnet.Leaving{Interface: "ours", Table: 254, Rule: 32766})
	ip("rule add priority 5000 fwmark 0x80 lookup 52")
	is("a rule for other packets before it", four, osnet.Leaving{Interface: "theirs", Table: 52, Rule: 5270})
	ip("rule del priority 5270")
	is("gone", four, osnet.Leaving{Interface: "ours", Table: 254, Rule: 32766})

	ip("route add 100.91.0.2/32 dev theirs")
	is("a longer route", four, osnet.Leaving{Interface: "theirs", Table: 254, Rule: 32766})
	ip("route del 100.91.0.2/32 dev theirs")
	ip("rule add priority 100 to 100.64.0.0/10 prohibit")
	is("a rule that prohibits", four, osnet.Leaving{Refusal: "prohibit", Rule: 100})
	ip("rule del priority 100")
	ip("route add blackhole 100.91.0.2/32")
	is("a black hole", four, osnet.Leaving{Refusal: "blackhole", Table: 254, Rule: 32766})
	ip("route del blackhole 100.91.0.2/32")
	for _, kind := range []string{"unreachable", "prohibit", "throw"} {
		ip("route add " + kind + " 100.91.0.2/32")
		is(kind, four, osnet.Leaving{Refusal: kind, Table: 254, Rule: 32766})
		ip("route del " + kind + " 100.91.0.2/32")
		ip("route add " + kind + " fd91::2/128")
		is(kind, six, osnet.Leaving{Refusal: kind, Table: 254, Rule: 32766})
		ip("-6 route del " + kind + " fd91::2/128")
	}
	ip("route add unreachable 100.91.0.0/24 table 53")
	ip("rule add priority 102 lookup 53")
	is("in another table", four, osnet.Leaving{Refusal: "unreachable", Table: 53, Rule: 102})
	ip("route add throw 100.91.0.2/32 table 53")
	is("a throw that leads on", four, osnet.Leaving{Interface: "ours", Table: 254, Rule: 32766})
	ip("rule del priority 102")
	is("no route at all", netip.MustParseAddr("192.0.2.1"), osnet.Leaving{Refusal: "unreachable"})
	ip("-6 rule add priority 101 to fd91::/64 unreachable")
	if got, err := osnet.LeavingFor(six); err != nil || got.Interface != "" || got.Refusal == "" {
		t.Errorf("IPv6 unreachable: got %+v, %v", got, err)
	}
}
