package tunnel

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"warren/tunnel/bind"
	"warren/tunnel/osnet"
	"warren/tunnel/osnet/osnettest"
	"warren/tunnel/sockets"
)

// foreign is a host in a network namespace of its own, on which Debian's wireguard-go and wg run.
type foreign struct {
	pid       string // of the process that keeps the namespace
	publicKey string
}

// newForeign makes the nth host, linked to this namespace by the networks 172.31.n.0/24 and fd02:n::/64, in which
// this side is 1 and the host 2.
func newForeign(t *testing.T, n string) *foreign {
	t.Helper()
	keeper := exec.Command("sleep", "600")
	keeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	launch(t, keeper)
	f := &foreign{pid: strconv.Itoa(keeper.Process.Pid)}
	ours, theirs := "out"+n, "in"+n
	run(t, "ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", f.pid)
	for host, enter := range map[string][]string{"1": nil, "2": f.enter()} {
		name := ours
		if enter != nil {
			name = theirs
		}
		ip := append(enter, "ip")
		run(t, append(ip, "addr", "add", "172.31."+n+"."+host+"/24", "dev", name)...)
		run(t, append(ip, "addr", "add", "fd02:"+n+"::"+host+"/64", "dev", name, "nodad")...)
		run(t, append(ip, "link", "set", name, "up")...)
	}
	return f
}

// launch starts a process that ends with the test.
func launch(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// enter is the beginning of a command line that runs on the host. The mounts stay: both sides' control sockets are
// in the same directory.
func (f *foreign) enter() []string { return []string{"nsenter", "--net", "--target", f.pid, "--"} }

func (f *foreign) run(t *testing.T, argv ...string) string {
	t.Helper()
	return run(t, append(f.enter(), argv...)...)
}

// wireguard starts wireguard-go with a private key and an address in the tunnel, and our side as its peer.
func (f *foreign) wireguard(t *testing.T, name, addr, port, peer string) {
	t.Helper()
	argv := append(f.enter(), "wireguard-go", "-f", name)
	daemon := exec.Command(argv[0], argv[1:]...)
	daemon.Env = append(os.Environ(), "LOG_LEVEL=error")
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	launch(t, daemon)
	wait(t, "control socket of wireguard-go", func() bool { return exec.Command("wg", "show", name).Run() == nil })
	private := run(t, "wg", "genkey")
	pub := exec.Command("wg", "pubkey")
	pub.Stdin = strings.NewReader(private)
	text, err := pub.Output()
	if err != nil {
		t.Fatal(err)
	}
	f.publicKey = strings.TrimSpace(string(text))
	file := t.TempDir() + "/key"
	if err := os.WriteFile(file, []byte(private), 0o600); err != nil {
		t.Fatal(err)
	}
	f.run(t, "wg", "set", name, "private-key", file, "listen-port", port, "peer", peer, "allowed-ips", "100.70.0.1/32,fd01::1/128")
	f.run(t, "ip", "addr", "add", addr, "dev", name)
	f.run(t, "ip", "link", "set", name, "up", "mtu", "1376")
	f.run(t, "ip", "route", "add", "100.70.0.0/16", "dev", name)
	// It opens its socket some time after its interface is up.
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "socket of wireguard-go", func() bool {
		return strings.Contains(f.run(t, "cat", "/proc/net/udp"), fmt.Sprintf(":%04X ", number))
	})
}

// ping wants all of five packets answered, soon.
func ping(t *testing.T, enter []string, addr string) {
	t.Helper()
	got := ""
	for begin := time.Now(); time.Since(begin) < 20*time.Second; {
		// What is sent while two handshakes cross may be lost, and a machine that is busy has them cross.
		out, _ := exec.Command("env", append(slices.Clone(enter), "ping", "-q", "-i", "0.05", "-c", "5", "-W", "5", addr)...).CombinedOutput()
		if got = string(out); strings.Contains(got, " 5 received") {
			return
		}
	}
	t.Errorf("ping %s: got %q, want 5 received", addr, got)
}

// peer is the host as our configuration file has it.
func (f *foreign) peer(t *testing.T, addr, endpoint string) Peer {
	t.Helper()
	k, err := wgtypes.ParseKey(f.publicKey)
	if err != nil {
		t.Fatal(err)
	}
	return Peer{PublicKey: k, AllowedIPs: prefixes(addr), Endpoint: netip.MustParseAddrPort(endpoint)}
}

// A static peer is a plain WireGuard device of somebody else's making: here Debian's.
func TestForeignWireGuardInNamespace(t *testing.T) {
	for _, tool := range []string{"wireguard-go", "wg", "ping", "nsenter", "ip"} {
		_, err := exec.LookPath(tool)
		osnettest.Need(t, err == nil, tool)
	}
	if !osnettest.InNamespace(t) {
		return
	}
	a := start(t, Options{Bind: bind.New(bind.Options{Inner: sockets.New()})})
	if err := a.SetLink(osnet.Config{
		Addrs: prefixes("100.70.0.1/32 fd01::1/128"), Routes: prefixes("100.70.0.0/16 fd01::/48"), MTU: DefaultMTU, Up: true,
	}); err != nil {
		t.Fatal(err)
	}
	self := a.opts.PrivateKey.PublicKey().String()
	one, two := newForeign(t, "1"), newForeign(t, "2")
	one.wireguard(t, "foreign1", "100.70.0.11/32", "5001", self)
	two.wireguard(t, "foreign2", "100.70.0.12/32", "5002", self)
	peer1, peer2 := one.peer(t, "100.70.0.11/32", "172.31.1.2:5001"), two.peer(t, "100.70.0.12/32", "172.31.2.2:5002")

	if err := a.SetPeers([]Peer{peer1}); err != nil {
		t.Fatal(err)
	}
	ping(t, nil, "100.70.0.11")
	ping(t, one.enter(), "100.70.0.1")
	foreignPeersChange(t, a, two, peer1, peer2)
	foreignByIPv6(t, a, one, peer1)

	// A full packet needs no fragments on a path of 1,460 bytes, either way.
	run(t, "ip", "link", "set", "out1", "mtu", "1460")
	one.run(t, "ip", "link", "set", "in1", "mtu", "1460")
	full := []string{"ping", "-q", "-M", "do", "-s", strconv.Itoa(DefaultMTU - 28), "-c", "3", "-i", "0.05", "-W", "5"}
	run(t, append(full, "100.70.0.11")...)
	one.run(t, append(full, "100.70.0.1")...)
}

// foreignPeersChange has a second peer come, change, roam and go, while the first is pinged and must lose nothing.
func foreignPeersChange(t *testing.T, a *side, two *foreign, peer1, peer2 Peer) {
	t.Helper()
	set := func(peers ...Peer) {
		t.Helper()
		if err := a.SetPeers(peers); err != nil {
			t.Fatal(err)
		}
	}
	before := a.handshake(t, peer1.PublicKey)
	var out strings.Builder
	steady := exec.Command("ping", "-q", "-i", "0.02", "-c", "120", "-W", "5", "100.70.0.11")
	steady.Stdout = &out
	if err := steady.Start(); err != nil {
		t.Fatal(err)
	}
	set(peer1, peer2)
	ping(t, nil, "100.70.0.12")
	ping(t, two.enter(), "100.70.0.1")
	peer2.AllowedIPs = prefixes("100.70.0.12/32 100.70.9.0/24")
	peer2.Keepalive = 5 * time.Second
	set(peer1, peer2)

	// It moves to another port, and our side follows its next packet; setting the same peers again does not undo that.
	two.run(t, "wg", "set", "foreign2", "listen-port", "5003")
	two.run(t, "wg", "set", "foreign2", "peer", a.opts.PrivateKey.PublicKey().String(), "endpoint", "172.31.2.1:"+strconv.Itoa(int(a.port(t))))
	ping(t, two.enter(), "100.70.0.1")
	set(peer1, peer2)
	ping(t, nil, "100.70.0.12")
	stats, err := a.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if got := stats[peer2.PublicKey].Endpoint.Port(); got != 5003 {
		t.Errorf("peer that roamed: got port %d, want 5003", got)
	}

	set(peer1)
	if err := steady.Wait(); err != nil || !regexp.MustCompile(` 1(19|20) received`).MatchString(out.String()) { // ping does not wait for the last one
		t.Errorf("peer that stayed: got %q, %v, want no loss", out.String(), err)
	}
	if got := a.handshake(t, peer1.PublicKey); !got.Equal(before) {
		t.Errorf("peer that stayed: got a handshake at %v, want only that of %v", got, before)
	}
}

// foreignByIPv6 moves the peer to IPv6 and gives it a preshared key.
func foreignByIPv6(t *testing.T, a *side, one *foreign, peer1 Peer) {
	t.Helper()
	before := a.handshake(t, peer1.PublicKey)
	psk := run(t, "wg", "genpsk")
	file := t.TempDir() + "/psk"
	if err := os.WriteFile(file, []byte(psk), 0o600); err != nil {
		t.Fatal(err)
	}
	one.run(t, "wg", "set", "foreign1", "peer", a.opts.PrivateKey.PublicKey().String(), "preshared-key", file)
	var err error
	if peer1.PresharedKey, err = wgtypes.ParseKey(psk); err != nil {
		t.Fatal(err)
	}
	peer1.Endpoint = netip.MustParseAddrPort("[fd02:1::2]:5001")
	if err := a.SetPeers([]Peer{peer1}); err != nil {
		t.Fatal(err)
	}
	initiate(attached{a.Tunnel}.lookup(peer1.PublicKey), true)
	ping(t, nil, "100.70.0.11")
	stats, err := a.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if got := stats[peer1.PublicKey]; !got.LastHandshake.After(before) || got.Endpoint != peer1.Endpoint {
		t.Errorf("got %+v, want a new handshake at %v", got, peer1.Endpoint)
	}
}
