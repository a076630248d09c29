//go:build linux

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// wholeWithin bounds how long an interface may stay as somebody else has left it. It takes 50 ms on a machine that is idle, and was seen to take
// 3.6 s on one that has ten times as much to do as it can.
const wholeWithin = 12 * time.Second

// TestInterfaceTouched has somebody do to a node's interface what scripts and network managers do, one after the other. Each time it is whole
// again, and the log names what was missing.
func TestInterfaceTouched(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	a, b := bed.node("a", nil), bed.node("b", nil)
	bed.must(Found(bed.ctx, "home", a, b))
	bed.meshed(a, b)
	own, theirs := bed.status(a).Self.Addresses, bed.status(b).Self.Addresses
	net6 := own[1].String()
	ip := func(args ...string) string {
		out, err := a.Host.Run(bed.ctx, append([]string{"ip"}, args...)...)
		bed.must(err)
		return out
	}
	index := strings.SplitN(ip("-o", "link", "show", "warren0"), ":", 2)[0]
	routes := func() string {
		return ip("-4", "-o", "route", "show", "dev", "warren0") + ip("-6", "-o", "route", "show", "dev", "warren0", "proto", "static")
	}
	whole := routes()
	isWhole := func() bool {
		_, err := a.Host.Run(bed.ctx, "ip", "link", "show", "warren0")
		if err != nil || routes() != whole {
			return false
		}
		link, addrs := ip("-o", "link", "show", "warren0"), ip("-o", "addr", "show", "warren0")
		return strings.Contains(link, ",UP") && strings.Contains(link, " mtu 1376 ") && strings.Contains(addrs, own[0].String()) && strings.Contains(addrs, net6)
	}
	if !isWhole() {
		t.Fatalf("before all: got %s%s, want it whole", ip("addr", "show", "warren0"), whole)
	}
	network := strings.Fields(whole)[0]
	container, err := a.Host.Start("unshare", "--net", "sleep", "100")
	bed.must(err)
	defer container.Kill()
	bed.eventually("a container", func() bool {
		space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", container.PID()))
		outer, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", a.Agent().PID()))
		return err == nil && err2 == nil && space != outer
	})
	for _, c := range []struct{ do, said string }{
		{"ip route flush dev warren0", "route " + network + " gone"},
		{"ip -6 route flush dev warren0", "/48 gone"},
		{"ip addr flush dev warren0", "address " + own[0].String() + "/32 gone"},
		{"ip addr del " + own[0].String() + "/32 dev warren0", "address " + own[0].String() + "/32 gone"},
		{"ip addr del " + net6 + "/128 dev warren0", "address " + net6 + "/128 gone"},
		{"ip link set warren0 down", "down"},
		{"ip link set warren0 mtu 1300", "MTU 1300"},
		{"ip link set warren0 mtu 900", "MTU 900"}, // which takes IPv6 away
		{"ip link set warren0 name other0", "renamed to other0"},
		{"ip link set warren0 down; ip link set warren0 name other0; ip addr flush dev other0; true", "renamed to other0"},
		{"ip link set warren0 carrier off", "carrier off"},
		{"sysctl -qw net.ipv6.conf.warren0.disable_ipv6=1", "IPv6 off"},
		{fmt.Sprintf("ip link set warren0 netns %d", container.PID()), "moved to another network namespace"},
	} {
		before := strings.Count(a.Agent().Output(), "interface put right")
		if _, err := a.Host.Run(bed.ctx, "sh", "-c", c.do); err != nil {
			t.Errorf("%s: %v", c.do, err)
			continue
		}
		began := time.Now()
		bed.eventually(c.do, isWhole)
		took := time.Since(began)
		bed.eventually(c.do+": a line in the log", func() bool {
			log := strings.Split(a.Agent().Output(), "interface put right")
			return len(log) > before+1 && strings.Contains(strings.Join(log[before+1:], ""), c.said)
		})
		bed.step("%s: whole after %v", c.do, took.Round(time.Millisecond))
		if took > stretch(wholeWithin) {
			t.Errorf("%s: whole after %v, want %v at most", c.do, took, wholeWithin)
		}
	}
	bed.must(a.pingAll(bed.ctx, []string{theirs[0].String(), theirs[1].String()}))
	if s := bed.status(a); len(s.Warnings) > 0 && strings.Contains(strings.Join(s.Warnings, " "), "warren0") {
		t.Errorf("got warnings %q, want none of the interface", s.Warnings)
	}

	// What others own is left alone.
	ip("link", "set", "warren0", "txqueuelen", "77")
	ip("addr", "add", "10.44.0.1/32", "dev", "warren0")
	if got := ip("-o", "addr", "show", "warren0") + ip("-o", "link", "show", "warren0"); !strings.Contains(got, "10.44.0.1") || !strings.Contains(got, "qlen 77") {
		t.Errorf("got %q, want the address and the queue that were set", got)
	}
	if now := strings.SplitN(ip("-o", "link", "show", "warren0"), ":", 2)[0]; now != index {
		bed.step("the interface has index %s now, before %s", now, index)
	}

	// Really gone is the end, and said.
	ip("link", "del", "warren0")
	bed.endsWith(a, 1, "warren0", "removed")
}

// TestInterfaceFought has somebody change the interface again and again: that is said, and not fought at all costs.
func TestInterfaceFought(t *testing.T) {
	t.Parallel()
	bed := newBed(t, time.Minute)
	a := bed.node("a", nil)
	bed.must(a.Create(bed.ctx, "home"))
	bed.must(a.Start(bed.ctx))
	enemy, err := a.Host.Start("sh", "-c", "while :; do ip route flush dev warren0; sleep 0.02; done")
	bed.must(err)
	defer enemy.Kill()
	_, err = a.Wait(bed.ctx, "status says so", func(s api.Status) bool {
		return strings.Contains(strings.Join(s.Warnings, "\n"), "again and again")
	})
	bed.must(err)
	before, began := bed.cpu(a), time.Now()
	lines := strings.Count(a.Agent().Output(), "interface put right")
	bed.eventually("three seconds", func() bool { return time.Since(began) > 3*time.Second })
	used, mends := bed.cpu(a)-before, strings.Count(a.Agent().Output(), "interface put right")-lines
	bed.step("fought for %v: %v of a core, %d mends", time.Since(began).Round(time.Millisecond), used, mends)
	if mends > 3 {
		t.Errorf("got %d mends in 3 s, want 1", mends)
	}
}

// cpu is the time that the node's agent has used so far.
func (b *bed) cpu(n *Node) time.Duration {
	b.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.Agent().PID()))
	b.must(err)
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		b.must(err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// TestKernelFloods has more news come than a stopped agent can be told, and a routing table that is large and never rests. The agent lives, notices
// what comes after, and costs next to nothing.
func TestKernelFloods(t *testing.T) {
	t.Parallel()
	routes := 10_000
	if big := os.Getenv("WARREN_BIG"); big != "" { // prints what a table of so many routes costs
		n, err := strconv.Atoi(big)
		if err != nil {
			t.Fatal(err)
		}
		routes = n
	}
	bed := newBed(t, 2*time.Minute)
	if routes > 10_000 {
		bed = bedWith(t, buildPlain, 5*time.Minute)
	}
	home := bed.Router("home", natlab.EIMAPDF)
	a, b := bed.node("a", home), bed.node("b", nil)
	batch := func(lines []string) {
		bed.t.Helper()
		name := a.Host.Dir() + "/batch"
		bed.must(os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
		_, err := a.Host.Run(bed.ctx, "ip", "-batch", name)
		bed.must(err)
	}
	bed.must(Found(bed.ctx, "home", b, a))
	bed.meshed(a, b)
	theirs := bed.status(b).Self.Addresses
	pid := a.Agent().PID()
	bed.must(syscall.Kill(pid, syscall.SIGSTOP))
	var lines []string
	for i := range 4000 {
		addr := netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)})
		lines = append(lines, fmt.Sprintf("addr add %s/32 dev lo", addr), fmt.Sprintf("addr del %s/32 dev lo", addr))
	}
	batch(lines)
	bed.must(syscall.Kill(pid, syscall.SIGCONT))
	bed.must(a.pingAll(bed.ctx, []string{theirs[0].String(), theirs[1].String()}))
	bed.step("8,000 messages were missed")
	a.Host.Renumber()
	bed.must(a.WaitPing(bed.ctx, b))
	bed.eventually("a change after the flood is noticed", func() bool { return strings.Contains(a.Agent().Output(), "network changed") })

	bed.step("%d routes, live", routes)
	via, lines := strings.Fields(bed.defaultRoute(a))[2], nil
	for i := range routes {
		lines = append(lines, fmt.Sprintf("route add %d.%d.%d.0/24 via %s", 11+i>>16, i>>8&255, i&255, via))
	}
	batch(lines)
	bed.must(a.pingAll(bed.ctx, []string{theirs[0].String()}))
	flap, err := a.Host.Start("sh", "-c", "while :; do ip route add 198.18.0.0/24 via "+via+"; sleep 0.07; ip route del 198.18.0.0/24; sleep 0.07; done")
	bed.must(err)
	defer flap.Kill()
	before, began := bed.cpu(a), time.Now()
	bed.eventually("three seconds", func() bool { return time.Since(began) > 3*time.Second })
	used := bed.cpu(a) - before
	share := float64(used) / float64(time.Since(began))
	bed.step("a route flaps: %v of a core in %v, %.1f %%", used, time.Since(began).Round(time.Millisecond), 100*share)
	if share > 0.2 { // with the race detector, on a machine that is busy
		t.Errorf("got %.1f %% of a core, want next to nothing", 100*share)
	}
	bed.must(a.Stop())
	began = time.Now()
	bed.must(a.Start(bed.ctx))
	bed.step("started with %d routes in %v", routes, time.Since(began).Round(time.Millisecond))
	bed.must(a.pingAll(bed.ctx, []string{theirs[0].String(), theirs[1].String()}))
	bed.step("reached from the start in %v, with %d MiB", time.Since(began).Round(time.Millisecond), bed.rss(a)>>20)
}

// defaultRoute is what ip(8) prints of the node's IPv4 default route.
func (b *bed) defaultRoute(n *Node) string {
	b.t.Helper()
	out, err := n.Host.Run(b.ctx, "ip", "-4", "route", "show", "default")
	b.must(err)
	return out
}
