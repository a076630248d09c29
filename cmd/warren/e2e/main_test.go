//go:build linux

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"warren/nat/natlab"
)

// buildDir is where the program under test is; TestMain removes it.
var buildDir string

// build builds the program once, with the race detector: an agent that races
// ends with exit code 66, and its report is in its output.
var build = sync.OnceValues(func() (string, error) { return Build(buildDir, true) })

// buildPlain builds it without, unless WARREN_BINARY names a program to measure.
var buildPlain = sync.OnceValues(func() (string, error) {
	if given := os.Getenv("WARREN_BINARY"); given != "" {
		return filepath.Abs(given)
	}
	dir := filepath.Join(buildDir, "plain")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return Build(dir, false)
})

// buildHostile builds the one that attacks: package hostile.
var buildHostile = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(buildDir, "hostile")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return Build(dir, false, "hostile")
})

func TestMain(m *testing.M) {
	// A program with the race detector sleeps a second before it exits.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	dir, err := os.MkdirTemp("", "warren-e2e-")
	if err != nil {
		panic(err)
	}
	buildDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// bed is what every test lies in: a lab, the program, and a time limit.
type bed struct {
	*natlab.Lab
	t      testing.TB
	ctx    context.Context
	binary string
	nodes  []*Node
	since  time.Time // when the test began
}

// newBed makes a lab for one test, which may run beside others and has the
// time limit, more of it on a crowded machine (patience). Afterwards all agents are stopped, and have to end well.
func newBed(t *testing.T, limit time.Duration) *bed {
	t.Helper()
	return bedWith(t, build, limit)
}

// newBenchBed is newBed with the program as users have it.
func newBenchBed(b *testing.B) *bed {
	b.Helper()
	return bedWith(b, buildPlain, 30*time.Minute)
}

func bedWith(t testing.TB, build func() (string, error), limit time.Duration) *bed {
	t.Helper()
	l := natlab.ForTest(t)
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	// Not the test's own context: that ends before the clean-up.
	ctx, cancel := patience(limit)
	b := &bed{Lab: l, t: t, ctx: ctx, binary: binary, since: time.Now()}
	t.Cleanup(func() {
		defer cancel()
		var stops sync.WaitGroup
		for _, n := range b.nodes {
			stops.Go(func() {
				if err := n.Stop(); err != nil {
					t.Errorf("stop agent of %s: %v", n.Name(), err)
				}
			})
		}
		stops.Wait()
	})
	return b
}

// node makes a host with warren on it.
func (b *bed) node(name string, behind *natlab.Router) *Node {
	n := NewNode(b.Host(name, behind), b.binary)
	b.nodes = append(b.nodes, n)
	return n
}

// must ends the test on an error.
func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// connected asserts that two nodes have a path of the kind to each other, and
// answer each other's pings, both ways.
func (b *bed) connected(x, y *Node, kind string) {
	b.t.Helper()
	for _, pair := range [][2]*Node{{x, y}, {y, x}} {
		_, err := pair[0].WaitPath(b.ctx, pair[1], kind)
		b.must(err)
		b.must(pair[0].WaitPing(b.ctx, pair[1]))
	}
}

// nodeOnly is node for a host that takes one family only of what its network offers.
func (b *bed) nodeOnly(name string, behind *natlab.Router, only natlab.Family) *Node {
	n := NewNode(b.AddHost(natlab.HostOptions{Name: name, Behind: behind, Only: only}), b.binary)
	b.nodes = append(b.nodes, n)
	return n
}
