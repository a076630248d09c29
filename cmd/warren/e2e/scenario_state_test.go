//go:build linux

package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// smallDisk gives the host a /var/lib of so many bytes.
func (b *bed) smallDisk(n *Node, size string) (dir string) {
	b.t.Helper()
	dir = filepath.Join(n.Host.Dir(), "lib")
	b.must(unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size))
	b.t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// fill writes a file until the disk is full, and returns what makes room again.
func (b *bed) fill(dir string) (room func()) {
	b.t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	b.must(err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		b.t.Fatal(err)
	}
	return func() { b.must(os.Remove(path)) }
}

// TestJoinThatCannotBeKept joins on a full disk, breaks a join off by SIGKILL again and again, and joins twice at once: nothing is
// spent that was not had, and in the end there is one member for each machine.
func TestJoinThatCannotBeKept(t *testing.T) {
	t.Parallel()
	bed := newBed(t, time.Minute)
	founder := bed.node("founder", nil)
	full := bed.node("full", bed.Router("home-full", natlab.EIMAPDF))
	killed := bed.node("killed", bed.Router("home-killed", natlab.EIMAPDF))
	twice := bed.node("twice", bed.Router("home-twice", natlab.EIMAPDF))
	bed.must(founder.Create(bed.ctx, "home"))
	bed.must(founder.Start(bed.ctx))
	used := func(invite api.Invite) int {
		for _, i := range bed.status(founder).Invites {
			if i.ID == invite.ID {
				return i.Used
			}
		}
		return -1
	}

	bed.step("full disk")
	invite, err := founder.NewInvite(bed.ctx)
	bed.must(err)
	room := bed.fill(bed.smallDisk(full, "4m"))
	if err := full.Join(bed.ctx, invite.Token); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("got %v, want that the disk is full", err)
	}
	if n := len(bed.status(founder).Peers); n != 0 || used(invite) > 0 {
		t.Errorf("got %d peers and %d uses, want none", n, used(invite))
	}
	room()
	bed.must(full.Join(bed.ctx, invite.Token))
	out, err := full.Warren(bed.ctx, invite.Token, "join", "-", "--no-start")
	if err != nil || !strings.Contains(out, "in mesh home already, as full") {
		t.Errorf("joined again: got %q, %v, want exit code 0, and that it is a member", out, err)
	}

	bed.step("killed")
	invite, err = founder.NewInvite(bed.ctx)
	bed.must(err)
	for i := range 8 {
		p, err := killed.Host.Start(killed.argv([]string{"join", invite.Token, "--no-start", "--name", "killed"})...)
		bed.must(err)
		select {
		case <-p.Done():
		case <-time.After(time.Duration(80+60*i) * time.Millisecond):
		}
		_ = p.Kill()
	}
	bed.must(killed.Join(bed.ctx, invite.Token))

	bed.step("twice")
	invite, err = founder.NewInvite(bed.ctx)
	bed.must(err)
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if _, err := twice.Warren(bed.ctx, invite.Token, "join", "-", "--no-start", "--name", "twice"); err != nil {
				t.Errorf("two at once: %v", err)
			}
		})
	}
	both.Wait()
	twice.Mesh = "home"

	for _, n := range []*Node{full, killed, twice} {
		bed.must(n.Start(bed.ctx))
		if left, err := n.stateLeft(); err != nil || !slices.Equal(left, []string{"home"}) {
			t.Errorf("%s: got %v, %v, want the mesh alone", n.Name(), left, err)
		}
	}
	nodes := []*Node{founder, full, killed, twice}
	bed.agreed(nodes, names(nodes)...)
	bed.step("end")
}

// TestStateThatCannotBeWritten fills the disk of a node that runs, and has it start on one that is read-only: it goes on, says so, learns
// and is learnt of, and writes again when it can.
func TestStateThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	bed := newBed(t, time.Minute)
	founder := bed.node("founder", nil)
	a := bed.node("a", bed.Router("home-a", natlab.EIMAPDF))
	dir := bed.smallDisk(a, "4m")
	bed.must(Found(bed.ctx, "home", founder, a))
	says := func(what string) func(api.Status) bool {
		return func(s api.Status) bool {
			return slices.ContainsFunc(s.Warnings, func(w string) bool {
				return strings.Contains(w, "runs from memory") && strings.Contains(w, what)
			})
		}
	}
	silent := func(s api.Status) bool { return !says("")(s) }
	wait := func(what string, ok func(api.Status) bool) {
		t.Helper()
		_, err := a.Wait(bed.ctx, what, ok)
		bed.must(err)
	}
	wait("nothing is said of the disk", silent)

	bed.step("full")
	room := bed.fill(dir)
	wait("the full disk is said", says("no space left"))
	invite, err := founder.NewInvite(bed.ctx)
	bed.must(err)
	wait("the invite is known", func(s api.Status) bool { return len(s.Invites) == 1 })
	room()
	wait("it is written again", silent)

	bed.step("read-only at the start")
	bed.must(a.Stop())
	bed.must(unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "size=4m"))
	bed.must(a.Start(bed.ctx))
	wait("the read-only disk is said, and what was written is there", func(s api.Status) bool {
		return says("read-only")(s) && len(s.Invites) == 1 && s.Invites[0].ID == invite.ID
	})
	bed.meshed(founder, a)
	bed.must(unix.Mount("", dir, "", unix.MS_REMOUNT, "size=4m"))
	remount := []string{"-t", strconv.Itoa(a.Agent().PID()), "-m", "mount", "-o", "remount,rw,bind", "/var/lib"} // the agent's own view of it
	if out, err := exec.Command("nsenter", remount...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wait("it is written again", silent)
	bed.step("end")
}

// TestTwoMeshesOnOneMachine has two machines in two meshes each: all agents run at once, whichever starts first, on interfaces and ports of their own.
func TestTwoMeshesOnOneMachine(t *testing.T) {
	t.Parallel()
	bed := newBed(t, time.Minute)
	gate := map[string]*Node{"home": bed.node("gate", nil)}
	laptop := map[string]*Node{"home": bed.node("laptop", bed.Router("home-laptop", natlab.EIMAPDF))}
	for _, both := range []map[string]*Node{gate, laptop} {
		work := NewNode(both["home"].Host, bed.binary)
		bed.nodes, both["work"] = append(bed.nodes, work), work
	}
	for _, mesh := range []string{"home", "work"} {
		g, l := gate[mesh], laptop[mesh]
		bed.must(g.Create(bed.ctx, mesh))
		bed.must(g.Start(bed.ctx, "--mesh", mesh))
		out, err := g.Warren(bed.ctx, "", "invite", "--mesh", mesh, "--json")
		bed.must(err)
		token := strings.Split(strings.SplitAfter(out, `"token": "`)[1], `"`)[0]
		_, err = l.Warren(bed.ctx, token, "join", "-", "--no-start", "--name", l.Name())
		bed.must(err)
		l.Mesh = mesh
		bed.must(l.Start(bed.ctx, "--mesh", mesh))
	}
	check := func() {
		t.Helper()
		for _, mesh := range []string{"home", "work"} {
			bed.meshed(gate[mesh], laptop[mesh])
		}
		for _, both := range []map[string]*Node{gate, laptop} {
			home, work := bed.status(both["home"]).Self, bed.status(both["work"]).Self
			if home.Interface != "warren0" || work.Interface != "warren1" || home.Port != 9277 || work.Port != 9279 {
				t.Errorf("%s: got %s:%d and %s:%d, want each its own", both["home"].Name(), home.Interface, home.Port, work.Interface, work.Port)
			}
		}
	}
	check()
	bed.step("the other order")
	bed.must(laptop["home"].Stop())
	bed.must(laptop["work"].Stop())
	bed.must(laptop["work"].Start(bed.ctx, "--mesh", "work"))
	bed.must(laptop["home"].Start(bed.ctx)) // it is what commands mean
	check()

	bed.step("what commands mean")
	l := laptop["home"]
	means := func(want string, args ...string) {
		t.Helper()
		out, err := l.Warren(bed.ctx, "", append([]string{"status"}, args...)...)
		if err != nil || !strings.HasPrefix(out, want+": ") {
			t.Errorf("status %v: got %.40q, %v, want that of %s", args, out, err, want)
		}
	}
	means("home")
	means("work", "--mesh", "work")
	l.Env = []string{"WARREN_MESH=work"}
	means("work")
	l.Env = nil
	_, err := l.Warren(bed.ctx, "", "use", "work")
	bed.must(err)
	means("work")
	if _, err := l.Warren(bed.ctx, "", "leave"); ExitCode(err) != 2 {
		t.Errorf("leave without a name: got %v, want exit code 2", err)
	}
	bed.step("end")
}
