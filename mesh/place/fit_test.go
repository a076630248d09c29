package place

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"warren/tunnel/osnet"
	"warren/tunnel/osnet/osnettest"
)

func TestCollision(t *testing.T) {
	const overlay, overlay6 = "100.70.0.0/16", "fd12:3456:789a::/48"
	for _, tt := range []struct {
		overlay, route string
		want           bool
	}{
		{overlay, "100.70.0.0/16", true}, {overlay, "100.70.9.0/24", true}, {overlay, "100.64.0.0/10", true}, {overlay, "100.0.0.0/8", true},
		{overlay, "100.71.0.0/16", false}, {overlay, "0.0.0.0/1", false}, {overlay, "96.0.0.0/4", false}, {overlay, "100.70.9.9/32", false},
		{overlay, "fd12:3456:789a::/48", false},
		{overlay6, "fd12:3456:789a::/48", true}, {overlay6, "fd12:3456:789a:1::/64", true}, {overlay6, "fd00::/8", true}, {overlay6, "fd12:3456:789b::/48", false},
		{overlay6, "::/1", false}, {overlay6, "8000::/1", false}, {overlay6, "fd12:3456:789a::1/128", false}, {overlay6, "100.70.0.0/16", false},
	} {
		beside := osnet.Route{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Interface: "eth0"}
		route := osnet.Route{Prefix: netip.MustParsePrefix(tt.route), Interface: "eth1"}
		got, hit := collision(netip.MustParsePrefix(tt.overlay), []osnet.Route{beside, route})
		if hit != tt.want || hit && got != route {
			t.Errorf("%s and %s: got %v, %v, want %v", tt.overlay, tt.route, got, hit, tt.want)
		}
	}
	if _, hit := collision(netip.Prefix{}, []osnet.Route{{Prefix: netip.MustParsePrefix("100.70.0.0/16")}}); hit {
		t.Error("no network collides with nothing")
	}
}

// Whoever joins a mesh whose network it uses for something else hears that in a line, and its invite is not used up by it.
func TestJoinBesideAnotherNetworkInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	founder, addr := serve(t) // of 100.70.0.0/16
	token := founder.token(t, addr)
	ip := func(line string) {
		t.Helper()
		if text, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", line, err, text)
		}
	}
	ip("link add lan0 type veth peer name far0")
	ip("link set lan0 up")
	ip("link set far0 up")
	ip("addr add 100.70.3.1/24 dev lan0")
	options := JoinOptions{Token: token, StateRoot: t.TempDir(), Name: "beta", Version: "1"}
	_, err := Join(t.Context(), options, nil)
	const want = "join mesh home: its IPv4 network 100.70.0.0/16 overlaps 100.70.3.0/24 on lan0: this machine reaches it already; join with --no-ipv4 to reach the mesh by IPv6 alone"
	if !errors.Is(err, ErrOverlap) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if entries, err := os.ReadDir(options.StateRoot); err != nil || len(entries) != 0 || founder.first != 0 {
		t.Errorf("got %v (%v) and %d admitted, want nothing", entries, err, founder.first)
	}
	if _, err := Create(CreateOptions{Mesh: "work", StateRoot: options.StateRoot, Name: "beta", IPv4: netip.MustParsePrefix("100.70.0.0/20")}); !errors.Is(err, ErrOverlap) {
		t.Errorf("create with a network that collides: got %v, want ErrOverlap", err)
	}

	options.NoIPv4 = true
	made, err := Join(t.Context(), options, nil)
	if err != nil || made.Addr4.IsValid() || !made.Addr6.IsValid() {
		t.Fatalf("without IPv4: got %+v, %v, want the IPv6 address alone", made, err)
	}
	if s, err := Load(made.StateDir); err != nil || !s.Settings.NoIPv4 {
		t.Errorf("without IPv4: got settings %+v, %v, want it kept", s.Settings, err)
	}
	// Where it is free it can be had.
	ip("link del lan0")
	options.NoIPv4, options.StateRoot, options.Token = false, t.TempDir(), founder.token(t, addr)
	if made, err := Join(t.Context(), options, nil); err != nil || !made.Addr4.IsValid() {
		t.Errorf("where nothing collides: got %+v, %v, want both addresses", made, err)
	}
}
