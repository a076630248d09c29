package place

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"warren/mesh/disk"
	"warren/nat/beacon"
	"warren/tunnel/echo"
)

// A second mesh on a machine, and a third by a token, have an interface, a port and networks of their own, whoever starts first.
func TestMeshesBesideEachOther(t *testing.T) {
	root := t.TempDir()
	seen := make(map[string]string)
	add := func(m Membership, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		s, err := Load(m.StateDir)
		if err != nil {
			t.Fatal(err)
		}
		if s.Settings.Port != m.Port || s.Settings.Interface != m.Interface {
			t.Errorf("%s: got %+v kept, want interface %s and port %d", m.Mesh, s.Settings, m.Interface, m.Port)
		}
		for _, claim := range []string{m.Interface, netip.AddrPortFrom(netip.IPv4Unspecified(), m.Port).String(), m.Prefix4.Masked().String()} {
			if other := seen[claim]; other != "" && claim != "" {
				t.Errorf("%s and %s both have %s", m.Mesh, other, claim)
			}
			seen[claim] = m.Mesh
		}
	}
	add(Create(CreateOptions{Mesh: "one", StateRoot: root, Name: "alpha", IPv4: netip.MustParsePrefix("100.70.0.0/16")}))
	add(Create(CreateOptions{Mesh: "two", StateRoot: root, Name: "alpha"}))
	f := newFounder(t) // of a mesh with the same network as the first
	o := f.options(root, disk.Disk{})
	if _, err := Join(t.Context(), o, nil); !errors.Is(err, ErrOverlap) || !strings.Contains(err.Error(), "mesh one") || len(f.ids) > 0 {
		t.Errorf("got %v, want that mesh one has the network, and nobody asked", err)
	}
	o.NoIPv4 = true
	made, err := Join(t.Context(), o, nil)
	made.Prefix4 = netip.Prefix{}
	add(made, err)
	if !strings.HasSuffix(made.Interface, "2") && made.Interface != "" || made.Port < DefaultPort+2 {
		t.Errorf("got interface %s and port %d for the third, want the next ones", made.Interface, made.Port)
	}
	_, err = Create(CreateOptions{Mesh: "four", StateRoot: root, Name: "alpha", Port: made.Port})
	if !errors.Is(err, ErrClaimed) || !strings.Contains(err.Error(), "home") {
		t.Errorf("got %v, want who has the port", err)
	}
	_, err = Create(CreateOptions{Mesh: "four", StateRoot: root, Name: "alpha", IPv4: netip.MustParsePrefix("100.70.128.0/17")})
	if !errors.Is(err, ErrOverlap) || !strings.Contains(err.Error(), "mesh one") {
		t.Errorf("got %v, want who has the network", err)
	}
	// What config files give.
	next := Claim{Mesh: "static", Interface: defaultInterface(3), Port: made.Port + 1}
	add(Create(CreateOptions{Mesh: "four", StateRoot: root, Name: "alpha", Claims: []Claim{next}}))
	if last := Claims(root); len(last) != 4 || last[0].Mesh != "four" || last[0].Port <= next.Port || last[0].Interface == next.Interface && next.Interface != "" {
		t.Errorf("got %+v, want one after what the config file gives", last)
	}
}

// A port that something else has is not chosen.
func TestPortThatIsTakenIsNotChosen(t *testing.T) {
	socket, err := net.ListenUDP("udp", &net.UDPAddr{Port: DefaultPort})
	if err != nil {
		t.Logf("port %d is taken already: %v", DefaultPort, err)
	} else {
		defer socket.Close()
	}
	if _, port, err := settle(nil, 0); err != nil || port == DefaultPort {
		t.Errorf("got port %d, %v, want another one than %d", port, err, DefaultPort)
	}
	for _, asked := range []uint16{echo.Port, beacon.Port} {
		if _, port, err := settle([]Claim{{Port: asked - 1}}, 0); err != nil || port == asked {
			t.Errorf("got port %d, %v, which agents use for something else", port, err)
		}
		if _, _, err := settle(nil, asked); err == nil {
			t.Errorf("asked for port %d: got no error, want what has it", asked)
		}
	}
	if _, port, err := settle(nil, DefaultPort); err != nil || port != DefaultPort {
		t.Errorf("got port %d, %v, want the one that was asked for", port, err)
	}
}

func TestDefault(t *testing.T) {
	root, m := created(t)
	if got := Default(root); got != "" {
		t.Errorf("got %q, want none", got)
	}
	if err := SetDefault(root, "home"); err != nil || Default(root) != "home" {
		t.Errorf("got %q, %v, want home", Default(root), err)
	}
	if info, err := os.Stat(filepath.Join(root, fileDefault)); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("got %v, %v, want a file that all may read", info, err)
	}
	if err := LeaveOffline(LeaveOptions{StateDir: m.StateDir, Force: true}); err != nil || Default(root) != "" {
		t.Errorf("after leaving it: got %q, %v, want none", Default(root), err)
	}
	for _, junk := range []string{"", "../etc\n", "Home"} {
		if err := os.WriteFile(filepath.Join(root, fileDefault), []byte(junk), 0o644); err != nil || Default(root) != "" {
			t.Errorf("%q: got %q, %v, want none", junk, Default(root), err)
		}
	}
	if err := SetDefault(root, ""); err != nil || len(list(t, root)) != 0 {
		t.Errorf("got %v, %v, want nothing", list(t, root), err)
	}
}

// The port that an agent found that it needs is the mesh's from then on, for others on this machine too, unless somebody has taken it.
func TestKeepPort(t *testing.T) {
	root := t.TempDir()
	m, err := Create(CreateOptions{Mesh: "one", StateRoot: root, Name: "alpha", Port: 4242})
	if err != nil {
		t.Fatal(err)
	}
	probe, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	free := uint16(probe.LocalAddr().(*net.UDPAddr).Port)
	load := func() *State {
		t.Helper()
		s, err := Load(m.StateDir)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if got := load().StartPort(); got != 4242 {
		t.Errorf("before: got port %d, want 4242", got)
	}
	if err := load().KeepPort(free); err != nil {
		t.Fatal(err)
	}
	if got := load().StartPort(); got != 4242 {
		t.Errorf("while somebody has it: got port %d, want 4242", got)
	}
	probe.Close()
	s := load()
	if got, told, claimed := s.StartPort(), s.membership().Port, Claims(root)[0].Port; got != free || told != free || claimed != free {
		t.Errorf("got port %d, told as %d, claimed as %d, want %d", got, told, claimed, free)
	}
	if err := s.KeepPort(free + 1); err != nil {
		t.Fatal(err)
	}
	if got := load().Settings; got.Moved != free+1 || got.Port != 4242 || got.Name != "alpha" {
		t.Errorf("moved again: got %+v", got)
	}
}
