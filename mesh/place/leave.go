package place

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"warren/mesh/disk"
	"warren/mesh/identity"
)

// LeaveOptions say which state to remove.
type LeaveOptions struct {
	StateDir string // of the mesh
	Force    bool   // also when it holds the root key of the mesh, or is damaged

	disk disk.Disk
}

// LeaveOffline removes the state directory of a mesh whose agent is not running. It tells nobody. It refuses while an
// agent holds the state, and without Force when the root key of the mesh would be lost. The interface of a
// killed agent needs no removal: it ended with the process.
//
// The directory loses its name first: broken off anywhere, it is there as it was, or gone, and the next LeaveOffline removes what is left of it.
func LeaveOffline(o LeaveOptions) error {
	gone := filepath.Join(filepath.Dir(o.StateDir), leaving+filepath.Base(o.StateDir))
	if err := discard(o.disk, gone); err != nil { // of one that was broken off
		return fmt.Errorf("leave: %w", err)
	}
	if _, err := os.Lstat(o.StateDir); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	lock, err := Lock(o.StateDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if !o.Force {
		s, err := Load(o.StateDir)
		if err != nil {
			return err
		}
		if err := s.Expendable(); err != nil {
			return err
		}
	}
	var mesh identity.MeshID
	if s := (&State{Dir: o.StateDir}); s.readChain() == nil {
		mesh = s.MeshID()
	}
	err = o.disk.Rename(o.StateDir, gone)
	switch {
	case errors.Is(err, syscall.EBUSY), errors.Is(err, syscall.EXDEV): // a file system of its own is mounted there
		err = empty(o.disk, o.StateDir)
	case err == nil:
		err = discard(o.disk, gone)
	}
	if err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	root := filepath.Dir(o.StateDir)
	forgetPending(o.disk, root, mesh)
	if Default(root) == filepath.Base(o.StateDir) {
		_ = SetDefault(root, "") // one that is not there is not meant
	}
	return nil
}

// discard removes a directory; of a symbolic link, what it leads to as well. It is no error when there is none.
func discard(d disk.Disk, path string) error {
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSymlink != 0 {
		if err := empty(d, path); err != nil {
			return err
		}
	}
	return d.Remove(path)
}

// empty removes what is in a directory.
func empty(d disk.Disk, dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := d.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// Expendable returns an error when more than this node's place would go with the state: the root key of the mesh, which
// nobody could make again, and of which no copy was exported.
func (s *State) Expendable() error {
	if k := RootKeyOf(s.Dir); !k.Here || !k.Exported.IsZero() {
		return nil
	}
	return fmt.Errorf("leave: %s is the only root key of the mesh, which would be lost: make a copy with warren admin export-root FILE, or leave with --force", filepath.Join(s.Dir, fileRootKey))
}
