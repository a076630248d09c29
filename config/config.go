// Package config reads warren.toml: what this machine says about its interface, its part in the mesh, and plain
// WireGuard peers. It is strict: what it does not know, it names with file, line and column, and says what to
// write instead.
//
// What the settings do is left to mesh/node, which never sees this package: cmd/warren turns a Config into its
// option structs. The keys that the file names by path are read with ReadKey, when they are used.
//
// Parse is a pure function; a Config is a value. Both may be used concurrently.
package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"
)

// maxFile bounds the file, in bytes: 5,000 static peers take about one million.
const maxFile = 4 << 20

// Config is a whole file, checked. Zero fields were not in the file. The tags are the keys of the file, by which others name a setting:
// "interface.port".
type Config struct {
	Interface Interface `toml:"interface"`
	Mesh      Mesh      `toml:"mesh"`
	Peers     []Peer    `toml:"peer"` // names and public keys are unique
}

// Interface is the table [interface].
type Interface struct {
	Name           string         `toml:"name"`             // of the network interface; "": warren0 or the next free one
	Port           uint16         `toml:"port"`             // UDP; 0: the one chosen at create or join, 9277 if none was
	MTU            int            `toml:"mtu"`              // 0: computed
	PrivateKeyFile string         `toml:"private_key_file"` // WireGuard private key in base64; "": the one in the state directory
	Addresses      []netip.Prefix `toml:"addresses"`
}

// Mesh is the table [mesh].
type Mesh struct {
	Anchor    string   `toml:"anchor"`   // "auto", "always" or "never"; never empty
	Endpoints []string `toml:"endpoint"` // host:port of this machine as others reach it
	Incoming  bool     `toml:"incoming"` // take new flows of others, as the policy has it; true unless the file says false
	IPv4      *bool    `toml:"ipv4"`     // the overlay has IPv4 on this machine, where its network is free; nil: as chosen at create or join
	LAN       bool     `toml:"lan"`      // find members on the local network; true unless the file says false
	// StreamPorts are TCP ports on which this node, as an anchor, serves members whose networks drop UDP, beside that of the
	// number of its UDP port.
	StreamPorts []uint16 `toml:"stream_ports"`
	// RelayLimit is what this machine forwards for other members at most, in bytes a second; 0: as much as its uplink carries.
	RelayLimit int `toml:"relay_limit"`
	// Names says how this machine's resolver learns the mesh's names: "auto", "resolved", "hosts" or "off"; never empty.
	Names string `toml:"names"`
}

// Peer is one table [[peer]]: a plain WireGuard peer.
type Peer struct {
	Name             string         `toml:"name"` // "": the start of its public key
	PublicKey        [32]byte       `toml:"public_key"`
	AllowedIPs       []netip.Prefix `toml:"allowed_ips"`
	Endpoint         string         `toml:"endpoint"`           // host:port; "": the peer calls us
	PresharedKeyFile string         `toml:"preshared_key_file"` // "": none
	Keepalive        time.Duration  `toml:"persistent_keepalive"`
	Share            bool           `toml:"share"`
}

// Load reads the file at path. Its error wraps os.ErrNotExist when there is none, and is an Errors when the
// file is wrong.
func Load(path string) (Config, error) {
	c, _, err := LoadAt(path)
	return c, err
}

// LoadAt is Load, and tells where what stands.
func LoadAt(path string) (Config, Places, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, Places{}, fmt.Errorf("open config: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return Config{}, Places{}, fmt.Errorf("read config: %w", err)
	}
	return ParseAt(path, text)
}

// Error is one mistake in a file. Line and Column count from 1, Column in bytes.
type Error struct {
	File    string
	Line    int
	Column  int
	Message string
}

// Error returns `FILE:LINE:COLUMN: MESSAGE`.
func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// Errors are all mistakes of a file in the order of its lines, at least one.
type Errors []*Error

// Error returns the mistakes, one a line.
func (e Errors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "\n")
}

// ParseKey reads a WireGuard key: 32 bytes in base64.
func ParseKey(text string) ([32]byte, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != 32 {
		return [32]byte{}, errors.New("want 44 characters of base64, as `wg genkey` and `wg pubkey` print them")
	}
	return [32]byte(raw), nil
}

// KeyText is the reverse of ParseKey.
func KeyText(key [32]byte) string { return base64.StdEncoding.EncodeToString(key[:]) }

// ReadKey reads a WireGuard key out of a file that nobody but its owner may read. The error never holds the key.
func ReadKey(path string) ([32]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return [32]byte{}, fmt.Errorf("open key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return [32]byte{}, fmt.Errorf("stat key: %w", err)
	}
	if loose := info.Mode().Perm() & 0o077; loose != 0 {
		return [32]byte{}, fmt.Errorf("key file %s: others may read it (mode %04o); say: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return [32]byte{}, fmt.Errorf("read key: %w", err)
	}
	key, err := ParseKey(strings.TrimSpace(string(text)))
	if err != nil {
		return [32]byte{}, fmt.Errorf("key file %s: %w", path, err)
	}
	if key == ([32]byte{}) {
		return [32]byte{}, fmt.Errorf("key file %s: the key is all zeros: no key of anybody", path)
	}
	return key, nil
}
