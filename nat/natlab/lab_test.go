//go:build linux

package natlab

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ownerEnv makes the test binary build a lab, tell its id, and sleep.
const ownerEnv = "NATLAB_TEST_OWNER"

func TestMain(m *testing.M) {
	if os.Getenv(ownerEnv) != "" {
		ownLab()
	}
	os.Exit(m.Run())
}

func ownLab() {
	l, err := New(Options{Name: "owned"})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	h := l.Host("a", l.Router("home", EIMAPDF))
	l.Line(h, Line{Delay: time.Millisecond})
	l.Share(0.5)
	if _, err := h.Start("sleep", "600"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	// What a shell starts in the background inherits that interrupts are ignored; this one is to die of one.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	fmt.Println(l.ID(), l.claim.janitor.Process.Pid)
	<-interrupted
	os.Exit(130)
}

// six builds the topology that the issue asks for, and returns its hosts.
func six(l *Lab) []*Host {
	hosts := []*Host{l.Host("public", nil)}
	for i, kind := range []Kind{EIMEIF, EIMAPDF, Symmetric, DualStack, UDPBlocked} {
		hosts = append(hosts, l.Host(fmt.Sprintf("host%d", i), l.Router(fmt.Sprintf("home%d", i), kind)))
	}
	return hosts
}

// TestSixSitesAreUpSoon: a lab is cheap enough for one in every test. On a machine of its own that is 3 s; on one that others use,
// the time is theirs, and what counts is what the processors have done for the lab.
func TestSixSitesAreUpSoon(t *testing.T) {
	start, before := time.Now(), worked(t)
	l := ForTest(t)
	hosts := six(l)
	for _, h := range hosts[1:] {
		reach(t, h, hosts[0].Addr4())
	}
	took, work := time.Since(start), worked(t)-before
	if took > 3*time.Second && (work > 3*time.Second || took > time.Minute) {
		t.Errorf("six sites took %v, and %v of work, want less than 3 s", took, work)
	}
	t.Logf("six sites up and pinged in %v, with %v of work", took, work)
}

// worked is the time that processors have spent for this process and the children that it has waited for.
func worked(t *testing.T) (all time.Duration) {
	t.Helper()
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			t.Fatal(err)
		}
		all += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return all
}

func BenchmarkSixSites(b *testing.B) {
	for b.Loop() {
		l, err := New(Options{Fatal: func(err error) { b.Fatal(err) }})
		if err != nil {
			b.Skip(err)
		}
		six(l)
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	l := ForTest(t)
	h := l.Host("a", l.Router("home", DoubleNAT))
	p, err := h.Start("sleep", "600")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if left := remains(l.ID()); len(left) > 0 {
		t.Errorf("after Close: got %q, want nothing", left)
	}
}

// remains lists what there is on the machine of the lab id.
func remains(id string) []string {
	var all []string
	for _, pattern := range []string{netnsDir + nsPrefix(id) + "*", filepath.Join(registry, id), filepath.Join(os.TempDir(), "warren-natlab-"+id),
		"/sys/fs/cgroup/warren-natlab-" + id, "/sys/fs/cgroup/cpu/warren-natlab-" + id} {
		found, _ := filepath.Glob(pattern)
		all = append(all, found...)
	}
	return all
}

// startOwner runs another process that owns a lab.
func startOwner(t *testing.T) (owner *exec.Cmd, id string, janitor int) {
	t.Helper()
	if err := Check(); err != nil {
		ForTest(t) // skips or fails, and says why
	}
	owner = exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), ownerEnv+"=1")
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { owner.Process.Kill() })
	line, _ := bufio.NewReader(out).ReadString('\n')
	if _, err := fmt.Sscan(line, &id, &janitor); err != nil {
		t.Fatalf("owner said %q: %v", line, err)
	}
	if len(remains(id)) == 0 {
		t.Fatal("the owner has no lab")
	}
	return owner, id, janitor
}

func TestKilledOwnerLeavesNothing(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			owner, id, _ := startOwner(t)
			owner.Process.Signal(sig)
			owner.Wait()
			eventually(t, "nothing is left", func() bool { return len(remains(id)) == 0 })
		})
	}
}

func TestLeftoversOfTheDeadAreRemovedAndNotOfTheLiving(t *testing.T) {
	dead, deadID, janitor := startOwner(t)
	_, livingID, _ := startOwner(t)
	if err := syscall.Kill(janitor, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	dead.Process.Kill()
	dead.Wait()
	if len(remains(deadID)) == 0 {
		t.Fatal("nothing was left although the janitor was killed: the test tests nothing")
	}
	ForTest(t)
	if left := remains(deadID); len(left) > 0 {
		t.Errorf("lab of a dead owner: got %q, want nothing", left)
	}
	if len(remains(livingID)) == 0 {
		t.Error("the lab of a living owner was removed")
	}
}

func TestHostsHaveTheirOwnRun(t *testing.T) {
	t.Parallel()
	l := ForTest(t)
	a, b := l.Host("a", nil), l.Host("b", nil)
	ctx := t.Context()
	if _, err := a.Run(ctx, "sh", "-c", "mkdir -p /var/run/natlab-test && echo hello > /var/run/natlab-test/x"); err != nil {
		t.Fatal(err)
	}
	out, err := a.Run(ctx, "cat", "/run/natlab-test/x")
	if err != nil || out != "hello\n" {
		t.Errorf("the same host: got %q, %v", out, err)
	}
	if out, err := b.Run(ctx, "cat", "/run/natlab-test/x"); err == nil {
		t.Errorf("another host sees it: %q", out)
	}
	if _, err := os.Stat("/run/natlab-test"); err == nil {
		t.Error("the machine sees it")
	}
}

func TestProcess(t *testing.T) {
	t.Parallel()
	h := ForTest(t).Host("a", nil)
	start := func(script string) *Process {
		p, err := h.Start("sh", "-c", script)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is ready", func() bool { return strings.Contains(p.Output(), "ready") })
		return p
	}
	if err := start("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done").Stop(5 * time.Second); err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := start("trap '' TERM; echo ready; while :; do sleep 0.05; done").Stop(100 * time.Millisecond); err == nil {
		t.Error("stop of a deaf process: got no error")
	}
	p := start("echo ready; exec sleep 600")
	if err := p.Kill(); err != nil {
		t.Errorf("kill: %v", err)
	}
	if err := p.Kill(); err != nil {
		t.Errorf("kill again: %v", err)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var out tail
	for i := range 200_000 {
		fmt.Fprintln(&out, i)
	}
	if s := out.String(); len(s) != tailSize || !strings.HasSuffix(s, "\n199999\n") {
		t.Errorf("got %d bytes that end in %q", len(s), s[max(0, len(s)-10):])
	}
}

// ping reports whether an echo request was answered within a second.
func ping(h *Host, to netip.Addr) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return h.Command(ctx, "ping", "-c", "1", "-W", "1", "-n", to.String()).Run() == nil
}

// reach fails the test when the address does not answer pings from the host. An answer may be late on a busy machine: it asks
// again, for half a minute.
func reach(t *testing.T, h *Host, to netip.Addr) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ping(h, to); {
		if time.Now().After(deadline) {
			t.Errorf("%s does not reach %s", h.Name, to)
			return
		}
	}
}

// eventually polls until the condition holds, for half a minute at most.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
