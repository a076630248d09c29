package place

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
	"warren/mesh/store"
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
	if s.NodeID() != m.ID || s.MeshID() != m.MeshID || s.Settings.Name != "alpha" || s.Settings.Port != 4242 || !RootKeyOf(s.Dir).Here {
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

// What the error about a damaged file tells a person to do.
func TestDamagedStateSaysWhatToDo(t *testing.T) {
	const anew = "(restore it from a backup, or leave with --force and join anew)"
	for _, tt := range []struct {
		file    string
		founder bool
		want    string
	}{
		{fileSettings, false, anew},
		{fileChain, false, anew},
		{fileNodeKey, false, anew},
		{fileNodeKey, true, "(restore it from a backup, or keep a copy of root.key, leave with --force and join anew)"},
		{fileRootKey, true, "the agent runs without it"},
		{fileWireGuard, true, "wg genkey"},
		{fileSealing, true, "wg genkey"},
	} {
		for _, lost := range []bool{false, true} {
			_, m := created(t)
			if !tt.founder {
				if err := os.Remove(filepath.Join(m.StateDir, fileRootKey)); err != nil {
					t.Fatal(err)
				}
			}
			path := filepath.Join(m.StateDir, tt.file)
			err := os.WriteFile(path, []byte("noise"), 0o600)
			if lost {
				err = os.Remove(path)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = Load(m.StateDir)
			if lost && tt.file == fileRootKey {
				if err != nil {
					t.Errorf("without %s: got %v, want success", tt.file, err)
				}
				continue
			}
			if err == nil || strings.Count(err.Error(), path) != 1 || !strings.Contains(err.Error(), tt.want) || lost != errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s, lost %t: got %v, want it once with %q", tt.file, lost, err, tt.want)
			}
		}
	}
	dir := filepath.Join(t.TempDir(), "home")
	if _, err := Load(dir); !errors.Is(err, os.ErrNotExist) || strings.Contains(err.Error(), "restore") {
		t.Errorf("no state directory: got %v, want %v and no advice", err, os.ErrNotExist)
	}
}

// What the advice about keys promises: another key does as well.
func TestAnotherKeyIsReadInPlaceOfALostOne(t *testing.T) {
	_, m := created(t)
	fresh, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{fileWireGuard, fileSealing} {
		if err := os.WriteFile(filepath.Join(m.StateDir, file), []byte(fresh.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Load(m.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	own, err := s.OwnRecord(s.MeshID(), s.WireGuard, "1.2.3")
	if want := fresh.PublicKey(); err != nil || own.ID != m.ID || own.WireGuardKey != want || own.SealingKey != want {
		t.Errorf("got %+v (%v), want a record of %s with %s", own, err, m.ID.Short(), want)
	}
}

// TestEveryFileIsExplained holds files.go to what lies in a directory that an agent has had.
func TestEveryFileIsExplained(t *testing.T) {
	_, m := created(t)
	s, err := Load(m.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	lock, err := Lock(m.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	records, _, err := store.Open(s.RecordsPath())
	if err != nil {
		t.Fatal(err)
	}
	defer records.Close()
	c, _ := OpenContacts(s, nil)
	if err := c.keep(nil); err != nil {
		t.Fatal(err)
	}
	p := OpenPaths(s, func(identity.NodeID) time.Time { return time.Time{} }, nil)
	p.Keep(identity.NodeID{1}, netip.MustParseAddrPort("192.0.2.1:9277"), 0)
	p.save()
	key, err := wgtypes.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Hosted().Add(Device{Name: "phone", PublicKey: key.PublicKey().String(), PresharedKey: key.String()}); err != nil {
		t.Fatal(err)
	}
	if err := ExportRootTo(m.StateDir, io.Discard); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(m.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if want := slices.Sorted(maps.Keys(remedies)); !slices.Equal(got, want) {
		t.Errorf("got files %v, want those that are explained: %v", got, want)
	}
}

// TestSecretsStayTheSame: members compare LAN secrets, and routers nonces of mappings, with those of earlier versions.
func TestSecretsStayTheSame(t *testing.T) {
	var seed [ed25519.SeedSize]byte
	for i := range seed {
		seed[i] = byte(i)
	}
	s := &State{Key: ed25519.NewKeyFromSeed(seed[:])}
	if got, want := fmt.Sprintf("%x", s.LANSecret()), "0122f4d6da04fccef06a34aaa08c6fdb"; got != want {
		t.Errorf("got LAN secret %s, want %s", got, want)
	}
	if got, want := fmt.Sprintf("%x", s.MappingSecret()), "5234e27964020e96d7ac9d888cf11d7f31809baf7a1df07516a8ed0127f440f4"; got != want {
		t.Errorf("got mapping secret %s, want %s", got, want)
	}
}

func TestNoKeyIsLogged(t *testing.T) {
	_, m := created(t)
	s, err := Load(m.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("loaded", "state", s)
	if got, want := log.String(), "state.mesh=home state.name=alpha\n"; !strings.HasSuffix(got, want) {
		t.Errorf("got %q, want it to end in %q", got, want)
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
	if _, err := Lock(m.StateDir); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("a second lock: got %v, want %v", err, syscall.EWOULDBLOCK)
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
