package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/tunnel"
)

// roleEnv tells a process that bench has started what it is.
const roleEnv = "WARREN_BENCH_ROLE"

const (
	roleInside = "inside" // the namespaces
	roleTunnel = "tunnel" // one end of the tunnel that is measured

	roleRelay      = "relay"       // a relay of ours
	roleTURN       = "turn"        // pion's TURN server
	roleTURNClient = "turn-client" // one end of a tunnel over it
)

// run goes into fresh namespaces, by way of itself, and measures there.
func run(ctx context.Context, s settings) error {
	switch os.Getenv(roleEnv) {
	case roleInside:
		return inside(ctx, s)
	case roleTunnel:
		return serveTunnel(ctx)
	case roleRelay:
		return serveRelay(ctx)
	case roleTURN:
		return serveTURN(ctx)
	case roleTURNClient:
		return serveTURNClient(ctx)
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root, for network namespaces")
	}
	for _, tool := range []string{"iperf3", "ip", "nsenter", "go"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("needs %s: %w", tool, err)
		}
	}
	// A child is killed when the thread that started it ends.
	runtime.LockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleEnv+"="+roleInside)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if err := cmd.Run(); err != nil {
		return errors.New("failed, see above")
	}
	return nil
}

// end is one end of the pair: this namespace, or the one of the process pid.
type end struct {
	pid   string
	under netip.Addr // on the veth
}

// pair has both ends, and the processes that must end with it.
type pair struct {
	ends      [2]end
	processes []*exec.Cmd
}

// start starts a process that is killed with this one, at the latest by close.
func (p *pair) start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p.processes = append(p.processes, cmd)
	return nil
}

func (p *pair) close() {
	for _, cmd := range p.processes {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// command is a command line that runs at an end.
func (e end) command(ctx context.Context, argv ...string) *exec.Cmd {
	if e.pid != "" {
		argv = append([]string{"nsenter", "--net", "--target", e.pid, "--"}, argv...)
	}
	return exec.CommandContext(ctx, argv[0], argv[1:]...)
}

// ip runs ip(8) at an end.
func (e end) ip(ctx context.Context, line string) error {
	text, err := e.command(ctx, append([]string{"ip"}, strings.Fields(line)...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", line, err, text)
	}
	return nil
}

// startKeeper starts a process that keeps a network namespace of its own.
func (p *pair) startKeeper(ctx context.Context) (*exec.Cmd, error) {
	keeper := exec.CommandContext(ctx, "sleep", "600")
	keeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	return keeper, p.start(keeper)
}

// newPair makes the second namespace and the veth between them.
func newPair(ctx context.Context) (*pair, error) {
	p := &pair{}
	keeper, err := p.startKeeper(ctx)
	if err != nil {
		return nil, err
	}
	pid := strconv.Itoa(keeper.Process.Pid)
	p.ends = [2]end{{under: netip.MustParseAddr("192.0.2.1")}, {pid: pid, under: netip.MustParseAddr("192.0.2.2")}}
	if err := p.ends[0].ip(ctx, "link add veth0 type veth peer name veth0 netns "+pid); err != nil {
		return p, err
	}
	for _, e := range p.ends {
		for _, line := range []string{"link set lo up", "addr add " + e.under.String() + "/24 dev veth0", "link set veth0 up"} {
			if err := e.ip(ctx, line); err != nil {
				return p, err
			}
		}
	}
	return p, nil
}

// inside prepares the namespaces, brings up both contestants, and lets them run.
func inside(ctx context.Context, s settings) error {
	runtime.LockOSThread()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// The control sockets of WireGuard devices, and the program built below, go here.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	const program = "/run/wireguard-go"
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "golang.zx2c4.com/wireguard")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build wireguard-go: %w: %s", err, text)
	}
	p, err := newPair(ctx)
	if p != nil {
		defer p.close()
	}
	if err != nil {
		return err
	}
	if s.relay {
		return compareRelays(ctx, p, s, program)
	}
	plain, err := startPlain(ctx, p, program)
	if err != nil {
		return fmt.Errorf("start wireguard-go: %w", err)
	}
	ours, err := startOurs(ctx, p, path{name: "warren", number: 2})
	if err != nil {
		return fmt.Errorf("start tunnel: %w", err)
	}
	server := p.ends[1].command(ctx, "iperf3", "-s")
	if err := p.start(server); err != nil {
		return err
	}
	return measure(ctx, p, s, plain, ours)
}

// contestant is one of the two that are compared.
type contestant struct {
	name string
	addr string // of the far end, inside the tunnel
	pids []int  // of both ends
}

// keys makes the key pair of each end.
func keys() (pair [2]wgtypes.Key, err error) {
	for i := range pair {
		if pair[i], err = wgtypes.GeneratePrivateKey(); err != nil {
			return pair, err
		}
	}
	return pair, nil
}

// startPlain runs wireguard-go at both ends.
func startPlain(ctx context.Context, p *pair, program string) (*contestant, error) {
	const port = 5001
	private, err := keys()
	if err != nil {
		return nil, err
	}
	client, err := wgctrl.New()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	c := &contestant{name: "wireguard-go", addr: "10.1.0.2"}
	for i, e := range p.ends {
		name, listen, other := "plain"+strconv.Itoa(i), port, 1-i
		daemon := e.command(ctx, program, "-f", name)
		daemon.Env = append(os.Environ(), "WG_PROCESS_FOREGROUND=1", "LOG_LEVEL=error")
		if err := p.start(daemon); err != nil {
			return nil, err
		}
		c.pids = append(c.pids, daemon.Process.Pid)
		config := wgtypes.Config{PrivateKey: &private[i], ListenPort: &listen, Peers: []wgtypes.PeerConfig{{
			PublicKey: private[other].PublicKey(), Endpoint: udpAddr(p.ends[other].under, port), AllowedIPs: everything,
		}}}
		if err := eventually(ctx, func() error { return client.ConfigureDevice(name, config) }); err != nil {
			return nil, err
		}
		for _, line := range []string{
			fmt.Sprintf("addr add 10.1.0.%d/24 dev %s", i+1, name), fmt.Sprintf("link set %s up mtu %d", name, tunnel.DefaultMTU),
		} {
			if err := e.ip(ctx, line); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// eventually tries until it works, for a process that is starting.
func eventually(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}
