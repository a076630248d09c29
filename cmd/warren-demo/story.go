//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"warren/cmd/warren/e2e"
	"warren/mesh/api"
	"warren/nat/natlab"
)

// story is the demo under way.
type story struct {
	lab    *natlab.Lab
	binary string
	out    io.Writer

	server, alice, bob, carol *e2e.Node
}

// step is one chapter: its title, and what happens in it.
type step struct {
	title string
	tell  func(context.Context) error
}

func (s *story) steps() []step {
	return []step{
		{"A small Internet on this machine", s.internet},
		{"The first machine makes a mesh", s.create},
		{"Two homes join it", s.join},
		{"Who sees whom, and by which way", s.tables},
		{"Everybody pings everybody, by the mesh's addresses", s.pings},
		{"The server is switched off for good", s.switchOff},
		{"A fourth machine joins without it", s.joinWithoutFounder},
		{"That machine is lost, and revoked", s.revoke},
	}
}

// say prints one paragraph, wrapped.
func (s *story) say(format string, args ...any) {
	line := ""
	for _, word := range strings.Fields(fmt.Sprintf(format, args...)) {
		if len(line)+len(word) > 90 {
			fmt.Fprintln(s.out, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	fmt.Fprintln(s.out, line)
}

// show prints a command as it would be typed on that machine, and what it printed.
func (s *story) show(n *e2e.Node, command, output string) {
	fmt.Fprintf(s.out, "\n  %s# %s\n", n.Name(), command)
	for line := range strings.Lines(strings.TrimRight(output, "\n")) {
		fmt.Fprintf(s.out, "    %s\n", strings.TrimRight(line, "\n"))
	}
}

// warren runs a command of the program on a machine and shows it. The token
// of a join goes in by standard input.
func (s *story) warren(ctx context.Context, n *e2e.Node, input string, args ...string) (string, error) {
	out, err := n.Warren(ctx, input, args...)
	if err != nil {
		return "", err
	}
	s.show(n, "warren "+strings.Join(args, " "), out)
	return out, nil
}

func (s *story) internet(ctx context.Context) error {
	node := func(name string, behind *natlab.Router) *e2e.Node {
		return e2e.NewNode(s.lab.Host(name, behind), s.binary)
	}
	homeA, homeB := s.lab.Router("home-a", natlab.EIMAPDF), s.lab.Router("home-b", natlab.EIMAPDF)
	s.server, s.alice, s.bob = node("server", nil), node("alice", homeA), node("bob", homeB)
	s.say(`Everything happens inside Linux network namespaces that end with this demo. The routers are
		real Linux NATs: they let in only answers from those to whom somebody behind them has written.`)
	fmt.Fprintf(s.out, "\n  server   %s, a machine with a public address\n", s.server.Host.Addr4())
	stun, err := natlab.ServeSTUN(s.lab.Host("stun", nil))
	if err != nil {
		return err
	}
	defer stun.Close()
	for _, n := range []*e2e.Node{s.alice, s.bob} {
		nat, err := natlab.Measure(n.Host, stun, false)
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "  %-8s %s, at home behind %s\n           measured as RFC 5780 says: %s\n",
			n.Name(), n.Host.Addr4(), n.Host.Router().WAN4(), nat)
	}
	return nil
}

func (s *story) create(ctx context.Context) error {
	s.say("There is no systemd in these small machines, hence --no-start: the agents are started by hand.")
	if _, err := s.warren(ctx, s.server, "", "create", "home", "--no-start", "--name", "server"); err != nil {
		return err
	}
	s.server.Mesh = "home"
	return s.start(ctx, s.server)
}

// start starts an agent as systemd would.
func (s *story) start(ctx context.Context, n *e2e.Node) error {
	if err := n.Start(ctx); err != nil {
		return err
	}
	s.show(n, "warren agent &", "")
	return nil
}

func (s *story) join(ctx context.Context) error {
	s.say(`Each needs one token, good for one machine and one day. Alice is made an admin, who may
		invite and revoke as the founder can.`)
	if err := s.admit(ctx, s.server, s.alice, "--admin"); err != nil {
		return err
	}
	return s.admit(ctx, s.server, s.bob)
}

// admit has a machine invited by another one, and joins it.
func (s *story) admit(ctx context.Context, by, n *e2e.Node, args ...string) error {
	token, err := by.Invite(ctx, args...)
	if err != nil {
		return err
	}
	s.show(by, strings.Join(append([]string{"warren invite"}, args...), " "), shorten(token))
	out, err := n.Warren(ctx, token, "join", "--no-start", "--name", n.Name())
	if err != nil {
		return err
	}
	n.Mesh = by.Mesh
	s.show(n, "warren join --no-start --name "+n.Name(), out)
	return s.start(ctx, n)
}

// shorten hides the middle of a token: it is a secret, also where it does not matter.
func shorten(token string) string {
	return fmt.Sprintf("%.12s…%s (%d characters)", token, token[max(0, len(token)-4):], len(token))
}

func (s *story) tables(ctx context.Context) error {
	all := []*e2e.Node{s.server, s.alice, s.bob}
	for _, a := range all {
		for _, b := range all {
			if a == b {
				continue
			}
			if _, err := a.WaitPath(ctx, b, api.PathDirect); err != nil {
				return err
			}
		}
	}
	for _, n := range all {
		if _, err := s.warren(ctx, n, "", "status"); err != nil {
			return err
		}
	}
	fmt.Fprintln(s.out)
	s.say("Alice and Bob speak to each other's router directly: no packet between them passes the server.")
	return nil
}

func (s *story) pings(ctx context.Context) error {
	all := []*e2e.Node{s.server, s.alice, s.bob}
	for _, a := range all {
		for _, b := range all {
			if a == b {
				continue
			}
			if err := s.ping(ctx, a, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// ping sends three pings to each address of a machine and shows the results.
func (s *story) ping(ctx context.Context, from, to *e2e.Node) error {
	addrs, err := to.Overlay(ctx)
	if err != nil {
		return err
	}
	return s.pingAddrs(ctx, from, to.Name(), addrs)
}

func (s *story) pingAddrs(ctx context.Context, from *e2e.Node, to string, addrs []netip.Addr) error {
	for _, addr := range addrs {
		out, err := from.Host.Run(ctx, "ping", "-n", "-q", "-c", "3", "-i", "0.2", "-W", "2", addr.String())
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "  %-6s -> %-6s %-40s %s\n", from.Name(), to, addr, summary(out))
	}
	return nil
}

// summary takes the two numbers that matter out of what ping -q prints.
func summary(out string) string {
	var parts []string
	for line := range strings.Lines(out) {
		if _, rest, ok := strings.Cut(line, "transmitted, "); ok {
			received, _, _ := strings.Cut(rest, ",")
			parts = append(parts, received)
		}
		if strings.HasPrefix(line, "rtt ") {
			_, times, _ := strings.Cut(line, "= ")
			if fields := strings.Split(times, "/"); len(fields) > 1 {
				parts = append(parts, fields[1]+" ms")
			}
		}
	}
	return strings.Join(parts, ", ")
}

func (s *story) switchOff(ctx context.Context) error {
	addrs, err := s.bob.Overlay(ctx)
	if err != nil {
		return err
	}
	s.say("Alice pings Bob five times a second. Meanwhile the server loses its power and its cable.")
	ping, err := s.alice.Host.Start("ping", "-n", "-q", "-i", "0.2", "-c", "30", "-W", "1", addrs[0].String())
	if err != nil {
		return err
	}
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	if err := s.server.Kill(); err != nil {
		return err
	}
	s.lab.Cut(s.server.Host)
	fmt.Fprintln(s.out, "  ... off ...")
	if err := ping.Wait(ctx); err != nil {
		return fmt.Errorf("%w: %s", err, ping.Output())
	}
	fmt.Fprintf(s.out, "  alice  -> bob    30 sent, %s\n", summary(ping.Output()))
	if err := s.missServer(ctx); err != nil {
		return err
	}
	_, err = s.warren(ctx, s.alice, "", "status")
	return err
}

// missServer has Alice notice that the server is gone: an idle path is looked
// after only now and then, one with traffic at once.
func (s *story) missServer(ctx context.Context) error {
	st, err := s.alice.Status(ctx)
	if err != nil {
		return err
	}
	server, _ := e2e.Peer(st, "server")
	if len(server.Addresses) == 0 {
		return errors.New("alice has forgotten the server")
	}
	fmt.Fprintf(s.out, "  alice  -> server ... ")
	if err := s.alice.Ping(ctx, server.Addresses[0], 2*time.Second); err == nil {
		return errors.New("the server answers although it is off")
	}
	fmt.Fprintln(s.out, "no answer")
	_, err = s.alice.Wait(ctx, "the server is missed", func(st api.Status) bool {
		p, ok := e2e.Peer(st, "server")
		return ok && !p.Connected()
	})
	return err
}

func (s *story) joinWithoutFounder(ctx context.Context) error {
	s.carol = e2e.NewNode(s.lab.Host("carol", s.alice.Host.Router()), s.binary)
	s.say("Carol comes to Alice's home with a new laptop (%s). Alice invites her, and admits her too: any member can.", s.carol.Host.Addr4())
	if err := s.admit(ctx, s.alice, s.carol); err != nil {
		return err
	}
	if _, err := s.carol.WaitPath(ctx, s.alice, api.PathDirect); err != nil {
		return err
	}
	_, err := s.carol.Wait(ctx, "bob is up", func(st api.Status) bool {
		p, ok := e2e.Peer(st, "bob")
		return ok && p.Connected()
	})
	if err != nil {
		return err
	}
	if _, err := s.warren(ctx, s.carol, "", "status"); err != nil {
		return err
	}
	fmt.Fprintln(s.out)
	for _, to := range []*e2e.Node{s.alice, s.bob} {
		if err := s.ping(ctx, s.carol, to); err != nil {
			return err
		}
	}
	return s.ping(ctx, s.bob, s.carol)
}

func (s *story) revoke(ctx context.Context) error {
	addrs, err := s.bob.Overlay(ctx)
	if err != nil {
		return err
	}
	if _, err := s.warren(ctx, s.alice, "", "revoke", "carol"); err != nil {
		return err
	}
	_, err = s.bob.Wait(ctx, "carol is gone", func(st api.Status) bool {
		_, known := e2e.Peer(st, "carol")
		return !known
	})
	if err != nil {
		return err
	}
	if err := s.carol.Ping(ctx, addrs[0], time.Second); err == nil {
		return errors.New("carol still reaches bob")
	}
	fmt.Fprintln(s.out)
	s.say("Bob has heard of it from Alice, and dropped the tunnel. Carol reaches nobody any more.")
	return s.ping(ctx, s.bob, s.alice)
}

// pause lets time pass for the reader's sake.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lastWords prints the ends of the agents' logs when the story has failed.
func (s *story) lastWords() {
	for _, n := range []*e2e.Node{s.server, s.alice, s.bob, s.carol} {
		if n == nil || n.Agent() == nil {
			continue
		}
		log := n.Agent().Output()
		fmt.Fprintf(s.out, "\nThe end of %s's log:\n%s\n", n.Name(), log[max(0, len(log)-3000):])
	}
}
