//go:build linux

package e2e

import (
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestManyReloads reloads an agent hundreds of times at once with traffic, while the config changes under it: no echo is missed for
// long, and what the last file says is so.
func TestManyReloads(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	a, b := bed.node("a", nil), bed.node("b", bed.Router("home", natlab.EIMAPDF))
	bed.must(Found(bed.ctx, "home", a, b))
	bed.connected(a, b, api.PathDirect)
	m := bed.meter(a, b)
	begin := time.Now()
	client := a.Client()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 100 {
				limit := []string{"5 Mbit/s", "9 Mbit/s"}[i%2]
				path := filepath.Join(a.Host.Dir(), "etc", "warren.toml")
				next := path + "." + limit[:1]
				_ = os.WriteFile(next, []byte("[mesh]\nrelay_limit = \""+limit+"\"\n"), 0o600)
				_ = os.Rename(next, path) // another one may have been faster
				if _, err := client.Reload(bed.ctx); err != nil {
					t.Errorf("reload: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
	bed.step("400 reloads in %.1f s", time.Since(begin).Seconds())
	m.stop()
	if silent, _ := m.silences(begin, time.Now()); silent > 5*time.Second {
		t.Errorf("got no echo for %v while the agent was reloaded, want 5 s at most", silent)
	}
	bed.connected(a, b, api.PathDirect)
}

// TestSecretsStayHome has a mesh made, an invite used, one withdrawn and a member thrown out, with all logged: no key, token or seed
// stands in a log, in an argument, or in a file that others may read.
func TestSecretsStayHome(t *testing.T) {
	t.Parallel()
	bed := newBed(t, time.Minute)
	a, b := bed.node("a", nil), bed.node("b", bed.Router("home", natlab.EIMAPDF))
	bed.must(a.Create(bed.ctx, "home"))
	bed.must(a.Start(bed.ctx, "--log-level", "debug"))
	token, err := a.Invite(bed.ctx)
	bed.must(err)
	bed.must(b.Join(bed.ctx, token))
	bed.must(b.Start(bed.ctx, "--log-level", "debug"))
	bed.connected(a, b, api.PathDirect)
	unused, err := a.Invite(bed.ctx)
	bed.must(err)

	secrets := []string{token, unused, token[len(token)/2:]}
	for _, n := range []*Node{a, b} {
		bed.must(filepath.WalkDir(n.StateDir(), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".key") {
				return err
			}
			raw, err := os.ReadFile(path)
			for line := range strings.Lines(string(raw)) {
				if line = strings.TrimSpace(line); len(line) >= 24 && !strings.HasPrefix(line, "-----") {
					secrets = append(secrets, line)
				}
			}
			return err
		}))
	}
	if len(secrets) < 6 {
		t.Fatalf("got %d secrets, want the tokens and the keys of two nodes", len(secrets))
	}
	outputs := make(map[string]string)
	for _, n := range []*Node{a, b} {
		outputs["the log of "+n.Name()] = n.Agent().Output()
		bed.must(filepath.WalkDir(n.Host.Dir(), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			info, err := d.Info()
			if err != nil || info.Mode().Perm()&0o077 == 0 {
				return err
			}
			raw, err := os.ReadFile(path)
			outputs[path] = string(raw)
			return err
		}))
	}
	for where, text := range outputs {
		if i := slices.IndexFunc(secrets, func(s string) bool { return strings.Contains(text, s) }); i >= 0 {
			t.Errorf("secret %d of %d stands in %s", i, len(secrets), where)
		}
	}
	info, err := os.Stat(a.StateDir())
	bed.must(err)
	if got := info.Mode().Perm(); got != 0o700 {
		t.Errorf("the state directory has mode %o, want 700", got)
	}
}

// TestStrictMachine has hosts with a strict reverse path filter, IPv6 addresses that come and go, a foreign interface that is up, and a
// firewall that is loaded anew, all under traffic: the tunnel goes on.
func TestStrictMachine(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	a, b := bed.node("a", nil), bed.node("b", bed.Router("home", natlab.EIMAPDF))
	run := func(n *Node, script string) {
		t.Helper()
		_, err := n.Host.Run(bed.ctx, "sh", "-ec", script)
		bed.must(err)
	}
	for _, n := range []*Node{a, b} {
		run(n, "echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter; echo 1 > /proc/sys/net/ipv4/conf/default/rp_filter; echo 1 > /proc/sys/net/ipv4/conf/eth0/rp_filter")
		run(n, "ip tuntap add mode tun name tunother; ip addr add 10.8.0.2/24 dev tunother; ip link set tunother up")
	}
	bed.must(Found(bed.ctx, "home", a, b))
	bed.connected(a, b, api.PathDirect)
	before := bed.status(b)
	m := bed.meter(a, b)
	const rules = `nft -f - <<'E'
flush ruleset
table inet host {
	chain in { type filter hook input priority 0; policy drop; ct state established,related accept; iifname { lo, warren0 } accept; udp dport 9277 accept; meta l4proto { icmp, icmpv6 } accept; }
	chain out { type filter hook output priority 0; policy accept; }
}
E`
	begin := time.Now()
	for i := range 10 {
		run(a, rules)
		run(b, rules)
		addr := netip.MustParseAddr("2001:db8:77::").As16()
		addr[15] = byte(i + 1)
		run(a, "ip -6 addr add "+netip.AddrFrom16(addr).String()+"/64 dev eth0 nodad")
		if i%3 == 2 {
			run(a, "ip -6 addr del "+netip.AddrFrom16(addr).String()+"/64 dev eth0")
		}
		time.Sleep(100 * time.Millisecond) // a reload now and then, as a manager of firewalls does it
	}
	run(a, "ip link del tunother")
	bed.connected(a, b, api.PathDirect)
	m.stop()
	if silent, _ := m.silences(begin, time.Now()); silent > 5*time.Second {
		t.Errorf("got no echo for %v while firewalls and addresses changed, want 5 s at most", silent)
	}
	after := bed.status(b)
	if !slices.Equal(after.Self.Addresses, before.Self.Addresses) || after.Self.Interface != before.Self.Interface {
		t.Errorf("got %v on %s, want %v on %s as before", after.Self.Addresses, after.Self.Interface, before.Self.Addresses, before.Self.Interface)
	}
}
