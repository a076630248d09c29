//go:build linux

// Package natlab builds an Internet out of Linux network namespaces: hosts
// with public addresses, and homes behind routers whose NATs and firewalls are
// real nftables rules. Tests and the demo run real programs in its hosts.
//
// It knows nothing of warren: what runs in the hosts is the caller's affair
// (package e2e next door runs agents in them). It needs root and the tools
// that Check names; it changes nothing outside its own namespaces.
//
// One goroutine at a time may change a lab. Commands, processes and sockets
// in its hosts may be used from many.
package natlab

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Options say how to make a lab.
type Options struct {
	Name string       // for the log only
	Log  *slog.Logger // nil: silent

	// Fatal is called, in the goroutine of the caller, when a step of building
	// or changing the lab fails. It must not return. Nil panics. Thereby a
	// topology is a list of plain calls.
	Fatal func(error)
}

// Lab is one Internet. Close it, or end the process: both remove everything.
type Lab struct {
	// Constant after New.
	claim *claim
	core  *space // the Internet: forwards between everything that is plugged in
	log   *slog.Logger
	fatal func(error)

	// Owned by the goroutine that changes the lab.
	names    map[string]bool
	plugs    int   // links to the core made so far
	returned []int // lines that routers have given back, first the one that was longest ago
	homes    int   // private prefixes handed out so far
	publics  int   // public prefixes of LANs handed out so far
	cuts     []cut
	lines    map[int]*stretch // by the number of the link
	share    []string         // words before each command in a host; see Share

	// Guarded by mu.
	mu        sync.Mutex
	processes []*Process
	closers   []io.Closer // of this process

	closeOnce sync.Once
	closeErr  error
}

// Check says what this machine lacks for a lab, in words, or returns nil.
func Check() error {
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "root")
	}
	for tool, pkg := range map[string]string{"ip": "iproute2", "tc": "iproute2", "nft": "nftables"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, fmt.Sprintf("%s (apt-get install %s)", tool, pkg))
		}
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		missing = append(missing, "/dev/net/tun")
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("check lab: this machine lacks %s", strings.Join(missing, ", "))
	}
	return nil
}

// New removes what dead runs left behind, and makes an empty Internet.
func New(o Options) (*Lab, error) {
	if err := Check(); err != nil {
		return nil, err
	}
	if err := removeLeftovers(); err != nil {
		return nil, fmt.Errorf("remove leftovers: %w", err)
	}
	c, err := newClaim()
	if err != nil {
		return nil, err
	}
	l := &Lab{claim: c, log: o.Log, fatal: o.Fatal, names: map[string]bool{"net": true}, lines: map[int]*stretch{}}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.fatal == nil {
		l.fatal = func(err error) { panic(err) }
	}
	l.core, err = newSpace(c.id, "net", true)
	if err != nil {
		l.Close()
		return nil, err
	}
	l.log.Info("lab up", "part", "natlab", "name", o.Name, "id", c.id)
	return l, nil
}

// ForTest makes a lab that ends with the test. Where a lab cannot be made the
// test is skipped and says why, unless the environment variable CI is set:
// there it fails. When the test has failed, or with WARREN_LOG in the environment, the ends of all captured outputs are logged.
func ForTest(t testing.TB) *Lab {
	t.Helper()
	if err := Check(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	l, err := New(Options{Name: t.Name(), Fatal: func(err error) { t.Helper(); t.Fatal(err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() || os.Getenv("WARREN_LOG") != "" {
			l.dump(t)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// dump logs what each process of the lab wrote last.
func (l *Lab) dump(t testing.TB) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.processes {
		t.Logf("output of %s:\n%s", p, p.Output())
	}
}

// closeLater closes with the lab what this process has opened in it.
func (l *Lab) closeLater(c io.Closer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, c)
}

// Close kills every process in the lab, removes everything that it made, and
// returns when that is gone.
func (l *Lab) Close() error {
	l.closeOnce.Do(func() {
		l.mu.Lock()
		closers := l.closers
		l.mu.Unlock()
		for _, c := range closers {
			c.Close()
		}
		l.closeErr = l.claim.release()
	})
	return l.closeErr
}

// ID is the lab's name on this machine: its namespaces are called wl<ID>-<name>.
func (l *Lab) ID() string { return l.claim.id }

// space makes a namespace with a fresh name and the directory that goes with it.
func (l *Lab) space(name string, forward bool) *space {
	if l.names[name] || strings.ContainsAny(name, "/ ") || name == "" {
		l.fatal(fmt.Errorf("make %q: the name is taken or unusable", name))
	}
	l.names[name] = true
	s, err := newSpace(l.claim.id, name, forward)
	l.must(err)
	return s
}

func (l *Lab) must(err error) {
	if err != nil {
		l.fatal(err)
	}
}
