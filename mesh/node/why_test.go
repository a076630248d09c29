package node

import (
	"strings"
	"testing"
)

func TestNear(t *testing.T) {
	names := []string{"gate", "gamma", "laptop", "laptop-2", "nas", "b"}
	for text, want := range map[string]string{
		"gate": "gate", "gaet": "gate", "Laptop": "laptop laptop-2", "lap": "laptop laptop-2", "nass": "nas", "printer": "", "c": "b", "gat": "gate",
	} {
		if got := strings.Join(near(text, names), " "); got != want {
			t.Errorf("near %q: got %q, want %q", text, got, want)
		}
	}
}
