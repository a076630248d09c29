package osnettest

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// insideEnv names the test that a process was started for.
const insideEnv = "WARREN_TEST_NAMESPACE"

// InNamespace runs the calling top-level test in a network namespace and mount namespace of its own, by starting the test
// binary again for this one test. It returns true in there, where loopback is up, /run is empty and all
// that is made goes away with the process; outside it returns false when the inner run has ended, and its
// failure is the test's. So a test begins with
//
//	if !osnettest.InNamespace(t) {
//		return
//	}
//
// Without root the test is skipped, in CI (the environment variable CI is set) it fails.
func InNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideEnv) == t.Name() {
		if err := enter(); err != nil {
			t.Fatalf("prepare namespace: %v", err)
		}
		return true
	}
	Need(t, os.Geteuid() == 0, "root (network namespaces)")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v=true", "-test.count=1"}
	if deadline, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+fmt.Sprint(time.Until(deadline).Round(time.Second)))
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), insideEnv+"="+t.Name())
	// The signal is sent when the starting thread ends, so that thread has to stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	text, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Fatalf("in its namespace: %v\n%s", err, text)
	case strings.Contains(string(text), "--- SKIP"):
		t.Skipf("in its namespace:\n%s", text)
	}
	t.Logf("in its namespace:\n%s", text)
	return false
}

// Need skips the test when a thing that it needs is missing, and says which; in CI it fails.
func Need(t *testing.T, there bool, what string) {
	t.Helper()
	switch {
	case there:
	case os.Getenv("CI") != "":
		t.Fatalf("needs %s, which CI must have", what)
	default:
		t.Skipf("needs %s", what)
	}
}

// enter makes the process at home in its new namespaces.
func enter() error {
	// Private, or the mounts below would show outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// The control sockets of WireGuard devices are found by path, whatever the network namespace.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	// /sys shows the network namespace of its mounter.
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if text, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("bring up loopback: %w: %s", err, text)
	}
	return nil
}
