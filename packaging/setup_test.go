package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// inRepository runs a command at the root of the repository with an environment of its own.
func inRepository(t *testing.T, env []string, argv ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errOut strings.Builder
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "..", append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nowhere"}, env...), &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

// goOf makes a directory with a go that says it is this version.
func goOf(t *testing.T, version string) string {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte("#!/bin/sh\necho 'go version "+version+" linux/amd64'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestFindsGo: the first Go from 1.21 on is taken, whatever older one stands before it; without one, a line says what to do.
func TestFindsGo(t *testing.T) {
	old, oldest, fine, newer, devel := goOf(t, "go1.19.8"), goOf(t, "go1.9"), goOf(t, "go1.21.0"), goOf(t, "go1.100.1"), goOf(t, "devel go1.27-0123456 Mon Jan 1")
	broken, empty := goOf(t, "go1.22"), t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, "go"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		places []string
		want   string // directory; "": none will do
		says   string
	}{
		{[]string{fine}, fine, ""}, {[]string{old, fine, newer}, fine, ""}, {[]string{empty, newer}, newer, ""}, {[]string{oldest, devel}, devel, ""}, {[]string{broken, fine}, fine, ""},
		{[]string{old}, "", "only 1.19 in " + old}, {[]string{oldest, old}, "", "only 1.9 in "}, {[]string{empty}, "", "none found"}, {[]string{broken}, "", "none found"},
	} {
		out, said, err := inRepository(t, []string{"GO_APT=no", "GO_PLACES=" + strings.Join(c.places, " ")}, ".ci/go")
		if (err == nil) != (c.want != "") || strings.TrimSpace(out) != c.want {
			t.Errorf("%q: got %q and %v, want %q", c.places, out, err, c.want)
		}
		if c.want == "" && (strings.Count(said, "\n") != 1 || !strings.Contains(said, c.says) || !strings.Contains(said, "bookworm-backports") || !strings.Contains(said, "https://go.dev/dl/")) {
			t.Errorf("%q: got %q, want one line with %q and what to do", c.places, said, c.says)
		}
	}
	// As sudo runs it: its PATH has no /usr/local/go/bin.
	if _, err := os.Stat("/usr/local/go/bin/go"); err == nil {
		if out, said, err := inRepository(t, []string{"GO_APT=no"}, ".ci/go"); err != nil || out == "" {
			t.Errorf("with sudo's PATH: got %q, %q, %v", out, said, err)
		}
	}
}

// TestMake: `make` alone does nothing but to list what can be made, and an upgrade replaces the agents that run.
func TestMake(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Skipf("make is not installed: %v", err)
	}
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	out, said, err := inRepository(t, []string{"GO_PLACES=/nowhere", "GO_APT=no"}, "make")
	if err != nil || said != "" {
		t.Errorf("make: got %v and %s, want a list, without a Go", err, said)
	}
	_, phony, _ := strings.Cut(string(makefile), ".PHONY: ")
	phony, _, _ = strings.Cut(phony, "\n")
	targets := strings.Fields(phony)
	if len(targets) < 8 || !slices.Contains(targets, "uninstall") {
		t.Errorf("targets: got %v", targets)
	}
	for _, target := range targets {
		if target != "help" && !strings.Contains(out, "make "+target) {
			t.Errorf("make alone does not tell of %s: %s", target, out)
		}
	}
	_, said, err = inRepository(t, []string{"GO_PLACES=/nowhere", "GO_APT=no"}, "make", "install", "DESTDIR=/nowhere")
	if err == nil || strings.Count(said, "\n") > 2 || !strings.Contains(said, "go.dev/dl") {
		t.Errorf("make install without a Go: got %v and %s, want it to end with what to do", err, said)
	}
	out, said, err = inRepository(t, nil, "make", "-n", "install", "uninstall", "GO=go")
	if err != nil || !strings.Contains(out, "warren restart --all") || !strings.Contains(out, "warren service uninstall --all") {
		t.Errorf("make -n install uninstall: got %v, %s%s", err, out, said)
	}
}
