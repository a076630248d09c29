package place

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// TestLaterVersionsAreBorne reads state that a later version has written, which says more than this one knows of: going back a version loses no member.
func TestLaterVersionsAreBorne(t *testing.T) {
	_, made := created(t)
	path := filepath.Join(made.StateDir, fileSettings)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]any)
	if err := json.Unmarshal(raw, &known); err != nil {
		t.Fatal(err)
	}
	known["of_a_later_version"] = map[string]any{"x": []int{1}}
	if raw, err = json.Marshal(known); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	contact := map[string]any{"id": made.ID.String(), "addr": netip.MustParseAddrPort("203.0.113.1:9277"), "of_a_later_version": 7}
	if raw, err = json.Marshal([]any{contact}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(made.StateDir, fileContacts), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"of-a-later-version", "of-a-later-version.json"} {
		if err := os.WriteFile(filepath.Join(made.StateDir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Load(made.StateDir)
	if err != nil || s.NodeID() != made.ID || s.Settings.Name != "alpha" {
		t.Fatalf("got %v, want the member that it was", err)
	}
	contacts, warning := OpenContacts(s, nil)
	if got := contacts.Snapshot(); warning != "" || len(got) != 1 || got[0].Addr.String() != "203.0.113.1:9277" {
		t.Errorf("got contacts %v, %q, want the one that is known", got, warning)
	}
}
