//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"warren/mesh/api"
)

// step notes in the test's log what is next, and when.
func (b *bed) step(format string, args ...any) {
	b.t.Helper()
	b.t.Logf("%6.2f s: %s", time.Since(b.since).Seconds(), fmt.Sprintf(format, args...))
}

// eventually polls until the condition holds, and ends the test when the
// bed's time is up.
func (b *bed) eventually(what string, ok func() bool) {
	b.t.Helper()
	for !ok() {
		select {
		case <-b.ctx.Done():
			b.t.Fatalf("not in time: %s", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// meshed asserts that these nodes have tunnels to each other, all of them:
// each lists the others as up, and each gets an answer from each address of each.
func (b *bed) meshed(nodes ...*Node) {
	b.t.Helper()
	addrs := make(map[string][]netip.Addr)
	for _, n := range nodes {
		s, err := n.Wait(b.ctx, "all others are up", func(s api.Status) bool {
			return !slices.ContainsFunc(nodes, func(other *Node) bool {
				p, ok := Peer(s, other.Name())
				return other != n && (!ok || !p.Connected())
			})
		})
		b.must(err)
		addrs[n.Name()] = s.Self.Addresses
	}
	for _, n := range nodes {
		var to []string
		for _, other := range nodes {
			for _, addr := range addrs[other.Name()] {
				if other != n {
					to = append(to, addr.String())
				}
			}
		}
		b.must(n.pingAll(b.ctx, to))
	}
}

// pingAll pings the addresses in turn, each until it has answered.
func (n *Node) pingAll(ctx context.Context, to []string) error {
	const script = `most=$1; shift
	for to in "$@"; do
		n=0
		until ping -n -q -c 1 -W 1 "$to" >/dev/null; do
			n=$((n+1)); [ $n -lt $most ] || { echo "no answer from $to"; exit 1; }
		done
	done`
	most := fmt.Sprint(int(20 * crowd()))
	_, err := n.Host.Run(ctx, append([]string{"sh", "-c", script, "sh", most}, to...)...)
	return err
}

// silent asserts that an address does not answer the node's pings.
func (b *bed) silent(n *Node, addrs ...netip.Addr) {
	b.t.Helper()
	for _, to := range addrs {
		if err := n.Ping(b.ctx, to, 300*time.Millisecond); err == nil {
			b.t.Errorf("%s still reaches %s", n.Name(), to)
		}
	}
}

// members returns the names of the active members that a status shows, its own
// node included, sorted.
func members(s api.Status) []string {
	names := []string{s.Self.Name}
	for _, p := range s.Peers {
		if !p.Static && p.State != api.PeerLeft {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names
}

// agreed waits until each of the nodes lists just these members, and all say
// the same of each: ID, addresses and WireGuard key.
func (b *bed) agreed(nodes []*Node, want ...string) {
	b.t.Helper()
	slices.Sort(want)
	first := b.roll(b.status(nodes[0]))
	for i := 0; i < len(nodes); i++ {
		_, err := nodes[i].Wait(b.ctx, fmt.Sprintf("the members are %v, as on %s:\n%s\n", want, nodes[0].Name(), first), func(s api.Status) bool {
			if i == 0 {
				first = b.roll(s)
			}
			same := slices.Equal(members(s), want) && b.roll(s) == first
			if !same {
				// What was seen first may have been on its way.
				first = b.roll(b.status(nodes[0]))
			}
			return same
		})
		b.must(err)
	}
}

// roll is the list of members that a status shows, a line each.
func (b *bed) roll(s api.Status) string {
	lines := []string{fmt.Sprint(s.Self.Name, " ", s.Self.ID, s.Self.Addresses, s.Self.PublicKey)}
	for _, p := range s.Peers {
		if !p.Static && p.State != api.PeerLeft {
			lines = append(lines, fmt.Sprint(p.Name, " ", p.ID, p.Addresses, p.PublicKey))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// names returns the names of the nodes.
func names(nodes []*Node) (out []string) {
	for _, n := range nodes {
		out = append(out, n.Name())
	}
	return out
}

// status is Status, which has to succeed.
func (b *bed) status(n *Node) api.Status {
	b.t.Helper()
	s, err := n.Status(b.ctx)
	b.must(err)
	return s
}

// kill ends an agent as a power cut would. A race that it had reported would
// be lost with its exit code.
func (b *bed) kill(n *Node) {
	b.t.Helper()
	agent := n.Agent()
	b.must(n.Kill())
	if agent != nil && strings.Contains(agent.Output(), "DATA RACE") {
		b.t.Errorf("agent of %s: data race:\n%s", n.Name(), agent.Output())
	}
}

// endsWith waits until an agent has ended by itself, and asserts its exit
// code and that its last line holds all of the words.
func (b *bed) endsWith(n *Node, code int, words ...string) {
	b.t.Helper()
	agent := n.Agent()
	select {
	case <-agent.Done():
	case <-b.ctx.Done():
		b.t.Fatalf("the agent of %s goes on, want its end with exit code %d", n.Name(), code)
	}
	if got := ExitCode(agent.Wait(b.ctx)); got != code {
		b.t.Errorf("agent of %s: got exit code %d, want %d", n.Name(), got, code)
	}
	for _, word := range words {
		if last := lastLines(agent.Output()); !strings.Contains(last, word) {
			b.t.Errorf("last words of the agent of %s: got %q, want %q in them", n.Name(), last, word)
		}
	}
	b.kill(n)
}

// wireGuardPeers is what wg(8) says: the public keys that the node's interface knows.
func (b *bed) wireGuardPeers(n *Node) []string {
	b.t.Helper()
	out, err := n.Host.Run(b.ctx, "wg", "show", "all", "peers")
	b.must(err)
	var keys []string
	for line := range strings.Lines(out) {
		if _, key, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
			keys = append(keys, key)
		}
	}
	return keys
}

// hasLink reports whether the host has the interface.
func (b *bed) hasLink(n *Node, ifname string) bool {
	_, err := n.Host.Run(b.ctx, "ip", "link", "show", ifname)
	return err == nil
}

// stateLeft lists what is in the directory of all states of the node.
func (n *Node) stateLeft() ([]string, error) {
	entries, err := os.ReadDir(n.stateRoot())
	if os.IsNotExist(err) {
		return nil, nil
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	return left, err
}
