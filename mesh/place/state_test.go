package place

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"warren/mesh/identity"
)

// created makes a mesh in a directory of the test's own.
func created(t testing.TB) (root string, m Membership) {
	t.Helper()
	root = t.TempDir()
	m, err := Create(CreateOptions{
		Mesh: "home", StateRoot: root, Name: "alpha", IPv4: netip.MustParsePrefix("100.70.0.0/16"), Endpoints: []string{"vpn.example.org:9277"}, Port: 4242,
	})
	if err != nil {
		t.Fatal(err)
	}
	return root, m
}

func TestCreatedStateIsReadBack(t *testing.T) {
	root, m := created(t)
	s, err := Load(m.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if s.NodeID() != m.ID || s.MeshID() != m.MeshID || s.Settings.Name != "alpha" || s.Settings.Port != 4242 || s.RootKey == nil {
		t.Errorf("got state %+v, want that of %+v", s.Settings, m)
	}
	if !m.Prefix4.Contains(m.Addr4) || !m.Prefix6.Contains(m.Addr6) || m.Members != 1 {
		t.Errorf("got %+v, want addresses of the mesh and one member", m)
	}
	if !identity.IsAdmin(s.Chain[0]) {
		t.Error("the founder is no admin")
	}
	entries, err := os.ReadDir(m.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got mode %v, want 0600: it may hold a secret", e.Name(), info.Mode())
		}
	}
	if _, err := Create(CreateOptions{Mesh: "home", StateRoot: root, Name: "beta"}); !errors.Is(err, os.ErrExist) {
		t.Errorf("creating it again: got %v, want %v", err, os.ErrExist)
	}
	if again, err := Load(m.StateDir); err != nil || again.NodeID() != m.ID {
		t.Errorf("a refused create changed what was there: %v", err)
	}
}

func TestNothingIsLeftOfAFailedCreate(t *testing.T) {
	root := t.TempDir()
	for _, o := range []CreateOptions{
		{Mesh: "Home", Name: "alpha"}, {Mesh: "home", Name: "al pha"}, {Mesh: StaticMesh, Name: "alpha"},
		{Mesh: "home", Name: "alpha", IPv4: netip.MustParsePrefix("fd00::/48")},
	} {
		o.StateRoot = root
		if _, err := Create(o); err == nil {
			t.Errorf("create %+v: got no error", o)
		}
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 0 {
		t.Errorf("got %v (%v), want an empty directory", entries, err)
	}
}

func TestDamagedStateNamesTheFile(t *testing.T) {
	for _, file := range []string{fileSettings, fileChain, fileNodeKey, fileRootKey, fileWireGuard, fileSealing} {
		for name, damage := range map[string]func([]byte) []byte{
			"empty":     func([]byte) []byte { return nil },
			"cut short": func(b []byte) []byte { return b[:len(b)/2] },
			"noise":     func([]byte) []byte { return []byte("\x00\xffnoise") },
		} {
			t.Run(file+" "+name, func(t *testing.T) {
				_, m := created(t)
				path := filepath.Join(m.StateDir, file)
				raw, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				bad := damage(raw)
				if err := os.WriteFile(path, bad, 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := Load(m.StateDir); err == nil || !strings.Contains(err.Error(), file) {
					t.Errorf("got error %v, want one that names %s", err, file)
				}
				if now, err := os.ReadFile(path); err != nil || !slices.Equal(now, bad) {
					t.Errorf("reading the damaged file changed it: %v", err)
				}
			})
		}
	}
}

func TestLeaveOfflineKeepsTheRootKey(t *testing.T) {
	_, m := created(t)
	if err := LeaveOffline(LeaveOptions{StateDir: m.StateDir}); err == nil || !strings.Contains(err.Error(), fileRootKey) {
		t.Errorf("got %v, want a refusal that names %s", err, fileRootKey)
	}
	lock, err := Lock(m.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := LeaveOffline(LeaveOptions{StateDir: m.StateDir, Force: true}); err == nil {
		t.Error("left while an agent holds the state")
	}
	lock.Close()
	if err := LeaveOffline(LeaveOptions{StateDir: m.StateDir, Force: true}); err != nil {
		t.Errorf("got %v, want success by force", err)
	}
	if _, err := os.Stat(m.StateDir); !os.IsNotExist(err) {
		t.Errorf("got %v, want no state directory", err)
	}
}

func FuzzSettings(f *testing.F) {
	root, m := created(f)
	raw, err := os.ReadFile(filepath.Join(m.StateDir, fileSettings))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"schema":1,"mesh":"home","name":"alpha","admission":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(filepath.Join(root, "home", fileSettings), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Load(m.StateDir); err == nil && (ValidName(s.Settings.Mesh) != nil || ValidName(s.Settings.Name) != nil) {
			t.Errorf("accepted names %q and %q", s.Settings.Mesh, s.Settings.Name)
		}
	})
}

func FuzzChain(f *testing.F) {
	_, m := created(f)
	path := filepath.Join(m.StateDir, fileChain)
	raw, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(append(slices.Clone(raw), raw...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		Load(m.StateDir)
	})
}
