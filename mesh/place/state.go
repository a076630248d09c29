package place

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"crypto/x509"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/disk"
	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/signal"
)

// storedSchema is the version of node.json.
const storedSchema = 1

// Settings is what create or join settled: the content of node.json.
type Settings struct {
	Schema    int               `json:"schema"`
	Mesh      string            `json:"mesh"`                // a ValidName, that of the directory
	Name      string            `json:"name"`                // wanted by this node, a ValidName
	Interface string            `json:"interface,omitempty"` // name; "": warren0, or what the system chooses
	Port      uint16            `json:"port"`                // UDP; 0: DefaultPort
	Moved     uint16            `json:"moved,omitempty"`     // UDP: what the agent found that it needs instead of Port; 0: nothing
	Endpoints []string          `json:"endpoints,omitempty"` // host:port of this node as others reach it
	NoIPv4    bool              `json:"no_ipv4,omitempty"`   // the overlay has no IPv4 on this machine
	Admission *record.Admission `json:"admission,omitempty"` // nil for the founder
	Contacts  []netip.AddrPort  `json:"contacts,omitempty"`  // where the admitting member was reached
	Admitter  identity.NodeID   `json:"admitter,omitzero"`
}

// State is a state directory in memory, as Load read it. It holds secrets: logged, it is its mesh and name.
type State struct {
	Dir       string
	Settings  Settings
	Chain     []*x509.Certificate // this node's certificate first, the root last; two at least
	Key       ed25519.PrivateKey  // this node's
	WireGuard wgtypes.Key         // private
	Sealing   [32]byte            // private, X25519
}

// Root is the certificate of the mesh.
func (s *State) Root() *x509.Certificate { return s.Chain[len(s.Chain)-1] }

// MeshID is the ID of the mesh, that of its root's key.
func (s *State) MeshID() identity.MeshID {
	return identity.MeshIDOf(s.Root().PublicKey.(ed25519.PublicKey))
}

// NodeID is the ID of this node.
func (s *State) NodeID() identity.NodeID {
	return identity.NodeIDOf(s.Key.Public().(ed25519.PublicKey))
}

// LogValue keeps the keys out of logs.
func (s *State) LogValue() slog.Value {
	return slog.GroupValue(slog.String("mesh", s.Settings.Mesh), slog.String("name", s.Settings.Name))
}

// make makes the state directory dir with s in it, and what more puts there: whole, or not at all. The caller has the lock of lockRoot.
func (s *State) make(d disk.Disk, dir string, more func(dir string) error) (err error) {
	unnamed := filepath.Join(filepath.Dir(dir), creating+filepath.Base(dir))
	if err := d.Remove(unnamed); err != nil { // of one that was killed
		return fmt.Errorf("make state: %w", err)
	}
	defer func() {
		if err != nil {
			_ = d.Remove(unnamed)
		}
	}()
	if err := d.MakeDir(unnamed, 0o700); err != nil {
		return fmt.Errorf("make state: %w", err)
	}
	if err := s.writeKeys(d, unnamed); err != nil {
		return err
	}
	if err := s.writePlace(d, unnamed); err != nil {
		return err
	}
	if err := more(unnamed); err != nil {
		return err
	}
	return s.name(d, unnamed, dir)
}

// name gives a directory in which everything is its name.
func (s *State) name(d disk.Disk, unnamed, dir string) error {
	if _, err := os.Lstat(dir); err == nil { // one that is empty would be replaced
		return fmt.Errorf("make state: %s is there already: %w", dir, os.ErrExist)
	}
	if err := d.Rename(unnamed, dir); err != nil {
		return fmt.Errorf("make state: %w", err)
	}
	s.Dir = dir
	return nil
}

// writeKeys writes what a node is before it has a place.
func (s *State) writeKeys(d disk.Disk, dir string) error {
	nodeKey, err := identity.EncodePrivateKey(s.Key)
	if err != nil {
		return err
	}
	return writeFiles(d, dir, []file{
		{fileWireGuard, []byte(s.WireGuard.String() + "\n")}, {fileSealing, []byte(wgtypes.Key(s.Sealing).String() + "\n")}, {fileNodeKey, nodeKey},
	})
}

// writePlace writes what its place is.
func (s *State) writePlace(d disk.Disk, dir string) error {
	if err := writeFiles(d, dir, []file{{fileLock, nil}, {fileChain, identity.EncodeCerts(s.Chain...)}}); err != nil {
		return err
	}
	return s.Settings.write(d, dir)
}

func (s Settings) write(d disk.Disk, dir string) error {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", fileSettings, err)
	}
	return writeFiles(d, dir, []file{{fileSettings, append(raw, '\n')}})
}

// file is one to be written.
type file struct {
	name string
	data []byte
}

func writeFiles(d disk.Disk, dir string, files []file) error {
	for _, f := range files {
		if err := d.Write(filepath.Join(dir, f.name), f.data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Load reads a state directory. Errors name the file that is wrong and what to do about it; nothing is changed. They wrap
// os.ErrNotExist when the directory, or a file in it, is missing.
func Load(dir string) (*State, error) {
	s := &State{Dir: dir}
	raw, err := s.read(fileSettings)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &s.Settings); err != nil {
		return nil, s.damaged(fileSettings, err)
	}
	if s.Settings.Schema != storedSchema {
		return nil, s.damaged(fileSettings, fmt.Errorf("schema %d, this program knows %d", s.Settings.Schema, storedSchema))
	}
	if err := ValidName(s.Settings.Mesh); err != nil {
		return nil, s.damaged(fileSettings, err)
	}
	if err := ValidName(s.Settings.Name); err != nil {
		return nil, s.damaged(fileSettings, err)
	}
	if err := s.readChain(); err != nil {
		return nil, err
	}
	if s.Key, err = s.readKey(fileNodeKey); err != nil {
		return nil, err
	}
	if err := s.checkRootKey(); err != nil {
		return nil, err
	}
	if s.WireGuard, err = s.readBase64(fileWireGuard); err != nil {
		return nil, err
	}
	sealing, err := s.readBase64(fileSealing)
	if err != nil {
		return nil, err
	}
	s.Sealing = sealing
	if leaf, ok := s.Chain[0].PublicKey.(ed25519.PublicKey); !ok || !leaf.Equal(s.Key.Public()) {
		return nil, s.damaged(fileChain, fmt.Errorf("its first certificate is not for the key in %s", fileNodeKey))
	}
	return s, nil
}

func (s *State) readKey(file string) (ed25519.PrivateKey, error) {
	data, err := s.read(file)
	if err != nil {
		return nil, err
	}
	key, err := identity.DecodePrivateKey(data)
	if err != nil {
		return nil, s.damaged(file, err)
	}
	return key, nil
}

// checkRootKey finds damage of the root key while there may be a copy of it still. The key itself is not kept. One that this process may not
// read is none of its business.
func (s *State) checkRootKey() error {
	raw, err := ownRoot(s.Dir)
	switch {
	case errors.Is(err, ErrNoRootKey), errors.Is(err, os.ErrPermission):
		return nil
	case err != nil:
		return err
	}
	if _, err := RootOf(s.Dir, raw); err != nil {
		return s.damaged(fileRootKey, err)
	}
	return nil
}

func (s *State) readBase64(file string) (wgtypes.Key, error) {
	data, err := s.read(file)
	if err != nil {
		return wgtypes.Key{}, err
	}
	key, err := wgtypes.ParseKey(strings.TrimSpace(string(data)))
	if err != nil {
		return wgtypes.Key{}, s.damaged(file, err)
	}
	return key, nil
}

func (s *State) readChain() error {
	raw, err := s.read(fileChain)
	if err != nil {
		return err
	}
	if s.Chain, err = identity.DecodeCerts(raw); err != nil {
		return s.damaged(fileChain, err)
	}
	if len(s.Chain) < 2 {
		return s.damaged(fileChain, fmt.Errorf("%d certificates, want this node's and its issuers'", len(s.Chain)))
	}
	return nil
}

// Lock takes the lock of a state directory until it is closed, or the process ends. The error wraps syscall.EWOULDBLOCK
// when an agent holds it. On a disk that cannot be written it is the file as it is, or without one the directory.
func Lock(dir string) (io.Closer, error) {
	path := filepath.Join(dir, fileLock)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		if _, statErr := os.Stat(path); statErr != nil {
			path = dir
		}
		if file, err = os.Open(path); err != nil {
			return nil, fmt.Errorf("lock state: %w", err)
		}
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock state %s: %w", path, err)
		}
		return nil, fmt.Errorf("lock state %s: an agent is running on it: %w", dir, err)
	}
	return file, nil
}

// OwnRecord is this node's record as far as the state directory knows it; mesh gives it its sequence number, and signs it.
// wireGuard is the private key in use: s.WireGuard, unless the config file names another one. While this machine joins, only the token
// tells the mesh.
func (s *State) OwnRecord(mesh identity.MeshID, wireGuard wgtypes.Key, version string) (record.Node, error) {
	sealing, err := signal.SealingPublic(s.Sealing)
	if err != nil {
		return record.Node{}, s.damaged(fileSealing, err)
	}
	proof, err := identity.ProveKey(mesh, s.NodeID(), wireGuard)
	if err != nil {
		return record.Node{}, err
	}
	own := record.Node{
		ID: s.NodeID(), Name: s.Settings.Name, WireGuardKey: wireGuard.PublicKey(), WireGuardProof: proof, SealingKey: sealing, Version: record.CleanVersion(version), Started: time.Now().Unix(),
	}
	if len(s.Chain) > 0 {
		own.Certificate = s.Chain[0].Raw
	}
	if s.Settings.Admission != nil {
		own.Admission = *s.Settings.Admission
	}
	return own, nil
}
