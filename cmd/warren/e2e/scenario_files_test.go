//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"warren/mesh/api"
)

// TestDamagedFiles starts an agent over each file of its state directory cut to nothing, to a byte, to half, and with zeros in place of all: it runs, or
// it ends with one line that names the file and what to do. With the files as they were it runs again, as the member that it was.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	b := bedWith(t, buildPlain, 2*time.Minute)
	first, other := b.node("n0", nil), b.node("other", nil)
	b.must(Found(b.ctx, "home", first, other))
	b.connected(first, other, api.PathDirect)
	s := b.status(first)
	id := s.Self.ID
	b.must(first.Stop())
	b.must(other.Stop())
	// A founder that was dialled by all has nobody to note.
	contact := fmt.Sprintf(`[{"id": %q, "addr": "%s:9277"}]`, s.Peers[0].ID, other.Host.Addr4())
	b.must(os.WriteFile(filepath.Join(first.StateDir(), "contacts.json"), []byte(contact), 0o600))
	damages := []struct {
		name string
		to   func([]byte) []byte
	}{
		{"empty", func([]byte) []byte { return nil }},
		{"a byte", func(d []byte) []byte { return d[:min(1, len(d))] }},
		{"half", func(d []byte) []byte { return d[:len(d)/2] }},
		{"zeros", func(d []byte) []byte { return make([]byte, len(d)) }},
	}
	nodes := []*Node{first}
	for i := 1; i < len(damages); i++ { // copies of one machine, of which none meets another one
		n := b.node(fmt.Sprintf("n%d", i), nil)
		n.Mesh = first.Mesh
		b.must(os.CopyFS(n.StateDir(), os.DirFS(first.StateDir())))
		b.must(chmodAll(n.StateDir()))
		b.Cut(n.Host)
		nodes = append(nodes, n)
	}
	b.Cut(first.Host)
	var files []string
	entries, err := os.ReadDir(first.StateDir())
	b.must(err)
	for _, e := range entries {
		if e.Type().IsRegular() {
			files = append(files, e.Name())
		}
	}
	b.step("%d files: %v", len(files), files)
	if len(files) < 9 || !slices.Contains(files, "contacts.json") {
		t.Fatalf("got %v, want the files of a state directory", files)
	}
	var all sync.WaitGroup
	for i, d := range damages {
		all.Go(func() {
			for _, file := range files {
				if err := damagedStart(b.ctx, nodes[i], file, d.to); err != nil {
					t.Errorf("%s, %s: %v", file, d.name, err)
				}
			}
			if err := nodes[i].Start(b.ctx); err != nil {
				t.Errorf("%s, with all files as they were: %v", d.name, err)
			} else if s, err := nodes[i].Status(b.ctx); err != nil || s.Self.ID != id || len(s.Peers) != 1 {
				t.Errorf("%s, with all files as they were: got %s with %d peers, %v, want %s with one", d.name, s.Self.ID, len(s.Peers), err, id)
			}
		})
	}
	all.Wait()
}

// chmodAll gives the files of a copied state directory the modes that an agent gives them.
func chmodAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	})
}

// damagedStart starts the agent of a node over a damaged file, and puts the whole one back.
func damagedStart(ctx context.Context, n *Node, file string, damage func([]byte) []byte) error {
	path := filepath.Join(n.StateDir(), file)
	whole, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, damage(whole), 0o600); err != nil {
		return err
	}
	ran, log, err := startsOrEnds(ctx, n)
	switch {
	case err != nil:
		return err
	case strings.Contains(log, "panic") || strings.Contains(log, "internal error") || strings.Contains(log, "goroutine "):
		return fmt.Errorf("it crashed: %s", log)
	case !ran && (!strings.Contains(lastLine(log), file) || !strings.Contains(lastLine(log), "(")):
		return fmt.Errorf("its last words are %q, want the name of the file and what to do in them", lastLine(log))
	}
	return os.WriteFile(path, whole, 0o600)
}

func lastLine(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return lines[len(lines)-1]
}

// startsOrEnds starts an agent, which has to be ready or to end by itself with an exit code of 1 or 2, and stops it.
func startsOrEnds(ctx context.Context, n *Node) (ran bool, log string, err error) {
	if err := n.Launch(); err != nil {
		return false, "", err
	}
	p := n.Agent()
	for {
		if s, err := n.Status(ctx); err == nil && s.State == api.StateReady {
			return true, p.Output(), n.Stop()
		}
		select {
		case <-p.Done():
			if code := ExitCode(p.Wait(ctx)); code != 1 && code != 2 {
				return false, p.Output(), fmt.Errorf("it ended with code %d: %s", code, lastLines(p.Output()))
			}
			return false, p.Output(), n.Kill()
		case <-ctx.Done():
			return false, p.Output(), errors.Join(fmt.Errorf("neither ready nor ended: %s", lastLines(p.Output())), n.Kill())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestStopsAtAnyMoment ends agents with SIGTERM at any moment of their first seconds: each ends soon and well, and leaves no interface, route, rule or
// socket, and nothing that keeps the next one from starting.
func TestStopsAtAnyMoment(t *testing.T) {
	t.Parallel()
	b := bedWith(t, buildPlain, 2*time.Minute)
	founder := b.node("founder", nil)
	nodes := []*Node{b.node("n0", nil), b.node("n1", nil), b.node("n2", nil), b.node("n3", nil)}
	b.must(Found(b.ctx, "home", founder, nodes...))
	for _, n := range nodes {
		b.must(n.Stop())
	}
	before := make(map[*Node]string)
	for _, n := range nodes {
		before[n] = b.netOf(n)
	}
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() {
			for round := range 5 {
				// Early ones first, in the midst of the start; the moment is random: there is nothing to wait for.
				wait := time.Duration(rand.Int64N(int64(100*time.Millisecond) << min(round, 5)))
				if err := n.Launch(); err != nil {
					t.Error(err)
					return
				}
				p := n.Agent()
				time.Sleep(wait)
				began := time.Now()
				err := n.Stop()
				// Before it has got so far that it can hear a signal, the system ends it.
				if exit := new(exec.ExitError); errors.As(err, &exit) {
					if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGTERM && p.Output() == "" {
						err = nil
					}
				}
				if took := time.Since(began); err != nil || took > stretch(stopWithin) {
					t.Errorf("%s stopped %v after its start: got %v after %v\n%s", n.Name(), wait, err, took, lastLines(p.Output()))
				}
				if after := b.netOf(n); after != before[n] {
					t.Errorf("%s stopped %v after its start: got\n%s\nleft, want\n%s", n.Name(), wait, after, before[n])
				}
				if sockets, _ := filepath.Glob(filepath.Join(n.Host.Dir(), "run", "*", "*.sock")); len(sockets) > 0 {
					t.Errorf("%s stopped %v after its start: got %v left", n.Name(), wait, sockets)
				}
			}
			if err := n.Start(b.ctx); err != nil {
				t.Error(err)
				return
			}
			b.t.Logf("node %d is ready again", i)
		})
	}
	all.Wait()
	if !t.Failed() {
		b.meshed(b.nodes...)
	}
}

// netOf is what the system of a node knows of interfaces, addresses, routes, rules and firewalls.
func (b *bed) netOf(n *Node) string {
	out, err := n.Host.Run(b.ctx, "sh", "-c", "ip -o link | cut -d' ' -f2; ip -o addr | cut -d' ' -f2-7; ip route show table all | sort; ip -6 route show table all | sort; ip rule; ip -6 rule; nft list ruleset")
	if err != nil {
		b.t.Error(err)
	}
	return out
}

// TestUserNamespaces starts an agent as root of a user namespace. With a network of its own it runs there; without one it ends and says what it lacks.
func TestUserNamespaces(t *testing.T) {
	t.Parallel()
	b := bedWith(t, buildPlain, time.Minute)
	if out, err := exec.Command("unshare", "-Urn", "true").CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("no user namespaces here: %s", out)
		}
		t.Skipf("no user namespaces here: %s", out)
	}
	founder, a := b.node("founder", nil), b.node("a", nil)
	b.must(Found(b.ctx, "home", founder, a))
	b.must(a.Stop())

	out, err := a.Host.Run(b.ctx, "unshare", "-Ur", a.binary, "agent")
	if want := "CAP_NET_ADMIN is that of a user namespace, and this network belongs to another one"; ExitCode(err) != 1 || !strings.Contains(lastLine(out), want) {
		t.Errorf("in a user namespace without a network of its own: got %v, want its end with exit code 1 and %q", err, want)
	}

	plain := a.binary
	a.binary = filepath.Join(a.Host.Dir(), "inside")
	b.must(os.WriteFile(a.binary, []byte("#!/bin/sh\nexec unshare -Urn sh -c 'ip link set lo up; exec "+plain+" \"$@\"' sh \"$@\"\n"), 0o755))
	b.must(a.Start(b.ctx))
	s := b.status(a)
	if s.Self.Interface == "" || len(s.Self.Addresses) != 2 {
		t.Errorf("in a user namespace with a network of its own: got %q, %v, want an interface and addresses", s.Self.Interface, s.Self.Addresses)
	}
	b.must(a.Stop())
	a.binary = plain
	b.must(a.Start(b.ctx))
	b.meshed(founder, a)
}
