//go:build linux

package natlab

import (
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// registry holds one directory per lab on this machine, with the lab's owner in it.
const registry = "/run/warren-natlab"

//go:embed cleanup.sh
var cleanup string

// nsPrefix is what the names of all namespaces of a lab begin with.
func nsPrefix(id string) string { return "wl" + id + "-" }

// claim is a lab's place on the machine: its id, its directory, and the
// janitor that removes both when the owner is gone.
type claim struct {
	id    string
	dir   string // state, logs and sockets of the hosts
	entry string // in the registry

	janitor *exec.Cmd
	leash   io.Closer // the janitor works as soon as this is closed
}

// newClaim takes a free id, and starts its janitor.
func newClaim() (*claim, error) {
	var c claim
	for c.entry == "" {
		var b [2]byte
		rand.Read(b[:])
		c.id = hex.EncodeToString(b[:])
		c.dir = filepath.Join(os.TempDir(), "warren-natlab-"+c.id)
		entry := filepath.Join(registry, c.id)
		err := register(entry, owner{os.Getpid(), startTime(os.Getpid()), c.dir})
		switch {
		case err == nil:
			c.entry = entry
		case !errors.Is(err, fs.ErrExist):
			return nil, err
		}
	}
	err := os.Mkdir(c.dir, 0o755)
	if err == nil {
		err = c.startJanitor()
	}
	if err != nil {
		return nil, errors.Join(err, sweep(c.id, c.dir, c.entry))
	}
	return &c, nil
}

func (c *claim) startJanitor() error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start janitor: %w", err)
	}
	defer r.Close()
	c.janitor = exec.Command("sh", "-c", cleanup, "warren-natlab-janitor", c.id, c.dir, c.entry, "wait")
	c.janitor.Stdin = r
	c.janitor.Dir = "/"
	// A session of its own: what the terminal sends to the owner's group passes it by.
	c.janitor.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.janitor.Start(); err != nil {
		w.Close()
		return fmt.Errorf("start janitor: %w", err)
	}
	c.leash = w
	return nil
}

// release removes everything of this lab, and returns when it is gone.
func (c *claim) release() error {
	c.leash.Close()
	if err := c.janitor.Wait(); err != nil {
		return fmt.Errorf("remove lab %s: %w", c.id, err)
	}
	return nil
}

// owner is the process that a lab belongs to. A pid alone may have been given
// to another process since; with its start time it is unmistakable.
type owner struct {
	pid   int
	start string
	dir   string
}

// register writes the registry's entry in one step, so that no one ever sees
// an entry without its owner. The error wraps fs.ErrExist when it is taken.
func register(entry string, o owner) error {
	var tmp string
	var err error
	for range 10 { // the last lab to end takes the registry with it
		if err = os.MkdirAll(registry, 0o755); err != nil {
			break
		}
		if tmp, err = os.MkdirTemp(registry, ".new-"); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("register lab: %w", err)
	}
	line := fmt.Sprintf("%d %s %s\n", o.pid, o.start, o.dir)
	err = os.WriteFile(filepath.Join(tmp, "owner"), []byte(line), 0o644)
	if err == nil {
		err = os.Rename(tmp, entry) // fails on a directory that is not empty
	}
	if err != nil {
		os.RemoveAll(tmp)
		if errors.Is(err, syscall.ENOTEMPTY) {
			err = fs.ErrExist
		}
		return fmt.Errorf("register lab: %w", err)
	}
	return nil
}

func readOwner(entry string) (owner, error) {
	line, err := os.ReadFile(filepath.Join(entry, "owner"))
	if err != nil {
		return owner{}, err
	}
	var o owner
	if _, err := fmt.Sscan(string(line), &o.pid, &o.start, &o.dir); err != nil {
		return owner{}, fmt.Errorf("read owner of %s: %w", entry, err)
	}
	return o, nil
}

func (o owner) alive() bool { return o.start != "" && startTime(o.pid) == o.start }

// startTime returns the time at which a process started, in clock ticks since
// boot (proc(5), field 22 of stat), or "" when there is no such process.
func startTime(pid int) string {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	// The name in field 2 may hold spaces and parentheses: count from its end.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return ""
	}
	return fields[19]
}

// removeLeftovers takes down the labs whose owners are dead, and none else.
// Janitors do that by themselves; this is for those that were killed too.
func removeLeftovers() error {
	entries, err := os.ReadDir(registry)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var errs []error
	for _, e := range entries {
		entry := filepath.Join(registry, e.Name())
		o, err := readOwner(entry)
		if errors.Is(err, fs.ErrNotExist) || strings.HasPrefix(e.Name(), ".") || o.alive() {
			continue // just being made or removed by its own owner
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, sweep(e.Name(), o.dir, entry))
	}
	return errors.Join(append(errs, err)...)
}

// sweep removes everything of the lab id at once.
func sweep(id, dir, entry string) error {
	_, err := run(nil, "sh", "-c", cleanup, "warren-natlab-cleanup", id, dir, entry)
	return err
}
