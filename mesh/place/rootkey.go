package place

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"warren/mesh/disk"
	"warren/mesh/identity"
)

// The root key of a mesh signs what no admin can undo. It is made with the mesh and lies in the founder's state directory until it is
// exported and removed there. No agent holds it in memory or is told it: whoever signs with it (cmd/warren) reads it for that.

// RootKey is where the root key of a mesh is, as far as this machine knows.
type RootKey struct {
	Here     bool      // in the state directory
	Exported time.Time // when a copy of it was last made, or taken from, elsewhere; zero: never, as far as is known here
}

// RootKeyOf looks where the root key is, for the state directory of a mesh. It reads no key.
func RootKeyOf(dir string) (k RootKey) {
	_, err := os.Stat(filepath.Join(dir, fileRootKey))
	k.Here = err == nil
	if raw, err := os.ReadFile(filepath.Join(dir, fileExported)); err == nil {
		k.Exported, _ = time.Parse(time.RFC3339, strings.TrimSpace(string(raw)))
	}
	return k
}

// ErrNoRootKey is wrapped when the root key is asked for where it is not.
var ErrNoRootKey = errors.New("the root key of the mesh is not on this machine")

// OwnRoot returns the root with its key, out of the state directory of its mesh. The error wraps ErrNoRootKey when the key is not there.
func OwnRoot(dir string) (identity.Authority, error) {
	raw, err := ownRoot(dir)
	if err != nil {
		return identity.Authority{}, err
	}
	return RootOf(dir, raw)
}

func ownRoot(dir string) ([]byte, error) {
	raw, err := os.ReadFile(filepath.Join(dir, fileRootKey))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, fileRootKey), ErrNoRootKey)
	case err != nil:
		return nil, fmt.Errorf("read root key: %w", err)
	}
	return raw, nil
}

// MaxRootKey bounds the file of a root key; it has about 120 bytes.
const MaxRootKey = 4096

// RootOf returns the root with its key, which raw holds as ExportRoot writes it. The key has to be that of the mesh whose state directory
// this is. No error says anything of the content.
func RootOf(dir string, raw []byte) (identity.Authority, error) {
	s := &State{Dir: dir}
	if err := s.readChain(); err != nil {
		return identity.Authority{}, err
	}
	key, err := identity.DecodePrivateKey(raw)
	if err != nil {
		return identity.Authority{}, errors.New("this is no root key: want the PEM file that warren admin export-root writes")
	}
	if !key.Public().(ed25519.PublicKey).Equal(s.Root().PublicKey) {
		return identity.Authority{}, errors.New("this is a key, but not the root key of this mesh")
	}
	return identity.Authority{Cert: s.Root(), Key: key}, nil
}

// ExportRoot writes the root key of the mesh of a state directory to a new file, which nobody else may read, and notes that there is a copy.
// With remove the key is deleted from the state directory, once the file was read back and is the same. It overwrites nothing: the
// error wraps os.ErrExist when there is something at file; ErrNoRootKey when the key is not here.
func ExportRoot(dir, file string, remove bool) error {
	raw, err := exportable(dir)
	if err != nil {
		return err
	}
	if err := writeNew(file, raw); err != nil {
		return err
	}
	if err := noteExport(dir); err != nil || !remove {
		return err
	}
	if err := os.Remove(filepath.Join(dir, fileRootKey)); err != nil {
		return fmt.Errorf("the copy is made, the root key is still here: %w", err)
	}
	return disk.Disk{}.Sync(dir)
}

// ExportRootTo is ExportRoot for what is no file: it cannot be read back, so the key stays.
func ExportRootTo(dir string, w io.Writer) error {
	raw, err := exportable(dir)
	if err != nil {
		return err
	}
	if _, err := w.Write(raw); err != nil {
		return fmt.Errorf("export root key: %w", err)
	}
	return noteExport(dir)
}

// exportable is the root key's file, which is checked: a copy of a damaged one would be worse than none.
func exportable(dir string) ([]byte, error) {
	raw, err := ownRoot(dir)
	if err != nil {
		return nil, err
	}
	if _, err := RootOf(dir, raw); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, fileRootKey), err)
	}
	return raw, nil
}

// writeNew writes a file that is not there yet, mode 0600, and reads it back. Nothing is left of one that failed.
func writeNew(file string, raw []byte) (err error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write root key: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write root key: %w", errors.Join(err, os.Remove(file)))
		}
	}()
	_, err = f.Write(raw)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := (disk.Disk{}).Sync(filepath.Dir(file)); err != nil {
		return err
	}
	back, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if !bytes.Equal(back, raw) {
		return fmt.Errorf("%s does not hold what was written to it", file)
	}
	return nil
}

func noteExport(dir string) error {
	now := time.Now().UTC().Format(time.RFC3339)
	if err := (disk.Disk{}).Write(filepath.Join(dir, fileExported), []byte(now+"\n"), 0o600); err != nil {
		return fmt.Errorf("note that the root key was exported: %w", err)
	}
	return nil
}

// ImportRoot puts the root key of the mesh, as ExportRoot has written it, into its state directory. One that is there is never
// replaced: when it is the same nothing happens, and else the error wraps os.ErrExist.
func ImportRoot(dir string, raw []byte) error {
	root, err := RootOf(dir, raw)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, fileRootKey)
	switch there, err := OwnRoot(dir); {
	case err == nil && there.Key.Equal(root.Key):
		return noteExport(dir)
	case !errors.Is(err, ErrNoRootKey):
		return fmt.Errorf("%s is there already, and is not that key: move it elsewhere first: %w", path, os.ErrExist)
	}
	encoded, err := identity.EncodePrivateKey(root.Key)
	if err != nil {
		return err
	}
	if err := (disk.Disk{}).Write(path, encoded, 0o600); err != nil {
		return err
	}
	return noteExport(dir)
}
