//go:build linux

package e2e

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

//go:embed testdata/machine.sh
var machineScript string

// machineTools are what a machine with systemd needs beside the lab, with Debian's packages.
var machineTools = map[string]string{"systemd-nspawn": "systemd-container", "nsenter": "util-linux", "unshare": "util-linux"}

// machine is a host of the lab on which systemd runs: this machine's own files beneath a layer of its own, booted by systemd-nspawn in
// the host's network. It ends with the test, whatever ends that: the script that holds it waits for the end of its standard input.
type machine struct {
	bed   *bed
	host  *natlab.Host
	leash io.Closer
	done  chan error
	said  string // file of the console
}

// machine boots a host.
func (b *bed) machine(name string, behind *natlab.Router) *machine {
	b.t.Helper()
	return b.machineWith(name, behind, "")
}

// resolvedFiles is where .ci/setup has unpacked the package of systemd's resolver: installed, it would take this machine's own /etc/resolv.conf.
const resolvedFiles = "/var/cache/warren-lab/systemd-resolved"

// machineWith boots a host; with the files of systemd's resolver that runs there, too.
func (b *bed) machineWith(name string, behind *natlab.Router, resolved string) *machine {
	b.t.Helper()
	for tool, pkg := range machineTools {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") != "" {
				b.t.Fatalf("%s is missing; install %s", tool, pkg)
			}
			b.t.Skipf("%s is missing; install %s", tool, pkg)
		}
	}
	host := b.Host(name, behind)
	m := &machine{bed: b, host: host, done: make(chan error, 1), said: filepath.Join(host.Dir(), "console")}
	console, err := os.Create(m.said)
	b.must(err)
	defer console.Close()
	cmd := exec.Command("sh", "-c", machineScript, "machine", "wl"+b.ID()+"-"+name, host.Dir(), b.binary, resolved)
	cmd.Stdout, cmd.Stderr, cmd.Dir = console, console, "/"
	// A session of its own: ^C reaches only the owner, whose end the script then sees.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	m.leash, err = cmd.StdinPipe()
	b.must(err)
	b.must(cmd.Start())
	go func() { m.done <- cmd.Wait() }()
	b.t.Cleanup(func() {
		if b.t.Failed() {
			b.t.Logf("console of %s:\n%s", name, m.console())
		}
		m.leash.Close()
		select {
		case <-m.done:
		case <-time.After(30 * time.Second):
			b.t.Errorf("%s does not end", name)
		}
	})
	m.booted(0)
	return m
}

func (m *machine) console() string {
	raw, _ := os.ReadFile(m.said)
	return string(raw[max(0, len(raw)-16<<10):])
}

// leader is the machine's first process, as this machine numbers it; 0 when there is none. It is known by its number in its own
// namespace and by the network that it is in.
func (m *machine) leader() int {
	var ns syscall.Stat_t
	if syscall.Stat("/run/netns/wl"+m.bed.ID()+"-"+m.host.Name, &ns) != nil {
		return 0
	}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		var in syscall.Stat_t
		if err != nil || syscall.Stat(filepath.Join("/proc", e.Name(), "ns/net"), &in) != nil || in.Ino != ns.Ino || in.Dev != ns.Dev {
			continue
		}
		status, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "status"))
		for line := range strings.Lines(string(status)) {
			if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
				if own := strings.Fields(numbers); len(own) > 1 && own[len(own)-1] == "1" && strings.Contains(string(status), "\nPPid:") {
					return pid
				}
			}
		}
	}
	return 0
}

// booted waits until systemd runs, as another process than before, and has started all that it starts.
func (m *machine) booted(before int) int {
	m.bed.t.Helper()
	leader := 0
	m.bed.eventually("systemd runs on "+m.host.Name+"; its console is below", func() bool {
		select {
		case err := <-m.done:
			m.done <- err
			m.bed.t.Fatalf("%s ended: %v", m.host.Name, err)
		default:
		}
		if leader = m.leader(); leader == 0 || leader == before {
			return false
		}
		out, _, _ := m.try("systemctl", "is-system-running")
		return strings.HasPrefix(out, "running") || strings.HasPrefix(out, "degraded")
	})
	return leader
}

// try runs a command on the machine. It sees what the machine's own processes see.
func (m *machine) try(argv ...string) (stdout, stderr string, err error) {
	leader := m.leader()
	if leader == 0 {
		return "", "", fmt.Errorf("%s does not run", m.host.Name)
	}
	ctx, cancel := context.WithTimeout(m.bed.ctx, 40*time.Second)
	defer cancel()
	words := append([]string{"-t", strconv.Itoa(leader), "-m", "-u", "-i", "-n", "-p", "-C", "--", "env", "-i", "GORACE=atexit_sleep_ms=0", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, argv...)
	cmd := exec.CommandContext(ctx, "nsenter", words...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &errOut, "/"
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

// run is try that has to succeed.
func (m *machine) run(argv ...string) string {
	m.bed.t.Helper()
	out, said, err := m.try(argv...)
	if err != nil {
		m.bed.t.Fatalf("%s: %s: %v: %s%s", m.host.Name, strings.Join(argv, " "), err, out, said)
	}
	return out
}

// unit returns a property of the agent's unit.
func (m *machine) unit(property string) string {
	m.bed.t.Helper()
	return strings.TrimSpace(m.run("systemctl", "show", "--property="+property, "--value", "warren@home.service"))
}

// status is `warren status --json`, asked on the machine.
func (m *machine) status() (s api.Status, err error) {
	out, said, err := m.try("warren", "status", "--json")
	if err != nil {
		return s, fmt.Errorf("%w: %s", err, said)
	}
	return s, json.Unmarshal([]byte(out), &s)
}

// write puts a file on the machine.
func (m *machine) write(path, text string) {
	m.bed.t.Helper()
	m.run("sh", "-c", `printf %s "$2" >"$1"`, "sh", path, text)
}

// TestSystemd: the service on a live systemd. It is installed by join, comes back after a crash and with the machine, reads its config
// again, is replaced by an upgrade, is not started again where that cannot help, and nothing of it is left after leave.
func TestSystemd(t *testing.T) {
	t.Parallel()
	bed := bedWith(t, buildPlain, 3*time.Minute)
	founder := bed.node("founder", nil)
	bed.must(Found(bed.ctx, "home", founder))
	token, err := founder.Invite(bed.ctx)
	bed.must(err)
	m := bed.machine("boxed", bed.Router("home-b", natlab.EIMAPDF))
	answers := func(what string) {
		t.Helper()
		bed.eventually(what, func() bool {
			s, err := founder.Status(bed.ctx)
			p, ok := Peer(s, "boxed")
			return err == nil && ok && len(p.Addresses) > 0 && founder.Ping(bed.ctx, p.Addresses[0], time.Second) == nil
		})
	}

	bed.step("join installs and starts the service")
	m.write("/root/invite.txt", "TOKEN="+token+"\n")
	if out := m.run("warren", "join", "/root/invite.txt", "--name", "boxed"); !strings.Contains(out, "home is up, now and whenever this machine starts") {
		t.Errorf("join: got %s", out)
	}
	answers("the founder reaches it")
	if out := m.run("warren", "service", "status", "--json"); !strings.Contains(out, `"enabled": true`) || !strings.Contains(out, `"running": true`) {
		t.Errorf("service status: got %s", out)
	}

	bed.step("a crash")
	crashed := m.unit("MainPID")
	m.run("kill", "-9", crashed)
	bed.eventually("the agent runs again", func() bool {
		pid := m.unit("MainPID")
		return pid != "0" && pid != crashed && m.unit("ActiveState") == "active"
	})
	answers("the founder reaches it after the crash")
	if got := m.unit("NRestarts"); got != "1" {
		t.Errorf("restarts after the crash: got %s, want 1", got)
	}

	bed.step("a reload")
	running := m.unit("MainPID")
	peer := "[[peer]]\nname = \"phone\"\npublic_key = \"GtL7fZc/bLnqZldpVofMCD6hDjrK28SsdLxevJ+qtKU=\"\nallowed_ips = [\"10.9.8.7/32\"]\n"
	m.write("/etc/warren/warren.toml", peer)
	m.run("systemctl", "reload", "warren@home")
	bed.eventually("the peer of the file is there", func() bool {
		s, err := m.status()
		_, ok := Peer(s, "phone")
		return err == nil && ok
	})
	if got := m.unit("MainPID"); got != running {
		t.Errorf("process after the reload: got %s, want %s still", got, running)
	}

	bed.step("a config that is wrong: no restart can help")
	m.write("/etc/warren/warren.toml", "[mesh]\nlann = true\n")
	if out, said, err := m.try("warren", "restart"); err == nil || m.unit("MainPID") != running {
		t.Errorf("restart with it: got %s%s, want a refusal that leaves the agent alone", out, said)
	}
	if _, _, err := m.try("systemctl", "restart", "warren@home"); err == nil {
		t.Errorf("systemctl restart with a wrong config: got no error")
	}
	bed.eventually("the unit has failed, and stays so", func() bool { return m.unit("ActiveState") == "failed" })
	if got := m.unit("ExecMainStatus"); got != "2" {
		t.Errorf("status of the agent: got %s, want 2", got)
	}
	if out := m.run("warren", "logs", "-n", "20"); !strings.Contains(out, "lann") {
		t.Errorf("logs: got %s, want the mistake in it", out)
	}
	m.write("/etc/warren/warren.toml", "")
	m.run("warren", "up")
	answers("the founder reaches it after the mend")

	bed.step("an upgrade")
	running = m.unit("MainPID")
	if out := m.run("warren", "restart", "--all"); !strings.Contains(out, "home is up again, version") || m.unit("MainPID") == running {
		t.Errorf("restart --all: got %s, process %s, before %s", out, m.unit("MainPID"), running)
	}
	answers("the founder reaches it after the upgrade")

	bed.step("the machine starts anew")
	before := m.leader()
	m.run("systemctl", "--no-block", "reboot")
	m.booted(before)
	answers("the founder reaches it after the reboot")

	bed.step("it is revoked")
	_, err = founder.Warren(bed.ctx, "", "revoke", "boxed")
	bed.must(err)
	bed.eventually("the agent has ended for good", func() bool { return m.unit("ActiveState") == "failed" })
	if got := m.unit("ExecMainStatus"); got != "2" || m.unit("NRestarts") != "0" {
		t.Errorf("after the revocation: got status %s and %s restarts, want 2 and none", got, m.unit("NRestarts"))
	}

	bed.step("nothing is left")
	m.run("warren", "leave", "--force")
	if _, _, err := m.try("ip", "link", "show", "warren0"); err == nil {
		t.Errorf("warren0 is still there")
	}
	left := m.run("sh", "-c", "ls -d /etc/systemd/system/warren* /etc/systemd/system/*/warren* /var/lib/warren/* /run/warren/*.sock 2>/dev/null; systemctl list-units --all --no-legend 'warren@*'; true")
	if strings.TrimSpace(left) != "" {
		t.Errorf("left on the machine: got %s, want nothing", left)
	}
}
