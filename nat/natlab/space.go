//go:build linux

package natlab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// netnsDir is where iproute2 keeps the names of network namespaces.
const netnsDir = "/run/netns/"

// space is one network namespace with its name in the lab ("home") and on
// the machine ("wl3f2a-home").
type space struct{ name, ns string }

// newSpace makes the namespace, with its loopback up. forward makes it a
// router of both families.
func newSpace(lab, name string, forward bool) (*space, error) {
	s := &space{name: name, ns: nsPrefix(lab) + name}
	if _, err := run(nil, "ip", "netns", "add", s.ns); err != nil {
		return nil, err
	}
	sysctl := map[string]string{
		// Duplicate address detection costs more than a second per address.
		"ipv6/conf/all/accept_dad":               "0",
		"ipv6/conf/default/accept_dad":           "0",
		"ipv6/conf/default/dad_transmits":        "0",
		"ipv4/conf/all/rp_filter":                "0",
		"ipv4/conf/default/rp_filter":            "0",
		"ipv4/ping_group_range":                  "0 2147483647",
		"ipv6/conf/default/accept_ra":            "0",
		"ipv6/conf/default/router_solicitations": "0",
	}
	if forward {
		sysctl["ipv4/ip_forward"] = "1"
		sysctl["ipv6/conf/all/forwarding"] = "1"
	}
	err := s.do(func() error {
		for key, value := range sysctl {
			if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0); err != nil {
				return fmt.Errorf("set net/%s: %w", key, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, s.ip("link set lo up")
}

// do runs f on a thread of its own inside the namespace. Sockets that f opens
// stay in the namespace after it has returned.
func (s *space) do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine and its changed
		// namespace is not given to other goroutines.
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The main thread never ends, and stands for the whole process: the
			// janitor would take the owner for a process of the lab. While it is
			// locked here, the next try cannot get it.
			defer runtime.UnlockOSThread()
			done <- s.do(f)
			return
		}
		done <- s.enter(f)
	}()
	return <-done
}

func (s *space) enter(f func() error) error {
	ns, err := os.Open(netnsDir + s.ns)
	if err != nil {
		return fmt.Errorf("open namespace: %w", err)
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter namespace %s: %w", s.ns, err)
	}
	return f()
}

// ip runs the lines as one batch of ip(8) inside the namespace.
func (s *space) ip(lines ...string) error {
	_, err := run([]byte(strings.Join(lines, "\n")+"\n"), "ip", "-n", s.ns, "-batch", "-")
	return err
}

// nft loads one ruleset inside the namespace, all or nothing.
func (s *space) nft(ruleset string) error {
	_, err := run([]byte(ruleset), "ip", "netns", "exec", s.ns, "nft", "-f", "-")
	return err
}

// run runs one command of the host system and returns what it printed.
func run(stdin []byte, argv ...string) ([]byte, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("run %s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)+"\n"+string(stdin)))
	}
	return out, nil
}
