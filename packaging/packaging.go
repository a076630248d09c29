// Package packaging holds the service files of warren and hands them to the service manager of this machine:
// systemd or launchd.
//
// What the service does is left to `warren agent`; when it is installed and started is left to cmd/warren.
//
// A Service keeps no state of its own. Calls for the same mesh must not run concurrently.
package packaging

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Binary is where the service files expect the program.
const Binary = "/usr/local/bin/warren"

// ErrNone is returned by Detect when neither systemd nor launchd manages this machine, as in most containers.
var ErrNone = errors.New("no service manager")

// State is what a service manager knows of the agent of one mesh.
type State struct {
	Installed bool
	Enabled   bool   // starts with the machine
	Running   bool   // is up, or being started
	Detail    string // in the words of the service manager
}

// Service is the service manager of this machine. Mesh names must be valid: they become file names.
type Service interface {
	// Install makes the agent of a mesh start with the machine, from the program at the path binary. It may be repeated.
	Install(ctx context.Context, mesh, binary string) error
	// Uninstall stops the agent and undoes Install. It is no error when nothing is installed.
	Uninstall(ctx context.Context, mesh string) error
	// Start starts the agent and waits until it says that it is ready, where the service manager can tell. With again, one that runs is
	// ended before; the service manager does both, so that it comes back even when whoever asks for it is cut off by that.
	Start(ctx context.Context, mesh string, again bool) error
	// Stop stops the agent until the next Start or boot.
	Stop(ctx context.Context, mesh string) error
	// Status asks for the State.
	Status(ctx context.Context, mesh string) (State, error)
	// Logs returns the command that shows the last lines of the agent's log, and with follow goes on with what comes.
	Logs(mesh string, lines int, follow bool) []string
}

// CheckBinary says why a service could not run the program at path: the hardened unit does not see home and temporary directories.
func CheckBinary(path string) error {
	for _, hidden := range []string{"/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/", "/Users/", "/private/tmp/"} {
		if strings.HasPrefix(path, hidden) {
			return fmt.Errorf("the service cannot run %s: it sees no home or temporary directories", path)
		}
	}
	if strings.ContainsAny(path, " \t\n%\"'\\$<>&") {
		return fmt.Errorf("the service cannot run %q: its path has characters that service files give a meaning", path)
	}
	return nil
}

// ErrExposed is wrapped by the error of CheckOwner.
var ErrExposed = errors.New("others than root can change it, and the service would run it as root")

// CheckOwner says who beside root could replace the program at path, which has no symbolic links in it: the file and every directory above
// it have to be root's, and no group but root's, nor everybody, may write there.
func CheckOwner(path string) error { return checkOwner(path, os.Lstat) }

func checkOwner(path string, stat func(string) (os.FileInfo, error)) error {
	for at := filepath.Clean(path); ; at = filepath.Dir(at) {
		info, err := stat(at)
		if err != nil {
			return fmt.Errorf("look at the program: %w", err)
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("look at the program: the owner of %s is not known", at)
		}
		mode := info.Mode().Perm()
		if owner.Uid != 0 || mode&0o002 != 0 || mode&0o020 != 0 && owner.Gid != 0 {
			return fmt.Errorf("%s (owner %d, group %d, mode %04o): %w", at, owner.Uid, owner.Gid, mode, ErrExposed)
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

// runner runs a command of the service manager and returns its standard output.
type runner func(ctx context.Context, name string, args ...string) (string, error)

func run(ctx context.Context, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		text, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		if text == "" {
			text = err.Error()
		}
		return stdout.String(), fmt.Errorf("%s %s: %s", name, args[0], text)
	}
	return stdout.String(), nil
}

// write puts a service file in its place, unless it is there already with the same text.
func write(path string, text []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, text, 0o644); err != nil {
		return fmt.Errorf("write service file: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("name service file: %w", err)
	}
	return nil
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove service file: %w", err)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
