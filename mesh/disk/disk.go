// Package disk changes files so that a crash or a power cut at any moment leaves the old or the new, whole. What is in the
// files is left to their owners.
//
// Every change is made of steps, each of which may fail, or be the last one before the process is killed. A Disk with a Step
// of its own has them do that, for tests. A Disk may be used by several goroutines at once, if its Step may.
package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Disk is a file system to write to. The zero value is the system's.
type Disk struct {
	// Step is called before each step that changes the disk, with a word for what it does and the path that it is done to. Its error is what
	// comes of the step, which is not done then. nil: all steps are done.
	Step func(what, path string) error
}

func (d Disk) step(what, path string) error {
	if d.Step == nil {
		return nil
	}
	return d.Step(what, path)
}

// MakeDir makes a directory and those above it, as far as they are missing, and has the new names survive a power cut. Its own mode is perm,
// that of those above it 0755.
func (d Disk) MakeDir(dir string, perm os.FileMode) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is a file, want a directory", dir)
		}
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := d.MakeDir(parent, 0o755); err != nil {
			return err
		}
	}
	err := d.step("make directory", dir)
	if err == nil {
		err = os.Mkdir(dir, perm)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make directory %s: %w", dir, bare(err))
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is in the way: want a directory", dir)
	}
	return d.Sync(filepath.Dir(dir))
}

// Write writes a file so that after a crash at any moment its path holds the old content or the new, whole: it writes a temporary file
// beside it, syncs that, renames it over path, and syncs the directory. The file never has wider permissions than perm.
func (d Disk) Write(path string, data []byte, perm os.FileMode) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, bare(err))
		}
	}()
	if err := d.step("create", path); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && d.step("remove", temp.Name()) == nil {
			_ = os.Remove(temp.Name())
		}
	}()
	if err := d.fill(temp, path, data, perm); err != nil {
		return err
	}
	if err := d.step("rename", path); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	return d.Sync(filepath.Dir(path))
}

// fill writes a new file and closes it.
func (d Disk) fill(temp *os.File, path string, data []byte, perm os.FileMode) (err error) {
	defer func() {
		if closed := temp.Close(); err == nil {
			err = closed
		}
	}()
	if err := d.step("write", path); err != nil {
		return err
	}
	if _, err := temp.Write(data); err != nil {
		return err
	}
	if err := temp.Chmod(perm); err != nil {
		return err
	}
	if err := d.step("sync", path); err != nil {
		return err
	}
	return temp.Sync()
}

// Rename gives what is at from another name, which nothing has yet, and has that survive a power cut where both are in one directory.
func (d Disk) Rename(from, to string) error {
	err := d.step("rename", to)
	if err == nil {
		err = os.Rename(from, to)
	}
	if err != nil {
		return fmt.Errorf("rename to %s: %w", to, bare(err))
	}
	return d.Sync(filepath.Dir(to))
}

// Remove removes a file, or a directory with all that is in it. It is no error when there is none.
func (d Disk) Remove(path string) error {
	err := d.step("remove", path)
	if err == nil {
		err = os.RemoveAll(path)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, bare(err))
	}
	return nil
}

// Sync makes new names in a directory survive a power cut.
func (d Disk) Sync(dir string) error {
	if err := d.step("sync", dir); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	at, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer at.Close()
	if err := at.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, bare(err))
	}
	return nil
}

// Do has something done that is a step by itself, as a database's write.
func (d Disk) Do(what, path string, f func() error) error {
	if err := d.step(what, path); err != nil {
		return fmt.Errorf("%s %s: %w", what, path, err)
	}
	return f()
}

// bare takes the operation and the path out of an error of package os: the text that is put around it has them.
func bare(err error) error {
	switch e := err.(type) {
	case *os.PathError:
		return e.Err
	case *os.LinkError:
		return e.Err
	case *os.SyscallError:
		return e.Err
	}
	return err
}
