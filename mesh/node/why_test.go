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

func TestInNames(t *testing.T) {
	names := map[string]string{"rpwx3w57sf": "gate"}
	for text, want := range map[string]string{
		"":                                 "",
		"relay through rpwx3w57sf is dead": "relay through gate is dead",
		"relay through rpwx3w57sf: the peer did not answer": "relay through gate: the peer did not answer",
		"candidates of abcdefghij, rpwx3w57sfx":             "candidates of abcdefghij, rpwx3w57sfx",
	} {
		if got := inNames(text, names); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
