package place

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/disk"
	"warren/mesh/record"
)

// Device is a plain WireGuard device that this node hosts: a phone that knows nothing of meshes. Its private key is the device's alone.
type Device struct {
	Name         string       `json:"name"` // a ValidName
	PublicKey    string       `json:"public_key"`
	PresharedKey string       `json:"preshared_key"`
	Addrs        []netip.Addr `json:"addresses"` // in the overlay, IPv4 first
	Tags         []string     `json:"tags,omitempty"`
	Created      time.Time    `json:"created"`
}

// Keys are the device's in binary.
func (d Device) Keys() (public, preshared wgtypes.Key, err error) {
	if public, err = wgtypes.ParseKey(d.PublicKey); err != nil {
		return public, preshared, fmt.Errorf("public key of device %s: %w", d.Name, err)
	}
	if preshared, err = wgtypes.ParseKey(d.PresharedKey); err != nil {
		return public, preshared, fmt.Errorf("preshared key of device %s: %w", d.Name, err)
	}
	return public, preshared, nil
}

// Hosted are the devices that a node hosts, as its state directory keeps them.
type Hosted struct{ s *State }

// Hosted returns the devices of this node.
func (s *State) Hosted() Hosted { return Hosted{s} }

// List reads them. The error names the file and what to do.
func (h Hosted) List() (list []Device, err error) {
	s := h.s
	raw, err := os.ReadFile(filepath.Join(s.Dir, fileDevices))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read devices: %w", err)
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, s.damaged(fileDevices, err)
	}
	for _, d := range list {
		if err := ValidName(d.Name); err != nil {
			return nil, s.damaged(fileDevices, err)
		}
		if _, _, err := d.Keys(); err != nil {
			return nil, s.damaged(fileDevices, err)
		}
	}
	return list, nil
}

// ErrDevices is wrapped when a device cannot be added: its name or key is there already, or there are too many.
var ErrDevices = errors.New("device not added")

// Add keeps one more device.
func (h Hosted) Add(d Device) error {
	turn <- struct{}{}
	defer func() { <-turn }()
	list, err := h.List()
	if err != nil {
		return err
	}
	for _, have := range list {
		if have.Name == d.Name || have.PublicKey == d.PublicKey {
			return fmt.Errorf("%w: this node hosts %s already; warren device remove %s, or choose another name", ErrDevices, have.Name, have.Name)
		}
	}
	if len(list) == record.MaxDevices {
		return fmt.Errorf("%w: this node hosts %d, the most that one can: add it on another member", ErrDevices, len(list))
	}
	return h.keep(append(list, d))
}

// Remove forgets a device; false: there is none of that name.
func (h Hosted) Remove(name string) (bool, error) {
	turn <- struct{}{}
	defer func() { <-turn }()
	list, err := h.List()
	if err != nil {
		return false, err
	}
	i := slices.IndexFunc(list, func(d Device) bool { return d.Name == name })
	if i < 0 {
		return false, nil
	}
	return true, h.keep(slices.Delete(list, i, i+1))
}

func (h Hosted) keep(list []Device) error {
	raw, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return fmt.Errorf("encode devices: %w", err)
	}
	return disk.Disk{}.Write(filepath.Join(h.s.Dir, fileDevices), append(raw, '\n'), 0o600)
}
