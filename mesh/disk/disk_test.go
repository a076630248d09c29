package disk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	for _, content := range []string{"one", "another, longer"} {
		if err := (Disk{}).Write(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Errorf("got %q, %v, want %q", got, err, content)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", info.Mode(), err)
	}
	if err := (Disk{}).Write(filepath.Join(dir, "none", "key"), nil, 0o600); err == nil {
		t.Error("no error for a directory that is not there")
	}
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := (Disk{}).Write(filepath.Join(dir, "taken"), nil, 0o600); err == nil {
		t.Error("no error for a path that is a directory")
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Whatever step of a write fails, or is the last one, the file is the old one or the new.
func TestWriteBrokenOffAnywhere(t *testing.T) {
	for _, dies := range []bool{false, true} {
		for at := 1; ; at++ {
			dir, n := t.TempDir(), 0
			path := filepath.Join(dir, "key")
			if err := (Disk{}).Write(path, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			d := Disk{Step: func(string, string) error {
				if n++; n == at || dies && n > at {
					return syscall.ENOSPC
				}
				return nil
			}}
			err := d.Write(path, []byte("new"), 0o600)
			if n < at {
				if err != nil {
					t.Errorf("undisturbed: got %v", err)
				}
				break
			}
			if !errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "\n") {
				t.Errorf("step %d: got %v, want one line about a full disk", at, err)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, []byte("old")) && !bytes.Equal(got, []byte("new")) {
				t.Errorf("step %d: got %q, %v, want the old content or the new", at, got, err)
			}
			if entries, _ := os.ReadDir(dir); !dies && len(entries) != 1 {
				t.Errorf("step %d: got %v, want nothing beside the file", at, entries)
			}
		}
	}
}

func TestMakeDirSaysWhatIsInTheWay(t *testing.T) {
	dir := t.TempDir()
	file, nowhere := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(filepath.Join(dir, "none"), nowhere)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below"), nowhere, filepath.Join(nowhere, "below")} {
		if err := (Disk{}).MakeDir(path, 0o700); err == nil || !strings.Contains(err.Error(), "want a directory") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want what is in the way", path, err)
		}
	}
	deep := filepath.Join(dir, "a", "b")
	if err := (Disk{}).MakeDir(deep, 0o700); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(deep); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got %v, %v, want mode 0700", info, err)
	}
}
