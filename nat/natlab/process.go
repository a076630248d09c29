//go:build linux

package natlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// enter runs inside the namespace before each command. It gives the host a
// /run and a /var/lib of its own, in this command's private mount namespace
// (ip netns exec has made that): UAPI sockets, the agents' sockets and their
// state have fixed names there. All commands of one host see the same ones.
// Settings of this machine's own warren are hidden, and so is its resolver where the host has one of its own.
const enter = `mount --bind "$1/run" /run && mount --bind "$1/lib" /var/lib &&
{ [ ! -d /etc/warren ] || mount --bind "$1/etc" /etc/warren; } &&
{ [ ! -e "$1/hosts" ] || mount --bind "$1/hosts" /etc/hosts; } &&
{ [ ! -e "$1/hosts.sealed" ] || mount -o remount,bind,ro /etc/hosts; } &&
{ [ ! -e "$1/resolv.conf" ] || mount --bind "$1/resolv.conf" /etc/resolv.conf; } && shift && exec "$@"`

// argv returns the words that run a command inside the host.
func (h *Host) argv(argv []string) []string {
	// The control group first: ip netns exec mounts another /sys.
	return append(append(slices.Clone(h.lab.share), "ip", "netns", "exec", h.space.ns, "sh", "-c", enter, "sh", h.Dir()), argv...)
}

// Dir is a directory of this host alone. Its commands see run in it as /run,
// and lib as /var/lib.
func (h *Host) Dir() string { return filepath.Join(h.lab.claim.dir, h.Name) }

// Command prepares a command that runs inside the host: in its network, and
// with a /run, a /var/lib and an /etc/hosts of its own. The started process has the pid of the command itself.
func (h *Host) Command(ctx context.Context, argv ...string) *exec.Cmd {
	words := h.argv(argv)
	return exec.CommandContext(ctx, words[0], words[1:]...)
}

// Run runs a command inside the host to its end and returns what it wrote to
// both outputs. The error tells the command and its output.
func (h *Host) Run(ctx context.Context, argv ...string) (string, error) {
	out, err := h.Command(ctx, argv...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("run %s on %s: %w: %s", strings.Join(argv, " "), h.Name, err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// Do runs f on a thread inside the host's network. Sockets that f opens stay
// in the host's network; goroutines that it starts do not run there.
func (h *Host) Do(f func() error) error { return h.space.do(f) }

// ListenUDP opens a UDP socket of this process in the host's network.
func (h *Host) ListenUDP(addr netip.AddrPort) (c *net.UDPConn, err error) {
	err = h.Do(func() error {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		return err
	})
	return c, err
}

// Process is a started program with its output captured.
type Process struct {
	name string
	cmd  *exec.Cmd
	out  tail
	done chan struct{} // closed when it has ended
	err  error         // set before done is closed
}

// Start starts a program inside the host. It ends with the lab at the latest.
func (h *Host) Start(argv ...string) (*Process, error) {
	cmd := h.Command(context.Background(), argv...)
	p := &Process{name: h.Name + ": " + strings.Join(argv, " "), cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	// A process group of its own, so that ^C reaches only the lab's owner.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	h.lab.mu.Lock()
	h.lab.processes = append(h.lab.processes, p)
	h.lab.mu.Unlock()
	return p, nil
}

// String tells the host and the command line.
func (p *Process) String() string { return p.name }

// PID is the process's id on this machine.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Output is what it has written to both outputs, the last 256 KiB of it.
func (p *Process) Output() string { return p.out.String() }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the process, and returns its error or that of ctx.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("wait for %s: %w", p, ctx.Err())
	}
}

// Stop asks the process to end and returns its error, nil for exit code 0.
// After the grace time it is killed, which is an error.
func (p *Process) Stop(grace time.Duration) error {
	p.cmd.Process.Signal(syscall.SIGTERM) // an ended process needs none
	select {
	case <-p.done:
		return p.err
	case <-time.After(grace):
		return errors.Join(fmt.Errorf("stop %s: still running after %v", p, grace), p.Kill())
	}
}

// Kill ends the process at once, as a power cut would, and waits until it is gone.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, os.ErrProcessDone) {
		select {
		case <-p.done:
		default:
			return fmt.Errorf("kill %s: %w", p, err)
		}
	}
	<-p.done
	return nil
}

// Signal sends a signal to the process.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// tailSize is how much of a process's output is kept: enough for the last
// minutes of an agent that logs everything.
const tailSize = 256 << 10

// tail is an io.Writer that keeps at least the last tailSize bytes.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*tailSize { // not at each line: the rest is moved
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-tailSize:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf[max(0, len(t.buf)-tailSize):])
}
