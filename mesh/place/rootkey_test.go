package place

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// The root key goes out to a file that nobody else may read, comes back from it, and is never overwritten on either side.
func TestRootKeyGoesOutAndComesBack(t *testing.T) {
	_, m := created(t)
	dir, file := m.StateDir, filepath.Join(t.TempDir(), "root.key")
	was, err := OwnRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if k := RootKeyOf(dir); !k.Here || !k.Exported.IsZero() {
		t.Errorf("a new mesh: got %+v, want the key here and never exported", k)
	}
	if err := s.Expendable(); err == nil || !strings.Contains(err.Error(), "export-root") {
		t.Errorf("leave with the only key: got %v, want what to do", err)
	}
	if err := ExportRoot(dir, file, false); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("exported: got %v, %v, want mode 0600", info.Mode(), err)
	}
	if k := RootKeyOf(dir); !k.Here || k.Exported.IsZero() || s.Expendable() != nil {
		t.Errorf("after the export: got %+v, %v, want it noted", k, s.Expendable())
	}
	for _, remove := range []bool{false, true} {
		if err := ExportRoot(dir, file, remove); !errors.Is(err, os.ErrExist) || !RootKeyOf(dir).Here {
			t.Errorf("over a file that is there, remove %t: got %v, want %v and the key where it was", remove, err, os.ErrExist)
		}
	}
	second := file + ".2"
	if err := ExportRoot(dir, second, true); err != nil {
		t.Fatal(err)
	}
	if k := RootKeyOf(dir); k.Here || k.Exported.IsZero() {
		t.Errorf("exported and removed: got %+v, want it gone and noted", k)
	}
	if _, err := OwnRoot(dir); !errors.Is(err, ErrNoRootKey) {
		t.Errorf("got %v, want %v", err, ErrNoRootKey)
	}
	if err := ExportRoot(dir, file+".3", false); !errors.Is(err, ErrNoRootKey) {
		t.Errorf("export where it is not: got %v, want %v", err, ErrNoRootKey)
	}
	if _, err := os.Stat(file + ".3"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want nothing written", err)
	}
	if _, err := Load(dir); err != nil {
		t.Errorf("load without the key: got %v, want success", err)
	}
	raw, err := os.ReadFile(second)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := ImportRoot(dir, raw); err != nil {
		t.Fatal(err)
	}
	if err := ExportRootTo(dir, &out); err != nil || !bytes.Equal(out.Bytes(), raw) {
		t.Errorf("to no file: got %v, and other bytes than the file has", err)
	}
	if now, err := OwnRoot(dir); err != nil || !now.Key.Equal(was.Key) || !now.Cert.Equal(was.Cert) {
		t.Errorf("back: got %v, want the same root", err)
	}
	if info, err := os.Stat(filepath.Join(dir, fileRootKey)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("imported: got %v, %v, want mode 0600", info.Mode(), err)
	}
	if err := ImportRoot(dir, raw); err != nil {
		t.Errorf("the same key again: got %v, want success", err)
	}
}

// Only this mesh's root key is taken for it, and what is in its place is never replaced.
func TestOtherKeysAreNotTheRoot(t *testing.T) {
	_, m := created(t)
	_, other := created(t)
	foreign, err := ownRoot(other.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	node, err := os.ReadFile(filepath.Join(m.StateDir, fileNodeKey))
	if err != nil {
		t.Fatal(err)
	}
	right, err := ownRoot(m.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{"another mesh's": foreign, "the node's": node, "noise": []byte("noise"), "nothing": nil, "two": slices.Concat(right, right)} {
		if _, err := RootOf(m.StateDir, raw); err == nil || len(raw) > 40 && strings.Contains(err.Error(), string(raw[30:40])) {
			t.Errorf("%s: got %v, want a refusal that shows nothing of it", name, err)
		}
		if err := ImportRoot(m.StateDir, raw); err == nil {
			t.Errorf("import %s: got no error", name)
		}
	}
	path := filepath.Join(m.StateDir, fileRootKey)
	for name, there := range map[string][]byte{"another key": foreign, "a damaged one": right[:40]} {
		if err := os.WriteFile(path, there, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ImportRoot(m.StateDir, right); !errors.Is(err, os.ErrExist) {
			t.Errorf("over %s: got %v, want %v", name, err, os.ErrExist)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, there) {
			t.Errorf("over %s: it was changed (%v)", name, err)
		}
		if err := ExportRoot(m.StateDir, filepath.Join(t.TempDir(), "k"), true); err == nil {
			t.Errorf("export of %s: got no error", name)
		}
	}
}

// What cannot be written leaves nothing behind, and the key where it was.
func TestFailedExportKeepsTheKey(t *testing.T) {
	_, m := created(t)
	for _, file := range []string{filepath.Join(t.TempDir(), "none", "k"), t.TempDir(), "/dev/full"} {
		if err := ExportRoot(m.StateDir, file, true); err == nil {
			t.Errorf("%s: got no error", file)
		}
		if k := RootKeyOf(m.StateDir); !k.Here || !k.Exported.IsZero() {
			t.Errorf("%s: got %+v, want the key here and no note", file, k)
		}
	}
	if err := ExportRootTo(m.StateDir, failing{}); !errors.Is(err, syscall.ENOSPC) || !RootKeyOf(m.StateDir).Exported.IsZero() {
		t.Errorf("got %v, want %v and no note", err, syscall.ENOSPC)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, syscall.ENOSPC }
