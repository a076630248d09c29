//go:build linux

package natlab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
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

// handle opens the namespace's netlink socket of these families.
func (s *space) handle(families ...int) (*netlink.Handle, error) {
	ns, err := netns.GetFromName(s.ns)
	if err != nil {
		return nil, fmt.Errorf("open namespace %s: %w", s.ns, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, families...)
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", s.ns, err)
	}
	return h, nil
}

// settle waits until an interface is operational: the kernel notices a new
// carrier in a worker of its own, and drops what is sent before that.
func (s *space) settle(ifname string) error {
	h, err := s.handle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		link, err := h.LinkByName(ifname)
		if err != nil {
			return fmt.Errorf("settle %s in %s: %w", ifname, s.ns, err)
		}
		state := link.Attrs().OperState
		if state == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("settle %s in %s: still %s after 10 s", ifname, s.ns, state)
		}
	}
}

// flushConntrack empties the connection table, of both families.
func (s *space) flushConntrack() error {
	h, err := s.handle(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		return fmt.Errorf("flush connections of %s: %w", s.name, err)
	}
	return nil
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
