package store

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"warren/mesh/disk"
)

// sick is a disk on which nothing can be written while err is set.
type sick struct{ err error }

func (s *sick) disk() disk.Disk {
	return disk.Disk{Step: func(string, string) error { return s.err }}
}

// trouble asserts what a store says of its disk; want nil: that all is well.
func trouble(t *testing.T, s *Store, want error) {
	t.Helper()
	got := s.Trouble()
	if want == nil && got != nil || want != nil && (got == nil || !errors.Is(got.Err, want) || got.Since.IsZero() || strings.Contains(got.Err.Error(), "records.db")) {
		t.Errorf("got trouble %v, want %v", got, want)
	}
}

// A disk that fails while the store is open: the batches are refused and come again, and what was there before is kept.
func TestDiskThatFailsForAWhile(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EROFS, syscall.EDQUOT, syscall.EIO} {
		path, d := filepath.Join(t.TempDir(), "records.db"), &sick{}
		s, _, err := OpenOn(d.disk(), path)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(Batch{Put: []Item{item(1)}}); err != nil {
			t.Fatal(err)
		}
		trouble(t, s, nil)
		d.err = errno
		for range 2 {
			if err := s.Apply(Batch{Put: []Item{item(2)}}); !errors.Is(err, errno) {
				t.Errorf("got %v, want %v", err, errno)
			}
		}
		trouble(t, s, errno)
		since := s.Trouble().Since
		if err := s.Retry(); !errors.Is(err, errno) || !s.Trouble().Since.Equal(since) {
			t.Errorf("retry: got %v, %v, want %v since %v", err, s.Trouble(), errno, since)
		}
		d.err = nil
		if err := s.Retry(); err != nil {
			t.Error(err)
		}
		trouble(t, s, nil)
		if err := errors.Join(s.Apply(Batch{Put: []Item{item(3)}}), s.Close()); err != nil {
			t.Error(err)
		}
		if got := load(t, mustOpen(t, path)); len(got) != 2 {
			t.Errorf("%v: got %d records, want the first and the last", errno, len(got))
		}
	}
}

// A disk that cannot be written at the start: what there is can be read, and what comes is written once it can be.
func TestDiskThatFailsAtTheStart(t *testing.T) {
	for _, before := range []bool{false, true} {
		path, d := filepath.Join(t.TempDir(), "records.db"), &sick{err: syscall.EROFS}
		if before {
			s := mustOpen(t, path)
			if err := errors.Join(s.Apply(Batch{Put: []Item{item(1)}, Meta: map[string][]byte{"own": {7}}}), s.Close()); err != nil {
				t.Fatal(err)
			}
		}
		s, aside, err := OpenOn(d.disk(), path)
		if err != nil || aside != nil {
			t.Fatalf("got %v, %v, want a store", aside, err)
		}
		trouble(t, s, syscall.EROFS)
		own, err := s.Meta("own")
		if got := load(t, s); err != nil || (len(got) == 1) != before || bytes.Equal(own, []byte{7}) != before {
			t.Errorf("got %d records, %v, %v, want what was there", len(got), own, err)
		}
		if err := s.Apply(Batch{Put: []Item{item(2)}}); !errors.Is(err, syscall.EROFS) {
			t.Errorf("got %v, want %v", err, syscall.EROFS)
		}
		d.err = nil
		if err := s.Apply(Batch{Put: []Item{item(2)}}); err != nil {
			t.Fatal(err)
		}
		trouble(t, s, nil)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		want := 1
		if before {
			want = 2
		}
		if got := load(t, mustOpen(t, path)); len(got) != want {
			t.Errorf("got %d records, want %d", len(got), want)
		}
	}
}
