//go:build linux

package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"warren/nat/natlab"
)

// TestNamesByResolved has a machine on which systemd runs, its resolver included, learn the names of a mesh: libc asks the resolver, which asks the agent,
// about the mesh's domain and nothing else. The agent is stopped and killed, the resolver started anew and stopped, and after leave nothing is
// as it was not before.
func TestNamesByResolved(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(resolvedFiles); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("%v; .ci/setup unpacks it", err)
	}
	bed := bedWith(t, buildPlain, 3*time.Minute)
	founder := bed.node("founder", nil)
	bed.must(Found(bed.ctx, "home", founder))
	token, err := founder.Invite(bed.ctx)
	bed.must(err)
	theirs := bed.status(founder).Self.Addresses
	m := bed.machineWith("boxed", bed.Router("home-b", natlab.EIMAPDF), resolvedFiles)
	bed.eventually("the resolver runs", func() bool {
		out, _, _ := m.try("systemctl", "is-active", "systemd-resolved")
		return strings.TrimSpace(out) == "active"
	})
	files := func() string { return m.run("sh", "-c", "ls -l /etc/resolv.conf; cat /etc/hosts") }
	before := files()

	m.write("/root/invite.txt", "TOKEN="+token+"\n")
	m.run("warren", "join", "/root/invite.txt", "--name", "boxed")
	uses := func(using string) {
		t.Helper()
		bed.eventually("names are known by "+using, func() bool {
			s, err := m.status()
			return err == nil && s.Names != nil && s.Names.Using == using
		})
	}
	knows := func(what string) {
		t.Helper()
		bed.eventually(what, func() bool {
			full, _, _ := m.try("getent", "ahosts", "founder.home.internal")
			plain, _, _ := m.try("getent", "ahosts", "founder")
			whose, _, _ := m.try("getent", "hosts", theirs[0].String())
			return strings.Contains(full, theirs[0].String()) && strings.Contains(full, theirs[1].String()) && strings.Contains(plain, theirs[0].String()) &&
				strings.Contains(whose, "founder.home.internal")
		})
	}
	uses("resolved")
	knows("libc knows the founder")
	link := m.run("resolvectl", "status", "warren0")
	for _, want := range []string{"home.internal", "-DefaultRoute", "-LLMNR", "-mDNS"} {
		if !strings.Contains(link, want) {
			t.Errorf("resolvectl status: got\n%s\nwant %q", link, want)
		}
	}
	if got := files(); got != before {
		t.Errorf("files: got\n%s\nwant\n%s", got, before)
	}

	bed.step("the resolver starts anew")
	m.run("systemctl", "restart", "systemd-resolved")
	knows("libc knows the founder again")

	bed.step("the agent is killed")
	crashed := m.unit("MainPID")
	m.run("kill", "-9", crashed)
	bed.eventually("the agent runs again", func() bool { pid := m.unit("MainPID"); return pid != "0" && pid != crashed })
	uses("resolved")
	knows("libc knows the founder after the crash")

	bed.step("an upgrade")
	running := m.unit("MainPID")
	m.run("warren", "restart", "--all")
	if m.unit("MainPID") == running {
		t.Error("the agent was not replaced")
	}
	uses("resolved")
	knows("libc knows the founder after the upgrade")

	bed.step("the resolver stops")
	m.run("sh", "-c", "systemctl mask --runtime systemd-resolved && systemctl stop systemd-resolved")
	uses("hosts")
	bed.eventually("the names stand in a file", func() bool {
		out, _, _ := m.try("getent", "-s", "files", "hosts", "founder")
		return strings.Contains(out, "founder.home.internal")
	})
	m.run("sh", "-c", "systemctl unmask --runtime systemd-resolved && systemctl start systemd-resolved")
	uses("resolved")
	knows("libc knows the founder by the resolver")
	if got := files(); got != before {
		t.Errorf("files with the resolver back: got\n%s\nwant\n%s", got, before)
	}

	bed.step("the agent stops")
	m.run("warren", "down")
	if out, _, err := m.try("getent", "ahosts", "founder.home.internal"); err == nil {
		t.Errorf("names while it is down: got %s", out)
	}
	m.run("warren", "up")
	knows("libc knows the founder when it is up")

	bed.step("leave")
	m.run("warren", "leave")
	if got := files(); got != before {
		t.Errorf("files after leave: got\n%s\nwant\n%s", got, before)
	}
	if out := m.run("resolvectl", "domain"); strings.Contains(out, "home.internal") {
		t.Errorf("domains after leave: got %s", out)
	}
	bed.step("end")
}
