package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// mounted is a file system of so many bytes for a test.
func mounted(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// A real file system that is full, or read-only: at the start, while it runs, and both after each other.
func TestRealDiskThatIsFullOrReadOnly(t *testing.T) {
	dir := mounted(t, "4m")
	path, filler := filepath.Join(dir, "records.db"), filepath.Join(dir, "filler")
	fill := func() {
		f, err := os.Create(filler)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	readOnly := func(flag uintptr) {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|flag, "size=4m"); err != nil {
			t.Fatal(err)
		}
	}
	fill()
	s, _, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	trouble(t, s, syscall.ENOSPC)
	if entries, _ := filepath.Glob(path + "*"); len(entries) != 0 {
		t.Errorf("got %v, want no part of a file", entries)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(Batch{Put: []Item{item(1)}}); err != nil {
		t.Fatal(err)
	}
	trouble(t, s, nil)
	fill()
	trouble(t, s, syscall.ENOSPC)
	var batch Batch
	for n := range uint64(1000) {
		batch.Put = append(batch.Put, item(n))
	}
	if err := s.Apply(batch); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want a full disk", err)
	}
	if got := load(t, s); len(got) != 1 {
		t.Errorf("got %d records of a batch that failed, want none", len(got))
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(batch); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	readOnly(unix.MS_RDONLY)
	s, aside, err := Open(path)
	if err != nil || aside != nil {
		t.Fatalf("got %v, %v, want a store", aside, err)
	}
	defer s.Close()
	trouble(t, s, syscall.EROFS)
	if got := load(t, s); len(got) != 1000 {
		t.Errorf("got %d records, want 1000", len(got))
	}
	if err := s.Retry(); !errors.Is(err, syscall.EROFS) {
		t.Errorf("got %v, want %v", err, syscall.EROFS)
	}
	readOnly(0)
	if err := s.Retry(); err != nil {
		t.Error(err)
	}
	trouble(t, s, nil)
	if err := s.Apply(Batch{Delete: []Key{item(1).Key}}); err != nil {
		t.Error(err)
	}
	if got := load(t, s); len(got) != 999 {
		t.Errorf("got %d records, want 999", len(got))
	}

	// A damaged file on a disk that cannot be written stays where it is.
	damaged := filepath.Join(dir, "damaged.db")
	if err := os.WriteFile(damaged, bytes.Repeat([]byte("no store"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Close()
	readOnly(unix.MS_RDONLY)
	s, aside, err = Open(damaged)
	if err != nil || aside == nil || aside.Path != "" || len(load(t, s)) != 0 {
		t.Fatalf("got %v, %v, want an empty store, and that the file could not be set aside", aside, err)
	}
	trouble(t, s, syscall.EROFS)
}
