//go:build linux

// Package e2e drives the real warren binary in the hosts of a lab, by its
// command line alone, as a person or another program does.
//
// Topologies are natlab's; what is expected of a mesh is the tests' beside
// this file, and the demo's.
//
// A Node is used by one goroutine at a time, different Nodes by many.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// Build builds the program, with build tags if any are named, into a directory and returns its path. With the
// race detector a data race in an agent ends it with exit code 66.
func Build(dir string, race bool, tags ...string) (string, error) {
	flags := []string{"-tags", strings.Join(tags, ",")}
	if race {
		flags = append(flags, "-race")
	}
	return buildWith(dir, flags...)
}

// buildWith is Build with flags of the go tool.
func buildWith(dir string, flags ...string) (string, error) {
	path := filepath.Join(dir, "warren")
	// Left to itself the go tool refuses to build in a checkout that another user owns.
	argv := slices.Concat([]string{"build", "-buildvcs=false", "-o", path}, flags, []string{"warren/cmd/warren"})
	if out, err := exec.Command("go", argv...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build warren: %w: %s", err, out)
	}
	return path, nil
}

// Node is warren on one host of the lab. Its name in the mesh is the host's.
type Node struct {
	Host *natlab.Host
	Mesh string   // its name; set by Create and Join
	Env  []string // NAME=VALUE, beside the environment of this process

	binary string
	agent  atomic.Pointer[natlab.Process] // nil: not running
}

// NewNode returns the node of a host that has no mesh yet.
func NewNode(host *natlab.Host, binary string) *Node { return &Node{Host: host, binary: binary} }

// Name is the node's name.
func (n *Node) Name() string { return n.Host.Name }

// Warren runs the program with these arguments and input, and returns its
// standard output. The error holds what it wrote to standard error.
func (n *Node) Warren(ctx context.Context, input string, args ...string) (string, error) {
	cmd := n.Host.Command(ctx, n.argv(args)...)
	cmd.Stdin = strings.NewReader(input)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), &CommandError{Node: n.Name(), Args: args, Stderr: errOut.String(), Err: err}
	}
	return out.String(), nil
}

// argv are the words that run the program in the node's environment.
func (n *Node) argv(args []string) []string {
	return slices.Concat([]string{"env"}, n.Env, []string{n.binary}, args)
}

// CommandError is a command that ended with an exit code other than 0.
type CommandError struct {
	Node   string
	Args   []string
	Stderr string
	Err    error // an *exec.ExitError, or that of the context
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("%s: warren %s: %v: %s", e.Node, strings.Join(e.Args, " "), e.Err, strings.TrimSpace(e.Stderr))
}

func (e *CommandError) Unwrap() error { return e.Err }

// ExitCode returns the exit code that an error of Warren tells, 0 for nil, -1 for none.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// Create makes the mesh on this node.
func (n *Node) Create(ctx context.Context, mesh string, args ...string) error {
	_, err := n.Warren(ctx, "", append([]string{"create", mesh, "--no-start", "--name", n.Name()}, args...)...)
	if err == nil {
		n.Mesh = mesh
	}
	return err
}

// Invite makes an invite and returns its token. The agent has to run.
func (n *Node) Invite(ctx context.Context, args ...string) (string, error) {
	invite, err := n.NewInvite(ctx, args...)
	return invite.Token, err
}

// NewInvite is Invite that returns all that is said of the invite.
func (n *Node) NewInvite(ctx context.Context, args ...string) (api.Invite, error) {
	out, err := n.Warren(ctx, "", append([]string{"invite", "--json"}, args...)...)
	if err != nil {
		return api.Invite{}, err
	}
	var invite api.Invite
	if err := json.Unmarshal([]byte(out), &invite); err != nil {
		return api.Invite{}, fmt.Errorf("%s: decode invite: %w: %s", n.Name(), err, out)
	}
	return invite, nil
}

// Join makes this node a member with the token, which goes in by standard input.
func (n *Node) Join(ctx context.Context, token string, args ...string) error {
	if _, err := n.Warren(ctx, token+"\n", append([]string{"join", "-", "--no-start", "--name", n.Name()}, args...)...); err != nil {
		return err
	}
	// The name of the mesh is in the root certificate; its state directory is called so.
	dirs, err := os.ReadDir(n.stateRoot())
	if err != nil {
		return fmt.Errorf("%s: after join: %w", n.Name(), err)
	}
	for _, d := range dirs {
		if d.IsDir() && !strings.HasPrefix(d.Name(), ".") {
			n.Mesh = d.Name()
			return nil
		}
	}
	return fmt.Errorf("%s: after join: no state directory in %s", n.Name(), n.stateRoot())
}

// stateRoot is /var/lib/warren of the host, as this process sees it.
func (n *Node) stateRoot() string { return filepath.Join(n.Host.Dir(), "lib", "warren") }

// StateDir is the state directory of the node's mesh, as this process sees it.
func (n *Node) StateDir() string { return filepath.Join(n.stateRoot(), n.Mesh) }

// Start starts the agent and returns when it answers.
func (n *Node) Start(ctx context.Context, args ...string) error {
	if err := n.Launch(args...); err != nil {
		return err
	}
	_, err := n.Wait(ctx, "the agent is ready", func(s api.Status) bool { return s.State == api.StateReady })
	return err
}

// Launch starts the agent and does not wait for it. With WARREN_DEBUG in the environment it logs all that it can.
func (n *Node) Launch(args ...string) error {
	if n.Agent() != nil {
		return fmt.Errorf("%s: start agent: it runs already", n.Name())
	}
	args = append([]string{"agent"}, args...)
	if os.Getenv("WARREN_DEBUG") != "" {
		args = append(args, "--log-level", "debug")
	}
	p, err := n.Host.Start(n.argv(args)...)
	if err == nil {
		n.agent.Store(p)
	}
	return err
}

// Agent is the running agent, or nil.
func (n *Node) Agent() *natlab.Process { return n.agent.Load() }

// Stop ends the agent in good order: an error when it does not end within ten
// seconds, or not with exit code 0.
func (n *Node) Stop() error {
	if n.Agent() == nil {
		return nil
	}
	err := n.Agent().Stop(10 * time.Second)
	n.agent.Store(nil)
	return err
}

// Kill ends the agent at once, with SIGKILL.
func (n *Node) Kill() error {
	if n.Agent() == nil {
		return nil
	}
	err := n.Agent().Kill()
	n.agent.Store(nil)
	return err
}

// Client speaks to the agent at its socket.
func (n *Node) Client() *api.Client {
	return api.NewClient(filepath.Join(n.Host.Dir(), "run", "warren", n.Mesh+".sock"))
}

// Status asks the agent for its status, at its socket: that costs a thousandth
// of starting the program, which counts when many tests poll.
func (n *Node) Status(ctx context.Context) (api.Status, error) {
	s, err := n.Client().Status(ctx)
	if err != nil {
		return s, fmt.Errorf("%s: %w", n.Name(), err)
	}
	return s, nil
}

// Why asks the agent at its socket why a peer is reached as it is.
func (n *Node) Why(ctx context.Context, peer string) (api.Why, error) {
	w, err := n.Client().Why(ctx, api.WhyRequest{Peer: peer})
	if err != nil {
		return w, fmt.Errorf("%s: why %s: %w", n.Name(), peer, err)
	}
	return w, nil
}

// StatusJSON is the status as `warren status --json` prints it.
func (n *Node) StatusJSON(ctx context.Context) (api.Status, error) {
	out, err := n.Warren(ctx, "", "status", "--json")
	if err != nil {
		return api.Status{}, err
	}
	var s api.Status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return api.Status{}, fmt.Errorf("%s: decode status: %w", n.Name(), err)
	}
	return s, nil
}

// Wait polls the status until ok says so or ctx ends. The error then tells
// what was waited for, with the last status.
func (n *Node) Wait(ctx context.Context, what string, ok func(api.Status) bool) (api.Status, error) {
	var last error
	for {
		s, err := n.Status(ctx)
		if err == nil && ok(s) {
			return s, nil
		}
		if ctx.Err() == nil {
			last = err
			if err == nil {
				last = errors.New(Describe(s))
			}
		}
		var ended <-chan struct{}
		if n.Agent() != nil {
			ended = n.Agent().Done()
		}
		select {
		case <-ended:
			return s, fmt.Errorf("%s: wait until %s: the agent has ended: %s", n.Name(), what, lastLines(n.Agent().Output()))
		case <-ctx.Done():
			return s, fmt.Errorf("%s: wait until %s: %w: %w", n.Name(), what, ctx.Err(), last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// lastLines are the last lines of an agent's log that still fit an error.
func lastLines(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// Describe puts a status into one line: who is reached, and how.
func Describe(s api.Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is %s", s.Self.Name, s.State)
	for _, p := range s.Peers {
		fmt.Fprintf(&b, "; %s %s", p.Name, p.State)
		switch p.Path.Kind {
		case api.PathDirect:
			fmt.Fprintf(&b, " direct %s", p.Path.Address)
		case api.PathRelay:
			fmt.Fprintf(&b, " relayed by %s", p.Path.Via)
		}
		if p.Reason != "" {
			fmt.Fprintf(&b, " (%s)", p.Reason)
		}
	}
	return b.String()
}

// Peer returns what the status says of one peer; false when it does not know it.
func Peer(s api.Status, name string) (api.Peer, bool) {
	for _, p := range s.Peers {
		if p.Name == name {
			return p, true
		}
	}
	return api.Peer{}, false
}

// WaitPath waits until the peer is up by a path of the kind (api.PathDirect, api.PathRelay).
func (n *Node) WaitPath(ctx context.Context, peer *Node, kind string) (api.Peer, error) {
	s, err := n.Wait(ctx, fmt.Sprintf("%s is up, %s", peer.Name(), kind), func(s api.Status) bool {
		p, ok := Peer(s, peer.Name())
		return ok && p.Connected() && p.Path.Kind == kind
	})
	p, _ := Peer(s, peer.Name())
	return p, err
}

// Overlay returns the node's overlay addresses, IPv4 first.
func (n *Node) Overlay(ctx context.Context) ([]netip.Addr, error) {
	s, err := n.Status(ctx)
	return s.Self.Addresses, err
}

// Ping sends one echo request with ping(8) to an address, usually an overlay
// one, and waits so long for the answer.
func (n *Node) Ping(ctx context.Context, to netip.Addr, wait time.Duration) error {
	_, err := n.Host.Run(ctx, "ping", "-n", "-c", "1", "-W", fmt.Sprintf("%.2f", wait.Seconds()), to.String())
	return err
}

// WaitPing pings every overlay address of the other node until each has
// answered, or ctx ends.
func (n *Node) WaitPing(ctx context.Context, other *Node) error {
	addrs, err := other.Overlay(ctx)
	if err != nil {
		return err
	}
	for _, to := range addrs {
		for {
			err := n.Ping(ctx, to, 500*time.Millisecond)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("%s: ping %s at %s: %w", n.Name(), other.Name(), to, err)
			}
		}
	}
	return nil
}

// Found makes the mesh on the first node, has the others join it in turn, each
// with an invite of the first, and starts all agents.
func Found(ctx context.Context, mesh string, founder *Node, others ...*Node) error {
	if err := founder.Create(ctx, mesh); err != nil {
		return err
	}
	if err := founder.Start(ctx); err != nil {
		return err
	}
	for _, n := range others {
		if err := Admit(ctx, founder, n); err != nil {
			return err
		}
	}
	return nil
}

// Admit has a new node join with an invite of an admin, and starts its agent.
// The arguments are those of the invite.
func Admit(ctx context.Context, admin, n *Node, args ...string) error {
	token, err := admin.Invite(ctx, args...)
	if err != nil {
		return err
	}
	if err := n.Join(ctx, token); err != nil {
		return err
	}
	return n.Start(ctx)
}
