package place

import "testing"

// TestKept asserts that a port and a name that are kept one after the other are both there at the next start.
func TestKept(t *testing.T) {
	made, err := Create(CreateOptions{Mesh: "home", StateRoot: t.TempDir(), Name: "nas", NoIPv4: true, Domain: "lab.home.arpa"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Load(made.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, keep := range []func() error{
		func() error { return s.KeepPort(9301) }, func() error { return s.KeepName("attic") }, func() error { return s.KeepPort(9302) },
	} {
		if err := keep(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.KeepName("At tic"); err == nil {
		t.Error("a name that is none was kept")
	}
	again, err := Load(made.StateDir)
	if err != nil || again.Settings.Name != "attic" || again.Settings.Moved != 9302 || again.Settings.Port != s.Settings.Port {
		t.Errorf("got %+v, %v", again.Settings, err)
	}
}
