package place

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/mesh/record"
)

func TestDevices(t *testing.T) {
	made, err := Create(CreateOptions{Mesh: "home", StateRoot: t.TempDir(), Name: "nas", NoIPv4: true})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Load(made.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	device := func(name string) Device {
		key, _ := wgtypes.GeneratePrivateKey()
		psk, _ := wgtypes.GenerateKey()
		return Device{Name: name, PublicKey: key.PublicKey().String(), PresharedKey: psk.String()}
	}
	phone := device("phone")
	if err := s.Hosted().Add(phone); err != nil {
		t.Fatal(err)
	}
	if err := s.Hosted().Add(device("phone")); !errors.Is(err, ErrDevices) || !strings.Contains(err.Error(), "device remove phone") {
		t.Errorf("the same name: got %v", err)
	}
	again := device("other")
	again.PublicKey = phone.PublicKey
	if err := s.Hosted().Add(again); !errors.Is(err, ErrDevices) {
		t.Errorf("the same key: got %v", err)
	}
	for i := 1; i < record.MaxDevices; i++ {
		if err := s.Hosted().Add(device(fmt.Sprint("d", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Hosted().Add(device("late")); !errors.Is(err, ErrDevices) || !strings.Contains(err.Error(), "another member") {
		t.Errorf("one too many: got %v", err)
	}
	if found, err := s.Hosted().Remove("phone"); !found || err != nil {
		t.Errorf("remove: got %v, %v", found, err)
	}
	if found, err := s.Hosted().Remove("phone"); found || err != nil {
		t.Errorf("remove again: got %v, %v", found, err)
	}
	if list, err := s.Hosted().List(); err != nil || len(list) != record.MaxDevices-1 || list[0].Name != "d1" {
		t.Errorf("got %d, %v", len(list), err)
	}
	path := filepath.Join(made.StateDir, fileDevices)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file: got %v, %v", info, err)
	}
	for _, text := range []string{"{", `[{"name":"A b"}]`, `[{"name":"a","public_key":"x"}]`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Hosted().List(); err == nil || !strings.Contains(err.Error(), "devices.json") || !strings.Contains(err.Error(), "add the devices anew") {
			t.Errorf("%s: got %v, want the file and what to do", text, err)
		}
	}
}
