package place

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The state directory of a mesh, /var/lib/warren/MESH (on macOS /Library/Application Support/warren/MESH), mode 0700. It
// is made whole or not at all: under a hidden name (.creating-… or .joining-…) that becomes the right one at the end, and goes as
// a whole, under another one (.leaving-…). A hidden directory that is left over comes of a process that was killed then: the command that
// it was, repeated, takes it up.
//
// Each file is written beside its old self and renamed, so that a power cut leaves the one or the other, and is readable by its
// owner alone. This is the only place that names them. What is to be done about a damaged one is what Load says in its error.
const (
	fileSettings  = "node.json"     // what create or join settled: the content is Settings
	fileChain     = "chain.pem"     // this node's certificate, then its issuers, the root last
	fileNodeKey   = "node.key"      // who this node is. PEM, PKCS 8, Ed25519
	fileRootKey   = "root.key"      // the mesh's own key, in the same form; on the founder, until it is exported and removed (rootkey.go)
	fileExported  = "root.exported" // when that was last exported: a time (RFC 3339)
	fileWireGuard = "wireguard.key" // base64, as wg(8) writes it
	fileSealing   = "sealing.key"   // X25519, to which signals are encrypted; base64, in the same form
	fileRecords   = "records.db"    // what is known of the mesh: package store
	fileContacts  = "contacts.json" // where members were met: Contacts. Not in records.db, so that a node that loses that finds the others
	fileDevices   = "devices.json"  // plain WireGuard devices that this node hosts: a list of Device, with preshared keys
	filePaths     = "paths.json"    // on which direct paths members were reached last: Paths
	fileLock      = "lock"          // empty, there from the beginning; locked by the running agent (flock)
)

// remedies say for each file what a person can do when it is damaged or lost.
var remedies = map[string]string{
	fileSettings: restoreOrJoin,
	fileChain:    restoreOrJoin,
	fileNodeKey:  restoreOrJoin,
	fileRootKey:  "restore it from a copy (warren admin import-root), or move it elsewhere: the agent runs without it",
	fileExported: "export the root key again: warren admin export-root",
	// The others take both from this node's record, so that other ones do as well.
	fileWireGuard: "restore it from a backup, or put another one there with: wg genkey",
	fileSealing:   "restore it from a backup, or put another one there with: wg genkey",
	// These the agent mends by itself. It keeps what it found as FILE.corrupt-TIME.
	fileRecords:  "it is set aside, and fetched anew from other members",
	fileContacts: "it is set aside, and begins anew",
	filePaths:    "it begins anew",
	fileDevices:  "restore it from a backup, or remove it and add the devices anew",
	fileLock:     "remove it while no agent runs",
}

const restoreOrJoin = "restore it from a backup, or leave with --force and join anew"

// damaged is the error about a file that is not what it has to be: it names the file, the cause, and what to do.
func (s *State) damaged(file string, cause error) error {
	remedy := remedies[file]
	if _, err := os.Stat(filepath.Join(s.Dir, fileRootKey)); err == nil && remedy == restoreOrJoin {
		remedy = strings.Replace(remedy, "or ", "or keep a copy of "+fileRootKey+", ", 1)
	}
	return fmt.Errorf("read %s: %w (%s)", filepath.Join(s.Dir, file), cause, remedy)
}

// read returns the content of a file. One that is missing where others are counts as damaged; the error wraps os.ErrNotExist.
func (s *State) read(file string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(s.Dir, file))
	if _, statErr := os.Stat(s.Dir); errors.Is(err, os.ErrNotExist) && statErr == nil {
		return nil, s.damaged(file, errors.Unwrap(err)) // the path is in the text already
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	return data, nil
}

// RecordsPath is where the store of the mesh's records is kept.
func (s *State) RecordsPath() string { return filepath.Join(s.Dir, fileRecords) }
