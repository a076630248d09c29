package place

import (
	"fmt"
	"os"
	"path/filepath"
)

// LeaveOptions say which state to remove.
type LeaveOptions struct {
	StateDir string // of the mesh
	Force    bool   // also when it holds the root key of the mesh, or is damaged
}

// LeaveOffline removes the state directory of a mesh whose agent is not running. It tells nobody. It refuses while an
// agent holds the state, and without Force when the root key of the mesh would be lost. The interface of a
// killed agent needs no removal: it ended with the process.
func LeaveOffline(o LeaveOptions) error {
	if _, err := os.Stat(o.StateDir); err != nil {
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
	if err := os.RemoveAll(o.StateDir); err != nil {
		return fmt.Errorf("remove state: %w", err)
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
