package node

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"crypto/x509"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/identity"
	"warren/mesh/record"
	"warren/mesh/signal"
)

// The files of a mesh's state directory. All are written atomically and readable by their owner alone.
const (
	fileSettings  = "node.json"     // name, port, endpoints, contacts: see stored
	fileChain     = "chain.pem"     // this node's certificate, then its issuers, the root last
	fileNodeKey   = "node.key"      // PEM, PKCS 8, Ed25519
	fileRootKey   = "root.key"      // the same; on the founder, until it is moved elsewhere
	fileWireGuard = "wireguard.key" // base64, as wg(8) writes it
	fileSealing   = "sealing.key"   // base64, X25519
	fileRecords   = "records.db"    // package store
	fileLock      = "lock"          // held by the running agent
)

// storedSchema is the version of node.json.
const storedSchema = 1

// stored is the content of node.json.
type stored struct {
	Schema    int               `json:"schema"`
	Mesh      string            `json:"mesh"`
	Name      string            `json:"name"`
	Port      uint16            `json:"port"`
	Endpoints []string          `json:"endpoints,omitempty"`
	Admission *record.Admission `json:"admission,omitempty"` // nil for the founder
	Contacts  []netip.AddrPort  `json:"contacts,omitempty"`  // where the admitting member was reached
	Admitter  identity.NodeID   `json:"admitter,omitzero"`
}

// state is a state directory in memory.
type state struct {
	dir       string
	settings  stored
	chain     []*x509.Certificate // leaf first, root last
	key       ed25519.PrivateKey
	rootKey   ed25519.PrivateKey // nil when it is not here
	wireGuard wgtypes.Key
	sealing   [32]byte
}

func (s *state) root() *x509.Certificate { return s.chain[len(s.chain)-1] }
func (s *state) meshID() identity.MeshID {
	return identity.MeshIDOf(s.root().PublicKey.(ed25519.PublicKey))
}
func (s *state) nodeID() identity.NodeID {
	return identity.NodeIDOf(s.key.Public().(ed25519.PublicKey))
}

// write makes the state directory dir with s in it, and what more puts there: whole, or not at all.
func (s *state) write(dir string, more func(dir string) error) (err error) {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	temporary, err := os.MkdirTemp(parent, "."+filepath.Base(dir)+"-")
	if err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(temporary)
		}
	}()
	if err := s.writeFiles(temporary); err != nil {
		return err
	}
	if more != nil {
		if err := more(temporary); err != nil {
			return err
		}
	}
	if _, err := os.Stat(dir); err == nil {
		return fmt.Errorf("make state directory %s: %w", dir, os.ErrExist)
	}
	if err := os.Rename(temporary, dir); err != nil {
		return fmt.Errorf("make state directory %s: %w", dir, err)
	}
	s.dir = dir
	return identity.SyncDir(parent)
}

func (s *state) writeFiles(dir string) error {
	nodeKey, err := identity.EncodePrivateKey(s.key)
	if err != nil {
		return err
	}
	settings, err := json.MarshalIndent(s.settings, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", fileSettings, err)
	}
	files := map[string][]byte{
		fileNodeKey: nodeKey, fileSettings: append(settings, '\n'), fileChain: identity.EncodeCerts(s.chain...),
		fileWireGuard: []byte(s.wireGuard.String() + "\n"), fileSealing: []byte(wgtypes.Key(s.sealing).String() + "\n"),
	}
	if s.rootKey != nil {
		if files[fileRootKey], err = identity.EncodePrivateKey(s.rootKey); err != nil {
			return err
		}
	}
	for name, data := range files {
		if err := identity.WriteFileAtomic(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// loadState reads a state directory. Errors name the file that is wrong and what to do; nothing is changed.
func loadState(dir string) (*state, error) {
	s := &state{dir: dir}
	raw, err := s.read(fileSettings)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &s.settings); err != nil {
		return nil, s.damaged(fileSettings, err)
	}
	if s.settings.Schema != storedSchema {
		return nil, s.damaged(fileSettings, fmt.Errorf("schema %d, this program knows %d", s.settings.Schema, storedSchema))
	}
	if err := ValidName(s.settings.Mesh); err != nil {
		return nil, s.damaged(fileSettings, err)
	}
	if err := ValidName(s.settings.Name); err != nil {
		return nil, s.damaged(fileSettings, err)
	}
	if err := s.readChain(); err != nil {
		return nil, err
	}
	if s.key, err = s.readKey(fileNodeKey); err != nil {
		return nil, err
	}
	if s.rootKey, err = s.readKey(fileRootKey); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if s.wireGuard, err = s.readBase64(fileWireGuard); err != nil {
		return nil, err
	}
	sealing, err := s.readBase64(fileSealing)
	if err != nil {
		return nil, err
	}
	s.sealing = sealing
	if leaf, ok := s.chain[0].PublicKey.(ed25519.PublicKey); !ok || !leaf.Equal(s.key.Public()) {
		return nil, s.damaged(fileChain, fmt.Errorf("its first certificate is not for the key in %s", fileNodeKey))
	}
	return s, nil
}

func (s *state) damaged(file string, err error) error {
	return fmt.Errorf("read %s: %w (restore it from a backup, or leave with --force and join anew)", filepath.Join(s.dir, file), err)
}

func (s *state) read(file string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, file))
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	return data, nil
}

func (s *state) readKey(file string) (ed25519.PrivateKey, error) {
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

func (s *state) readBase64(file string) (wgtypes.Key, error) {
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

func (s *state) readChain() error {
	raw, err := s.read(fileChain)
	if err != nil {
		return err
	}
	if s.chain, err = identity.DecodeCerts(raw); err != nil {
		return s.damaged(fileChain, err)
	}
	if len(s.chain) < 2 {
		return s.damaged(fileChain, fmt.Errorf("%d certificates, want this node's and its issuers'", len(s.chain)))
	}
	return nil
}

// lockState takes the lock of a state directory for as long as the file stays open. The error says who holds it.
func lockState(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, fileLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock state %s: an agent is running on it: %w", dir, err)
	}
	return file, nil
}

// ownRecord is this node's record as far as the state directory knows it; mesh gives it its sequence number.
func (s *state) ownRecord(wireGuard wgtypes.Key, version string) (record.Node, error) {
	sealing, err := signal.SealingPublic(s.sealing)
	if err != nil {
		return record.Node{}, s.damaged(fileSealing, err)
	}
	own := record.Node{
		ID: s.nodeID(), Name: s.settings.Name, WireGuardKey: wireGuard.PublicKey(), SealingKey: sealing, Version: record.CleanVersion(version), Started: time.Now().Unix(),
	}
	if len(s.chain) > 0 {
		own.Certificate = s.chain[0].Raw
		if identity.IsAdmin(s.chain[0]) {
			own.LANSecret = s.lanSecret()
		}
	}
	if s.settings.Admission != nil {
		own.Admission = *s.settings.Admission
	}
	return own, nil
}
