package agent

import (
	"context"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/mesh/node"
	"warren/mesh/place"
	"warren/tunnel/osnet/osnettest"
)

// TestOverlayLeavesTheLANAloneInNamespace runs an agent on a machine that has come into a network with the overlay's addresses.
func TestOverlayLeavesTheLANAloneInNamespace(t *testing.T) {
	if !osnettest.InNamespace(t) {
		return
	}
	ip := func(line string) string {
		t.Helper()
		text, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %s: %v: %s", line, err, text)
		}
		return strings.Join(strings.Fields(string(text)), " ")
	}
	state := t.TempDir()
	made, err := place.Create(place.CreateOptions{Mesh: "home", StateRoot: state, Name: "alpha", IPv4: netip.MustParsePrefix("192.168.1.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	ip("link add wlan0 type veth peer name far0")
	ip("link set wlan0 up")
	ip("link set far0 up")
	ip("addr add 192.168.1.7/24 dev wlan0")

	ready, done := make(chan struct{}), make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	socket := filepath.Join(t.TempDir(), "api.sock")
	go func() {
		done <- Run(ctx, Options{
			Mesh: "home", StateDir: made.StateDir, Socket: socket, Version: "test", Ready: func() { close(ready) },
			Load: func() (node.Settings, error) { return node.Settings{}, nil },
		})
	}()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	client := api.NewClient(socket)
	status := func() api.Status {
		t.Helper()
		s, err := client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := status()
	const said = "the mesh's IPv4 network 192.168.1.0/24 overlaps 192.168.1.0/24 on wlan0: the mesh goes by IPv6 alone on this machine for as long as that lasts"
	if !slices.Contains(s.Warnings, said) || slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.Contains(w, "not everything") }) || !slices.Equal(s.Self.Addresses, []netip.Addr{made.Addr6}) {
		t.Errorf("got warnings %q and addresses %v, want %q and the IPv6 address alone", s.Warnings, s.Self.Addresses, said)
	}
	name := s.Self.Interface
	if got := ip("-4 route show dev " + name); got != "" {
		t.Errorf("got routes %q into the tunnel, want none", got)
	}
	if got := ip("route get 192.168.1.1"); !strings.Contains(got, "dev wlan0") {
		t.Errorf("got the way %q to the LAN, want it as it was", got)
	}
	if got := ip("-6 route show dev " + name); !strings.Contains(got, made.Prefix6.String()) {
		t.Errorf("got routes %q into the tunnel, want that of IPv6", got)
	}

	// The machine goes elsewhere.
	ip("addr del 192.168.1.7/24 dev wlan0")
	ip("addr add 10.9.9.7/24 dev wlan0")
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		s = status()
		if len(s.Self.Addresses) == 2 && !slices.Contains(s.Warnings, said) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("got warnings %q and addresses %v, want both addresses again", s.Warnings, s.Self.Addresses)
		}
	}
	if got := ip("-4 route show dev " + name); !strings.HasPrefix(got, "192.168.1.0/24 ") {
		t.Errorf("got routes %q into the tunnel, want that of the overlay", got)
	}
}
