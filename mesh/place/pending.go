package place

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"warren/mesh/disk"
	"warren/mesh/identity"
)

// What lies beside the state directories, under names that no mesh can have, while one is made or removed.
const (
	creating = ".creating-" // and the mesh's name: not whole yet
	joining  = ".joining-"  // and the IDs of mesh and invite: see pending
	leaving  = ".leaving-"  // and the mesh's name: what is left of a place that was given up
)

// fileReserve is a file of a pending join that a state directory has not: as many bytes as the mesh's first records may take.
const fileReserve = "reserve"

// reserved is the room on disk that a join holds ready for the records that come with the admission: at most 192 KiB of them, which bbolt
// writes in pages, to a file that it grows in powers of two.
const reserved = 1 << 20

// pending is a join from before its first packet until the place has its name. The keys are on disk by then, so that a join that breaks off
// anywhere can be repeated: who was admitted asks with the same certificate, and gets the same admission.
//
//	keys ─▶ reserve ─▶ (a member is found) ─▶ certificate ─▶ (asked, admitted) ─▶ place, records ─▶ name
//
// The certificate alone is in chain.pem until its issuers are. With it on disk somebody may have admitted it; without, nobody can have.
type pending struct {
	disk  disk.Disk
	dir   string
	state *State
	cert  *x509.Certificate // of an earlier attempt; nil: none
}

// openPending takes up the join of a mesh with an invite where it was broken off, or begins it. The caller has the lock of lockRoot.
func openPending(d disk.Disk, root string, token identity.Token) (p *pending, err error) {
	invite := identity.KeyIDOf(ed25519.NewKeyFromSeed(token.Seed[:]).Public().(ed25519.PublicKey))
	p = &pending{disk: d, dir: filepath.Join(root, pendingName(token.Mesh)+invite.Short())}
	if err := p.load(); err != nil {
		if p.state, err = newState(); err != nil {
			return nil, err
		}
		if err := p.begin(); err != nil {
			_ = d.Remove(p.dir)
			return nil, fmt.Errorf("join: the keys of this machine cannot be kept: %w", err)
		}
	}
	err = d.Do("reserve", p.dir, func() error { return reserve(filepath.Join(p.dir, fileReserve)) })
	if err != nil {
		_ = p.end(p.cert != nil)
		return nil, fmt.Errorf("join: there is no room for the records of the mesh: %w", err)
	}
	return p, nil
}

func pendingName(mesh identity.MeshID) string { return joining + hex.EncodeToString(mesh[:8]) + "-" }

// load reads the keys of an earlier attempt, and removes what else it left.
func (p *pending) load() (err error) {
	s := &State{Dir: p.dir}
	if s.Key, err = s.readKey(fileNodeKey); err != nil {
		return err
	}
	if s.WireGuard, err = s.readBase64(fileWireGuard); err != nil {
		return err
	}
	if s.Sealing, err = s.readBase64(fileSealing); err != nil {
		return err
	}
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case fileNodeKey, fileWireGuard, fileSealing, fileChain:
		default:
			if err := p.disk.Remove(filepath.Join(p.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if raw, err := os.ReadFile(filepath.Join(p.dir, fileChain)); err == nil {
		if certs, err := identity.DecodeCerts(raw); err == nil && s.Key.Public().(ed25519.PublicKey).Equal(certs[0].PublicKey) {
			p.cert = certs[0]
		}
	}
	p.state = s
	return nil
}

// begin writes new keys. The node key comes last: without it nothing was begun.
func (p *pending) begin() error {
	if err := p.disk.Remove(p.dir); err != nil {
		return err
	}
	if err := p.disk.MakeDir(p.dir, 0o700); err != nil {
		return err
	}
	return p.state.writeKeys(p.disk, p.dir)
}

// keep writes the certificate that members are going to be asked to admit. The error is an unfit.
func (p *pending) keep(cert *x509.Certificate) error {
	if err := p.disk.Write(filepath.Join(p.dir, fileChain), identity.EncodeCerts(cert), 0o600); err != nil {
		return unfit{err}
	}
	return nil
}

// finish makes the place out of it: the state, with what more puts there, under the name of the mesh.
func (p *pending) finish(dir string, more func(dir string) error) error {
	if err := p.disk.Remove(filepath.Join(p.dir, fileReserve)); err != nil {
		return err
	}
	if err := p.state.writePlace(p.disk, p.dir); err != nil {
		return err
	}
	if err := more(p.dir); err != nil {
		return err
	}
	return p.state.name(p.disk, p.dir, dir)
}

// end gives the room back, and the keys too unless they are to be kept for another attempt.
func (p *pending) end(keep bool) error {
	if keep {
		return p.disk.Remove(filepath.Join(p.dir, fileReserve))
	}
	return p.disk.Remove(p.dir)
}

// forgetPending removes what attempts to join a mesh have left. That they are still there does no harm, so no error comes of it.
func forgetPending(d disk.Disk, root string, mesh identity.MeshID) {
	entries, _ := os.ReadDir(root)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), pendingName(mesh)) {
			_ = d.Remove(filepath.Join(root, e.Name()))
		}
	}
}

// reserve takes room on disk. Zeros would not do where the file system packs them.
func reserve(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	block := make([]byte, 64<<10)
	for i := range block {
		block[i] = byte(i*i>>3 ^ i)
	}
	for n := 0; n < reserved && err == nil; n += len(block) {
		_, err = f.Write(block)
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		_ = os.Remove(path)
	}
	return err
}

// lockPoll is how often a lock that another process has is tried.
const lockPoll = 50 * time.Millisecond

// lockRoot makes the directory of all states and takes it for itself, so that no two processes make a place at once. busy is called once when it
// has to wait, at most until ctx ends. A file system that knows no locks of directories does without.
func lockRoot(ctx context.Context, d disk.Disk, root string, busy func()) (unlock func(), err error) {
	if err := d.MakeDir(root, 0o755); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	dir, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	for said := false; ; said = true {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return func() { dir.Close() }, nil
		}
		if !said {
			busy()
		}
		select {
		case <-ctx.Done():
			dir.Close()
			return nil, fmt.Errorf("state directory %s: another warren join or create is at work there: try again when that is done", root)
		case <-time.After(lockPoll):
		}
	}
}
