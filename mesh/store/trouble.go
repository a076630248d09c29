package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"warren/mesh/disk"
)

// A store whose disk cannot be written goes on: its user keeps what is not on disk yet, and brings it again. The trouble it has is told to whoever
// asks, and ends by itself with the first write that succeeds.
//
//	          ┌── Apply fails ──▶ ┌─────────┐ ◀── Open: no file can be made, or the one there only be read
//	 ┌──────┐ │                   │ trouble │
//	 │ fine │ ┘                   └─────────┘
//	 └──────┘ ◀── Apply, Retry succeed ──┘

// Trouble is why nothing is written, and since when.
type Trouble struct {
	Err   error // wraps what the system says, in one line, without the path
	Since time.Time

	seen bool // without a write: it may be over without one
}

// Trouble returns why what was given to Apply is not on disk, nil when all is. A disk that was made read-only, or is full, is noticed without
// a write too.
func (s *Store) Trouble() *Trouble {
	before := s.trouble.Load()
	if before != nil && !before.seen {
		return before
	}
	switch err := unwritable(filepath.Dir(s.path)); {
	case err == nil && before != nil:
		s.trouble.CompareAndSwap(before, nil)
	case err != nil && before == nil:
		s.trouble.CompareAndSwap(nil, &Trouble{Err: err, Since: time.Now(), seen: true})
	}
	return s.trouble.Load()
}

// unwritable says why a file in a directory could not be written now, as far as the system says so by itself; nil when it does not.
func unwritable(dir string) error {
	if err := unix.Access(dir, unix.W_OK); errors.Is(err, syscall.EROFS) {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err == nil && fs.Blocks > 0 && fs.Bfree == 0 {
		return syscall.ENOSPC
	}
	return nil
}

// Retry tries to write when the last write failed, and returns what came of it; nil when all was fine.
func (s *Store) Retry() error {
	if s.trouble.Load() == nil {
		return nil
	}
	return s.Apply(Batch{})
}

// note remembers what came of a write.
func (s *Store) note(err error) {
	if err == nil {
		s.trouble.Store(nil)
		return
	}
	now := &Trouble{Err: cause(err), Since: time.Now()}
	if before := s.trouble.Load(); before != nil {
		now.Since = before.Since
	}
	s.trouble.Store(now)
}

// cause is the system's part of an error, the whole of it when there is none.
func cause(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

// refuses reports whether a disk cannot be written, for now perhaps: what is on it is sound all the same.
func refuses(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EROFS, syscall.ENOSPC, syscall.EDQUOT, syscall.EACCES, syscall.EPERM, syscall.EIO, syscall.EFBIG} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// read opens what there is for reading, because of the error of opening it for writing. Where nothing can be read either there is no db; of a file that
// is damaged it says so.
func (s *Store) read(because error) *SetAside {
	s.reading = true
	s.note(because)
	db, err := open(s.path, true)
	if err == nil {
		s.db = db
	}
	if errors.Is(err, ErrDamaged) {
		return &SetAside{Cause: err}
	}
	return nil
}

// reopen opens the file for writing, where that can be done by now. The caller has the turn.
func (s *Store) reopen() error {
	if s.db != nil { // its lock, though shared, would be in the way
		_ = guard(s.db.Close)
		s.db = nil
	}
	db, err := s.open()
	if err != nil {
		return err
	}
	s.db, s.reading = db, false
	return nil
}

// setAside gives the damaged file a name of its own beside the old one and returns it.
func setAside(path string) (string, error) {
	aside := path + ".corrupt-" + time.Now().UTC().Format("20060102T150405")
	for n := 2; ; n++ {
		if _, err := os.Lstat(aside); errors.Is(err, os.ErrNotExist) {
			break
		}
		aside = fmt.Sprintf("%s.corrupt-%s-%d", path, time.Now().UTC().Format("20060102T150405"), n)
	}
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	return aside, disk.Disk{}.Sync(filepath.Dir(path))
}
