//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// buildSettable builds the program with a clock of its own: the time of day is the machine's and as many seconds more as /run/wallstep of its host
// says. The machine's own clock is nobody's to set. Nothing of this is in the program that users have: the runtime and one more file are laid over
// the sources for this build alone.
var buildSettable = sync.OnceValues(func() (string, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(buildDir, "settable")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "runtime", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	const now = "\treturn time_now()\n"
	if strings.Count(string(text), now) != 1 {
		return "", errors.New("this version of Go reads the clock elsewhere than in " + source)
	}
	program, err := filepath.Abs("..")
	if err != nil {
		return "", err
	}
	replace := make(map[string]string)
	for path, text := range map[string]string{
		source: strings.Replace(string(text), now, "\tsec, nsec, mono = time_now()\n\treturn sec + wallStep, nsec, mono\n", 1) +
			"\n//go:linkname wallStep\nvar wallStep int64\n",
		filepath.Join(program, "wallstep.go"): settable,
	} {
		laid := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(laid, []byte(text), 0o644); err != nil {
			return "", err
		}
		replace[path] = laid
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(name, overlay, 0o644); err != nil {
		return "", err
	}
	return buildWith(dir, "-overlay", name)
})

const settable = `package main

import (
	"os"
	"strconv"
	"time"
	_ "unsafe"
)

//go:linkname wallStep runtime.wallStep
var wallStep int64

func init() {
	step()
	go func() {
		for ; ; time.Sleep(10 * time.Millisecond) {
			step()
		}
	}()
}

func step() {
	if text, err := os.ReadFile("/run/wallstep"); err == nil {
		if n, err := strconv.ParseInt(string(text), 10, 64); err == nil {
			wallStep = n
		}
	}
}
`

// clock puts the clock of a node that was built with buildSettable so far ahead of the machine's, be it up or not.
func (b *bed) clock(n *Node, ahead time.Duration) {
	b.t.Helper()
	name := filepath.Join(n.Host.Dir(), "run", "wallstep")
	b.must(os.WriteFile(name+".new", []byte(strconv.Itoa(int(ahead.Seconds()))), 0o644))
	b.must(os.Rename(name+".new", name))
}

// setClock is clock for a node that is up; it waits until its agent shows that.
func (b *bed) setClock(n *Node, ahead time.Duration) {
	b.t.Helper()
	b.clock(n, ahead)
	_, err := n.Wait(b.ctx, "its clock is set", func(s api.Status) bool { return (time.Until(s.Time) - ahead).Abs() < time.Minute })
	b.must(err)
}

// TestClockSteps sets the clocks of members by an hour, forwards and back, under traffic: no echo is missed for long, who is there is called so and
// why blames nothing but the clock, and who dies while the clock is an hour early is missed as soon as ever.
func TestClockSteps(t *testing.T) {
	t.Parallel()
	b := bedWith(t, buildSettable, 2*time.Minute)
	founder := b.node("founder", nil)
	x, y := b.node("a", b.Router("home-a", natlab.EIMAPDF)), b.node("b", b.Router("home-b", natlab.EIMAPDF))
	b.must(Found(b.ctx, "home", founder, x, y))
	b.connected(x, y, api.PathDirect)
	b.connected(x, founder, api.PathDirect)
	meters := []*meter{b.meter(x, y), b.meter(y, x), b.meter(x, founder)}
	b.eventually("echoes go", func() bool {
		return !slices.ContainsFunc(meters, func(m *meter) bool { return m.silent(time.Now()) > hole })
	})
	for _, set := range []struct {
		n     *Node
		ahead time.Duration
	}{{x, time.Hour}, {x, 0}, {y, -time.Hour}, {y, 0}, {founder, time.Hour}, {x, -time.Hour}, {founder, 0}} {
		begin := time.Now()
		b.setClock(set.n, set.ahead)
		lies := make(map[string]bool) // each is told once
		lie := func(what, text string) {
			if !lies[what] {
				t.Errorf("the clock of %s set %v ahead: %s", set.n.Name(), set.ahead, text)
			}
			lies[what] = true
		}
		for looks := 0; looks < 3 || time.Since(begin) < time.Second; looks++ {
			for i, m := range meters {
				from := []*Node{x, y, x}[i]
				about := []*Node{y, x, founder}[i]
				before := time.Now()
				silent, s := m.silent(before), b.status(from)
				p, _ := Peer(s, about.Name())
				age := time.Duration(-1)
				if p.LastHeard != nil {
					age = s.Time.Sub(*p.LastHeard)
				}
				if silent < hole && m.silent(time.Now()) < hole && (p.State != api.PeerUp || age < -time.Second || age > 5*time.Second) {
					lie(from.Name()+about.Name(), fmt.Sprintf("%s calls %s %s, heard %v ago, while it answers", from.Name(), about.Name(), p.State, age))
				}
				if p.LastHandshake != nil && s.Time.Sub(*p.LastHandshake) < -time.Second {
					lie("handshake", fmt.Sprintf("%s has the handshake with %s still to come, at %v; it is %v", from.Name(), about.Name(), p.LastHandshake, s.Time))
				}
			}
		}
		for _, pair := range [][2]*Node{{x, y}, {y, x}} {
			if w, err := pair[0].Why(b.ctx, pair[1].Name()); err == nil && !slices.Contains([]string{"direct", "clock"}, w.Verdict) {
				t.Errorf("the clock of %s set %v ahead: %s about %s: %s, %q", set.n.Name(), set.ahead, pair[0].Name(), pair[1].Name(), w.Verdict, w.Cause)
			}
		}
		for i, m := range meters {
			if silent, _ := m.silences(begin, time.Now()); silent > 4*time.Second {
				t.Errorf("the clock of %s set %v ahead: no echo in meter %d for %v, want 4 s at most", set.n.Name(), set.ahead, i, silent)
			}
		}
		b.step("the clock of %s is %v ahead: all goes on", set.n.Name(), set.ahead)
	}
	since := time.Now()
	b.kill(y)
	b.gone(x, y, since) // the clock of a is an hour behind
	b.setClock(x, 0)
	b.must(y.Start(b.ctx))
	b.connected(x, y, api.PathDirect)
}
